"""`cltdb dash`: the browser."""

from cltdb.commands.common import Command, add_source, asked_database, this_project


def add_options(parser):
    parser.add_argument("--host", default="127.0.0.1", help="the address to serve on (default 127.0.0.1: for this machine alone)")
    parser.add_argument("--port", type=int, default=8050, help="the port to serve on (default 8050)")
    parser.add_argument(
        "--prefix", default="/", metavar="PATH", help="the path under which a proxy shows the pages, such as /cltdb/ (default /)"
    )
    add_source(parser, "--database")


def dash_command(options):
    from cltdb.database.folder import reading
    from dashboards.app import serve

    database = asked_database(options)
    if database.exists():  # what cannot be read is said here, not on every page
        with reading(database):
            pass
    project = _project_of(database)
    serve(project, options.host, options.port, prefix=options.prefix, database=database, closing=_closing_lines)


def _project_of(database):
    """The project whose database that is, whose work can then be started; else that of the working directory."""
    from cltdb.spec import find_project

    own = find_project(database.resolve().parent)
    return own if own.database.resolve() == database.resolve() else this_project()


def _closing_lines(made):
    """What `cltdb run` says at its end of artifacts, {stage: directory}; of those alone that the present versions of the stages made."""
    from cltdb.engine.closing import headlines
    from cltdb.engine.integrity import read_manifest
    from cltdb.stages import STAGES

    return headlines(
        STAGES, {name: path for name, path in made.items() if read_manifest(path)["version"] == STAGES[name].version}
    )


COMMAND = Command("browse features and graphs on a web page", "cltdb dash --port 8050", add_options, dash_command)
