"""The database from Python, Polars all the way. `open` keeps the path only: every call connects, asks, lets go; in a `session` all ask
over one connection."""

import logging
import numbers
import os
from contextlib import contextmanager
from pathlib import Path

from cltdb.database.folder import reading
from cltdb.database.lazy import scan
from cltdb.database.named_queries import named_query, named_query_params
from cltdb.database.nothing_found import check_known, known_graphs, refuse_unknown, unknown_names
from cltdb.database.query import ask, own_answer
from cltdb.database.stream import stream
from cltdb.database.tables import all_tables
from cltdb.errors import CltdbError, check_count, check_text, nearest, shown
from cltdb.output import unique_names

logger = logging.getLogger(__name__)
SUBGRAPH_COLUMNS = "source_id, target_id, weight, influence, kept, measured"
MOST_S = 1e9
CONTEXTS_ORDER = "dict_id, layer, feature, band <> 'top', len(band), band, rank"
"""The highest activations first, then the quantile bands by number."""
NODE_NAMES = """
SELECT n.node_id, CASE n.kind
    WHEN 'feature' THEN format('{}:{}@{}', n.layer, n.feature, n.position)
    WHEN 'error' THEN format('error {}@{}', n.layer, n.position)
    ELSE format('{}@{}', coalesce(v.string, nullif(n.label, ''), n.token::VARCHAR, 'direction'), n.position) END
FROM nodes AS n JOIN graphs AS g USING (graph_id) LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = n.token
WHERE n.graph_id = $graph_id AND list_contains($wanted, n.node_id)
"""


def open(path):  # noqa: A001 (`cltdb.open` is the public name)
    """The database at `path`, or the folder that `cltdb db export` wrote there, as a `Database`."""
    return Database(path)


class Database:
    """Questions to a database; each answer is a `polars.DataFrame` with columns in the documented order."""

    _connection = None

    def __init__(self, path):
        if not isinstance(path, str | os.PathLike):
            expected = "the path of a database or of an exported folder"
            raise CltdbError("cltdb.open", found=shown(path), expected=expected, do="give one")
        self.path = Path(path)

    def __repr__(self):
        return f"cltdb.open({str(self.path)!r})"

    @contextmanager
    def session(self, *, threads=None):
        """The database for several questions at once: `with db.session() as s: s.query(...); s.features(...)`. All see one state of the
        database and share one connection, which saves some 5 ms for each. Nothing is written to the database until the block ends.
        threads: 1 where all are about few rows, such as one feature's, which take less CPU time then."""
        if threads is not None and check_count("session threads", threads) == 0:
            raise CltdbError("session threads", found=0, expected="1 or more", do="mend it, or leave it out")
        if self._connection:
            yield self
            return
        with reading(self.path, threads=threads) as connection:
            session = Database(self.path)
            session._connection = connection
            yield session

    def sql(self, query, params=None, *, timeout_s=None):
        """The rows of one read-only statement; `params`: dict for `$name`, list for `?`.

        `timeout_s` ends a query that takes longer.
        """
        params = _checked(query, params)
        if timeout_s is not None and not (isinstance(timeout_s, numbers.Real) and 0 < timeout_s < MOST_S):
            raise CltdbError("sql timeout_s", found=shown(timeout_s), expected="a number of seconds above 0", do="mend it")
        with ask(self.path, query, params, timeout_s=timeout_s, connection=self._connection) as reader:
            return _frame(reader.read_all())

    @property
    def plot(self):
        """Figures: `db.plot.frontier()`, `db.plot.curve("fvu")`, `db.plot.evaluation()`, `db.plot.histogram(0, 222)`."""
        from cltdb.database.plot import Plots

        return Plots(self)

    def query(self, name, /, **params):
        """The rows of the named query `name` (`cltdb sql --list` shows them and their parameters). Where there are none and a dictionary, graph or
        experiment is unknown, a warning says so."""
        query = named_query(name)
        params = named_query_params(query, params, self.path)
        rows = self._own(query.sql, params)
        if rows.is_empty() and (unknown := unknown_names(self.path, query, params, self._connection)):
            logger.warning("query %s: no rows (%s)", name, "; ".join(unknown))
        return rows

    def _own(self, query, params, answered=own_answer):
        """The rows of a statement that is cltdb's own, of which there are few."""
        with ask(self.path, query, params, connection=self._connection, answered=answered) as reader:
            return _frame(reader.read_all())

    def arrow(self, query, params=None):
        """The rows of one statement as a `pyarrow.RecordBatchReader`, for results larger than memory.

        They stream while one reads, and the database is in use meanwhile. A slow reader keeps no writer out: after a second of waiting in
        all, the rows that are left go into a temporary file, and the database is free. In a session all rows go into the file at once.
        """
        return stream(self.path, query, _checked(query, params), connection=self._connection)

    def scan(self, table):
        """A table or view, whole, as a `polars.LazyFrame`; nothing is read before it is collected.

        DuckDB reads the columns that the plan needs, and the rows that pass its filters as far as these compare columns with values. Polars
        applies the filters once more, also those with functions and casts. Rows come in no promised order. Each collection is a reader of its
        own, which sees the database as it is then; while rows stream, writers wait as for `arrow`, a second longer than the query takes.
        """
        tables = all_tables()
        check_text("scan", table)
        if table not in tables:
            raise CltdbError(
                "scan",
                found=f"no table {shown(table)}",
                expected="a table or view",
                do=nearest(table, tables, otherwise='choose one: `cltdb sql "SHOW TABLES"` lists them'),
            )
        return scan(self.path, table, connection=self._connection)

    def tables(self):
        """Every table and view with its columns: table, column, type, comment. A row without a column is about the table itself."""
        return self.query("describe_tables")

    def experiments(self):
        """Every stage that ran, per experiment and spec (named query experiments_overview)."""
        return self.query("experiments_overview")

    def features(self, dict_id, layer=None):
        """The features of a dictionary with their statistics: columns of table `features`."""
        return self._rows("features", {"dict_id": dict_id}, layer=layer)

    def feature_cards(self, dict_id, layer=None):
        """The features of a dictionary with their best explanation: columns of view `feature_cards`."""
        return self._rows("feature_cards", {"dict_id": dict_id}, layer=layer)

    def contexts(self, dict_id, layer=None, feature=None, band=None):
        """Windows of text around peaks of features: columns of table `contexts`."""
        return self._rows("contexts", {"dict_id": dict_id}, layer=layer, feature=feature, band=band)

    def feature(self, dict_id, layer, feature, *, neighbours=8):
        """One feature with its contexts, explanations and its `neighbours` strongest connections in each direction: a `Feature`, which a
        notebook shows with its histogram and heat on its tokens."""
        from cltdb.database.display.feature import Feature
        from cltdb.database.one_feature import facts, frames

        check_count("feature neighbours", neighbours)
        check_text("feature dict_id", dict_id)
        key = {"dict_id": dict_id, "layer": check_count("feature layer", layer), "feature": check_count("feature", feature)}
        with self.session(threads=1) as db:
            found = facts(db, **key, n_neighbours=neighbours, whole=False)
            if found.card is None:
                raise db._no_feature(**key)
        contexts, explanations, connected = frames(found)
        return Feature(card=found.card, contexts=contexts, explanations=explanations, neighbours=connected)

    def _no_feature(self, dict_id, layer, feature):
        """The error for a feature that no harvest brought."""
        known = self.sql("SELECT dict_id, layer, max(feature) AS last FROM features GROUP BY ALL ORDER BY ALL")
        of_dictionary = known.filter(dict_id=dict_id)
        last = dict(of_dictionary.select("layer", "last").iter_rows())
        where = f"feature {layer}:{feature} of {shown(dict_id, quoted=False)}"
        if not last:
            names = known["dict_id"].unique(maintain_order=True).to_list()
            do = nearest(dict_id, names, otherwise="choose one, or run its stage harvest")
            return CltdbError(
                where, found="no harvest of this dictionary", expected=f"one of {', '.join(names) or '(none)'}", do=do
            )
        if layer not in last:
            return CltdbError(where, found=f"no layer {layer}", expected=f"one of 0 to {max(last)}", do="choose one of these")
        return CltdbError(where, found="no such feature", expected=f"0 to {last[layer]}", do="choose one of these")

    def explanations(self, dict_id, layer=None, feature=None, explainer=None):
        """Explanations, baselines and failures included: columns of table `explanations`."""
        return self._rows("explanations", {"dict_id": dict_id}, layer=layer, feature=feature, explainer=explainer)

    def scores(self, dict_id, layer=None, feature=None, explainer=None, scorer=None):
        """Scores of explanations: columns of table `scores`."""
        return self._rows("scores", {"dict_id": dict_id}, layer=layer, feature=feature, explainer=explainer, scorer=scorer)

    def metrics(self, dict_id, stage=None, name=None, layer=None):
        """Training curves and evaluation: columns of table `metrics`, but for those of splices (query `splices`) and of single labels
        (`metrics_by_label`).

        Without `layer` all layers and the pooled rows (layer null).
        """
        rows = self._rows("metrics", {"dict_id": dict_id}, stage=stage, name=name, layer=layer)
        return rows.filter(rows["variant"].is_null() & rows["label"].is_null())

    def dictionaries(self):
        """All dictionaries: columns of table `dictionaries`."""
        return self._rows("dictionaries")

    def graphs(self, dict_id=None):
        """All graphs, or those of a dictionary: columns of table `graphs`."""
        return self._rows("graphs", dict_id=dict_id)

    def graph(self, graph_id):
        """The edges of a graph with both of their ends: columns of view `named_edges`."""
        return self._rows("named_edges", {"graph_id": graph_id})

    def graph_nodes(self, graph_id):
        """The nodes of a graph: columns of table `nodes`, by node_id."""
        return self._rows("nodes", {"graph_id": graph_id})

    def graph_edges(self, graph_id):
        """The edges of a graph: columns of table `edges`, by source_id and target_id."""
        return self._rows("edges", {"graph_id": graph_id})

    def subgraph(self, graph_id, *, node_threshold=0.8, edge_threshold=0.98):
        """A graph pruned at thresholds of your own, without the model: a `cltdb.graphs.stored_graph.Subgraph`. Its `nodes` are as those of
        `graph_nodes`, its `edges` as those of `graph_edges`, sorted by target_id and source_id; it has the scores of what is left."""
        from cltdb.graphs.stored_graph import prune_stored

        nodes, edges, total_influence = self._whole_graph(graph_id)
        shares = {"node_threshold": node_threshold, "edge_threshold": edge_threshold}
        return prune_stored(nodes, edges, **shares, total_influence=total_influence)

    def draw(self, graph_id, *, node_threshold=0.8, edge_threshold=0.98, max_nodes=40, max_edges=120):
        """A graph as a drawing for a notebook: a `Drawing` of its pruned part, at most `max_nodes` nodes and `max_edges` edges, the most
        influential ones. `drawing.svg` is the picture alone."""
        from cltdb.database.display.graph import draw

        for name, value in (("max_nodes", max_nodes), ("max_edges", max_edges)):
            check_count(f"draw {name}", value)
        with self.session() as db:
            pruned = db.subgraph(graph_id, node_threshold=node_threshold, edge_threshold=edge_threshold)
            named = db.query("graph_nodes", graph_id=graph_id)
            [graph] = db.sql("FROM graphs WHERE graph_id = ?", [graph_id]).to_dicts()
            tokens = db.query("graph_tokens", graph_id=graph_id)["string"].to_list()
        nodes = pruned.nodes.select("node_id", "influence").join(named.drop("influence"), on="node_id", how="left")
        return draw(graph, nodes, pruned.edges, tokens=tokens, max_nodes=max_nodes, max_edges=max_edges)

    def strongest_paths(self, graph_id, n=10):
        """The strongest path to the graph's targets from each of its `n` most influential embeddings and errors. Columns: influence of the
        start by all its paths; strength of this path (product of the shares of its edges and the target's weight); node_ids; path in
        words, features as layer:feature@position, errors as error layer@position."""
        import polars as pl

        from cltdb.graphs.stored_graph import strongest_paths

        nodes, edges, _ = self._whole_graph(graph_id)
        found = strongest_paths(nodes, edges, n)
        wanted = sorted({node for *_, path in found for node in path})
        names = dict(self.sql(NODE_NAMES, {"graph_id": graph_id, "wanted": wanted}).iter_rows())
        return pl.DataFrame(
            {
                "influence": [influence for influence, *_ in found],
                "strength": [strength for _, strength, _ in found],
                "node_ids": [path for *_, path in found],
                "path": [" → ".join(names[node] for node in path) for *_, path in found],
            },
            schema={"influence": pl.Float64, "strength": pl.Float64, "node_ids": pl.List(pl.Int32), "path": pl.String},
        )

    def group_features(
        self, graph_id, *, similarity=0.4, dictionary=None, same_position=True, node_threshold=0.8, edge_threshold=0.98
    ):
        """Groups of features that have the same role in a pruned graph: similar edges, explanations and, with `dictionary` (of
        `cltdb.load_dictionary`), decoder vectors. A frame with the columns of table supernodes; the table itself stays as it is."""
        import polars as pl

        from cltdb.graphs.supernodes import group_features, supernode_rows

        pruned = self.subgraph(graph_id, node_threshold=node_threshold, edge_threshold=edge_threshold)
        texts = dict(self.query("graph_nodes", graph_id=graph_id).select("node_id", "text").iter_rows())
        nodes = pruned.nodes.with_columns(text=pruned.nodes["node_id"].replace_strict(texts, return_dtype=pl.String))
        groups = group_features(nodes, pruned.edges, similarity=similarity, dictionary=dictionary, same_position=same_position)
        influence = dict(nodes.select("node_id", "influence").iter_rows())
        known = [[node for node in group if texts[node]] for group in groups]
        labels = [texts[max(group, key=lambda node: influence[node] or 0)] if group else None for group in known]
        words = [string or "" for string in self.query("graph_tokens", graph_id=graph_id)["string"]]
        return supernode_rows(graph_id, groups, nodes, labels=labels, words=words)

    def _whole_graph(self, graph_id):
        """Frames of the nodes of a graph, by node_id, and of its edges, by target_id and source_id, and its graphs.total_influence."""
        check_text("graph_id", graph_id)
        with self.session() as session:
            check_known(str(self.path), "graph", graph_id, known_graphs(self.path, session._connection))
            nodes, edges, graph = (
                session.sql(f"SELECT {columns} WHERE graph_id = ?", [graph_id])
                for columns in (
                    "COLUMNS(lambda c: c <> 'artifact_key') FROM nodes",
                    f"{SUBGRAPH_COLUMNS} FROM edges",
                    "total_influence FROM graphs",
                )
            )
        nodes = nodes.sort("node_id")
        if not edges["target_id"].is_sorted():
            edges = edges.sort("target_id", "source_id")
        return nodes, edges, graph["total_influence"].first()

    def search(self, text, *, dict_id=None, layer=None, alive=None, limit=50):
        """Features that have to do with `text`, the most relevant first, each with the reasons in column found_in: query feature_search, and
        embeddings of explanations where cltdb.yaml says `database: {search: {embeddings: MODEL}}`. alive: no dead ones. Words that lead to
        none: query unknown_words."""
        from cltdb.database.search import search_query
        from cltdb.database.search_steps import in_steps

        place = _given("search", dict_id=dict_id, layer=layer)
        found = self._own(*search_query(self.path, text, alive=alive, limit=limit, **place), answered=in_steps(own_answer))
        if found.is_empty():
            refuse_unknown(self.path, "search", "features", place, self._connection)
        return found

    def _rows(self, table, key=None, **restrictions):
        """The rows of a table that have these values, those of the key and others that are not None. What the database does not have is an
        error."""
        given = _given(table, key, **restrictions)
        where = f"WHERE {' AND '.join(f'{name} = ${name}' for name in given)}" if given else ""
        order = CONTEXTS_ORDER if table == "contexts" else ", ".join(all_tables()[table].key)
        rows = self.sql(f"SELECT COLUMNS(lambda c: c <> 'artifact_key') FROM {table} {where} ORDER BY {order}", given)
        if given and rows.is_empty():
            refuse_unknown(self.path, table, table, given, self._connection)
        return rows


def _given(where, key=None, **restrictions):
    """The key and those restrictions that are not None, layers and features as ints; CltdbError for another type."""
    given = (key or {}) | {name: value for name, value in restrictions.items() if value is not None}
    for name, value in given.items():
        if name in ("layer", "feature"):
            given[name] = check_count(f"{where} {name}", value)
        else:
            check_text(f"{where} {name}", value)
    return given


def _checked(query, params):
    """The parameters of a statement, numpy's numbers as Python's; CltdbError where either has a type of its own."""
    check_text("sql", query)
    if isinstance(params, dict):
        return {name: _plain(value) for name, value in params.items()}
    if isinstance(params, list | tuple):
        return [_plain(value) for value in params]
    if params is not None:
        expected = "a dict for $name, a list for ?"
        raise CltdbError("sql params", found=shown(params), expected=expected, do="give one of these")
    return None


def _plain(value):
    return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value


def _frame(table):
    """The Arrow table as a Polars frame: repeated names numbered, whole decimals (DuckDB's sums) as integers."""
    import polars as pl

    return pl.from_arrow(whole_numbers(table.rename_columns(unique_names(table.column_names))))


def whole_numbers(table):
    """The table with decimals of scale 0 as int64, where all of a column fit."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            try:
                table = table.set_column(i, field.name, table.column(i).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue  # a number of more than 63 bits stays a decimal
    return table
