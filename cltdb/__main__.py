"""The command line: `cltdb COMMAND`. Parses, calls one function per command, prints; heavy imports only where they are used."""

import argparse
import errno
import json
import logging
import os
import signal
import sys
from pathlib import Path

from cltdb import __version__, output
from cltdb.errors import CltdbError, shown
from cltdb.interchange import FORMATS

GRAPH_JSON, FEATURE_JSON = "graph-json", "feature-json"
OPTIONS_OF = {
    **dict.fromkeys(FORMATS, ("model", "hook_normalized")),
    GRAPH_JSON: ("dictionary", "node_threshold", "edge_threshold", "scan", "overwrite"),
    FEATURE_JSON: ("scan", "packed"),
}
"""The options of import and export that formats have."""
EXAMPLES = """examples:
  cltdb run experiments/quickstart.yaml                 run what is missing, then fill the database
  cltdb plan experiments/quickstart.yaml --set 'train.l0=12'
  cltdb sql "SELECT layer, feature, text, score FROM feature_cards ORDER BY score DESC LIMIT 10"
  cltdb dash                                            browse features and circuits
"""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors have cltdb's one form."""

    def error(self, message):
        raise CltdbError(self.prog, found=message, expected="arguments as in its help", do=f"see {self.prog} --help")

    def _print_message(self, message, file=None):
        print(message, end="", file=file)  # argparse passes over a stream that does not take it


def _share(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return value


def _seconds(text):
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


def build_parser():
    parser = _Parser(
        prog="cltdb",
        description="Declarative experiments and a feature database for mechanistic interpretability.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"cltdb {__version__}", help="show cltdb's version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name, function, help_text, example):
        sub = commands.add_parser(
            name,
            help=help_text,
            description=help_text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(function=function)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        return sub

    def with_spec(sub):
        sub.add_argument("spec", help="a YAML file, such as experiments/quickstart.yaml")
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a key; the value is YAML, quoted for the shell",
        )
        sub.add_argument("--point", metavar="NAME", help="of a sweep, this point alone")
        return sub

    stage = {
        "metavar": "STAGE",
        "choices": ["model", "activations", "train", "evaluate", "harvest", "explain", "attribute", "database"],
    }
    sub = with_spec(
        command(
            "run",
            run_command,
            "run what is missing or changed",
            "cltdb run experiments/quickstart.yaml --set 'explain.scorers=[detection]'",
        )
    )
    sub.add_argument("--only", **stage, help="run this stage alone")
    sub.add_argument("--until", **stage, help="run up to and including this stage")
    sub.add_argument("--force", **stage, action="append", default=[], help="run this stage although it is finished")
    sub = with_spec(command("plan", plan_command, "what would run, and why", "cltdb plan experiments/quickstart.yaml"))
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.add_argument(
        "--measure",
        action="store_true",
        help="also load the model and time whether reading a cache back is cheaper than recomputing",
    )
    sub = command("status", status_command, "experiments and stages: done, running, failed, where", "cltdb status")
    sub.add_argument("spec", nargs="?", help="only this spec's experiment")
    sub = command("sql", sql_command, "read-only SQL on the database", "cltdb sql --query shared_features -p k=2 --format csv")
    sub.add_argument("statement", nargs="?", metavar="QUERY", help="one SQL statement")
    sub.add_argument("--query", metavar="NAME", help="a named query that ships with cltdb")
    sub.add_argument(
        "-p",
        action="append",
        default=[],
        dest="parameters",
        metavar="KEY=VALUE",
        help="a parameter of the query; the value is YAML",
    )
    sub.add_argument("--list", action="store_true", help="list the named queries")
    sub.add_argument("--format", choices=["table", "csv", "json", "parquet"], help="default: table on a terminal, csv in a pipe")
    sub.add_argument("-o", dest="output", metavar="FILE", help="write to a new file")
    sub.add_argument(
        "--overwrite", action="store_true", help="write over a file that is there; never over the database or a spec"
    )
    sub.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="end the query after so long (default: no limit)")
    sub = with_spec(
        command(
            "attribute",
            attribute_command,
            "one attribution graph now, into the database",
            'cltdb attribute experiments/quickstart.yaml --prompt "The capital of Spain is"',
        )
    )
    sub.add_argument("--prompt", required=True, metavar="TEXT", help="the prompt; BOS is put in front")
    sub.add_argument(
        "--target",
        action="append",
        metavar="TOKEN",
        help="the token to explain, instead of the likeliest ones; again for several",
    )
    sub.add_argument(
        "--weight",
        action="append",
        type=float,
        metavar="W",
        help="the weight of each --target, in their order (default probabilities)",
    )
    sub.add_argument("--foil", metavar="TOKEN", help="with one --target: explain the difference of the two logits")
    sub.add_argument(
        "--position", type=int, metavar="POS", help="where it is read: 1, 2, …, or negative from the end (default the end)"
    )
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = with_spec(
        command(
            "intervene",
            intervene_command,
            "set, scale or ablate features; prints before and after",
            'cltdb intervene experiments/quickstart.yaml --prompt "The capital of France is" --feature 1:20@-1=0',
        )
    )
    sub.add_argument("--prompt", metavar="TEXT", help="the prompt; BOS is put in front")
    sub.add_argument(
        "--graph", metavar="GRAPH_ID", help="instead of --prompt: the prompt of a graph, whose supernodes can be named"
    )
    sub.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="LAYER:FEATURE@POS=VALUE",
        help="=0 ablates, =2.5 sets, =x2 scales; POS may be negative, * or a slice such as 2:5, -3: or :4",
    )
    sub.add_argument(
        "--supernode",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="all features of a supernode of --graph, values as above",
    )
    sub.add_argument(
        "--mode",
        choices=["constrained", "iterative", "free", "frozen_attention"],
        default="constrained",
        help="how later layers respond (default constrained)",
    )
    sub.add_argument(
        "--until-layer", type=int, metavar="LAYER", help="in mode constrained, the last layer that holds (default all)"
    )
    sub.add_argument(
        "--generate", type=int, default=0, metavar="N", help="also the N likeliest tokens that follow, without and with"
    )
    sub.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="with --generate: draw the tokens at this temperature, the same draws for both",
    )
    sub.add_argument("--top-k", type=int, metavar="K", help="with --generate: draw from the K likeliest tokens (default all)")
    sub.add_argument("--seed", type=int, metavar="SEED", help="with --generate: the seed of the draws (default the spec's)")
    sub.add_argument(
        "--no-prediction", action="store_true", help="do not make the graph of the prompt, which predicts the effects"
    )
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = command("search", search_command, "find features by what they mean", "cltdb search capital")
    sub.add_argument("text", help="words of an explanation")
    sub.add_argument("--limit", type=int, default=20)
    sub = command("dash", dash_command, "browse features and circuits", "cltdb dash --port 8050")
    sub.add_argument("--host", default="127.0.0.1")
    sub.add_argument("--port", type=int, default=8050)
    sub.add_argument(
        "--prefix", default="/", metavar="PATH", help="the path under which a proxy shows the pages, such as /cltdb/ (default /)"
    )
    sub = command("db", db_command, "the database: rebuild from artifacts, check, export as Parquet", "cltdb db check")
    sub.add_argument("action", choices=["rebuild", "check", "export"])
    sub.add_argument("-o", dest="output", metavar="FOLDER", help="where export writes")
    sub.add_argument("--artifacts", action="store_true", help="check: also every byte of all artifacts and of the database")
    sub = command(
        "import",
        import_command,
        "a dictionary of another tool as one of cltdb's, or an attribution graph into the database",
        "cltdb import circuit-tracer hf://mntss/clt-gemma-2-2b-426k -o dictionaries/gemma\n"
        "  cltdb import graph-json dallas.json --dictionary gemma-clt-0123abcd",
    )
    sub.add_argument("format", choices=[*FORMATS, GRAPH_JSON])
    sub.add_argument("path", help="a folder, or hf://owner/name[@revision][/folder]; of graph-json a file")
    sub.add_argument("-o", dest="output", metavar="FOLDER", help="where to write a dictionary; must not be there yet")
    sub.add_argument("--model", metavar="MODEL", help="a dictionary: the model it is of, which is loaded to check that it fits")
    sub.add_argument(
        "--hook-normalized",
        choices=["after", "before"],
        help="a dictionary that reads ln2.hook_normalized: whether that lies after or before the norm's gain and bias",
    )
    sub.add_argument("--dictionary", metavar="DICT_ID", help="graph-json: the dictionary the features are of")
    sub = command(
        "export",
        export_command,
        "a dictionary, its features or attribution graphs in the format of another tool",
        "cltdb export circuit-tracer quickstart-clt-0123abcd -o for-circuit-tracer\n"
        "  cltdb export graph-json france-0123abcd spain-4567cdef -o graphs\n"
        "  cltdb export feature-json quickstart-clt-0123abcd -o graphs",
    )
    sub.add_argument("format", choices=[*FORMATS, GRAPH_JSON, FEATURE_JSON])
    sub.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a dict_id of the database or the folder of a dictionary; of graph-json graph_ids",
    )
    sub.add_argument(
        "-o", dest="output", metavar="FOLDER", required=True, help="where to write; of a dictionary it must not be there yet"
    )
    sub.add_argument("--node-threshold", type=_share, metavar="SHARE", help="graph-json: influence the nodes keep (default 0.8)")
    sub.add_argument("--edge-threshold", type=_share, metavar="SHARE", help="graph-json: influence the edges keep (default 0.98)")
    sub.add_argument("--scan", metavar="NAME", help="graph-json, feature-json: the model's name there (default its id)")
    sub.add_argument(
        "--hook-normalized",
        choices=["after"],
        help="clt-forge: of a LayerNorm model, for TransformerLens before 3.0, whose ln2.hook_normalized is the MLP's input",
    )
    sub.add_argument("--overwrite", action="store_true", default=None, help="graph-json: also over files of other programs")
    sub.add_argument("--packed", action="store_true", default=None, help="feature-json: one file per layer, as on the Hub")
    sub = command("init", init_command, "a new commented spec", "cltdb init my-experiment --template gpt2")
    sub.add_argument("name")
    sub.add_argument("--template", choices=["quickstart", "gpt2", "llama", "gemma", "qwen"], default="quickstart")
    command("doctor", doctor_command, "check this machine", "cltdb doctor")
    sub = command("gc", gc_command, "remove artifacts nothing refers to (dry run unless --yes)", "cltdb gc --yes")
    sub.add_argument("--yes", action="store_true", help="really remove them")
    return parser


def main(arguments=None):
    """Runs one command; returns the exit status: 0 ok, 1 error, 130 interrupted."""
    from cltdb import log
    from cltdb.engine import revisions

    output.prepare_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser()
    try:
        _check_place(arguments)
        options = parser.parse_args(arguments or ["--help"])
    except SystemExit:  # help or the version was asked for and printed
        return _ended()
    except BrokenPipeError:
        output.silence(sys.stdout)
        return 0
    except OSError as error:
        return _failed(output.refused(error))
    except CltdbError as error:
        return _failed(error)
    if options.command == "run":
        log.setup(debug=options.debug, stream=sys.stdout)
    else:  # stdout is the answer, and the first line on stderr the error
        log.setup(debug=options.debug, level=logging.WARNING)
    try:
        with revisions.asked_once():
            status = options.function(options)
        return _ended() or status or 0
    except KeyboardInterrupt:
        print("interrupted; run again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        output.silence(sys.stdout)
        return 0
    except CltdbError as error:
        if options.debug:
            raise
        return _failed(error)
    except Exception as error:
        if options.debug:
            raise
        return _failed(_unforeseen(error, options.command))


def _check_place(arguments):
    """CltdbError for a command line that no command could work with."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise CltdbError(
            "the working directory", found="a folder that was removed", expected="one that is there", do="change to another one"
        ) from error
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            raise CltdbError(
                f"the argument {ascii(argument)}",
                found=f"bytes that are no text in {sys.getfilesystemencoding()}",
                expected="text in the encoding of the terminal",
                do="write it anew in a terminal that uses UTF-8, or rename the file it names",
            )


def _ended():
    """The exit status once what was printed is written out: 1 where stdout did not take it."""
    try:
        output.finish_streams()
    except BrokenPipeError:
        output.silence(sys.stdout)
    except CltdbError as error:
        return _failed(error)
    return 0


def _failed(error):
    """Prints the one line of an error; returns the exit status."""
    try:
        sys.stdout.flush()
    except OSError:  # it takes no more, which may be what the error says
        output.silence(sys.stdout)
    print(f"error: {error}", file=sys.stderr)
    return 1


def _unforeseen(error, command):
    """The `CltdbError` to show for an exception that no command expected."""
    if (
        isinstance(error, OSError)
        and error.filename is None
        and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
    ):
        return output.refused(error)
    if isinstance(error, OSError) and error.filename is not None:
        return CltdbError(error.filename, found=error.strerror, expected="a path that can be used", do="mend it or give another")
    from cltdb.memory import ran_out

    return ran_out(error, f"cltdb {command}") or CltdbError(
        f"cltdb {command}",
        found=f"{type(error).__name__} ({' '.join(str(error).split())[:300]})",
        expected="no such failure",
        do="run again with --debug and report the traceback, finished artifacts are kept",
    )


def _load(options, *, extra=()):
    from cltdb.engine.config import load

    return load(options.spec, overrides=[*options.set, *extra], point=options.point)


def _load_points(options):
    """The points of a sweep, or the one experiment; with --point that point alone."""
    from cltdb.engine.config import load_points

    return [_load(options)] if options.point else load_points(options.spec, overrides=options.set)


def _project():
    from cltdb.engine.config import find_project

    return find_project(Path.cwd())


def _database():
    return _project().database


def run_command(options):
    from cltdb.engine import run as runner

    points = _load_points(options)
    choice = {"only": options.only, "until": options.until, "force": options.force}
    if len(points) > 1:
        return _show_points(runner.run_points(points, **choice))
    [loaded] = points
    results = runner.run(loaded, **choice)
    root = loaded.project.root
    output.say(f"{'stage':<12} {'':<7} {'seconds':>8}  artifact")
    for result in results:
        output.say(
            f"{result.stage:<12} {result.action:<7} {result.seconds:>8.1f}  {_shown(result.directory, root) if result.directory else 'not needed'}"
        )
    if any(result.stage == "database" for result in results):
        from cltdb.results import headlines

        output.say("", *headlines({result.stage: result.directory for result in results}))
        output.say(
            f"\ndatabase: {_shown(loaded.project.database, root)}\nnext:",
            '  cltdb sql "SELECT layer, feature, text, score FROM feature_cards ORDER BY score DESC LIMIT 20"',
            "  cltdb sql --list                 # named queries",
            "  cltdb search capital             # features by what they mean",
            "  cltdb dash                       # browse features and circuits",
        )


def _show_points(results):
    """Prints what became of the points of a sweep, and a line on stderr for each that failed; returns the exit status."""
    from cltdb.results import comparison

    project, sweep = results[0].loaded.project, results[0].loaded.sweep
    output.say("", *comparison(results))
    if any(stage.stage == "database" for result in results for stage in result.stages):
        output.say(
            f"\ndatabase: {_shown(project.database, project.root)}\nnext:\n"
            f"  cltdb sql --query frontier -p sweep={sweep}\n"
            "  cltdb dash                       # page Frontier: FVU against L0"
        )
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"error: {result.loaded.experiment.name}: {result.error}", file=sys.stderr)
    return 1 if failed else 0


def _shown(path, root):
    return os.path.relpath(path, Path.cwd()) if Path(path).is_relative_to(root) else str(path)


def plan_command(options):
    from cltdb.engine import run as runner

    plans = runner.plan_points(_load_points(options))
    for loaded, planned in plans:
        runner.check(loaded, [item for item in planned if item.stage == "activations" or item.action == "cached"])
        for item in planned:
            runner.check_launch(item.stage, loaded)
    records = runner.records_in_order(plans[0][0].project)
    facts, durations = (
        _estimates(plans, measure=options.measure),
        [runner.durations(loaded, planned, records) for loaded, planned in plans],
    )
    if options.json:
        print(
            json.dumps(
                [
                    ({"point": loaded.experiment.name} if len(plans) > 1 else {})
                    | {"stage": item.stage, "action": item.action, "reason": item.reason, "key": item.key or None}
                    | (facts[item.key].keys() if item.key in facts else {})
                    | ({"seconds": round(times[item.stage].seconds, 1)} if item.stage in times else {})
                    for (loaded, planned), times in zip(plans, durations, strict=True)
                    for item in planned
                ],
                indent=1,
            )
        )
        return
    for (loaded, planned), times in zip(plans, durations, strict=True):
        if len(plans) > 1:
            print(f"# {loaded.experiment.name}")
        for item in planned:
            notes = [facts[item.key].text] if item.key in facts and item.action == "run" else []
            notes += [times[item.stage].text] if item.stage in times else []
            print("\t".join([item.stage, item.action, "; ".join([item.reason, *notes])]))


def _estimates(plans, *, measure):
    """{key: Estimate} of every cache that would be written, where the model is on this machine."""
    from cltdb.stages import cache_estimate

    found = {
        item.key: cache_estimate(loaded.experiment, loaded.project, measure=measure)
        for loaded, planned in plans
        for item in planned
        if item.stage == "activations" and item.action == "run"
    }
    return {key: estimate for key, estimate in found.items() if estimate is not None}


def status_command(options):
    from cltdb.engine import config
    from cltdb.engine import run as runner
    from cltdb.engine.workspace import Workspace

    points = config.load_points(options.spec) if options.spec else []
    project = points[0].project if points else config.find_project(Path.cwd())
    wanted = {loaded.experiment.name for loaded in points}
    workspace = Workspace(project.workspace)
    latest = {}
    for record in sorted(runner.mark_killed(workspace), key=lambda record: record["started_at"]):
        known = latest.get((record["experiment"], record["stage"]))
        only_linked = record["run_id"].endswith("-cached") and known and known["key"] == record["key"]
        if (not wanted or record["experiment"] in wanted) and not only_linked:
            latest[record["experiment"], record["stage"]] = record
    if not latest:
        print("nothing has run yet; start with: cltdb run experiments/quickstart.yaml")
        return
    width = max([20, *(len(experiment) for experiment, _ in latest)])
    print(f"{'experiment':<{width}} {'stage':<12} {'status':<8} {'seconds':>8}  artifact or reason")
    for (experiment, stage), record in latest.items():
        where = workspace.artifact(stage, record["key"]) if record["status"] == "done" else record["error"] or ""
        seconds = "" if record["seconds"] is None else f"{record['seconds']:.1f}"
        print(f"{experiment:<{width}} {stage:<12} {record['status']:<8} {seconds:>8}  {where}")


def sql_command(options):
    from cltdb.database import sql_command as sql

    if options.list:
        for name, about in sql.list_queries():
            print(f"{name:<32} {about}")
        return
    if (options.statement is None) == (options.query is None):
        raise CltdbError(
            "cltdb sql",
            found="both or neither of QUERY and --query",
            expected="one of them",
            do='write cltdb sql "SELECT …" or cltdb sql --query NAME',
        )
    project = _project()
    if options.output:
        output.check_target(options.output, project=project, overwrite=options.overwrite)
    statement = sql.named_query(options.query) if options.query else options.statement
    _end_at_sigterm()
    sql.run_query(
        project.database,
        statement,
        params=_parameters(options.parameters),
        format=options.format or ("table" if sys.stdout.isatty() and not options.output else "csv"),
        output=options.output,
        timeout_s=options.timeout,
    )


def _end_at_sigterm():
    """SIGTERM ends this process as an error would, so that temporary files are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _parameters(pairs):
    from cltdb.engine.config import read_pair

    parameters = {}
    for pair in pairs:
        name, value = read_pair(pair, option="-p", example="k=2")
        if name in parameters:
            raise CltdbError(f"cltdb sql -p {name}", found="the parameter twice", expected="each once", do="leave one out")
        parameters[name] = value
    return parameters


def attribute_command(options):
    from cltdb.database import api
    from cltdb.engine import run as runner

    prompt = json.dumps([_asked(options)], ensure_ascii=False).replace("${", "$${")
    loaded = _load(options, extra=[f"attribute.prompts={prompt}"])
    results = runner.run(
        loaded,
        wanted={"model", "activations", "train", "attribute", "database"}
        if _has_all(loaded)
        else {"model", "activations", "train", "attribute"},
    )
    directory = next(result.directory for result in results if result.stage == "attribute")
    from cltdb.database import load

    load.load_artifact(loaded.project.database, key=directory.name, directory=directory)
    runner.publish_records(loaded.project)
    database = api.open(loaded.project.database)
    graph_id = next((directory / "tables/graphs").glob("*.parquet")).stem
    info = database.sql("SELECT * FROM graphs WHERE graph_id = $graph_id", {"graph_id": graph_id}).to_dicts()[0]
    paths = database.strongest_paths(graph_id)
    if options.json:
        output.say(output.json_text({**info, "strongest_paths": paths.to_dicts()}))
        return
    output.say(
        f"graph {graph_id}: {info['n_nodes']} nodes, {info['n_edges']} edges, "
        f"replacement {info['replacement_score']:.3f}, completeness {info['completeness_score']:.3f}\n"
        "influence of a token or error by all its paths, and its strongest path with that path's strength:",
        "  influence  strength  path",
        *(f"  {row['influence']:>9.4f}  {row['strength']:>8.4f}  {row['path']}" for row in paths.to_dicts()),
    )


def _asked(options):
    """What the options of `attribute` ask for, as a prompt of a spec."""
    targets, weights = options.target or [], options.weight or []
    if weights and len(weights) != len(targets):
        found, expected = f"{len(weights)} for {len(targets)} targets", "one for each --target, in their order"
        raise CltdbError("--weight", found=found, expected=expected, do="add or drop some")
    if len(set(targets)) < len(targets):
        raise CltdbError("--target", found=", ".join(map(repr, targets)), expected="each token once", do="drop one")
    if options.foil is not None and (len(targets) != 1 or weights):
        found = f"{len(targets)} targets" + (" with weights" if weights else "")
        raise CltdbError(
            "--foil", found=found, expected="one --target, without a weight", do="name the token that it stands against"
        )
    target = dict(zip(targets, weights, strict=True)) if weights else targets[0] if len(targets) == 1 else targets
    asked = {"text": options.prompt, "target": target or None, "foil": options.foil, "position": options.position}
    return {name: value for name, value in asked.items() if value is not None}


def _has_all(loaded):
    """True where the experiment's other stages are finished, so that its database stage can be brought up to date too."""
    from cltdb.engine import run as runner

    return all(item.action == "cached" for item in runner.plan(loaded) if item.stage not in ("attribute", "database"))


def intervene_command(options):
    from cltdb.attribution.intervene import intervene
    from cltdb.database.stored_intervention import store_intervention
    from cltdb.engine import run as runner
    from cltdb.engine.integrity import checked
    from cltdb.engine.workspace import read_json
    from cltdb.model.transcoder import load_dictionary
    from cltdb.stages import check_same_model, load_experiment_model, prompt_slug

    if (options.prompt is None) == (options.graph is None):
        raise CltdbError(
            "cltdb intervene", found="both or neither of --prompt and --graph", expected="one", do="name one of them"
        )
    loaded = _load(options)
    graph = _graph_row(loaded.project.database, options.graph) if options.graph else None
    settings = [*options.feature, *_supernode_settings(loaded.project.database, options)]
    if not settings:
        raise CltdbError("cltdb intervene", found="nothing to set", expected="--feature or --supernode", do="add one")
    _check_intervention(options, loaded, graph, settings)
    results = {result.stage: result.directory for result in runner.run(loaded, until="train")}
    lm, dict_id = (
        load_experiment_model(loaded.experiment, loaded.project),
        read_json(checked(results["train"] / "dictionary.json"))["dict_id"],
    )
    check_same_model(lm, results["model"])
    if graph and graph["dict_id"] != dict_id:
        found = f"graph {options.graph} of {graph['dict_id']}"
        raise CltdbError(
            "cltdb intervene", found=found, expected=f"one of this spec's {dict_id}", do="cltdb sql --query graph_list"
        )
    outcome = intervene(
        lm,
        load_dictionary(results["train"], device=lm.device),
        graph["tokens"] if graph else options.prompt,
        settings,
        mode=options.mode,
        until_layer=options.until_layer,
        predict=not options.no_prediction,
        n_generated=options.generate,
        sampling=_sampling(options, loaded.experiment.seed),
        constant_positions=loaded.experiment.attribute.constant_positions,
    )
    intervention_id = store_intervention(
        loaded.project,
        outcome,
        name=graph["prompt_id"] if graph else prompt_slug(options.prompt),
        dict_id=dict_id,
        model_id=loaded.experiment.model.id,
        prompt=graph["prompt"] if graph else options.prompt,
        graph_id=options.graph,
    )
    if options.json:
        output.say(output.json_text({"intervention_id": intervention_id, **outcome.to_dict()}))
    else:
        output.say(f"intervention {intervention_id}, {outcome}")


def _check_intervention(options, loaded, graph, settings):
    """Raises what can be known to be wrong with the request before the dictionary is made."""
    from cltdb.attribution.intervene import DictionarySizes, check_request
    from cltdb.engine import run as runner
    from cltdb.stages import known_features, sizes_and_tokens

    planned = runner.plan(loaded)
    train = next(item for item in planned if item.stage == "train")
    if graph and train.action == "run" and not str(graph["dict_id"]).endswith(train.key[:8]):
        found = f"graph {options.graph} of {graph['dict_id']}"
        expected = "one of this spec's dictionary, which is not made yet"
        raise CltdbError("cltdb intervene", found=found, expected=expected, do="cltdb sql --query graph_list")
    runner.check(loaded, [item for item in planned if item.stage in ("activations", "train")])
    lm = sizes_and_tokens(loaded.experiment, loaded.project)
    check_request(
        lm,
        DictionarySizes(lm.n_layers, known_features(loaded.experiment) or sys.maxsize, lm.d_model),
        graph["tokens"] if graph else options.prompt,
        settings,
        mode=options.mode,
        until_layer=options.until_layer,
        n_generated=options.generate,
        sampling=_sampling(options, loaded.experiment.seed),
        constant_positions=loaded.experiment.attribute.constant_positions,
    )


def _sampling(options, seed):
    """The `Sampling` that options of `intervene` ask for, None where they ask for none; seed: the spec's."""
    from cltdb.replacement.responses import Sampling

    given = {name: getattr(options, name) for name in Sampling._fields if getattr(options, name) is not None}
    if given and not options.generate:
        name = next(iter(given)).replace("_", "-")
        raise CltdbError(f"--{name}", found="no --generate", expected="the number of tokens to draw", do="add --generate N")
    return Sampling(**{"seed": seed} | given) if given else None


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


def search_command(options):
    from cltdb.database import sql_command as sql

    _end_at_sigterm()
    sql.run_query(_database(), sql.named_query("feature_search"), params={"text": options.text, "limit": options.limit})


def dash_command(options):
    from dashboards.app import serve

    serve(_database(), options.host, options.port, prefix=options.prefix)


def db_command(options):
    from cltdb.database import load
    from cltdb.engine import config

    project = config.find_project(Path.cwd())
    if options.action == "rebuild":
        _rebuild(project)
    elif options.action == "check":
        _check(project, artifacts=options.artifacts)
    else:
        if not options.output:
            raise CltdbError("cltdb db export", found="no -o FOLDER", expected="a folder to write to", do="add -o FOLDER")
        output.check_folder(options.output, project=project)
        load.export(project.database, options.output)
        output.say(f"exported to {options.output}")


def _rebuild(project):
    from cltdb.engine import run as runner

    damaged = runner.rebuild_database(project)
    output.say(f"rebuilt {project.database}")
    if damaged:
        output.say(*(f"without: {error}" for error in damaged[1:]))
        raise damaged[0]


def _check(project, *, artifacts):
    """Prints what is wrong with the database and, where `artifacts` are asked for, with every file in the workspace."""
    from cltdb.database import load
    from cltdb.engine import run as runner

    if artifacts:
        damaged, n_unknown = [str(error) for error in runner.damage(project)], runner.count_unhashed(project)
        print(*damaged, sep="\n", end="\n" if damaged else "")
        if n_unknown:
            print(f"not checked: {n_unknown} artifacts of an earlier cltdb, which have no hashes")
        if damaged:
            raise CltdbError(
                str(project.workspace),
                found=f"{len(damaged)} damaged files, listed above",
                expected="none",
                do="do what each line says",
            )
        load.read_all(project.database)
    problems = load.check(project.database, artifacts=runner.loadable_artifacts(project))
    print("\n".join(problems) or "no problems")
    if problems:
        raise CltdbError(
            str(project.database), found=f"{len(problems)} problems, listed above", expected="none", do="run cltdb db rebuild"
        )


def import_command(options):
    _refuse_other_options(options)
    if options.format == GRAPH_JSON:
        return _import_graph(options)
    if options.output is None:
        raise CltdbError("cltdb import", found="no -o FOLDER", expected="a folder to write to", do="add -o FOLDER")
    from cltdb.interchange import local_copy, published_parts

    _new_folder(options.output)
    dictionary = published_parts(options.format, local_copy(options.path, root=Path.cwd(), where="cltdb import"))
    if options.model:
        dictionary = _fitted(dictionary, options.model, options.hook_normalized)
    elif options.hook_normalized:
        from cltdb.interchange.hook_points import named_after

        dictionary = named_after(dictionary, options.hook_normalized)
    dictionary.save(options.output)
    output.say(f"wrote {options.output}: {_size_of(dictionary)}")


def _fitted(dictionary, model, hook_normalized):
    """The dictionary as the model of this name or folder needs it."""
    from cltdb.interchange.hook_points import fitted
    from cltdb.model.language_model import load_model

    mlp_input, name = dictionary.info.get("mlp_input", "normed"), dictionary.info.get("model_id")
    lm = load_model(model, device="cpu", mlp_input=mlp_input, model_id=name if Path(model).is_dir() else None)
    return fitted(dictionary, lm, hook_normalized=hook_normalized)


def _import_graph(options):
    from cltdb.database.api import open as open_database
    from cltdb.engine.config import find_project
    from cltdb.interchange.graph_import import import_graph

    if options.output is not None:
        raise CltdbError(
            "cltdb import graph-json", found="-o", expected="none: it goes into the workspace and the database", do="leave it out"
        )
    project = find_project(Path.cwd())
    graph_id = import_graph(options.path, project, dictionary=options.dictionary)
    [row] = open_database(project.database).graphs().filter(graph_id=graph_id).to_dicts()
    output.say(f"graph {graph_id}: {row['n_nodes']} nodes, {row['n_edges']} edges, dictionary {row['dict_id'] or 'unknown'}")


def export_command(options):
    _refuse_other_options(options)
    output.check_folder(options.output, project=_project())
    if options.format == GRAPH_JSON:
        return _export_graphs(options)
    if len(options.names) > 1:
        raise CltdbError(
            "cltdb export", found=f"{len(options.names)} names", expected="one dictionary", do="export them one by one"
        )
    if options.format == FEATURE_JSON:
        from cltdb.interchange.feature_json import export_dictionary

        n_features = export_dictionary(
            _database(), options.names[0], options.output, scan=options.scan, packed=bool(options.packed)
        )
        output.say(f"wrote {n_features} features into {options.output}")
        return
    from cltdb.interchange import save_published
    from cltdb.model.transcoder import load_dictionary

    choices = {} if options.hook_normalized is None else {"hook_normalized": options.hook_normalized}
    if choices and options.format != "clt-forge":
        raise CltdbError(
            f"cltdb export {options.format}",
            found="--hook-normalized",
            expected="none: its files name mlp.hook_in, which means one thing",
            do="leave it out",
        )
    _new_folder(options.output)
    dictionary = load_dictionary(_dictionary_folder(options.names[0]))
    save_published(dictionary, options.format, options.output, **choices)
    output.say(f"wrote {options.output}: {_size_of(dictionary)}")


def _export_graphs(options):
    from cltdb.interchange.feature_json import write_graph_features
    from cltdb.interchange.graph_json import read_graph, write_graph

    given = {"node_threshold": options.node_threshold, "edge_threshold": options.edge_threshold}
    shares = {"node_threshold": 0.8, "edge_threshold": 0.98} | {name: value for name, value in given.items() if value is not None}
    for graph_id in options.names:
        graph = read_graph(_database(), graph_id, **shares)
        path = write_graph(graph, options.output, scan=options.scan, overwrite=bool(options.overwrite))
        n_features = write_graph_features(_database(), graph, options.output, scan=options.scan)
        kept = graph.pruned
        output.say(f"wrote {path}: {kept.nodes.height} nodes, {kept.edges.height} edges, {n_features} features")


def _refuse_other_options(options):
    every = {name for names in OPTIONS_OF.values() for name in names}
    for name in sorted(every - set(OPTIONS_OF.get(options.format, ()))):
        if getattr(options, name, None) is not None:
            raise CltdbError(
                f"cltdb {options.command} {options.format}",
                found=f"--{name.replace('_', '-')}",
                expected="none of the options of another format",
                do="leave it out",
            )


def _new_folder(path):
    output.check_folder(path, project=_project())
    if Path(path).exists():
        raise CltdbError(
            str(path), found="a file or folder of that name", expected="a new one", do="choose another, or remove it"
        )


def _dictionary_folder(name):
    """The folder of a dictionary given by its path or by its id in the project's database."""
    from cltdb.database.api import open as open_database
    from cltdb.engine import config

    if (Path(name) / "dictionary.json").is_file():
        return Path(name)
    found = {row["dict_id"]: row["path"] for row in open_database(_database()).dictionaries().to_dicts()}
    if name not in found:
        raise CltdbError(
            "cltdb export",
            found=repr(name),
            expected=f"a folder with dictionary.json, or one of {', '.join(found) or 'no dictionary yet'}",
            do="list them with: cltdb sql 'SELECT dict_id FROM dictionaries'",
        )
    return config.find_project(Path.cwd()).workspace / found[name]


def _size_of(dictionary):
    return f"{dictionary.kind}, {dictionary.n_layers} layers of {dictionary.n_features} features, d_model {dictionary.d_model}"


def init_command(options):
    import re
    from importlib.resources import files

    from cltdb.engine.section import MAX_NAME, NAME
    from cltdb.engine.yaml_text import commented
    from cltdb.spec import docstring

    try:
        template = files("cltdb.experiments") / f"{options.template}.yaml"
    except ModuleNotFoundError:  # a source checkout, where the folder stands beside the package
        template = Path(__file__).parent.parent / "experiments" / f"{options.template}.yaml"
    if not re.fullmatch(NAME, options.name) or len(options.name) > MAX_NAME:
        raise CltdbError(
            "cltdb init",
            found=f"the name {shown(options.name)}",
            expected=f"letters, digits, dot, dash, underscore, at most {MAX_NAME} characters",
            do="choose such a name",
        )
    target = Path("experiments") / f"{options.name}.yaml"
    if target.exists():
        raise CltdbError(str(target), found="a spec of that name", expected="a new name", do="choose another or remove it")
    text = commented(template.read_text(encoding="utf-8"), docstring)
    text = re.sub(r"^name: .*$", f'name: "{options.name}"', text, count=1, flags=re.MULTILINE)
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    output.say(f"wrote {target}")
    if not Path("cltdb.yaml").exists():
        Path("cltdb.yaml").write_text(
            "# The project: where things are, and defaults that every experiment inherits.\nworkspace: artifacts\ndatabase: {path: cltdb.duckdb}\n",
            encoding="utf-8",
        )
        output.say("wrote cltdb.yaml")
    output.say(f"next: cltdb plan {target}")


def doctor_command(options):
    from cltdb.doctor import checks

    bad = 0
    for name, ok, detail in checks():
        bad += not ok
        print(f"{'ok ' if ok else 'BAD'}  {name:<14} {detail}")
    if bad:
        raise CltdbError("cltdb doctor", found=f"{bad} problems, marked BAD above", expected="none", do="mend them")


def gc_command(options):
    from cltdb.engine import config
    from cltdb.engine import run as runner

    unwanted, units = runner.collect_garbage(config.find_project(Path.cwd()), delete=options.yes)
    for directory in unwanted:
        print(("removed " if options.yes else "would remove ") + str(directory))
    found = f"{len(unwanted)} artifacts" + (f", {len(units)} units (replies, explanations, scores, graphs)" if units else "")
    print(found + ("" if options.yes or not unwanted and not units else "; run with --yes to remove them"))


if __name__ == "__main__":
    sys.exit(main())
