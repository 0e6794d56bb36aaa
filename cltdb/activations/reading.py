"""The text that stages read: their own or that of section `activations`; what stands for it in keys, its checks, and its sequences.

Writes, where a stage reads text: `<artifact>/text.json`, how many documents it read, and which rows it left out.
"""

from contextlib import contextmanager

from cltdb.activations.labels import names_labels
from cltdb.engine import revisions
from cltdb.engine.content import fingerprint
from cltdb.engine.workspace import digest, write_json
from cltdb.errors import CltdbError
from cltdb.model.source import sizes_and_tokens

TEXT_FILE, ACTIVATIONS_TEXT = "text.json", "activations.text"
READING_SETTINGS = ("context", "special_tokens_in_text", "exclude_tokens")
"""Of section activations: what changes how any text is read."""


def own_text(experiment, stage):
    """The text that a stage reads instead of the activations' text, or None."""
    text = getattr(experiment, stage).text
    return None if text == experiment.activations.text else text


def text_of(experiment, stage):
    """(the sources of the text that a stage reads, the key of the spec that names them)."""
    own = own_text(experiment, stage)
    return (own, f"{stage}.text") if own else (experiment.activations.text, ACTIVATIONS_TEXT)


@contextmanager
def _named(key):
    """Errors of text name the key of the spec that it is read for."""
    try:
        yield
    except CltdbError as error:
        if key == ACTIVATIONS_TEXT or not error.where.startswith(ACTIVATIONS_TEXT):
            raise
        where = key + error.where.removeprefix(ACTIVATIONS_TEXT)
        raise type(error)(where, found=error.found, expected=error.expected, do=error.do) from error


# What stands for text in a key.


def text_content(sources, project):
    """What stands for the content of each text source: a hash, of a dataset of the Hub its commit."""
    from cltdb.activations.storage import is_uri, uri_facts
    from cltdb.activations.text_files import matching_files

    contents = []
    for source in sources:
        if found := _standing(source, project):
            contents.append(found.commit or source.revision or "main")
            continue
        paths = matching_files(project.root, source.files or [])
        if source.dataset and (project.root / source.dataset).is_dir():
            paths = [str(path) for path in (project.root / source.dataset).rglob("*") if path.is_file()]
        remote = [uri_facts(path) for path in paths if is_uri(path)]
        content = fingerprint(path for path in paths if not is_uri(path))
        contents.append(digest([content, remote]) if remote else content)
    return contents


def reading_identity(experiment, project, stage):
    """What enters the key of a stage that reads text of its own, or else a part of the activations' text."""
    section, own = experiment.activations, own_text(experiment, stage)
    sources, settings = own or section.text, section.result_settings()
    parts = {f"{stage}.text": [source.result_settings() for source in sources], "files": text_content(sources, project)}
    parts |= {f"activations.{name}": settings[name] for name in READING_SETTINGS if name in settings}
    if not own:
        parts["activations.heldout_frac"] = section.heldout_frac
    return parts | {"seed": experiment.seed}


def kept_apart(experiment, stage):
    """What enters the key of a stage that keeps counts apart by the labels of its text; nothing where the spec names none, whose results are
    as they were before cltdb did."""
    return {"by_label": 1} if names_labels(text_of(experiment, stage)[0]) else {}


def pinned_text(experiment, project, stage):
    """The section of a stage with the commits that its datasets of the Hub stand at; None where nothing changes."""
    section = getattr(experiment, stage)
    text = [_pinned(source, project) for source in section.text or ()]
    return section.model_copy(update={"text": text}) if text and text != section.text else None


def _pinned(source, project):
    found = _standing(source, project)
    return source.model_copy(update={"revision": found.commit}) if found and found.commit else source


def _standing(source, project):
    """Which commit a text source that is a dataset of the Hub stands at, None of others."""
    if source.dataset is None or (project.root / source.dataset).is_dir():
        return None
    where = f"activations.text {source.dataset}"
    return revisions.standing("dataset", source.dataset, source.revision, where=where, workspace=project.workspace)


# Checks.


def check_text(experiment, project, stage):
    """Refuses text sources whose files are not there."""
    from cltdb.activations.text_files import existing_files

    sources, where = text_of(experiment, stage)
    for source in sources:
        if source.files:
            existing_files(project.root, source, where=where)


def preflight_text(experiment, project, stage):
    """Refuses datasets that are not on the Hub, a context that is too long for the model, and excluded tokens that it does not have."""
    from cltdb.activations.ordinary import excluded_ids
    from cltdb.activations.tokens import check_context

    sources, where = text_of(experiment, stage)
    with _named(where):
        for source in sources:
            if found := _standing(source, project):
                revisions.refuse_unknown(found, source.dataset, where=f"{ACTIVATIONS_TEXT} {source.dataset}")
    lm = sizes_and_tokens(experiment, project)
    check_context(lm, experiment.activations.context)
    excluded_ids(lm, experiment.activations.exclude_tokens)


# Sequences.


def packed(job, lm, *, note=True, **tokens):
    """(training, held-out) sequences of the activations' text; tokens: train_tokens=, heldout_tokens=; note: whether the artifact keeps
    which rows were left out."""
    from cltdb.activations.texts import Reading
    from cltdb.activations.tokens import KEYS, pack

    section = job.experiment.activations
    reading, own = Reading(section.max_bad_documents), f"{job.stage.name}.tokens"
    keys = KEYS._replace(train=own, heldout=own) if getattr(job.settings, "tokens", None) else KEYS  # what the stage says itself
    found = pack(lm, section.text, _packing(job), reading=reading, keys=keys, **tokens)
    if note:
        write_json(job.directory / TEXT_FILE, reading.summary())
    return _masked(job, lm, found, parts=("training", "held-out"))


def packed_own(job, lm, n_tokens, *, without=frozenset(), note=True):
    """Sequences of the text that the job's stage has of its own; without: contents of documents that are left out; note: as in `packed`."""
    from cltdb.activations.texts import Reading
    from cltdb.activations.tokens import Keys, pack

    stage = job.stage.name
    reading = Reading(job.experiment.activations.max_bad_documents)
    keys, packing = Keys(f"{stage}.tokens", f"{stage}.tokens", f"{stage}.text"), _packing(job)._replace(heldout_frac=0)
    text = own_text(job.experiment, stage)
    with _named(keys.text):
        found = pack(lm, text, packing, train_tokens=n_tokens, reading=reading, keys=keys, without=without)
    if note:
        write_json(job.directory / TEXT_FILE, reading.summary())
    return _masked(job, lm, found[:1], parts=(stage,))[0]


def _masked(job, lm, found, *, parts):
    """The same sequences with the tokens that are neither trained nor measured on; parts: the name of each."""
    from cltdb.activations.ordinary import check_ordinary, excluded_ids

    excluded = excluded_ids(lm, job.experiment.activations.exclude_tokens)
    found = tuple(sequences.without(excluded) for sequences in found)
    for part, sequences in zip(parts, found, strict=True):
        check_ordinary(sequences, part=part)
    return found


def _packing(job):
    from cltdb.activations.tokens import Packing

    section = job.experiment.activations
    return Packing(section.context, job.experiment.seed, section.heldout_frac, job.project.root)


def trained_on(job, lm):
    """The contents of the documents that stage train has learnt from; of a published dictionary none are known."""
    from cltdb.activations.tokens import trained_on

    section = job.experiment.activations
    if job.experiment.train.published:
        return frozenset()
    sizes = {"train_tokens": section.train_tokens, "heldout_tokens": section.heldout_tokens}
    return trained_on(lm, section.text, _packing(job), max_bad=section.max_bad_documents, **sizes)


def sources(job, lm, *, seed):
    """(training, held-out) sources of batches (`activations.loader`) that stage activations left, cached or streamed. lm: the
    LanguageModel, which streaming alone needs."""
    from cltdb.activations.loader import open_source

    section, directory = job.experiment.activations, job.inputs["activations"]
    if section.mode == "cache":
        return tuple(open_source(directory, part=part, seed=seed, options=section.loader) for part in ("train", "heldout"))
    found = packed(job, lm, train_tokens=section.train_tokens, heldout_tokens=section.heldout_tokens, note=False)
    return tuple(
        open_source(directory, part=part, seed=seed, options=section.loader, language_model=lm, sequences=sequences)
        for part, sequences in zip(("train", "heldout"), found, strict=True)
    )
