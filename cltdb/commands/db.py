"""`cltdb db`: the database made anew, checked, exported, merged with those of other machines, brought up to date with the browser's users."""

from contextlib import contextmanager
from pathlib import Path

from cltdb import output
from cltdb.commands.common import Command, add_commands, this_project
from cltdb.errors import CltdbError


def add_check_options(parser):
    parser.add_argument(
        "--full",
        "--artifacts",
        action="store_true",
        help="also read every byte of the database and of all artifacts, and compare all rows with theirs",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="DATABASE",
        help="check this database file or exported folder, such as one of another machine, without a workspace beside it",
    )


def add_export_options(parser):
    parser.add_argument("-o", dest="output", metavar="FOLDER", required=True, help="the folder to write to")


def add_merge_options(parser):
    parser.add_argument("sources", nargs="+", metavar="DATABASE", help="a database file, or a folder that cltdb db export wrote")
    parser.add_argument(
        "-o",
        dest="output",
        metavar="FILE",
        required=True,
        help="the database to write, a new file, in a folder that is made where there is none",
    )
    parser.add_argument(
        "--despite-problems", action="store_true", help="write it although something is wrong with what was merged, which is said"
    )


def rebuild_command(options):
    from cltdb.database.artifacts import rebuild_database

    project = this_project()
    with _problems_listed():
        damaged = rebuild_database(project)
    output.say(f"rebuilt {project.database}, and checked it before it took its place")
    if damaged:
        output.say(*map(str, damaged[1:]))
        raise damaged[0]


@contextmanager
def _problems_listed():
    """Within the block, what is wrong with a database that was made is printed before the error."""
    from cltdb.database.problem import Unsound

    try:
        yield
    except Unsound as error:
        print("\n".join(error.problems))
        raise


def annotations_command(options):
    """What the browser starts after a change: only here does what users made there enter the database."""
    from cltdb.database.artifacts import save_annotations

    project = this_project()
    if not project.database.exists():
        do = "run `cltdb run SPEC` first, or `cltdb db rebuild`"
        raise CltdbError(str(project.database), found="no database", expected="a database file", do=do)
    written = save_annotations(project)
    output.say("brought annotations into the database" if written else "the database has all annotations")


def check_command(options):
    """Prints what is wrong with the database, and with records and files of its artifacts as far as sizes tell; with --full, with every file of
    the workspace."""
    from cltdb.annotations.log import all_events
    from cltdb.database.artifacts import loadable_artifacts, lost_artifacts, lost_records
    from cltdb.database.check import check, read_all
    from cltdb.engine import integrity
    from cltdb.engine.upkeep import damage_at_a_glance
    from cltdb.engine.workspace import Workspace

    if options.source:
        return _check_file(Path(options.source), full=options.full)
    project = this_project()
    damaged = _damaged_files(project) if options.full else []
    if options.full and not damaged:
        read_all(project.database)
    artifacts, without_rows = [] if damaged else loadable_artifacts(project), []
    if not options.full:
        with_rows = [place for _, place in artifacts if (place / "tables").is_dir()]
        damaged = [str(error) for error in damage_at_a_glance(project, with_rows)]
        rest = [place for *_, place in Workspace(project.workspace).artifacts() if place not in with_rows]
        without_rows = [str(error) for place in rest for error in integrity.gone(place)]
    events, faults = all_events(project.workspace)
    damaged += faults
    damaged += map(str, lost_artifacts(project))
    records = Workspace(project.workspace).whole_records()
    problems = damaged or check(project.database, artifacts=artifacts, events=events, **records, full=options.full)
    lost = [] if damaged else [str(problem) for problem in lost_records(project)]
    print("\n".join([*problems, *without_rows, *lost]) or "no problems")
    if problems or without_rows or lost:
        where, what, do = project.database, f"{len(problems)} problems", "do what a line says; of others, run cltdb db rebuild"
        if damaged or not problems and without_rows:
            where, what, do = project.workspace, f"{len(damaged) + len(without_rows)} damaged files", "do what each line says"
        elif not problems:
            where, what, do = project.workspace, "files that are gone", "restore them"
        raise CltdbError(str(where), found=f"{what}, listed above", expected="none", do=do)


def _check_file(path, *, full):
    """Prints what is wrong with a database, or an exported folder, as far as it tells by itself."""
    from cltdb.database.check import check, read_all

    if not path.exists():
        expected = "a database file, or a folder that cltdb db export wrote"
        raise CltdbError(str(path), found="nothing there", expected=expected, do="mend the path")
    damaged = _changed_files(path) if path.is_dir() else []
    if full and path.is_file():
        read_all(path)
    problems = damaged or check(path, full=full)
    print("\n".join(problems) or "no problems")
    if problems:
        do = "copy or export it again" if damaged else "run cltdb db rebuild where its artifacts are"
        what = "damaged files" if damaged else "problems"
        raise CltdbError(str(path), found=f"{len(problems)} {what}, listed above", expected="none", do=do)


def _changed_files(path):
    """A sentence on every file of an exported folder that is not as it was written."""
    from cltdb.database.folder import changed_files, is_current

    changed = changed_files(path)
    if not changed and not is_current(path):
        do = "`cltdb db merge` makes a database of it, and checks that; or export again"
        raise CltdbError(str(path), found="an export of an earlier cltdb", expected="all tables of this one", do=do)
    if changed is None:
        print("not checked: whether files are as they were written, of which an earlier cltdb kept no hashes")
    return changed or []


def _damaged_files(project):
    """A sentence on every file of the workspace that is not as it was written."""
    from cltdb.engine.upkeep import count_unhashed, damage
    from cltdb.stages import STAGES

    if n_unknown := count_unhashed(project):
        print(f"not checked: {n_unknown} artifacts of an earlier cltdb, which have no hashes")
    return [str(error) for error in damage(project, STAGES)]


def export_command(options):
    from cltdb.database.export import export

    project = this_project()
    output.check_folder(options.output, project=project)
    export(project.database, options.output)
    output.say(f"exported to {options.output}")


def merge_command(options):
    from cltdb.database.merge import merge

    output.check_target(options.output, project=this_project(), overwrite=None)
    with _problems_listed():
        n_artifacts, n_shared, problems = merge(options.sources, options.output, despite_problems=options.despite_problems)
    shared = f", {n_shared} of them in several" if n_shared else ""
    output.say(
        *problems,
        f"merged {len(options.sources)} databases with {n_artifacts} artifacts{shared}",
        f"ask it: cltdb sql --from {options.output}",
        *([f"it has {len(problems)} problems, listed above"] if problems else []),
    )


ACTIONS = {
    "rebuild": Command("make the database anew from all artifacts", "cltdb db rebuild", function=rebuild_command),
    "annotations": Command(
        "bring what users made in the browser into the database", "cltdb db annotations", function=annotations_command
    ),
    "check": Command("say what is wrong with the database", "cltdb db check --full", add_check_options, check_command),
    "export": Command(
        "write the database as partitioned Parquet files", "cltdb db export -o for-others", add_export_options, export_command
    ),
    "merge": Command(
        "make one database of those of several machines",
        "cltdb db merge gpu1.duckdb gpu2.duckdb -o all.duckdb",
        add_merge_options,
        merge_command,
    ),
}
COMMAND = Command(
    "rebuild the database from artifacts, check, export or merge it",
    "cltdb db check",
    lambda parser: add_commands(parser, ACTIONS, dest="action", metavar="ACTION"),
)
