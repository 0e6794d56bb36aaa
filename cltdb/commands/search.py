"""`cltdb search`: finds features by what they mean."""

from cltdb.commands.common import Command, add_source, asked_database, end_at_sigterm
from cltdb.errors import CltdbError


def add_options(parser):
    parser.add_argument("text", metavar="TEXT", help="words that say what the feature is about")
    parser.add_argument("--dict", dest="dict_id", metavar="DICT_ID", help="only features of this dictionary")
    parser.add_argument("--layer", type=int, metavar="N", help="only features of this layer")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="print at most this many features (default 20)")
    add_source(parser)


def search_command(options):
    import logging

    from cltdb.database.folder import reading
    from cltdb.database.named_queries import named_query, named_query_params
    from cltdb.database.query import ask, few_rows
    from cltdb.database.search import search_query
    from cltdb.database.sql_command import print_rows

    end_at_sigterm()
    if not options.text.strip():
        raise CltdbError("cltdb search", found="an empty text", expected="a word or more", do="say what the feature is about")
    database, chosen = asked_database(options), {"text": options.text, "dict_id": options.dict_id}
    question, params = search_query(database, **chosen, layer=options.layer, limit=options.limit)
    unknown = named_query("unknown_words")
    with reading(database) as connection:
        with ask(database, question, params, connection=connection, answered=few_rows) as found:
            pass
        with ask(
            database, unknown.sql, named_query_params(unknown, chosen, database), connection=connection, answered=few_rows
        ) as (
            _,
            words,
        ):
            pass
    print_rows(*found)  # the database is free again
    for word, spelled_like in words:
        near = f"; spelled like it: {', '.join(spelled_like)}" if spelled_like else ""
        logging.getLogger(__name__).warning("no word of the database is like %r%s", word, near)


COMMAND = Command("find features by what they mean", 'cltdb search "capital cities"', add_options, search_command, asks=True)
