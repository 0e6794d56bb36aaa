"""`cltdb run`: runs what is missing or changed, and says what came of it."""

import sys

from cltdb import output
from cltdb.commands.common import Command, add_spec, load_points, shown_path


class _StageNames:
    """The stages in order, read when a value is checked or the help is shown: the table of stages imports much."""

    def __iter__(self):
        from cltdb.stages import STAGES

        return iter(STAGES)


def add_options(parser):
    add_spec(parser)
    stage = {"metavar": "STAGE", "choices": _StageNames()}
    parser.add_argument("--only", **stage, help="run this stage alone: one of %(choices)s")
    parser.add_argument("--until", **stage, help="run the stages up to and including this one")
    parser.add_argument(
        "--force",
        **stage,
        action="append",
        default=[],
        help="run this stage again although it is finished; may stand several times",
    )


def run_command(options):
    from cltdb.engine.closing import headlines
    from cltdb.engine.run import run, run_points

    points = load_points(options)
    choice = {"only": options.only, "until": options.until, "force": options.force}
    if len(points) > 1:
        return _show_points(run_points(points, **choice))
    [loaded] = points
    results = run(loaded, **choice)
    root = loaded.project.root
    output.say(f"{'stage':<12} {'':<7} {'seconds':>8}  artifact")
    for result in results:
        where = shown_path(result.directory, root) if result.directory else "not needed"
        output.say(f"{result.stage:<12} {result.action:<7} {result.seconds:>8.1f}  {where}")
    if any(result.stage == "database" for result in results):
        output.say("", *headlines(loaded.experiment.stages, {result.stage: result.directory for result in results}))
        output.say(
            f"\ndatabase: {shown_path(loaded.project.database, root)}\nnext:",
            '  cltdb sql "SELECT layer, feature, text, score FROM feature_cards ORDER BY score DESC LIMIT 20"',
            "  cltdb sql --list                 # named queries",
            "  cltdb search capital             # features by what they mean",
            "  cltdb dash                       # browse features and circuits",
        )


def _show_points(results):
    """Prints what became of the points of a sweep, and a line on stderr for each that failed; returns the exit status."""
    from cltdb.engine.closing import comparison

    project, sweep = results[0].loaded.project, results[0].loaded.sweep
    output.say("", *comparison(results))
    if any(stage.stage == "database" for result in results for stage in result.stages):
        output.say(
            f"\ndatabase: {shown_path(project.database, project.root)}\nnext:\n"
            f"  cltdb sql --query frontier -p sweep={sweep}\n"
            "  cltdb dash                       # page Frontier: FVU against L0"
        )
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"error: {result.loaded.experiment.name}: {result.error}", file=sys.stderr)
    return 1 if failed else 0


COMMAND = Command(
    "run what is missing or changed",
    "cltdb run experiments/quickstart.yaml --set 'explain.scorers=[detection]'",
    add_options,
    run_command,
    tells=True,
)
