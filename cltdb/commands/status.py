"""`cltdb status`: what became of each experiment's stages."""

from cltdb.commands.common import Command, this_project


def add_options(parser):
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="show the experiments of this spec alone")


def status_command(options):
    from cltdb.engine.records import mark_killed
    from cltdb.engine.workspace import Workspace
    from cltdb.spec import load_points

    points = load_points(options.spec) if options.spec else []
    project = points[0].project if points else this_project()
    wanted = {loaded.experiment.name for loaded in points}
    workspace = Workspace(project.workspace)
    latest = {}
    for record in sorted(mark_killed(workspace), key=lambda record: record["started_at"]):
        known = latest.get((record["experiment"], record["stage"]))
        only_linked = record["run_id"].endswith("-cached") and known and known["key"] == record["key"]
        if (not wanted or record["experiment"] in wanted) and not only_linked:
            latest[record["experiment"], record["stage"]] = record
    if not latest:
        of = f" of {', '.join(sorted(wanted))}" if wanted else ""
        print(f"nothing{of} has run yet; start with: cltdb run {options.spec or 'SPEC'}")
        return
    width = max([20, *(len(experiment) for experiment, _ in latest)])
    print(f"{'experiment':<{width}} {'stage':<12} {'status':<8} {'seconds':>8}  artifact or reason")
    for (experiment, stage), record in latest.items():
        where = workspace.artifact(stage, record["key"]) if record["status"] == "done" else record["error"] or ""
        seconds = "" if record["seconds"] is None else f"{record['seconds']:.1f}"
        print(f"{experiment:<{width}} {stage:<12} {record['status']:<8} {seconds:>8}  {where}")


COMMAND = Command(
    "show which stages are done, running or failed, and where their artifacts are", "cltdb status", add_options, status_command
)
