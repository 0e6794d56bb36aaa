"""Stage `evaluate`: how well the dictionary stands for the model, on held-out text. Writes: tables `metrics` and, where asked for, `isolation`."""

from cltdb.activations.reading import (
    check_text,
    kept_apart,
    own_text,
    packed,
    packed_own,
    pinned_text,
    preflight_text,
    reading_identity,
    trained_on,
)
from cltdb.activations.sizes import known_sizes
from cltdb.engine.closing import named, table
from cltdb.engine.integrity import checked
from cltdb.engine.stage import Stage, reads
from cltdb.engine.workspace import digest
from cltdb.errors import CltdbError
from cltdb.evaluate.questions import facts_of, questions
from cltdb.evaluate.settings import Evaluate
from cltdb.evaluate.splices import splices
from cltdb.model.source import language_model, model_source, sizes_and_tokens
from cltdb.train.published import known_layers
from cltdb.train.trained import dict_id, dictionary_for, measured_widely

COMPARED = {"FVU": ("fvu", ".4f"), "L0": ("l0", ".2f"), "dead": ("dead_frac", ".1%"), "CE recovered": ("ce_recovered", ".1%")}


def run(job):
    from cltdb.evaluate.evaluate import evaluate

    lm = language_model(job)
    if own_text(job.experiment, "evaluate"):
        heldout = packed_own(job, lm, _n_tokens(job.experiment), without=trained_on(job, lm))
    else:
        _, heldout = packed(job, lm, heldout_tokens=_n_tokens(job.experiment))
    dictionary = dictionary_for(lm, job.inputs["train"])
    where = {"directory": job.directory, "dict_id": dict_id(job.inputs["train"])}
    fired = evaluate(job.settings, lm, dictionary, heldout, seed=job.seed("evaluate"), **where)
    if job.settings.isolation:
        from cltdb.evaluate.isolation_table import write_isolation

        facts = facts_of(lm, _questions(job.experiment, job.project))
        write_isolation(job.settings, (lm, dictionary), heldout, fired, facts=facts, seed=job.seed("evaluate isolation"), **where)


def _n_tokens(experiment):
    return experiment.evaluate.tokens or experiment.activations.heldout_tokens


def identity(experiment, project):
    read = reading_identity(experiment, project, "evaluate") | kept_apart(experiment, "evaluate")
    try:
        if asked := _questions(experiment, project):
            read["evaluate.isolation.facts"] = digest([one.model_dump() for one in asked])
            read["features of concepts"] = "contrast beyond rounding"  # an earlier cltdb took what rounding left for a contrast
    except CltdbError:  # which `check_files` says
        read["evaluate.isolation.facts"] = None
    if (
        experiment.train.layers or experiment.train.decoder_span
    ):  # an earlier cltdb compared their overlap with directions in more dimensions
        read["decoder_cosines"] = "dimensions written to"
    if experiment.evaluate.isolation:
        read |= measured_widely(experiment)
    return read | {"evaluate.tokens": _n_tokens(experiment)}


def _questions(experiment, project):
    """What is asked of the facts of isolation."""
    isolation = experiment.evaluate.isolation
    return questions(isolation.facts, project.root) if isolation and isolation.facts else []


def check_files(experiment, project):
    _check_splices(experiment, project)
    tokens, heldout = experiment.evaluate.tokens, experiment.activations.heldout_tokens
    check_text(experiment, project, "evaluate")
    if tokens and tokens > heldout and not own_text(experiment, "evaluate"):
        raise CltdbError(
            "evaluate.tokens",
            found=f"{tokens:,}",
            expected=f"at most the {heldout:,} of activations.heldout_tokens",
            do="lower it, or hold more text out",
        )
    _questions(experiment, project)
    isolation, context = experiment.evaluate.isolation, experiment.activations.context
    if isolation and isolation.prompt_tokens > context:
        found, expected = str(isolation.prompt_tokens), f"at most the {context} of activations.context"
        raise CltdbError("evaluate.isolation.prompt_tokens", found=found, expected=expected, do="lower it")


def _check_splices(experiment, project):
    """Refuses splices of layers that a dictionary which the experiment trains lacks, where the model's config is on this machine."""
    asked, sizes = experiment.evaluate.splice, known_sizes(model_source(experiment.model.id, project.root))
    if asked and sizes and not experiment.train.published:
        splices(asked, experiment.train.layers or range(sizes[0]), sizes[0])


def preflight(experiment, project):
    preflight_text(experiment, project, "evaluate")
    lm = sizes_and_tokens(experiment, project)
    facts_of(lm, _questions(experiment, project))
    if experiment.evaluate.splice:
        layers = known_layers(experiment, project, lm)
        if layers is not None:
            splices(experiment.evaluate.splice, layers, lm.n_layers)


def work(experiment, project):
    """Tokens. A further splice adds three forward passes to the five that an evaluation without one makes, isolation one, and one of every prompt
    for each feature and multiple."""
    n_tokens, asked, isolation = _n_tokens(experiment), experiment.evaluate.splice, experiment.evaluate.isolation
    sizes = known_sizes(model_source(experiment.model.id, project.root)) if asked or isolation else None
    if sizes is None:
        return n_tokens, "tokens"
    layers = experiment.train.layers or range(sizes[0])
    try:
        n_passes = 2 + 3 * len(splices(asked, layers, sizes[0]))
    except CltdbError:  # which `preflight` says
        return None
    once = n_tokens * n_passes
    if isolation:
        n_raised = len(layers) * isolation.features * len(isolation.multiples)
        once += n_tokens + n_raised * isolation.prompts * isolation.prompt_tokens
    return once // 5, "tokens"


def lines(made):
    by_label = _pooled(made["evaluate"])
    row = by_label.pop(None, {})
    measured = [f"{label} {of_label['fvu']:.4f}" for label, of_label in sorted(by_label.items()) if "fvu" in of_label]

    def said(form, *names):
        return form.format(**row) if all(name in row for name in names) else None

    beside = said(" ({top1_agreement_confident:.1%} where the model is confident)", "top1_agreement_confident") or ""
    agreement = "MLPs replaced: top-1 agreement {top1_agreement:.1%}" + beside + ", KL {kl_nats:.4f} nats"
    entropy = (
        "cross-entropy {ce_original:.4f}, replaced {ce_replacement:.4f}, zero-ablated {ce_zero:.4f}, mean-ablated {ce_mean:.4f}: "
        "{ce_recovered:.1%} recovered"
    )
    found = [
        said("FVU {fvu:.4f} at L0 {l0:.2f} on held-out text", "fvu", "l0"),
        f"FVU by label: {', '.join(measured)}" if measured else None,
        said(agreement, "top1_agreement", "kl_nats"),
        said(entropy, "ce_original", "ce_replacement", "ce_zero", "ce_mean", "ce_recovered"),
    ]
    return [f"  {named(made['evaluate'])}: {line}" for line in (*found, _isolation(made["evaluate"])[0]) if line]


def compared(directory, record):
    values = _pooled(directory).get(None, {})
    cells = {column: format(values[name], form) for column, (name, form) in COMPARED.items() if name in values}
    leakage = _isolation(directory)[1]
    return cells if leakage is None else cells | {"leakage": f"{leakage:.3f}"}


def _isolation(directory):
    """(what a run says of table isolation, mean leakage of all layers together) at the least multiple; None, None where it has no rows."""
    found = table(directory, "isolation")
    if found is None or found.is_empty():
        return None, None
    least = min(found["multiple"], key=abs)
    drawn = found.filter(found["is_sampled"] & (found["multiple"] == least))
    same, later, kl = (drawn[name].mean() for name in ("leakage_same", "leakage_later", "kl_nats"))
    parts = [
        f"{value:.3f} in {where}" for value, where in ((same, "the same layer"), (later, "later layers")) if value is not None
    ]
    if not parts:
        return None, None
    line = f"{drawn.height} features raised by {least:g} of their scale: leakage {', '.join(parts)}"
    read_again = drawn.filter(drawn["leakage_same"].is_not_null() | drawn["leakage_later"].is_not_null())
    total = read_again["leakage_same"].fill_null(0) + read_again["leakage_later"].fill_null(0)
    return line + ("" if kl is None else f", KL {kl:.4f} nats where they are silent"), total.mean()


def _pooled(directory):
    """{label, None of all text: {name: value}} of the rows that an evaluation wrote, pooled over layers, with all MLPs replaced."""
    import pyarrow.parquet as pq

    rows = [
        row for path in sorted(directory.glob("tables/metrics/*.parquet")) for row in pq.read_table(checked(path)).to_pylist()
    ]
    pooled = {}
    for row in rows:
        if row["layer"] is None and row.get("variant") is None and row["value"] is not None:
            pooled.setdefault(row.get("label"), {})[row["name"]] = row["value"]
    return pooled


STAGE = Stage(
    "evaluate",
    version=3,
    run=run,
    section=Evaluate,
    inputs=reads("model", "train"),
    identity=identity,
    pinned=lambda experiment, project: pinned_text(experiment, project, "evaluate"),
    check_files=check_files,
    preflight=preflight,
    work=work,
    tables=("metrics", "isolation"),
    lines=lines,
    compared=compared,
)
