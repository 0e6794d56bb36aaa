"""`cltdb search`: finds features by what they mean."""

from cltdb.commands.common import Command, end_at_sigterm, this_database


def add_options(parser):
    parser.add_argument("text", metavar="TEXT", help="what an explanation or a promoted token of the feature contains")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="print at most this many features (default 20)")


def search_command(options):
    from cltdb.database import sql_command as sql

    end_at_sigterm()
    sql.run_query(this_database(), sql.named_query("feature_search"), params={"text": options.text, "limit": options.limit})


COMMAND = Command("find features by what they mean", "cltdb search capital", add_options, search_command)
