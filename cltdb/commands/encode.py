"""`cltdb encode`: what features do on a text of one's own."""

import sys

from cltdb import output
from cltdb.commands.common import Command, add_spec, load_spec
from cltdb.errors import CltdbError

MOST_FEATURES = 100


def add_options(parser):
    add_spec(parser)
    parser.add_argument("--text", required=True, metavar="TEXT", help="the text, without BOS, which is put in front of it")
    parser.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="LAYER:FEATURE",
        help="the activations of this feature at every token; may stand several times",
    )
    parser.add_argument(
        "--top", type=int, metavar="N", help="without --feature: the N strongest features at every token (default: 10)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def encode_command(options):
    from cltdb.activations.ordinary import excluded_ids
    from cltdb.engine.run import run
    from cltdb.harvest.encode import check_features, encode, parse_feature
    from cltdb.model.source import made_model, sizes_and_tokens
    from cltdb.train.trained import dict_id, dictionary_for, known_features

    if options.feature and options.top is not None:
        raise CltdbError("--top", found="--feature besides", expected="one of the two", do="leave one out")
    top = 10 if options.top is None else options.top
    if top < 1:
        raise CltdbError("--top", found=top, expected="1 or more", do="mend it")
    chosen = list(dict.fromkeys(map(parse_feature, options.feature)))
    if len(chosen) > MOST_FEATURES:
        raise CltdbError("--feature", found=f"{len(chosen)} features", expected=f"at most {MOST_FEATURES}", do="ask for fewer")
    loaded = load_spec(options)
    experiment = loaded.experiment
    standing = sizes_and_tokens(experiment, loaded.project)
    standing.prompt_tokens(options.text)
    check_features(chosen, n_layers=standing.n_layers, n_features=known_features(experiment) or sys.maxsize)
    results = {result.stage: result.directory for result in run(loaded, wanted=experiment.needed("train"))}
    lm = made_model(experiment, loaded.project, results[experiment.provider("model", before="train")])
    excluded = excluded_ids(lm, experiment.activations.exclude_tokens)
    found = encode(lm, dictionary_for(lm, results["train"]), options.text, chosen=chosen, top=top, excluded=excluded)
    if options.json:
        output.say(output.json_text({"dict_id": dict_id(results["train"]), "text": options.text, **found._asdict()}))
    else:
        output.say(*_lines(found))


def _lines(found):
    """A line per token: the activations of the features that were asked for, else its strongest ones."""
    names = [f"{one['layer']}:{one['feature']}" for one in found.features]
    columns = [[_value(value) for value in one["activations"]] for one in found.features]
    if not names:
        names = ["strongest features"]
        columns = [
            [
                ", ".join(f"{one['layer']}:{one['feature']} {one['activation']:.4g}" for one in row) or "–"
                for row in found.strongest
            ]
        ]
    strings = [repr(string)[1:-1] for string in found.strings]
    rows = [["position", "token", *names], *([str(i), *row] for i, row in enumerate(zip(strings, *columns, strict=True)))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _value(value):
    return "–" if value is None else f"{value:.4g}"


COMMAND = Command(
    "print where features fire on a text, or which features fire strongest at each of its tokens",
    'cltdb encode experiments/quickstart.yaml --text "The capital of France is Paris" --feature 0:26',
    add_options,
    encode_command,
)
