"""Stage `attribute`: attribution graphs of prompts.

Writes: tables `graphs`, `nodes`, `edges`, `prune_curves`, `path_lengths`, `supernodes`, those of ablations, `paths` and `path_steps`
where `attribute.paths` asks for them, and a unit per graph that other artifacts use too.
"""

from cltdb.attribution.prompts import prompts_of
from cltdb.attribution.settings import Attribute
from cltdb.engine.closing import named, table
from cltdb.engine.content import fingerprint
from cltdb.engine.section import Conflict
from cltdb.engine.stage import Stage, reads
from cltdb.engine.units import GRAPHS, There, has_folder
from cltdb.engine.workspace import digest
from cltdb.errors import CltdbError
from cltdb.model.kinds import KINDS
from cltdb.model.source import language_model, sizes_and_tokens
from cltdb.train.trained import dict_id, dictionary_for, known_features

VERSION = 3
SHOWN_GRAPHS = 8
WITH_GRAPHS = "a train.kind that explains how the MLP makes its output and not an activation"
"""What graphs, and all that is made of them, take."""


def run(job):
    from cltdb.attribution.run import attribute_prompts

    lm = language_model(job)
    prompts = prompts_of(job.settings, job.project.root)[job.share.rank :: job.share.world_size]
    attribute_prompts(
        job.settings,
        [(prompt, graph_key(job.experiment, prompt, job.input_keys)) for prompt in prompts],
        lm,
        dictionary_for(lm, job.inputs["train"]),
        directory=job.directory,
        units=job.units,
        dict_id=dict_id(job.inputs["train"]),
        seed=job.seed("attribute"),
    )


def graph_key(experiment, prompt, input_keys):
    """The key of a prompt's graph. All settings of the section are in it, since each shows in its tables, and the prompt without
    its id."""
    settings = experiment.attribute.result_settings()
    settings.pop("prompts")
    base = [settings, input_keys, experiment.seed, VERSION]
    base += [True] if experiment.activations.special_tokens_in_text else []
    later = {"target_label"} if prompt.target_label is None else set()  # graphs from before keep their keys
    return digest([*base, prompt.model_dump(exclude={"id"} | later)])


def there(experiment, project, input_keys):
    try:
        prompts = prompts_of(experiment.attribute, project.root)
    except CltdbError:  # which `check_files` says
        return None
    keys = [graph_key(experiment, prompt, input_keys) for prompt in prompts]
    n_there = sum(has_folder(project.workspace, GRAPHS, key) for key in keys)
    return There(f"{n_there} of {len(keys)} graphs are there", n_there) if n_there else None


def identity(experiment, project):
    prompts, special = experiment.attribute.prompts, experiment.activations.special_tokens_in_text
    parts = {"seed": experiment.seed, "activations.special_tokens_in_text": special}
    if isinstance(prompts, list):
        return parts
    path = project.root / prompts.file
    return parts | {"prompts": fingerprint([path]) if path.is_file() else None}


def fits(experiment):
    if experiment.attribute.prompts and not experiment.train.published and KINDS[experiment.train.kind].reconstructs:
        do = "leave the prompts out, or train another kind"
        raise Conflict(f"expected {WITH_GRAPHS} beside prompts, found {experiment.train.kind}", "attribute", "prompts", do=do)


def idle(experiment):
    kind = experiment.train.kind
    if experiment.train.published or experiment.attribute.prompts or not KINDS[kind].reconstructs:
        return ""
    return f"not needed: no graph leads through an {kind}, which explains an activation and not how the MLP makes it"


def left_out(values, swept):
    """The prompts, where kinds are swept and that of the point has no graphs."""
    return [("attribute", "prompts")] if is_without_graphs(values, swept) else []


def is_without_graphs(values, swept):
    """Whether kinds are swept and that of the point has no graphs. values: of the point; swept: {key path: value}."""
    train = values.get("train")
    kind = train.get("kind") if isinstance(train, dict) and not {("train",), ("train", "kind")}.isdisjoint(swept) else None
    return isinstance(kind, str) and kind in KINDS and KINDS[kind].reconstructs


def check_files(experiment, project):
    prompts_of(experiment.attribute, project.root)


def preflight(experiment, project):
    if prompts := prompts_of(experiment.attribute, project.root):
        from cltdb.attribution.run import check_prompts

        lm, n_constant = sizes_and_tokens(experiment, project), experiment.attribute.constant_positions
        check_prompts(lm, prompts, n_features=known_features(experiment), constant_positions=n_constant)


def work(experiment, project):
    return len(prompts_of(experiment.attribute, project.root)), "prompts"


def lines(made):
    """A line per graph, with its likeliest logit."""
    directory = made["attribute"]
    graphs = table(directory, "graphs")
    if graphs is None or "model" not in made:
        return []
    logits = table(directory, "nodes").filter(kind="logit").sort("node_id").unique("graph_id", keep="first")
    strings = table(made["model"], "vocabulary").select("token", "string")
    top = logits.select("graph_id", "token", "probability").join(strings, on="token", how="left")
    found = [f"  {named(directory)}: {len(graphs)} graph{'s' * (len(graphs) > 1)}"]
    for graph in graphs.join(top, on="graph_id", how="left").sort("graph_id").head(SHOWN_GRAPHS).iter_rows(named=True):
        about = (
            f"{(graph['string'] or '').strip()!r} at {graph['probability']:.1%}"
            if graph["token"] is not None
            else graph["target"]
        )
        scores = f"replacement {graph['replacement_score']:.3f}, completeness {graph['completeness_score']:.3f}"
        found.append(f"  graph {graph['graph_id']}: {about}; {scores}")
    if len(graphs) > SHOWN_GRAPHS:
        found.append(f"  {len(graphs) - SHOWN_GRAPHS} more graphs: cltdb sql --query graph_list")
    return found


STAGE = Stage(
    "attribute",
    version=VERSION,
    run=run,
    section=Attribute,
    inputs=reads("model", "train"),
    idle=idle,
    fits=fits,
    left_out=left_out,
    identity=identity,
    check_files=check_files,
    preflight=preflight,
    work=work,
    there=there,
    tables=(
        *("graphs", "nodes", "edges", "prune_curves", "path_lengths", "paths", "path_steps", "supernodes"),
        *("interventions", "intervention_effects"),
    ),
    lines=lines,
)
