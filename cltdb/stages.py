"""The stages in order: what each reads, what its key is made of, and one short function each.

A new stage is one function here, one entry in STAGES, one section in spec.py and the module that does the work. What a stage
wants in the database it writes to `<artifact>/tables/<table>/<part>.parquet`.
"""

import hashlib
import json
import os
import re
import shutil
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from cltdb.engine import revisions
from cltdb.engine.config import Project
from cltdb.engine.integrity import checked
from cltdb.engine.spec_errors import spec_error
from cltdb.engine.units import EXPLANATIONS, GRAPHS, SCORES, There, Units, count, has_folder, score_group
from cltdb.engine.workspace import digest, read_json, write_json, write_parquet
from cltdb.errors import CltdbError, shown
from cltdb.interchange import HUB
from cltdb.interchange.hub import listed_repositories, pinned_path, split_hub_path
from cltdb.spec import Experiment, Prompt, result_settings

TEXT_FILE = "text.json"
"""In the artifact of a stage that reads text: how many documents it read, and which rows it left out."""


@dataclass(frozen=True)
class StageContext:
    """What a stage function gets: the experiment, its own key and directory, the finished directories of its inputs; in a launched
    stage which of the processes it is in."""

    experiment: Experiment
    project: Project
    key: str
    directory: Path
    inputs: dict[str, Path]
    input_keys: dict[str, str]
    rank: int = 0
    world_size: int = 1

    @cached_property
    def language_model(self):
        lm = load_experiment_model(self.experiment, self.project)
        if "model" in self.inputs:
            check_same_model(lm, self.inputs["model"])
        return lm

    @cached_property
    def dictionary(self):
        """The dictionary, computing in the wider of its own dtype and the model's, on a CPU at least in float32: bfloat16 is slow there."""
        import torch

        from cltdb.model.transcoder import load_dictionary

        lm = self.language_model
        dictionary = load_dictionary(self.inputs["train"], device=lm.device)
        dtype = torch.promote_types(dictionary.dtype, lm.dtype)
        return dictionary.computing(dtype=torch.promote_types(dtype, torch.float32) if lm.device.type == "cpu" else dtype)

    @property
    def publisher(self):
        """What makes the metrics of this unfinished artifact visible in the database; called with its directory."""
        from cltdb.database.publish import Publisher

        return Publisher(self.project.database, key=self.key, workspace=self.project.workspace)

    @property
    def dict_id(self):
        return read_json(checked(self.inputs["train"] / "dictionary.json"))["dict_id"]

    @cached_property
    def units(self):
        """The `units.Units` that this artifact makes and uses."""
        return Units(self.project.workspace, self.directory, rank=self.rank)

    def seed(self, purpose):
        """A seed of its own for each purpose, fixed by the experiment's seed."""
        return zlib.crc32(f"{self.experiment.seed}/{purpose}".encode())

    def packed(self, *, note=True, **tokens):
        """(training, held-out) sequences of the experiment's text; tokens: train_tokens=, heldout_tokens=; note: whether the artifact keeps
        which rows were left out."""
        from cltdb.activations.texts import Reading
        from cltdb.activations.tokens import pack

        reading = Reading(self.experiment.activations.max_bad_documents)
        options = self._text_options() | tokens
        packed = pack(self.language_model, self.experiment.activations.text, reading=reading, **options)
        if note:
            write_json(self.directory / TEXT_FILE, reading.summary())
        return self._masked(packed, parts=("training", "held-out"))

    def packed_own(self, stage, n_tokens, *, without=frozenset()):
        """Sequences of the text that stage evaluate or harvest has of its own; without: contents of documents that are left out."""
        from cltdb.activations.texts import Reading
        from cltdb.activations.tokens import Keys, pack

        reading = Reading(self.experiment.activations.max_bad_documents)
        options = self._text_options() | {"heldout_frac": 0, "train_tokens": n_tokens}
        keys, text = Keys(f"{stage}.tokens", f"{stage}.tokens", f"{stage}.text"), self.experiment.own_text(stage)
        packed = pack(self.language_model, text, reading=reading, keys=keys, without=without, **options)
        write_json(self.directory / TEXT_FILE, reading.summary())
        return self._masked(packed[:1], parts=(stage,))[0]

    def _masked(self, packed, *, parts):
        """The same sequences with the tokens that are neither trained nor measured on; parts: the name of each."""
        from cltdb.activations.ordinary import check_ordinary, excluded_ids

        excluded = excluded_ids(self.language_model, self.experiment.activations.exclude_tokens)
        packed = tuple(sequences.without(excluded) for sequences in packed)
        for part, sequences in zip(parts, packed, strict=True):
            check_ordinary(sequences, part=part)
        return packed

    def trained_on(self):
        """The contents of the documents that stage train has learnt from; of a published dictionary none are known."""
        from cltdb.activations.tokens import trained_on

        section = self.experiment.activations
        if self.experiment.train.published:
            return frozenset()
        sizes = {"train_tokens": section.train_tokens, "heldout_tokens": section.heldout_tokens}
        return trained_on(self.language_model, section.text, max_bad=section.max_bad_documents, **self._text_options(), **sizes)

    def _text_options(self):
        section = self.experiment.activations
        options = {"context": section.context, "seed": self.experiment.seed, "heldout_frac": section.heldout_frac}
        return options | {"root": self.project.root}

    def sources(self, *, seed):
        """(training, held-out) sources of batches (`activations.loader`) that stage activations left, cached or streamed."""
        from cltdb.activations.loader import open_source

        section, directory = self.experiment.activations, self.inputs["activations"]
        if section.mode == "cache":
            return tuple(open_source(directory, part=part, seed=seed, options=section.loader) for part in ("train", "heldout"))
        packed = self.packed(train_tokens=section.train_tokens, heldout_tokens=section.heldout_tokens, note=False)
        return tuple(
            open_source(
                directory,
                part=part,
                seed=seed,
                options=section.loader,
                language_model=self.language_model,
                sequences=sequences,
            )
            for part, sequences in zip(("train", "heldout"), packed, strict=True)
        )


def load_experiment_model(experiment, project):
    """The LanguageModel that an experiment's section `model` describes."""
    from cltdb.model.language_model import load_model

    model = experiment.model
    standing = _model_standing(experiment, project) if _is_on_hub(experiment, project) else None
    lm = load_model(
        model_source(model.id, project.root),
        revision=standing.commit or model.revision if standing else model.revision,
        dtype=model.dtype,
        device=model.device,
        mlp_input=model.mlp_input,
        model_id=model.id,
    )
    lm.special_tokens_in_text = experiment.activations.special_tokens_in_text
    return lm


def check_same_model(lm, directory):
    """CltdbError where `lm` is another model than the one that stage model, whose artifact is in `directory`, has loaded."""
    known = read_json(checked(directory / "model.json")).get("fingerprint")
    if known != lm.fingerprint:
        raise CltdbError(
            f"model {lm.model_id}",
            found=f"other weights, config or tokenizer (fingerprint {lm.fingerprint}) than stage model has loaded",
            expected=f"those of {directory} (fingerprint {known})",
            do="run again once its files are in place and no longer change: the stages that depend on them are made anew",
        )


def model_source(model_id, root):
    """A model id as `load_model` takes it: a local directory becomes absolute, relative to the project."""
    local = Path(root) / model_id
    return str(local) if model_id != "toyworld" and local.is_dir() else model_id


# What enters a key beside the section itself: the content of local files.


def fingerprint(paths):
    """A hash of names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        facts = os.stat(path)
        digest.update(f"{Path(path).name}\0".encode() + _content_hash(str(path), facts.st_size, facts.st_mtime_ns))
    return digest.hexdigest()[:16]


@lru_cache(maxsize=4096)
def _content_hash(path, _size, _mtime_ns):
    """Of a file, read once for all points of a sweep while it stays as it is."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _model_standing(experiment, project):
    """Which commit a model of the Hub stands at."""
    model = experiment.model
    return revisions.standing("model", model.id, model.revision, where="model.id", workspace=project.workspace)


def _dataset_standing(source, project):
    """The same of a text source that is a dataset of the Hub, None of others."""
    if source.dataset is None or (project.root / source.dataset).is_dir():
        return None
    where = f"activations.text {source.dataset}"
    return revisions.standing("dataset", source.dataset, source.revision, where=where, workspace=project.workspace)


def _published_standing(experiment, project):
    """The same of a published dictionary that is on the Hub, None of others."""
    published = experiment.train.published
    if published is None or not published.path.startswith(HUB):
        return None
    repository, revision, _ = split_hub_path(published.path)
    return revisions.standing("model", repository, revision, where="train.from.path", workspace=project.workspace)


def _listed_revisions(published, found, project):
    """The commits of other repositories whose files a published dictionary lists, by repository and revision."""
    if published.format != "circuit-tracer":
        return {}
    path = pinned_path(published.path, found.commit) if found and found.commit else published.path
    commits = {}
    for repository, revision in listed_repositories(path, root=project.root):
        where = f"train.from.path, whose config.yaml names {repository}"
        listed = revisions.standing("model", repository, revision, where=where, workspace=project.workspace)
        commits[f"{repository}@{revision or 'main'}"] = listed.commit
    return {"listed": commits} if commits else {}


def _is_on_hub(experiment, project):
    source = model_source(experiment.model.id, project.root)
    return source != "toyworld" and not Path(source).is_dir()


def pinned(experiment, project):
    """The experiment with the commits that its models, datasets and dictionaries of the Hub stand at instead of branches, so that all that
    reads them, in any process, reads the same."""
    updates = {}
    if _is_on_hub(experiment, project) and (commit := _model_standing(experiment, project).commit):
        updates["model"] = experiment.model.model_copy(update={"revision": commit})
    for name in ("activations", "evaluate", "harvest"):
        section = getattr(experiment, name)
        text = [_pinned_source(source, project) for source in section.text or ()]
        if text and text != section.text:
            updates[name] = section.model_copy(update={"text": text})
    found = _published_standing(experiment, project)
    if found and found.commit:
        published = experiment.train.published
        published = published.model_copy(update={"path": pinned_path(published.path, found.commit)})
        updates["train"] = experiment.train.model_copy(update={"published": published})
    return experiment.model_copy(update=updates)


def _pinned_source(source, project):
    found = _dataset_standing(source, project)
    return source.model_copy(update={"revision": found.commit}) if found and found.commit else source


def _model_identity(experiment, project):
    source = model_source(experiment.model.id, project.root)
    if source == "toyworld":
        from cltdb.toyworld import MODEL_DIR

        source = str(MODEL_DIR)
    if not Path(source).is_dir():
        return {"revision": _model_standing(experiment, project).commit or experiment.model.revision}
    return {
        "files": fingerprint(
            path for path in Path(source).iterdir() if path.suffix in (".json", ".safetensors", ".model", ".txt", ".jinja")
        )
    }


def _text_identity(experiment, project):
    return {"files": _text_content(experiment.activations.text, project), "seed": experiment.seed}


def _text_content(sources, project):
    """What stands for the content of each text source: a hash, of a dataset of the Hub its commit."""
    from cltdb.activations.storage import is_uri, uri_facts
    from cltdb.activations.text_files import matching_files

    contents = []
    for source in sources:
        if found := _dataset_standing(source, project):
            contents.append(found.commit or source.revision or "main")
            continue
        paths = matching_files(project.root, source.files or [])
        if source.dataset and (project.root / source.dataset).is_dir():
            paths = [str(path) for path in (project.root / source.dataset).rglob("*") if path.is_file()]
        remote = [uri_facts(path) for path in paths if is_uri(path)]
        content = fingerprint(path for path in paths if not is_uri(path))
        contents.append(digest([content, remote]) if remote else content)
    return contents


READING_SETTINGS = ("context", "special_tokens_in_text", "exclude_tokens")
"""Of section activations: what changes how any text is read."""


def _reading_identity(stage, experiment, project):
    """What stage evaluate or harvest reads: its own text, or a part of the activations' text."""
    section, own = experiment.activations, experiment.own_text(stage)
    sources, settings = own or section.text, result_settings(section)
    parts = {f"{stage}.text": [result_settings(source) for source in sources], "files": _text_content(sources, project)}
    parts |= {f"activations.{name}": settings[name] for name in READING_SETTINGS if name in settings}
    if not own:
        parts["activations.heldout_frac"] = section.heldout_frac
    return parts | {"seed": experiment.seed}


def _evaluate_identity(experiment, project):
    tokens = experiment.evaluate.tokens or experiment.activations.heldout_tokens
    return _reading_identity("evaluate", experiment, project) | {"evaluate.tokens": tokens}


def _harvest_identity(experiment, project):
    return _reading_identity("harvest", experiment, project)


def _seed_identity(experiment, project):
    return {"seed": experiment.seed}


def _train_identity(experiment, project):
    from cltdb.interchange import files_of

    if published := experiment.train.published:
        found = _published_standing(experiment, project)
        known = {"revision": found.commit} if found else {"files": fingerprint(files_of(project.root / published.path))}
        return known | _listed_revisions(published, found, project)
    return {"seed": experiment.seed, "activations.loader.shuffle_tokens": experiment.activations.loader.shuffle_tokens}


def _prompts_identity(experiment, project):
    prompts, special = experiment.attribute.prompts, experiment.activations.special_tokens_in_text
    parts = {"seed": experiment.seed, "activations.special_tokens_in_text": special}
    if isinstance(prompts, list):
        return parts
    path = project.root / prompts.file
    return parts | {"prompts": fingerprint([path]) if path.is_file() else None}


# One function per stage.


def _run_model(context):
    import pyarrow as pa

    lm = context.language_model
    facts = {
        "model_id": context.experiment.model.id,
        "architecture": lm.architecture,
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "vocab_size": lm.vocab_size,
        "max_context": lm.max_context,
        "revision": lm.revision,
    }
    write_json(
        context.directory / "model.json",
        {
            **facts,
            "mlp_input": lm.mlp_input,
            "dtype": str(lm.dtype).removeprefix("torch."),
            "bos_token_id": lm.bos_token_id,
            "fingerprint": lm.fingerprint,
        },
    )
    strings = lm.token_strings()
    write_parquet(context.directory / "tables/models/model.parquet", pa.Table.from_pylist([facts]))
    write_parquet(
        context.directory / "tables/vocabulary/vocabulary.parquet",
        pa.table(
            {
                "model_id": [facts["model_id"]] * len(strings),
                "token": pa.array(range(len(strings)), pa.int32()),
                "string": strings,
            }
        ),
    )


def _run_activations(context):
    from cltdb.activations.cache import describe_stream, refer_to, write_cache
    from cltdb.activations.loader import SUMMARY_FILE
    from cltdb.activations.ordinary import say_excluded

    section = context.experiment.activations
    if (context.directory / SUMMARY_FILE).is_file():  # which the processes of a launch have written together
        return
    if section.mode == "stream" and context.rank > 0:
        return
    packed = context.packed(train_tokens=section.train_tokens, heldout_tokens=section.heldout_tokens)
    parts = dict(zip(("train", "heldout"), packed, strict=True))
    for part, sequences in parts.items() if context.rank == 0 else ():
        say_excluded(context.language_model, sequences, part=part)
    if section.mode == "stream":
        describe_stream(context.language_model, parts, directory=context.directory, batch_seqs=section.batch_seqs)
        return
    place = _shards_place(section, context)
    complete = write_cache(
        context.language_model,
        parts,
        directory=place,
        codec=section.codec,
        compression=section.compression,
        shard_tokens=section.shard_tokens,
        batch_seqs=section.batch_seqs,
        rank=context.rank,
        world_size=context.world_size,
    )
    if complete and place != context.directory:
        refer_to(place, directory=context.directory)


def _shards_place(section, context):
    """Where the shards go: the artifact itself, or a folder of its own under activations.storage."""
    if section.storage is None:
        return context.directory
    if "://" in section.storage:
        return f"{section.storage.rstrip('/')}/{context.key}"
    return context.project.root / section.storage / context.key


def _run_train(context):
    if context.experiment.train.published:
        _import_dictionary(context)
        return
    from cltdb.train.engine import begin
    from cltdb.train.finetune import Texts
    from cltdb.train.loop import train

    experiment, seed = context.experiment, context.seed("train")
    launch = experiment.train.launch
    device, parallel = begin(
        experiment.model.device, rank=context.rank, world_size=context.world_size, n_shards=launch.feature_parallel
    )
    source, heldout = context.sources(seed=seed)
    texts = None
    if experiment.train.kl:
        sequences, _ = context.packed(train_tokens=experiment.activations.train_tokens, note=False)
        texts = Texts(context.language_model, sequences, seed=seed)
    train(
        experiment.train,
        source=source,
        heldout=heldout,
        directory=context.directory,
        seed=seed,
        dict_id=f"{experiment.name}-{experiment.train.kind}-{context.key[:8]}",
        experiment=experiment.name,
        device=device,
        parallel=parallel,
        texts=texts,
        publish=context.publisher,
    )


HOOK_TOKENS = 2048
"""Held-out tokens on which is measured what features of a LayerNorm model read, where nothing says it."""


def _import_dictionary(context):
    """What stage train does for a published dictionary."""
    from cltdb.interchange.hook_points import fitted
    from cltdb.train.export import write_dictionary

    published, lm = context.experiment.train.published, context.language_model
    dictionary = _published_parts(published, lm, context.project)
    some_text = lambda: context.packed(heldout_tokens=HOOK_TOKENS, note=False)[1].tokens  # noqa: E731
    dictionary = fitted(dictionary, lm, hook_normalized=published.hook_normalized, tokens=some_text)
    model = {"model_id": lm.model_id, "revision": lm.revision, "mlp_input": lm.mlp_input, "input_hook": lm.input_hook}
    dictionary.info["from"] = published.model_dump()
    write_dictionary(
        dictionary,
        model=model,
        directory=context.directory,
        dict_id=f"{context.experiment.name}-{dictionary.kind}-{context.key[:8]}",
        experiment=context.experiment.name,
    )


def _published_parts(published, lm, project):
    """The `DictionaryParts` that train.from names."""
    from cltdb.interchange import local_copy, published_parts

    dictionary = published_parts(published.format, local_copy(published.path, root=project.root))
    if (project.root / lm.model_id).is_dir():  # a local model's folder may have any name
        dictionary.info.pop("model_id", None)
    return dictionary


def _run_evaluate(context):
    from cltdb.evaluate.evaluate import evaluate

    section = context.experiment.evaluate
    n_tokens = section.tokens or context.experiment.activations.heldout_tokens
    if context.experiment.own_text("evaluate"):
        heldout = context.packed_own("evaluate", n_tokens, without=context.trained_on())
    else:
        _, heldout = context.packed(heldout_tokens=n_tokens)
    evaluate(
        context.language_model,
        context.dictionary,
        heldout,
        directory=context.directory,
        dict_id=context.dict_id,
        dense_above=section.dense_above,
        batch_seqs=section.batch_seqs,
    )


def _run_harvest(context):
    from cltdb.harvest.harvest import harvest

    section = context.experiment.harvest
    if context.experiment.own_text("harvest"):
        sequences = context.packed_own("harvest", section.tokens)
    else:
        sequences, _ = context.packed(train_tokens=section.tokens)
    harvest(
        context.language_model,
        context.dictionary,
        sequences,
        directory=context.directory,
        dict_id=context.dict_id,
        top=section.top,
        per_quantile=section.per_quantile,
        n_quantiles=section.n_quantiles,
        window=section.window,
        pool_windows=section.pool_windows,
        n_edges=section.feature_edges,
        coactivation_tokens=section.coactivation_tokens,
        batch_seqs=section.batch_seqs,
        seed=context.seed("harvest"),
        rank=context.rank,
        world_size=context.world_size,
    )


def _run_explain(context):
    from cltdb.explain.explain import explain

    section = context.experiment.explain
    explain(
        directory=context.directory,
        units=context.units,
        base=explain_base(context.experiment, context.input_keys),
        harvest_directory=context.inputs["harvest"],
        dict_id=context.dict_id,
        model=section.model,
        vocabulary=context.language_model.token_strings(),
        features=section.features,
        scorers=section.scorers,
        seed=context.seed("explain"),
        max_cost_usd=section.max_cost_usd,
    )


def _run_attribute(context):
    from cltdb.attribution.run import attribute_prompts

    section = context.experiment.attribute
    prompts = prompts_of(section, context.project.root)[context.rank :: context.world_size]
    key_of = partial(graph_key, experiment=context.experiment, input_keys=context.input_keys)
    attribute_prompts(
        section,
        [(prompt, key_of(prompt)) for prompt in prompts],
        context.language_model,
        context.dictionary,
        directory=context.directory,
        units=context.units,
        dict_id=context.dict_id,
        seed=context.seed("attribute"),
    )


# Units that other artifacts may have made already (`cltdb.engine.units`), and what they are known by.


def explain_base(experiment, input_keys):
    """What all units of explanations of a harvest by one model have in their keys."""
    return digest([experiment.explain.model, input_keys["harvest"], experiment.seed, STAGES["explain"].version])


def graph_key(prompt, *, experiment, input_keys):
    """The key of a prompt's graph: all settings of the section, since each shows in its tables, and the prompt but for its id."""
    settings = result_settings(experiment.attribute)
    settings.pop("prompts")
    base = [settings, input_keys, experiment.seed, STAGES["attribute"].version]
    base += [True] if experiment.activations.special_tokens_in_text else []
    return digest([*base, prompt.model_dump(exclude={"id"})])


def _explanations_there(experiment, project, input_keys):
    base, section = explain_base(experiment, input_keys), experiment.explain
    n_there = {"explanations": count(project.workspace, EXPLANATIONS, base)}
    for scorer in section.scorers:
        n_there[f"scores by {scorer}"] = count(project.workspace, SCORES, score_group(base, scorer))
    text = ", ".join(f"{n:,} {what}" for what, n in n_there.items())
    return There(f"{text} of this harvest are there", None) if any(n_there.values()) else None


def _graphs_there(experiment, project, input_keys):
    try:
        prompts = prompts_of(experiment.attribute, project.root)
    except CltdbError:  # which the check of the stage says
        return None
    keys = [graph_key(prompt, experiment=experiment, input_keys=input_keys) for prompt in prompts]
    n_there = sum(has_folder(project.workspace, GRAPHS, key) for key in keys)
    return There(f"{n_there} of {len(keys)} graphs are there", n_there) if n_there else None


UNITS = {"explain": _explanations_there, "attribute": _graphs_there}
"""{stage: function of (experiment, project, input_keys) that gives the `units.There` of a stage that will run, or None}."""


def _text_of(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CltdbError(
            f"attribute.prompts.file ({path})", found=str(error), expected="a UTF-8 file", do="convert it"
        ) from error


def _prompts_of_file(path):
    """The prompts of a .jsonl file; CltdbError with the line that is not one."""
    if not path.is_file():
        raise CltdbError(
            f"attribute.prompts.file ({path})",
            found="no such file",
            expected="a .jsonl file, relative to cltdb.yaml",
            do="mend the path",
        )
    prompts = []
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                prompts.append(Prompt.model_validate(json.loads(line)))
            except ValidationError as error:
                raise spec_error(error, Prompt, place=lambda _, where=where: where, whole="the prompt") from error
            except (ValueError, RecursionError) as error:
                raise CltdbError(
                    where,
                    found=shown(str(error), quoted=False),
                    expected='a JSON object such as {"id": "france", "text": "The capital of France is"}',
                    do="mend the line",
                ) from error
    return prompts


def prompts_of(section, root):
    """The prompts of an attribute section, each with an id."""
    prompts = section.prompts if isinstance(section.prompts, list) else _prompts_of_file(Path(root) / section.prompts.file)
    named = []
    for prompt in prompts:
        text = prompt.text if prompt.text is not None else json.dumps(prompt.messages, ensure_ascii=False)
        named.append(prompt if prompt.id else prompt.model_copy(update={"id": prompt_slug(text)}))
    return named


def prompt_slug(text):
    """The id of a prompt without one: its first words and a hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _run_database(context):
    from cltdb.database import load

    for stage, directory in context.inputs.items():
        load.load_artifact(context.project.database, key=context.input_keys[stage], directory=directory)
    write_json(context.directory / "loaded.json", context.input_keys)


# What can be known to fail before anything is computed.


def _check_model(experiment, project):
    if _is_on_hub(experiment, project):
        revisions.refuse_unknown(_model_standing(experiment, project), experiment.model.id, where="model.id")


def _check_activations(experiment, project):
    """Refuses a cache that does not fit on the disk and shuffle pools that do not fit in memory; where the model's sizes are not on
    this machine yet, says nothing."""
    from cltdb.activations.sizes import bytes_per_token, check_memory, known_sizes

    section = experiment.activations
    _check_text(section.text, project, where="activations.text")
    sizes = known_sizes(model_source(experiment.model.id, project.root))
    if sizes is None:
        return
    codec = section.codec if section.mode == "cache" else "bfloat16" if experiment.model.dtype == "bfloat16" else "float32"
    check_memory(
        section.loader,
        sizes=sizes,
        codec=codec,
        context=section.context,
        train_tokens=section.train_tokens,
        batch_tokens=experiment.train.batch_tokens,
    )
    if section.mode == "stream" or section.storage is not None:
        return
    wanted = (section.train_tokens + section.heldout_tokens) * bytes_per_token(*sizes, section.codec)
    existing = _existing_folder(project)
    begun = sum(path.stat().st_size for path in project.workspace.glob("activations/*.partial/*"))
    free = shutil.disk_usage(existing).free + begun
    if wanted > free:
        raise CltdbError(
            "activations",
            found=f"a cache of {wanted / 1e6:,.0f} MB to write",
            expected=f"at most the {free / 1e6:,.0f} MB free at {existing}",
            do="lower activations.train_tokens, choose codec int8 or int4 or mode stream, or move `workspace` in cltdb.yaml to a"
            " larger disk",
        )


def _check_text(sources, project, *, where):
    """Refuses text sources whose files are not there."""
    from cltdb.activations.text_files import existing_files

    for source in sources:
        if source.files:
            existing_files(project.root, source, where=where)


def _existing_folder(project):
    """The folder on the workspace's disk that is there already."""
    return next(folder for folder in (project.workspace, *project.workspace.parents) if folder.exists())


def cache_estimate(experiment, project, *, measure):
    """The `activations.estimate.Estimate` of an experiment, or None where the model is not on this machine. measure: with the times of
    recomputing and reading back, for which the model is loaded."""
    from cltdb.activations.estimate import estimate

    source = model_source(experiment.model.id, project.root)
    return estimate(experiment.activations, experiment.model, source=source, folder=_existing_folder(project), measure=measure)


def _check_train(experiment, project):
    from cltdb.interchange import local_copy

    extras = {"wandb": ("wandb", experiment.train.wandb), "adam8bit": ("bitsandbytes", experiment.train.optimizer == "adam8bit")}
    for extra, (package, wanted) in extras.items():
        if wanted and find_spec(package) is None:
            raise CltdbError(
                f"train.{extra}" if extra == "wandb" else "train.optimizer",
                found=f"{extra} without the package {package}",
                expected=package,
                do=f"pip install 'cltdb[{extra}]', or leave it out",
            )
    published = experiment.train.published
    if found := _published_standing(experiment, project):
        revisions.refuse_unknown(found, published.path, where="train.from.path")
    elif published:
        local_copy(published.path, root=project.root)
    else:
        _check_training_fits(experiment, project)


BYTES_PER_WEIGHT = {"adam": 16, "adam8bit": 10}
"""Weight, gradient and the optimizer's moments while training."""


def _check_training_fits(experiment, project):
    """Refuses float16 and weights that the machine cannot train, where that is a CPU; says nothing of GPUs and several machines."""
    from cltdb.memory import machine_bytes
    from cltdb.model.language_model import local_sizes, resolved_device

    train = experiment.train
    if resolved_device(experiment.model.device) != "cpu" or train.launch.nodes > 1:
        return
    if train.deepspeed.half == "fp16":
        raise CltdbError(
            "train.deepspeed.fp16", found="float16 on a CPU", expected="a GPU for float16", do="use bf16, or leave it out"
        )
    zero = train.deepspeed.zero_optimization
    on_disk = any(part and part.device == "nvme" for part in (zero.offload_param, zero.offload_optimizer))
    sizes = local_sizes(model_source(experiment.model.id, project.root))
    if sizes is None or on_disk:
        return
    n_layers, d_model = len(train.layers) if train.layers else sizes[0], sizes[1]
    span = 1 if train.kind == "plt" else train.decoder_span or n_layers
    n_vectors = n_layers + sum(min(span, n_layers - layer) for layer in range(n_layers))
    needed = n_vectors * train.n_features * d_model * BYTES_PER_WEIGHT[train.optimizer]
    if needed > machine_bytes():
        raise CltdbError(
            "train.n_features",
            found=f"{train.n_features:,}, whose weights and optimizer states take {needed / 1e9:,.1f} GB",
            expected=f"at most the {machine_bytes() / 1e9:,.1f} GB of memory of this machine",
            do="lower it, choose train.kind: plt or a train.decoder_span, or train on a larger machine",
        )


def _check_evaluate(experiment, project):
    tokens, heldout = experiment.evaluate.tokens, experiment.activations.heldout_tokens
    own = experiment.own_text("evaluate")
    _check_text(own or experiment.activations.text, project, where="evaluate.text" if own else "activations.text")
    if tokens and tokens > heldout and not own:
        raise CltdbError(
            "evaluate.tokens",
            found=f"{tokens:,}",
            expected=f"at most the {heldout:,} of activations.heldout_tokens",
            do="lower it, or hold more text out",
        )


def _check_harvest(experiment, project):
    own = experiment.own_text("harvest")
    _check_text(own or experiment.activations.text, project, where="harvest.text" if own else "activations.text")


def _check_explain(experiment, project):
    if not experiment.explain.model.startswith("cltdb-rules/"):
        from cltdb.explain.calls import check_access

        check_access(experiment.explain.model)


def _check_attribute(experiment, project):
    prompts_of(experiment.attribute, project.root)


# What config and tokenizer of the model can tell, before anything that costs is computed.


def _preflight_activations(experiment, project):
    _preflight_text(experiment.activations.text, experiment, project)


def _preflight_evaluate(experiment, project):
    _preflight_text(experiment.own_text("evaluate") or experiment.activations.text, experiment, project)


def _preflight_harvest(experiment, project):
    _preflight_text(experiment.own_text("harvest") or experiment.activations.text, experiment, project)


def _preflight_text(sources, experiment, project):
    from cltdb.activations.ordinary import excluded_ids
    from cltdb.activations.tokens import check_context

    for source in sources:
        if found := _dataset_standing(source, project):
            revisions.refuse_unknown(found, source.dataset, where=f"activations.text {source.dataset}")
    lm = sizes_and_tokens(experiment, project)
    check_context(lm, experiment.activations.context)
    excluded_ids(lm, experiment.activations.exclude_tokens)


def _preflight_train(experiment, project):
    if experiment.train.layers:
        from cltdb.train.chosen_layers import check_layers

        lm = sizes_and_tokens(experiment, project)
        check_layers(experiment.train.layers, lm.n_layers, lm.model_id)
    published = experiment.train.published
    if published and _published_standing(experiment, project) is None:
        from cltdb.model.transcoder import check_same_sizes

        lm = sizes_and_tokens(experiment, project)
        check_same_sizes(_published_parts(published, lm, project), lm)


def _preflight_attribute(experiment, project):
    if prompts := prompts_of(experiment.attribute, project.root):
        from cltdb.attribution.run import check_prompts

        lm, n_constant = sizes_and_tokens(experiment, project), experiment.attribute.constant_positions
        check_prompts(lm, prompts, n_features=known_features(experiment), constant_positions=n_constant)


def known_features(experiment):
    """Features per layer of the dictionary as the spec tells; None of a published one."""
    return None if experiment.train.published else experiment.train.n_features


def sizes_and_tokens(experiment, project):
    """The model of an experiment without its weights (`load_sizes_and_tokens`), read once while its files stay as they are."""
    lm = _sizes_and_tokens(
        model_source(experiment.model.id, project.root),
        pinned(experiment, project).model.revision,
        experiment.model.id,
        json.dumps(_model_identity(experiment, project)),
    )
    lm.special_tokens_in_text = experiment.activations.special_tokens_in_text
    return lm


@lru_cache(maxsize=2)
def _sizes_and_tokens(source, revision, model_id, _identity):
    from cltdb.model.language_model import load_sizes_and_tokens

    return load_sizes_and_tokens(source, revision=revision, model_id=model_id)


class Stage(NamedTuple):
    """version: raised when the stage's results change. sections: those of the spec in its key. identity: what else is in it.

    check(experiment, project) raises what can be known to fail before anything is computed; preflight(experiment, project) what the
    model's sizes and tokens tell. inputs: the stages it may read; those of an experiment are `inputs_of`.
    """

    inputs: tuple
    version: int
    sections: tuple
    run: Any
    identity: Any = lambda experiment, project: {}
    check: Any = lambda experiment, project: None
    preflight: Any = lambda experiment, project: None


STAGES = {
    "model": Stage((), 2, ("model",), _run_model, _model_identity, _check_model),
    "activations": Stage(
        ("model",), 2, ("activations",), _run_activations, _text_identity, _check_activations, _preflight_activations
    ),
    "train": Stage(("model", "activations"), 3, ("train",), _run_train, _train_identity, _check_train, _preflight_train),
    "evaluate": Stage(
        ("model", "train"), 2, ("evaluate",), _run_evaluate, _evaluate_identity, _check_evaluate, _preflight_evaluate
    ),
    "harvest": Stage(("model", "train"), 3, ("harvest",), _run_harvest, _harvest_identity, _check_harvest, _preflight_harvest),
    "explain": Stage(("model", "train", "harvest"), 2, ("explain",), _run_explain, _seed_identity, _check_explain),
    "attribute": Stage(
        ("model", "train"), 3, ("attribute",), _run_attribute, _prompts_identity, _check_attribute, _preflight_attribute
    ),
    "database": Stage(("model", "activations", "train", "evaluate", "harvest", "explain", "attribute"), 1, (), _run_database),
}


def _shard_hashes(directory):
    """{name: sha256} of a cache's shards in the artifact itself, which their reader checks block by block."""
    summary = read_json(directory / "cache.json") if (directory / "cache.json").is_file() else {}
    return {} if "location" in summary else {shard["file"]: shard["sha256"] for shard in summary.get("shards", ())}


SELF_CHECKED = {"activations": _shard_hashes}
"""{stage: function of the directory that gives the hashes of large files that need not be read again to be known}."""


# What the time of a stage grows with.


def _cache_work(experiment, project):
    section = experiment.activations
    return (section.train_tokens + section.heldout_tokens, "tokens") if section.mode == "cache" else None


def _train_work(experiment, project):
    if experiment.train.published:
        return None
    return round(experiment.train.epochs * experiment.activations.train_tokens), "tokens"


def _evaluate_work(experiment, project):
    return experiment.evaluate.tokens or experiment.activations.heldout_tokens, "tokens"


def _harvest_work(experiment, project):
    return experiment.harvest.tokens, "tokens"


def _explain_work(experiment, project):
    limit = experiment.explain.features.limit
    return limit and (limit, "features")


def _attribute_work(experiment, project):
    return len(prompts_of(experiment.attribute, project.root)), "prompts"


WORK = {
    "activations": _cache_work,
    "train": _train_work,
    "evaluate": _evaluate_work,
    "harvest": _harvest_work,
    "explain": _explain_work,
    "attribute": _attribute_work,
}
"""{stage: function of (experiment, project) that gives (number, unit) of what its time grows with, or None}."""


def key_parts(stage, experiment, project, keys):
    """What a stage's key hashes, by name, so that a plan can say which part changed; `keys` are those of the stages before."""
    entry = STAGES[stage]
    parts = {
        "version": entry.version,
        **{f"input {name}": keys[name] for name in inputs_of(stage, experiment)},
    }
    for section in entry.sections:
        parts |= {f"{section}.{name}": value for name, value in result_settings(getattr(experiment, section)).items()}
    return parts | entry.identity(experiment, project)


def inputs_of(stage, experiment):
    """The stages whose artifacts a stage reads in this experiment."""
    return tuple(name for name in STAGES[stage].inputs if not idle(name, experiment))


def idle(stage, experiment):
    """Why an experiment has no use for a stage, or nothing."""
    is_unread = stage == "activations" and experiment.train.published
    return "not needed: the dictionary of train.from is trained already" if is_unread else ""
