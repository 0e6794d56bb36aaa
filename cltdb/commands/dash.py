"""`cltdb dash`: the browser."""

from cltdb.commands.common import Command, this_project


def add_options(parser):
    parser.add_argument("--host", default="127.0.0.1", help="the address to serve on (default 127.0.0.1: for this machine alone)")
    parser.add_argument("--port", type=int, default=8050, help="the port to serve on (default 8050)")
    parser.add_argument(
        "--prefix", default="/", metavar="PATH", help="the path under which a proxy shows the pages, such as /cltdb/ (default /)"
    )


def dash_command(options):
    from dashboards.app import serve

    serve(this_project(), options.host, options.port, prefix=options.prefix)


COMMAND = Command("browse features and graphs on a web page", "cltdb dash --port 8050", add_options, dash_command)
