"""`cltdb intervene`: sets features to values and measures what the model then does."""

import sys

from cltdb import output
from cltdb.commands.common import Command, add_spec, both_or_neither, load_spec
from cltdb.errors import CltdbError


def add_options(parser):
    add_spec(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="the prompt, without BOS, which is put in front of it")
    parser.add_argument(
        "--graph",
        metavar="GRAPH_ID",
        help="instead of --prompt: take the prompt of this graph, whose --supernode can then be named",
    )
    parser.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="LAYER:FEATURE@POS=VALUE",
        help="VALUE 0 ablates, 2.5 sets, x2 scales; POS is a position, negative from the end, * for all, or a slice such as 2:5, -3: or :4; "
        "may stand several times",
    )
    parser.add_argument(
        "--supernode",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="do the same to all features of a supernode of --graph; may stand several times",
    )
    parser.add_argument(
        "--mode",
        choices=["constrained", "iterative", "free", "frozen_attention"],
        default="constrained",
        help="what responds to the change: in constrained nothing, in iterative the replacement model, in frozen_attention the model but for "
        "its attention patterns, in free all of the model (default: constrained)",
    )
    parser.add_argument(
        "--until-layer",
        type=int,
        metavar="LAYER",
        help="with mode constrained: the last layer that does not respond (default: none responds)",
    )
    parser.add_argument(
        "--generate", type=int, default=0, metavar="N", help="also continue the prompt by N tokens, without and with the change"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="with --generate: draw the tokens at this temperature, with the same draws for both (default: take the likeliest)",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="with --generate: draw from the K likeliest tokens (default: all)")
    parser.add_argument("--seed", type=int, metavar="SEED", help="with --generate: the seed of the draws (default: the spec's)")
    parser.add_argument(
        "--no-prediction", action="store_true", help="do not predict the effects; saves making the graph of the prompt"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def intervene_command(options):
    if (options.prompt is None) == (options.graph is None):
        raise CltdbError(
            "cltdb intervene",
            found=f"{both_or_neither(options.prompt)} of --prompt and --graph",
            expected="one",
            do="name one of them",
        )
    loaded = load_spec(options)
    graph = _graph_row(loaded.project.database, options.graph) if options.graph else None
    settings = [*options.feature, *_supernode_settings(loaded.project.database, options)]
    if not settings:
        raise CltdbError("cltdb intervene", found="nothing to set", expected="--feature or --supernode", do="add one")

    # What the spec or the words say wrong is said before these imports, which take three seconds.
    from cltdb.attribution.intervene import intervene
    from cltdb.attribution.prompts import prompt_slug
    from cltdb.database.stored_intervention import store_intervention
    from cltdb.engine.run import run
    from cltdb.model.source import made_model
    from cltdb.model.transcoder import load_dictionary
    from cltdb.train.trained import dict_id as dict_id_of

    experiment, prompt = loaded.experiment, graph["tokens"] if graph else options.prompt
    sampling = _sampling(options, experiment.seed)
    how = {
        "mode": options.mode,
        "until_layer": options.until_layer,
        "n_generated": options.generate,
        "constant_positions": experiment.attribute.constant_positions,
    }
    _check_intervention(loaded, graph, prompt, settings, how)
    results = {result.stage: result.directory for result in run(loaded, wanted=experiment.needed("train"))}
    lm = made_model(experiment, loaded.project, results[experiment.provider("model", before="train")])
    dict_id = dict_id_of(results["train"])
    if graph and graph["dict_id"] != dict_id:
        found = f"graph {options.graph} of {graph['dict_id']}"
        raise CltdbError(
            "cltdb intervene", found=found, expected=f"one of this spec's {dict_id}", do="cltdb sql --query graph_list"
        )
    dictionary = load_dictionary(results["train"], device=lm.device)
    outcome = intervene(lm, dictionary, prompt, settings, predict=not options.no_prediction, sampling=sampling, **how)
    intervention_id = store_intervention(
        loaded.project,
        outcome,
        name=graph["prompt_id"] if graph else prompt_slug(options.prompt),
        dict_id=dict_id,
        model_id=lm.model_id,
        prompt=graph["prompt"] if graph else options.prompt,
        graph_id=options.graph,
    )
    if options.json:
        output.say(output.json_text({"intervention_id": intervention_id, **outcome.to_dict()}))
    else:
        output.say(f"intervention {intervention_id}, {outcome}")


def _check_intervention(loaded, graph, prompt, settings, how):
    """Raises what can be known to be wrong with the request before the dictionary is made. graph: its row, None of a prompt; how: keywords of
    `intervene`."""
    from cltdb.attribution.intervene import DictionarySizes, check_request
    from cltdb.engine.plan import check, plan
    from cltdb.model.source import sizes_and_tokens
    from cltdb.train.trained import known_features

    planned = plan(loaded)
    train = next(item for item in planned if item.stage == "train")
    if graph and train.action == "run" and not str(graph["dict_id"]).endswith(train.key[:8]):
        found = f"graph {graph['graph_id']} of {graph['dict_id']}"
        expected = "one of this spec's dictionary, which is not made yet"
        raise CltdbError("cltdb intervene", found=found, expected=expected, do="cltdb sql --query graph_list")
    check(loaded, [item for item in planned if item.stage in ("activations", "train")])
    lm = sizes_and_tokens(loaded.experiment, loaded.project)
    sizes = DictionarySizes(lm.n_layers, known_features(loaded.experiment) or sys.maxsize, lm.d_model)
    check_request(lm, sizes, prompt, settings, **how)


def _sampling(options, seed):
    """The `Sampling` that options of `intervene` ask for, None where they ask for none; seed: the spec's."""
    from cltdb.replacement.continuation import Sampling

    given = {name: getattr(options, name) for name in Sampling._fields if getattr(options, name) is not None}
    if given and not options.generate:
        name = next(iter(given)).replace("_", "-")
        raise CltdbError(f"--{name}", found="no --generate", expected="the number of tokens to draw", do="add --generate N")
    if not given:
        return None
    sampling = Sampling(**{"seed": seed} | given)
    sampling.check()
    return sampling


def _graph_row(database, graph_id):
    from cltdb.database import api

    rows = api.open(database).sql("SELECT * FROM graphs WHERE graph_id = $graph_id", {"graph_id": graph_id}).to_dicts()
    if not rows:
        raise CltdbError("--graph", found=repr(graph_id), expected="a graph of the database", do="cltdb sql --query graph_list")
    return rows[0]


def _supernode_settings(database, options):
    """The settings of the features of the supernodes that `--supernode NAME=VALUE` names."""
    from cltdb.database import api

    if options.supernode and not options.graph:
        raise CltdbError(
            "--supernode", found="no --graph", expected="the graph whose supernodes are meant", do="add --graph GRAPH_ID"
        )
    settings = []
    for text in options.supernode:
        name, equals, value = text.rpartition("=")
        rows = api.open(database).query("supernode_features", graph_id=options.graph, name=name).to_dicts() if equals else []
        if not rows:
            where, do = "--supernode", f"cltdb sql \"SELECT name FROM supernodes WHERE graph_id = '{options.graph}'\" lists them"
            raise CltdbError(where, found=repr(text), expected="NAME=VALUE with the name of a supernode of the graph", do=do)
        settings += [f"{row['layer']}:{row['feature']}@{row['position']}={value}" for row in rows]
    return settings


COMMAND = Command(
    "set, scale or ablate features, and print what the model says before and after",
    'cltdb intervene experiments/quickstart.yaml --prompt "The capital of France is" --feature 1:20@-1=0',
    add_options,
    intervene_command,
)
