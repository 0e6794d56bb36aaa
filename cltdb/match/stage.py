"""Stage `match`: which features of the dictionary are also in another one. Reads, beside its own inputs, the artifacts of another point of the sweep, or a
dictionary that the spec names. Writes: tables `feature_matches`, `dictionary_matches`."""

from cltdb.activations.reading import (
    check_text,
    own_text,
    packed,
    packed_own,
    pinned_text,
    preflight_text,
    reading_identity,
    trained_on,
)
from cltdb.engine.closing import named, table
from cltdb.engine.integrity import checked
from cltdb.engine.plan import keys_for
from cltdb.engine.section import Conflict
from cltdb.engine.stage import Stage, reads
from cltdb.engine.sweeps import dotted, key_path
from cltdb.engine.workspace import Workspace, read_json
from cltdb.errors import CltdbError
from cltdb.match.models import model_folder, model_of, of_one_model
from cltdb.match.settings import Match
from cltdb.model.source import MODEL_FILE, language_model, made_model
from cltdb.train.start import start_content, start_folder
from cltdb.train.trained import dictionary_for

WHERE = "match.against"
HOW = ("by", "threshold", "correlation", "text", "tokens")
"""Keys that say how two dictionaries are compared, not which."""


def run(job):
    from cltdb.match.firings import firings_on
    from cltdb.match.folders import name_of
    from cltdb.match.run import Side, chosen_by, match_dictionaries

    settings, lm = job.settings, language_model(job)
    folders = _other_folder(job.experiment, job.project), job.inputs["train"]
    a, b = (dictionary_for(lm, folder) for folder in folders)
    its_model = model_folder(folders[0], job.project)
    one_model = _is_one_model(job.inputs["model"], its_model, a)
    by, firings = chosen_by(settings, a, b, one_model=one_model), (None, None)
    if settings.correlation:
        other, text = lm if one_model else _other_model(job, its_model, lm), _text(job, lm)
        firings = [firings_on(*of, text, batch_seqs=settings.batch_seqs) for of in ((other, a), (lm, b))]
    sides = [Side(name_of(folder), *rest) for folder, *rest in zip(folders, (a, b), firings, strict=True)]
    one_space = one_model and a.writes == b.writes and a.reads == b.reads
    how = {"by": by, "threshold": settings.threshold, "one_space": one_space, "seed": job.seed("match")}
    match_dictionaries(*sides, directory=job.directory, **how)


def _text(job, lm):
    """The sequences that the features fire on."""
    if own_text(job.experiment, "match"):
        return packed_own(job, lm, _n_tokens(job.experiment), without=trained_on(job, lm))
    return packed(job, lm, heldout_tokens=_n_tokens(job.experiment))[1]


def _n_tokens(experiment):
    """Of match.tokens so many as there are."""
    tokens, heldout = experiment.match.tokens, experiment.activations.heldout_tokens
    return tokens if own_text(experiment, "match") else min(tokens, heldout)


# The other dictionary and its model.


def _other_folder(experiment, project):
    """The folder of the dictionary that the experiment's is compared with; CltdbError where it is not made yet."""
    if experiment.match.against is not None:
        return start_folder(experiment.match.against, project, where=WHERE)
    if missing := awaits(experiment, project):
        expected = "that of the point that others are compared with"
        raise CltdbError(
            "stage match", found=missing, expected=expected, do="run the whole sweep, or that point first with --point"
        )
    return Workspace(project.workspace).artifact("train", keys_for("train", experiment.reference("match"), project)["train"])


def awaits(experiment, project):
    reference = experiment.reference("match")
    if reference is not None and not Workspace(project.workspace).is_finished(
        "train", keys_for("train", reference, project)["train"]
    ):
        return f"no finished dictionary of {reference.name}"
    return ""


def _is_one_model(model, model_of_other, other):
    """Whether the other dictionary, from a folder of unknown origin too, is of the same model as that in the artifact `model`."""
    facts = read_json(checked(model / MODEL_FILE))
    if model_of_other is not None:
        return read_json(checked(model_of_other / MODEL_FILE)).get("fingerprint") == facts.get("fingerprint")
    return of_one_model(other.info, facts["model_id"])


def _other_model(job, folder, lm):
    """The LanguageModel of the other dictionary, which reads the same text: its tokenizer must be the same."""
    if folder is None:
        found, expected = "a dictionary of another model that this workspace does not know", "the experiment that has made it"
        raise CltdbError(WHERE, found=found, expected=expected, do="name it by its experiment, or set match.correlation: false")
    other = made_model(job.experiment, job.project, folder)
    if other.tokenizer.get_vocab() != lm.tokenizer.get_vocab():
        found = f"other tokens in {other.model_id} than in {lm.model_id}"
        raise CltdbError("match", found=found, expected="one tokenizer for both", do="compare others: the text would differ")
    return other


# The stage as the engine sees it.


def refers(points, number):
    """The first point of the sweep, or the one with the first value of match.across and the other values of this one."""
    experiment, swept = points[number]
    if how := [key for key in swept if key in {f"match.{name}" for name in HOW}]:
        expected = "one comparison of two dictionaries, as the database holds it"
        raise CltdbError(
            f"sweep.{how[0]}",
            found="comparisons in several ways",
            expected=expected,
            do="sweep other keys, and ask `cltdb match` for another way",
        )
    if experiment.match.against is not None or not swept:
        return None
    across = experiment.match.across
    if across is None:
        other = 0
    else:
        path = dotted(key_path(across))
        if path not in swept:
            expected = f"a key that the sweep varies: {', '.join(swept)}"
            raise CltdbError("match.across", found=across, expected=expected, do="name one of them")
        alike = [
            place
            for place, (_, values) in enumerate(points)
            if values.keys() == swept.keys() and all(values[key] == value for key, value in swept.items() if key != path)
        ]
        other = alike[0]
    return other if other < number else None


def fits(experiment):
    if experiment.match.against == experiment.name:
        raise Conflict("expected another experiment than this one, found its own name", "match", "against")


def idle(experiment):
    if experiment.match.against is not None or experiment.reference("match") is not None:
        return ""
    return "nothing to compare with: in a sweep, other points are compared with this one; without a sweep, match.against names the other"


def identity(experiment, project):
    parts = {"seed": experiment.seed}
    if experiment.match.against is not None:
        folder = start_folder(experiment.match.against, project, where=WHERE)
        parts |= {"against": start_content(folder), "model of against": model_of(folder, project)}
    else:
        parts["against"] = keys_for("train", experiment.reference("match"), project)["train"]
    if experiment.match.correlation:
        parts |= reading_identity(experiment, project, "match") | {"match.tokens": _n_tokens(experiment)}
    return parts


def check_files(experiment, project):
    if experiment.match.against is not None:
        start_folder(experiment.match.against, project, where=WHERE)
    if experiment.match.correlation:
        check_text(experiment, project, "match")


def preflight(experiment, project):
    if experiment.match.correlation:
        preflight_text(experiment, project, "match")


def work(experiment, project):
    return (_n_tokens(experiment), "tokens") if experiment.match.correlation else None


def lines(made):
    """How much was found again, of all layers together."""
    found = table(made["match"], "dictionary_matches")
    if found is None:
        return []
    rows = {row["above"]: row for row in found.filter(found["layer"].is_null()).to_dicts()}
    row, strict = rows[0.7], rows[0.9]
    by = {"decoder": "decoder cosine", "activations": "correlation of activations"}[row["matched_by"]]
    interval = f"(95 %: {row['share_a_low']:.1%} to {row['share_a_high']:.1%}; by chance {row['control_share']:.1%})"
    said = f"of {row['n_a']:,} features of {row['dict_a']} {row['share_a']:.1%} are matched above 0.7 {interval}"
    return [f"  {named(made['match'])}: {said}, {strict['share_a']:.1%} above 0.9, by {by}"]


def compared(directory, record):
    found = table(directory, "dictionary_matches")
    pooled = {} if found is None else {row["above"]: row for row in found.filter(found["layer"].is_null()).to_dicts()}
    return {f"matched above {above}": f"{row['share_a']:.1%}" for above, row in pooled.items()}


STAGE = Stage(
    "match",
    version=2,
    run=run,
    section=Match,
    inputs=reads("model", "train"),
    optional=True,
    refers=refers,
    awaits=awaits,
    idle=idle,
    fits=fits,
    identity=identity,
    pinned=lambda experiment, project: pinned_text(experiment, project, "match"),
    check_files=check_files,
    preflight=preflight,
    work=work,
    tables=("feature_matches", "dictionary_matches"),
    lines=lines,
    compared=compared,
)
