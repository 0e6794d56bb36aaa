"""`cltdb search`: finds features by what they mean."""

from cltdb.commands.common import Command, add_source, asked_database
from cltdb.errors import CltdbError, shown


def add_options(parser):
    parser.add_argument("text", metavar="TEXT", help="words that say what the feature is about")
    parser.add_argument("--dict", dest="dict_id", metavar="DICT_ID", help="only features of this dictionary")
    parser.add_argument("--layer", type=int, metavar="N", help="only features of this layer")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="print at most this many features (default 20)")
    add_source(parser)


def search_command(options):
    import logging

    from cltdb.database.folder import reading
    from cltdb.database.interrupts import end_at_sigterm
    from cltdb.database.named_queries import named_query, named_query_params
    from cltdb.database.nothing_found import refuse_unknown
    from cltdb.database.query import ask, few_rows
    from cltdb.database.search import WITHOUT_NEIGHBOURS, may_have_unknown_words, search_query
    from cltdb.database.search_steps import in_steps
    from cltdb.database.sql_command import print_rows

    end_at_sigterm()
    if not options.text.strip():
        raise CltdbError("cltdb search", found="an empty text", expected="a word or more", do="say what the feature is about")
    if options.limit < 1:
        raise CltdbError("--limit", found=options.limit, expected="1 or more", do="ask for at least one feature")
    database, chosen = asked_database(options), {"text": options.text, "dict_id": options.dict_id}
    query = named_query("unknown_words")
    search = search_query(database, **chosen, layer=options.layer, limit=options.limit)

    def rows(*question, answered=few_rows):
        with ask(database, *question, connection=connection, answered=answered) as found:
            return found

    with reading(database) as connection:
        columns, found = rows(*search, answered=in_steps(few_rows))
        may = may_have_unknown_words(options.text, [row[columns.index("found_in")] for row in found])
        _, words = rows(query.sql, named_query_params(query, chosen, database)) if may else (None, [])
        _, [(n_earlier,)] = rows(WITHOUT_NEIGHBOURS, {"dict_id": options.dict_id})
        if not found:
            place = {"dict_id": options.dict_id, "layer": options.layer}
            refuse_unknown(
                database, "search", "features", {name: one for name, one in place.items() if one is not None}, connection
            )
    print_rows(columns, found)  # the database is free again
    log = logging.getLogger(__name__)
    for word, spelled_like in words:
        near = f"; spelled like it: {', '.join(spelled_like)}" if spelled_like else ""
        log.warning("no word of the database is like %s%s", shown(word), near)
    if not found and not words:
        log.warning(
            "no feature%s has to do with %s", "" if options.layer is None else f" of layer {options.layer}", shown(options.text)
        )
    if n_earlier:
        mend = "export it again" if database.is_dir() else "the next `cltdb run` mends it"
        log.warning("neighbours in meaning are not known: an earlier cltdb made the words of %s; %s", database, mend)


COMMAND = Command("find features by what they mean", 'cltdb search "capital cities"', add_options, search_command, asks=True)
