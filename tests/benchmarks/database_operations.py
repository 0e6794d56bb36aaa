"""The operations of a database that its benchmark measures: named queries, methods of `cltdb.Database`, data of pages, SQL, commands.

An operation is (name, goal, prepare): prepare(place) imports what it needs and returns the function to measure, which returns the number of
rows. What a query or a method is asked with is found by the names of its parameters, so a new one is measured as soon as it is there.
"""

import inspect
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from benchmarks import measured

ROOT = Path(__file__).parents[2]
ASIDE = "a folder that is removed afterwards"
KEPT = type(cache(len))


class Goal(NamedTuple):
    """Of a database of a million features: CPU milliseconds and MB at most; None: no goal."""

    cpu_ms: float | None
    mb: float | None


FREE, QUERY, ONE_FEATURE, SEARCH = Goal(None, None), Goal(500, 1000), Goal(60, 1000), Goal(300, 1000)
FEATURE_PAGE, WHOLE = Goal(100, None), Goal(None, 4000)


class Place(NamedTuple):
    """The project and its database, and what typical questions are about: ids by the names of parameters."""

    folder: Path
    database: Path
    ids: dict
    waits: Path | None = None
    """A file to which commands add how many seconds they waited for the database."""


def place(folder):
    """The `Place` of a synthetic project: an explained feature with edges on both sides, two graphs, two dictionaries."""
    import cltdb

    database = Path(folder) / "cltdb.duckdb"
    db = cltdb.open(database)
    dict_ids = db.dictionaries()["dict_id"].to_list()
    (dict_id,) = db.sql("SELECT dict_id FROM features LIMIT 1")["dict_id"]
    layers = db.sql("SELECT DISTINCT layer FROM features WHERE dict_id = ? ORDER BY layer", [dict_id])["layer"].to_list()
    layer = layers[len(layers) // 3]
    features = db.sql("SELECT feature FROM explanations WHERE layer = ? AND status = 'ok' ORDER BY feature LIMIT 9", [layer])
    graph_ids = db.graphs()["graph_id"].to_list()
    (node_id,) = db.sql("SELECT target_id FROM edges WHERE graph_id = ? ORDER BY ALL LIMIT 1", [graph_ids[0]])["target_id"]
    (intervention_id,) = db.sql("SELECT intervention_id FROM interventions ORDER BY ALL LIMIT 1")["intervention_id"]
    groups = db.sql("SELECT name FROM supernodes WHERE graph_id = ? LIMIT 1", [graph_ids[0]])["name"].to_list()
    ids = {"dict_id": dict_id, "layer": layer, "feature": features["feature"][-1], "features": features["feature"].to_list()}
    ids |= {"dict_ids": [dict_id] * len(features), "layers": [layer] * len(features)}
    ids |= {"graph_id": graph_ids[0], "other_graph": graph_ids[-1], "other_dict": next(x for x in dict_ids if x != dict_id)}
    ids |= {"group": groups[0] if groups else "", "text": "capital", "name": "fvu", "token": "Paris", "label": "fr"}
    ids |= {"explainer": "llm", "experiment": "synthetic", "kind": "explanation", "model_id": db.dictionaries()["model_id"][0]}
    spread = "SELECT dict_id, layer, feature FROM explanations WHERE dict_id = ? AND status = 'ok' ORDER BY hash((layer, feature)) LIMIT 50"
    ids["spread"] = db.sql(spread, [dict_id]).to_dicts()
    return Place(Path(folder), database, ids | {"node_id": node_id, "intervention_id": intervention_id})


def given(place, names):
    """{parameter: value} of those `names` for which a typical value is known."""
    known = dict(place.ids, other=place.ids["other_dict"])
    if "graph_id" in names:
        known |= {"other": place.ids["other_graph"], "name": place.ids["group"]}
    if "explainer" in names:
        known["other"] = "baseline:top_tokens"
    if "experiment" in names:
        known["other"] = "synthetic-sweep-0"
    return {name: known[name] for name in names if name in known}


def goal_of(parameters):
    """The goal of a question by what it is restricted to."""
    if "text" in parameters:
        return SEARCH
    return ONE_FEATURE if {"layer", "feature"} <= parameters.keys() else QUERY


def operations(place):
    """All operations."""
    return [*queries(place), *methods(place), *pages(place), *statements(place), *commands(place)]


RESTRICTING = ("dict_id", "layer", "feature", "graph_id", "text")
"""Parameters that a named query is asked with even where it need not be."""


def queries(place):
    """Every named query as it is asked with what it must be given, and restricted to all that can be given."""
    from cltdb.database.named_queries import list_queries

    for query in list_queries():
        required = [name for name, parameter in query.parameters.items() if parameter.required]
        optional = [name for name, parameter in query.parameters.items() if not parameter.required and parameter.default is None]
        asked, known = [], given(place, query.parameters)
        for names in (required, [*required, *(name for name in optional if name in known and name in RESTRICTING)]):
            if names not in asked:
                asked.append(names)
                parameters = {name: known.get(name) for name in names}
                more = ", ".join(name for name in names if name not in required)
                yield f"query {query.name}{f' ({more})' if more else ''}", goal_of(parameters), _query(query.name, parameters)


def _query(name, parameters):
    def prepare(place):
        import cltdb

        db = cltdb.open(place.database)
        return lambda: db.query(name, **parameters).height

    return prepare


METHODS = {
    "sql": [("SELECT 1",)],
    "query": [("graph_list",)],
    "session": [],  # what a page asks is asked in one
    "scan": [("features",)],
    "features": [{"dict_id", "layer"}, {"dict_id"}],
    "feature_cards": [{"dict_id", "layer"}, {"dict_id"}],
    "contexts": [{"dict_id", "layer", "feature"}, {"dict_id", "layer"}],
    "explanations": [{"dict_id", "layer", "feature"}, {"dict_id"}],
    "scores": [{"dict_id", "layer", "feature"}, {"dict_id"}],
    "metrics": [{"dict_id"}],
    "arrow": [("SELECT * FROM contexts WHERE layer = 0",)],
}
"""What a method is called with: values, or names of typical ones. Of others: all that they must be given."""


def methods(place):
    """Every method of `cltdb.Database`."""
    import cltdb

    for name, method in inspect.getmembers(cltdb.database.Database, inspect.isfunction):
        if name.startswith("_"):
            continue
        required = [
            key
            for key, parameter in list(inspect.signature(method).parameters.items())[1:]
            if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        for what in METHODS.get(name, [set(required)]):
            values = what if isinstance(what, tuple) else ()
            keywords = {} if values else given(place, sorted(what))
            goal = goal_of(keywords) if keywords.keys() & {"text", "feature"} else FREE
            goal = FEATURE_PAGE if name == "feature" else goal  # all that its page shows
            yield f"api {name}({', '.join([*map(repr, values), *keywords])})", goal, _method(name, values, keywords)

    yield "api arrow, a consumer that stands still", FREE, _still


def _still(place):
    """Rows that are spooled because their consumer waits after the first batch."""
    import cltdb

    def ask():
        rows = cltdb.open(place.database).arrow("SELECT * FROM contexts WHERE layer = 0")
        first = next(rows).num_rows
        time.sleep(1.5)
        return first + sum(batch.num_rows for batch in rows)

    return ask


def _method(name, values, keywords):
    def prepare(place):
        import cltdb

        call = getattr(cltdb.open(place.database), name)
        return lambda: _rows(call(*values, **keywords))

    return prepare


def _rows(found):
    """How many rows an answer has, all of them read."""
    if hasattr(found, "collect"):
        found = found.collect()
    if hasattr(found, "read_all"):  # batch by batch: it may be larger than memory
        return sum(batch.num_rows for batch in found)
    if hasattr(found, "edges"):
        return found.edges.height
    return found.height if hasattr(found, "height") else None


def pages(place):
    """What the pages of the browser compute: the data of the feature's, and all of each."""
    graph_id, key = place.ids["graph_id"], given(place, ["dict_id", "layer", "feature"])
    address = {name: str(value) for name, value in key.items()}
    yield "page feature: its data", FEATURE_PAGE, _page("feature", "find", each=place.ids["spread"])
    yield "page feature: whole", FREE, _page("feature", "layout", **address)
    yield "page features: whole", QUERY, _page("features", "layout")
    asked = {"dict_id": key["dict_id"]}
    yield "page features: no text", QUERY, _page("features", "answer", wanted=_wanted(**asked))
    yield "page features: the best", QUERY, _page("features", "answer", wanted=_wanted(**asked, sort="-score"))
    yield "page features: a word", SEARCH, _page("features", "answer", wanted=_wanted(**asked, text="capital"))
    in_layer = {"text": "capital", "layer": address["layer"]}
    yield "page features: a word and a layer", SEARCH, _page("features", "answer", wanted=_wanted(**asked, **in_layer))
    yield "page overview: whole", QUERY, _page("overview", "layout")
    yield "page runs: whole", QUERY, _page("runs", "layout")
    yield "page run: whole", QUERY, _page("run", "layout", experiment="synthetic")
    yield "page frontier: whole", QUERY, _page("frontier", "layout")
    yield "page graph: whole", QUERY, _page("graph", "layout", graph_id=graph_id)
    yield (
        "page graph: a step of its slider",
        QUERY,
        _page("graph", "prune", anew=False, node_share=0.8, edge_share=0.98, graph_id=graph_id),
    )
    yield "page groups: whole", QUERY, _page("groups", "layout")
    yield "page compare: whole", QUERY, _page("compare", "layout", graph_id=graph_id, other=place.ids["other_graph"])


def _wanted(**question):
    """What the table of features asks the server for: the first rows of the answer to a question."""
    return {"question": question, "first": 0, "limit": 100, "number": 0}


def _page(page, function, *, anew=True, each=None, **arguments):
    """A function of a page's module, asked as a server asks. anew: what the server keeps of earlier answers is forgotten before; each: arguments of
    one time after the other, in place of the same ones each time."""

    def prepare(place):
        from importlib import import_module

        from cltdb.database.instances import files_kept
        from dashboards.app import create_app

        app, times = create_app(place.database), cycle(each or [arguments])
        serving = files_kept()
        serving.__enter__()
        call = getattr(import_module(f"dashboards.pages.{page}"), function)
        modules = [module for name, module in sys.modules.items() if name.startswith("dashboards.")] if anew else []
        kept = [value for module in modules for value in vars(module).values() if isinstance(value, KEPT)]

        def compute():
            for one in kept:
                one.cache_clear()
            with app.server.test_request_context():
                call(**next(times))

        compute.serving = serving  # which ends with it
        return compute

    return prepare


CARDS = "SELECT layer, feature, text, score FROM feature_cards"
STATEMENTS = {
    "a feature's card": (
        ONE_FEATURE,
        "SELECT * FROM feature_cards WHERE dict_id = $dict_id AND layer = $layer AND feature = $feature",
    ),
    "cards with a word, the best (README)": (
        SEARCH,
        f"{CARDS} WHERE text LIKE '%''capital%' ORDER BY score DESC, density DESC LIMIT 10",
    ),
    "the best cards": (QUERY, f"{CARDS} ORDER BY score DESC NULLS LAST, density DESC LIMIT 20"),
    "the densest of a layer, all columns": (
        QUERY,
        "SELECT * FROM feature_cards WHERE dict_id = $dict_id AND layer = $layer ORDER BY density DESC LIMIT 20",
    ),
    "the densest, all columns": (QUERY, "SELECT * FROM feature_cards ORDER BY density DESC LIMIT 20"),
    "the densest, all columns, with a bound (docs)": (
        QUERY,
        "SELECT * FROM feature_cards WHERE density >= (SELECT min(density) FROM (SELECT density FROM features ORDER BY density DESC LIMIT 20)) "
        "ORDER BY density DESC LIMIT 20",
    ),
    "mean score by layer": (QUERY, "SELECT layer, avg(score) FROM feature_cards GROUP BY layer ORDER BY layer"),
    "features that fire on a label": (
        QUERY,
        "SELECT layer, feature, count(*) AS n FROM contexts WHERE label = 'fr' AND band = 'top' GROUP BY ALL ORDER BY n DESC LIMIT 20",
    ),
    "a feature's windows": (
        ONE_FEATURE,
        "SELECT * FROM contexts WHERE dict_id = $dict_id AND layer = $layer AND feature = $feature",
    ),
    "windows that hold a token": (FREE, "SELECT count(*) FROM contexts WHERE layer = $layer AND list_contains(tokens, 200)"),
    "kept edges of a graph": (QUERY, "SELECT * FROM named_edges WHERE graph_id = $graph_id AND kept"),
    "evaluation": (QUERY, "SELECT name, layer, value FROM metrics WHERE stage = 'evaluate'"),
}


def statements(place):
    """SQL as users write it."""
    for name, (goal, sql) in STATEMENTS.items():
        yield f"sql {name}", goal, _statement(sql, {key: value for key, value in place.ids.items() if f"${key}" in sql})


def _statement(sql, parameters):
    def prepare(place):
        import cltdb

        db = cltdb.open(place.database)
        return lambda: db.sql(sql, parameters).height

    return prepare


def commands(place):
    """Commands, each in a process of its own, so with the start of Python."""
    for name, goal, arguments in command_lines(place):
        yield name, goal, _command(arguments)


def command_lines(place):
    """(name, goal, arguments) of each command."""
    card = [f"-p{name}={place.ids[name]}" for name in ("dict_id", "layer", "feature")]
    yield "cltdb search capital", FREE, ["search", "capital"]
    yield "cltdb search 'capital cities'", FREE, ["search", "capital cities"]
    yield "cltdb search zzzzqqq", FREE, ["search", "zzzzqqq"]
    yield "cltdb sql --list", FREE, ["sql", "--list"]
    yield "cltdb sql --query feature_card", FREE, ["sql", "--query", "feature_card", *card]
    yield "cltdb db check", WHOLE, ["db", "check"]
    yield "cltdb db check --full", WHOLE, ["db", "check", "--full"]
    yield "cltdb db export", WHOLE, ["db", "export", "-o", ASIDE]  # takes about the disk of the database


def _command(arguments):
    def prepare(place):
        start = ["-m", "cltdb"] if place.waits is None else [measured.__file__, str(place.waits)]
        compiled = {"PYTHONPYCACHEPREFIX": str(place.folder.absolute() / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **compiled}  # as where cltdb is installed

        def run():
            with tempfile.TemporaryDirectory(dir=place.folder) as aside:
                words = [sys.executable, *start, *(f"{aside}/exported" if word == ASIDE else word for word in arguments)]
                done = subprocess.run(words, cwd=place.folder, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise RuntimeError(f"exit status {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}")
            return done.stdout.count("\n")

        return run

    return prepare
