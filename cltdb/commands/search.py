"""`cltdb search`: finds features by what they mean."""

from cltdb.commands.common import Command, end_at_sigterm, this_database
from cltdb.errors import CltdbError


def add_options(parser):
    parser.add_argument("text", metavar="TEXT", help="words that say what the feature is about")
    parser.add_argument("--dict", dest="dict_id", metavar="DICT_ID", help="only features of this dictionary")
    parser.add_argument("--layer", type=int, metavar="N", help="only features of this layer")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="print at most this many features (default 20)")


def search_command(options):
    import logging

    from cltdb.database import Database
    from cltdb.database import sql_command as sql

    end_at_sigterm()
    if not options.text.strip():
        raise CltdbError("cltdb search", found="an empty text", expected="a word or more", do="say what the feature is about")
    database, chosen = this_database(), {"text": options.text, "dict_id": options.dict_id}
    found = {**chosen, "layer": options.layer, "limit": options.limit}
    sql.run_query(database, sql.named_query("feature_search"), params=found)
    for word, spelled_like in Database(database).query("unknown_words", **chosen).iter_rows():
        near = f"; spelled like it: {', '.join(spelled_like)}" if spelled_like else ""
        logging.getLogger(__name__).warning("no feature has to do with %r%s", word, near)


COMMAND = Command("find features by what they mean", 'cltdb search "capital cities"', add_options, search_command)
