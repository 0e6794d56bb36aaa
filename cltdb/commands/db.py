"""`cltdb db`: the database from artifacts, its integrity, the database as Parquet."""

from cltdb import output
from cltdb.commands.common import Command, add_commands, this_project
from cltdb.errors import CltdbError


def add_check_options(parser):
    parser.add_argument("--artifacts", action="store_true", help="also read every byte of the database and of all artifacts")


def add_export_options(parser):
    parser.add_argument("-o", dest="output", metavar="FOLDER", required=True, help="the folder to write to")


def rebuild_command(options):
    from cltdb.database.artifacts import rebuild_database

    project = this_project()
    damaged = rebuild_database(project)
    output.say(f"rebuilt {project.database}")
    if damaged:
        output.say(*(f"without: {error}" for error in damaged[1:]))
        raise damaged[0]


def check_command(options):
    """Prints what is wrong with the database and, with --artifacts, with every file in the workspace."""
    from cltdb.database import load
    from cltdb.database.artifacts import loadable_artifacts
    from cltdb.engine.upkeep import count_unhashed, damage
    from cltdb.stages import STAGES

    project = this_project()
    if options.artifacts:
        damaged, n_unknown = [str(error) for error in damage(project, STAGES)], count_unhashed(project)
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
    problems = load.check(project.database, artifacts=loadable_artifacts(project))
    print("\n".join(problems) or "no problems")
    if problems:
        raise CltdbError(
            str(project.database), found=f"{len(problems)} problems, listed above", expected="none", do="run cltdb db rebuild"
        )


def export_command(options):
    from cltdb.database import load

    project = this_project()
    output.check_folder(options.output, project=project)
    load.export(project.database, options.output)
    output.say(f"exported to {options.output}")


ACTIONS = {
    "rebuild": Command("make the database anew from all artifacts", "cltdb db rebuild", function=rebuild_command),
    "check": Command("say what is wrong with the database", "cltdb db check --artifacts", add_check_options, check_command),
    "export": Command(
        "write the database as partitioned Parquet files", "cltdb db export -o for-others", add_export_options, export_command
    ),
}
COMMAND = Command(
    "rebuild the database from artifacts, check it or export it",
    "cltdb db check",
    lambda parser: add_commands(parser, ACTIONS, dest="action", metavar="ACTION"),
)
