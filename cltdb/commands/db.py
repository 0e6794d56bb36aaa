"""`cltdb db`: the database from artifacts, its integrity, the database as Parquet."""

from cltdb import output
from cltdb.commands.common import Command, this_project
from cltdb.errors import CltdbError


def add_options(parser):
    parser.add_argument("action", choices=["rebuild", "check", "export"])
    parser.add_argument("-o", dest="output", metavar="FOLDER", help="where export writes")
    parser.add_argument("--artifacts", action="store_true", help="check: also every byte of all artifacts and of the database")


def db_command(options):
    from cltdb.database import load

    project = this_project()
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


COMMAND = Command("the database: rebuild from artifacts, check, export as Parquet", "cltdb db check", add_options, db_command)
