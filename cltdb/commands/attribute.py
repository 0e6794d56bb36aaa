"""`cltdb attribute`: one attribution graph now."""

import json

from cltdb import output
from cltdb.commands.common import Command, add_spec, load_spec, option_named, run_into_database
from cltdb.errors import CltdbError

SHOWN_PATHS = 10
NAMED = {
    r"attribute\.prompts\.0\.target\.": "--weight",
    r"attribute\.prompts(?:\.0\.| [^,]+, )(target|foil|position)\b": r"--\1",
    r"attribute\.prompts(?:\.0| \S+$)": "--prompt",
}
"""What an error says of the prompt that options make, and the option that is meant."""


def add_options(parser):
    add_spec(parser)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the prompt, without BOS, which is put in front of it")
    parser.add_argument(
        "--target",
        action="append",
        metavar="TOKEN",
        help="explain the logit of this token instead of those of the likeliest ones; may stand several times",
    )
    parser.add_argument(
        "--weight",
        action="append",
        type=float,
        metavar="W",
        help="the weight of a --target: one for each, in the same order (default: the model's probabilities)",
    )
    parser.add_argument("--foil", metavar="TOKEN", help="with one --target: explain its logit minus the logit of this token")
    parser.add_argument(
        "--position",
        type=int,
        metavar="POS",
        help="the position whose logits are explained: 1, 2, …, negative from the end (default: the last)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def attribute_command(options):
    from cltdb.database import api

    prompt = json.dumps([_asked(options)], ensure_ascii=False).replace("${", "$${")
    with option_named(NAMED):
        loaded = load_spec(options, extra=[f"attribute.prompts={prompt}"])
        directory = run_into_database(loaded, "attribute")
    database = api.open(loaded.project.database)
    graph_id = next((directory / "tables/graphs").glob("*.parquet")).stem
    info = database.sql("SELECT * FROM graphs WHERE graph_id = $graph_id", {"graph_id": graph_id}).to_dicts()[0]
    paths, signed = database.strongest_paths(graph_id), database.query("input_paths", graph_id=graph_id, limit=1_000_000)
    if options.json:
        asked = {"paths": signed.to_dicts()} if loaded.experiment.attribute.paths else {}
        output.say(output.json_text({**info, "strongest_paths": paths.to_dicts(), **asked}))
        return
    output.say(
        f"graph {graph_id}: {info['n_nodes']} nodes, {info['n_edges']} edges, "
        f"replacement {info['replacement_score']:.3f}, completeness {info['completeness_score']:.3f}\n"
        "influence of a token or error by all its paths, and its strongest path with that path's strength:",
        "  influence  strength  path",
        *(f"  {row['influence']:>9.4f}  {row['strength']:>8.4f}  {row['path']}" for row in paths.to_dicts()),
        *_signed(signed, graph_id),
    )


def _signed(paths, graph_id):
    """Lines about the strongest paths to the likeliest target; none where `attribute.paths` asks for none."""
    if not paths.height:
        return
    of_target = paths.filter(target_id=paths["target_id"][0])
    covered = f"{of_target['covered'][-1]:.1%} of the absolute weight of all its paths"
    yield f"the strongest paths to {of_target['target'][0]}, by their part in its value; the {of_target.height} stored have {covered}:"
    yield "     weight   share  path"
    for row in of_target.head(SHOWN_PATHS).iter_rows(named=True):
        yield f"  {row['weight']:>+9.4f}  {row['share']:>6.1%}  {row['path']}"
    if paths.height > min(of_target.height, SHOWN_PATHS):
        yield f"  all {paths.height}: cltdb sql --query input_paths -p graph_id={graph_id}"


def _asked(options):
    """What the options of `attribute` ask for, as a prompt of a spec."""
    targets, weights = options.target or [], options.weight or []
    if weights and len(weights) != len(targets):
        found, expected = f"{len(weights)} for {len(targets)} targets", "one for each --target, in their order"
        raise CltdbError("--weight", found=found, expected=expected, do="add or drop some")
    if len(set(targets)) < len(targets):
        raise CltdbError("--target", found=", ".join(map(repr, targets)), expected="each token once", do="drop one")
    if options.foil in targets:
        raise CltdbError("--foil", found="the --target", expected="another token", do="name the token that it stands against")
    if options.foil is not None and (len(targets) != 1 or weights):
        found = f"{len(targets)} targets" + (" with weights" if weights else "")
        raise CltdbError(
            "--foil", found=found, expected="one --target, without a weight", do="name the token that it stands against"
        )
    target = dict(zip(targets, weights, strict=True)) if weights else targets[0] if len(targets) == 1 else targets
    asked = {"text": options.prompt, "target": target if targets else None, "foil": options.foil, "position": options.position}
    return {name: value for name, value in asked.items() if value is not None}


COMMAND = Command(
    "make the attribution graph of one prompt and put it into the database",
    'cltdb attribute experiments/quickstart.yaml --prompt "The capital of Spain is"',
    add_options,
    attribute_command,
)
