"""All that is known of one feature, for its page and `Database.feature`; and the strongest windows of some features.

The same as named queries say (`Facts`), in a third of their CPU time: statements of one table, whose columns are compared with values, take 1 to 4 ms of
a million features. What else those queries do costs most: planning joins and functions over lists, and Arrow and Polars around each answer. So
tokens and texts are looked up once for all parts, and put in here.
"""

from itertools import groupby
from typing import NamedTuple

from cltdb.database.named_queries import named_query
from cltdb.database.query import ask, own_rows

MAX_EXPLANATIONS, MAX_GRAPHS, MAX_INTERVENTIONS = 200, 20, 20
IT = "dict_id = $dict_id AND layer = $layer AND feature = $feature"
DICTIONARY = "SELECT model_id, n_features FROM dictionaries WHERE dict_id = $dict_id"
CARD = f"""
SELECT density, max_activation, mean_activation, threshold, encoder_norm, decoder_norms, dead, n_contexts, n_documents, std_activation, quantiles,
       histogram, top_logits, bottom_logits, top_embeddings, bottom_embeddings, label_entropy, label_information_bits, label_information_matched_bits
FROM features WHERE {IT}
"""
OWN_LABEL = f"SELECT text FROM annotations WHERE {IT} AND kind = 'label' AND graph_id IS NULL"
WINDOWS = f"""
SELECT band, rank, document, sequence, start, position, label, tokens, length, offsets, activations, max_activation FROM windows WHERE {IT}
"""
STRONGEST_WINDOWS = f"{WINDOWS.rstrip()} AND band = 'top'"
HARVESTED = """
WITH wanted AS MATERIALIZED (SELECT unnest($n) AS n, unnest($sequences) AS sequence, unnest($starts) AS start, unnest($lengths) AS length)
SELECT n, t.tokens[w.start + 1 : w.start + w.length] AS tokens, t.tokens[1] AS first
FROM harvested_text AS t JOIN wanted AS w USING (sequence) WHERE t.dict_id = $dict_id
"""
LABELS = (
    f"SELECT label, tokens, firings, mass, rate, matched_rate, share FROM feature_labels WHERE {IT} ORDER BY share DESC, label"
)
EXPLANATIONS = f"""
SELECT side, explainer, text, model, status, error, cost_usd FROM explanations WHERE {IT}
ORDER BY side, starts_with(explainer, 'baseline:'), explainer
"""
SCORES = f"""
SELECT side, explainer, scorer, score, n, n_failed, ci_low, ci_high, judge,
       coalesce((detail->>'chance')::DOUBLE, CASE WHEN scorer IN ('detection', 'fuzzing') THEN 0.5 END) AS chance
FROM scores WHERE {IT} ORDER BY scorer
"""
IN_GRAPHS = """
FROM nodes AS n JOIN graphs AS g USING (graph_id)
WHERE n.kind = 'feature' AND g.dict_id = $dict_id AND n.layer = $layer AND n.feature = $feature
"""
GRAPHS = f"""
SELECT n.graph_id, n.node_id, g.prompt, n.layer, n.feature, n.position, n.activation, n.influence, n.kept {IN_GRAPHS}
ORDER BY n.influence DESC NULLS LAST, n.graph_id, n.node_id
"""
N_NODES = f"SELECT count(*) AS n {IN_GRAPHS}"
INTERVENED = """
SELECT count(*) AS n FROM interventions
WHERE dict_id = $dict_id AND len(list_filter(settings, lambda one: one.layer = $layer AND one.feature = $feature)) > 0
"""
ISOLATION = f"""
SELECT multiple, high, n_prompts, leakage_same, leakage_later, own_response, most_layer, most_feature, most_change, n_unrelated, kl_nats, concept, n_drop,
       success_drop, n_include, success_include
FROM isolation WHERE {IT} ORDER BY multiple
"""
CONNECTED = {
    "from": """
SELECT source_layer AS layer, source_feature AS feature, virtual_weight, era, twera, coactivation FROM edges_into
WHERE dict_id = $dict_id AND target_place = $layer::BIGINT * 4294967296 + $feature
ORDER BY abs(twera) DESC NULLS LAST, layer, feature
""",
    "to": """
SELECT target_layer AS layer, target_feature AS feature, virtual_weight, era, twera, coactivation FROM feature_edges
WHERE dict_id = $dict_id AND source_place = $layer::BIGINT * 4294967296 + $feature AND via IS NULL
ORDER BY abs(twera) DESC NULLS LAST, layer, feature
""",
}
SIMILAR = f"SELECT rank, neighbour, cosine FROM feature_neighbours WHERE {IT} AND rank < $n_neighbours ORDER BY rank"
TEXTS = """
WITH wanted AS MATERIALIZED (SELECT unnest($places_layer) AS layer, unnest($places_feature) AS feature)  -- as in feature_circuit
SELECT layer, feature, text, score, detection, fuzzing, explainer, side FROM best_explanations
WHERE dict_id = $dict_id AND place IN (SELECT feature::BIGINT * 65536 + layer FROM wanted) AND feature IN (SELECT feature FROM wanted)
"""
STRINGS = "SELECT token, string FROM vocabulary WHERE model_id = $model_id AND token IN (SELECT unnest($tokens))"
EFFECTS = {
    "promoted": "top_logits", "suppressed": "bottom_logits", "driven_by": "top_embeddings", "inhibited_by": "bottom_embeddings",
}  # fmt: skip
OF_LABELS = ("label_entropy", "label_information_bits", "label_information_matched_bits")


class Facts(NamedTuple):
    """What is known of a feature, as rows {column: value} of named queries."""

    card: dict | None
    """feature_card; None where there is no such feature."""
    contexts: list
    """feature_contexts."""
    explanations: list
    """page_explanations."""
    connected: list
    """top_neighbours, the strongest by TWERA."""
    labels: list = ()
    """label_shares."""
    graphs: list = ()
    """page_feature_graphs."""
    interventions: list = ()
    """page_feature_interventions."""
    isolation: list = ()
    """feature_isolation."""
    similar: list = ()
    """nearest_features, without density, max_activation and score."""
    n_graphs: int = 0
    """How many rows page_feature_graphs has of it, of which `graphs` are the first."""
    n_interventions: int = 0
    """The same of page_feature_interventions and `interventions`."""
    bos: int | None = None
    """The token that stands before every text, which begins each sequence of the harvest; None where a window brings its own tokens."""


def facts(database, *, dict_id, layer, feature, n_neighbours, whole=True):
    """The `Facts` of a feature. database: `Database`; n_neighbours: at most so many each way, and so many alike; whole: False leaves out what
    `Facts` has a default for."""
    key = {"dict_id": dict_id, "layer": layer, "feature": feature}
    with (
        database.session(threads=1) as session,
        ask(session.path, "", connection=session._connection, answered=lambda connection, *_: _Feature(connection, key)) as it,
    ):
        return it.facts(n_neighbours, whole=whole)


def strongest_windows(database, *, dict_id, places):
    """{(layer, feature): rows of feature_contexts, those of band top} of features of a dictionary."""
    with (
        database.session(threads=1) as session,
        ask(session.path, "", connection=session._connection, answered=lambda connection, *_: connection) as connection,
    ):
        it, found = _Feature(connection, {"dict_id": dict_id}), {place: [] for place in places}
        its = [
            (f"its_{name}_{i}", value)
            for i, place in enumerate(found)
            for name, value in zip(("layer", "feature"), place, strict=True)
        ]
        rows = it.rows(_of_each(len(found)), **dict(its))
        it.put_in_tokens(rows)
        [known] = it.rows(DICTIONARY) or [{"model_id": None}]
        strings = it.strings(known["model_id"], {token for row in rows for token in row["tokens"] or []})
        names = list(found)
        for row in rows:
            found[names[row["i"]]].append(_window(row, strings))
        return found


def _of_each(n):
    """STRONGEST_WINDOWS of `n` features in one statement, those of the feature $its_layer_<i>, $its_feature_<i> with the number i."""
    parts = [STRONGEST_WINDOWS.replace("SELECT", f"SELECT {i} AS i,") for i in range(n)]
    parts = [part.replace("$layer", f"$its_layer_{i}").replace("$feature", f"$its_feature_{i}") for i, part in enumerate(parts)]
    return f"{' UNION ALL '.join(parts)} ORDER BY i, rank"


def frames(found):
    """(contexts, explanations, connected) of `Facts` as frames."""
    import polars as pl

    key = {"dict_id": pl.String, "layer": pl.Int32, "feature": pl.Int32}
    window = {"document": pl.Int64, "sequence": pl.Int64, "start": pl.Int32, "position": pl.Int32, "label": pl.String}
    of_tokens = {"tokens": pl.List(pl.Int32), "strings": pl.List(pl.String), "activations": pl.List(pl.Float32)}
    said = dict.fromkeys(("side", "explainer", "text", "model", "status", "error"), pl.String)
    scored = {"cost_usd": pl.Float64, "scorer": pl.String, "score": pl.Float64, "n": pl.Int32, "n_failed": pl.Int32}
    judged = {"ci_low": pl.Float64, "ci_high": pl.Float64, "judge": pl.String, "chance": pl.Float64}
    weights = dict.fromkeys(("virtual_weight", "era", "twera"), pl.Float32)
    end = {"direction": pl.String, "layer": pl.Int32, "feature": pl.Int32}
    schemas = (
        {"band": pl.String, "rank": pl.Int32, **window, **of_tokens, "max_activation": pl.Float32},
        key | said | scored | judged,
        {**end, **weights, "coactivation": pl.Float64, "text": pl.String, "score": pl.Float64},
    )
    rows = (found.contexts, found.explanations, found.connected)
    return [pl.DataFrame(of_one, schema=schema, orient="row") for of_one, schema in zip(rows, schemas, strict=True)]


class _Feature:
    """A feature and the connection that is asked about it."""

    def __init__(self, connection, key):
        self.connection, self.key = connection, key

    def rows(self, sql, *, first=None, **more):
        names = [name for name in ("dict_id", "layer", "feature") if f"${name}" in sql]
        return own_rows(self.connection, sql, {name: self.key[name] for name in names} | more, first=first)

    def facts(self, n_neighbours, *, whole):
        [card] = self.rows(CARD) or [None]
        if card is None:
            return Facts(None, [], [], [])
        [known] = self.rows(DICTIONARY) or [{"model_id": None, "n_features": None}]
        windows = self.windows(WINDOWS)
        bos = self.put_in_tokens(windows)
        connected = [
            {"direction": direction, **row} for direction, sql in CONNECTED.items() for row in self.rows(sql, first=n_neighbours)
        ]
        similar = self.rows(SIMILAR, n_neighbours=n_neighbours) if whole else []
        isolation = self.rows(ISOLATION) if whole else []
        here = (self.key["layer"], self.key["feature"])
        texts = self._texts(
            {here}
            | {(row["layer"], row["feature"]) for row in connected}
            | {(here[0], row["neighbour"]) for row in similar}
            | {(row["most_layer"], row["most_feature"]) for row in isolation if row["most_feature"] is not None}
        )
        effects = {name: card[column] for name, column in EFFECTS.items()}
        strings = self.strings(
            known["model_id"],
            {one["token"] for found in effects.values() for one in found or []}
            | {token for row in windows for token in row["tokens"] or []},
        )
        of = lambda place: texts.get(place, {"text": None, "score": None})  # noqa: E731
        found = Facts(
            card=self._card(card, known["n_features"], texts.get(here), effects, strings),
            contexts=[_window(row, strings) for row in windows],
            explanations=self._explanations(),
            connected=[row | {name: of((row["layer"], row["feature"]))[name] for name in ("text", "score")} for row in connected],
        )
        if not whole:
            return found
        [intervened] = self.rows(INTERVENED)
        graphs = self.rows(GRAPHS, first=MAX_GRAPHS + 1)
        [nodes] = self.rows(N_NODES) if len(graphs) > MAX_GRAPHS else [{"n": len(graphs)}]
        return found._replace(
            labels=[row | {name: card[name] for name in OF_LABELS} for row in self.rows(LABELS)],
            graphs=graphs[:MAX_GRAPHS],
            interventions=self.rows(named_query("page_feature_interventions").sql, limit=MAX_INTERVENTIONS)
            if intervened["n"]
            else [],
            isolation=[row | {"most_text": of((row["most_layer"], row["most_feature"]))["text"]} for row in isolation],
            similar=[row | {"text": of((here[0], row["neighbour"]))["text"]} for row in similar],
            n_graphs=nodes["n"],
            n_interventions=intervened["n"],
            bos=bos,
        )

    def windows(self, sql):
        """Rows of WINDOWS, the highest activations first, then the quantile bands by number."""
        rows = sorted(self.rows(sql), key=lambda row: row["rank"])
        rows.sort(key=lambda row: row["band"], reverse=True)
        rows.sort(key=lambda row: (row["band"] != "top", -len(row["band"])))
        return rows

    def put_in_tokens(self, rows):
        """Puts in the tokens of rows of WINDOWS that have none of their own, from the harvested text; returns the token that begins it."""
        first, bare = None, [i for i, row in enumerate(rows) if row["tokens"] is None and row["sequence"] is not None]
        if bare:
            sequences, starts, lengths = ([rows[i][name] for i in bare] for name in ("sequence", "start", "length"))
            for found in self.rows(HARVESTED, n=bare, sequences=sequences, starts=starts, lengths=lengths):
                rows[found["n"]]["tokens"], first = found["tokens"], found["first"]
        return first

    def _card(self, card, n_features, best, effects, strings):
        [own] = self.rows(OWN_LABEL) or [{"text": None}]
        said = ("text", "score", "detection", "fuzzing", "explainer", "side")
        measured = ("density", "max_activation", "mean_activation", "threshold", "encoder_norm", "decoder_norms", "dead")
        more = ("n_contexts", "n_documents", "std_activation", "quantiles", "histogram")
        return {
            **self.key,
            **{name: best[name] if best else None for name in said},
            **{name: card[name] for name in measured},
            "own_label": own["text"],
            **{name: card[name] for name in more},
            "n_features": n_features,
            **{
                name: [{"token": one["token"], "string": strings.get(one["token"]), "value": one["value"]} for one in found or []]
                or None
                for name, found in effects.items()
            },
        }

    def _explanations(self):
        scores = {of: list(rows) for of, rows in groupby(sorted(self.rows(SCORES), key=_said_by), key=_said_by)}
        missing = dict.fromkeys(("scorer", "score", "n", "n_failed", "ci_low", "ci_high", "judge", "chance"))
        said = ("side", "explainer", "text", "model", "status", "error", "cost_usd")
        return [
            {**self.key, **{name: row[name] for name in said}, **{name: score[name] for name in missing}}
            for row in self.rows(EXPLANATIONS, first=MAX_EXPLANATIONS)
            for score in scores.get(_said_by(row), [missing])
        ][:MAX_EXPLANATIONS]

    def _texts(self, places):
        """{(layer, feature): its best explanation} of those that have one."""
        layers, features = zip(*places, strict=True)
        rows = self.rows(TEXTS, places_layer=list(layers), places_feature=list(features))
        return {(row["layer"], row["feature"]): row for row in rows}

    def strings(self, model_id, tokens):
        rows = self.rows(STRINGS, model_id=model_id, tokens=sorted(tokens - {None})) if tokens - {None} else []
        return {row["token"]: row["string"] for row in rows}


def _said_by(row):
    return row["side"], row["explainer"]


def _window(row, strings):
    """A row of feature_contexts, of one that has activations where they are above 0 alone."""
    tokens, length = row["tokens"], row["length"]
    activations = None if length is None else [0.0] * length
    for offset, value in zip(reversed(row["offsets"] or []), reversed(row["activations"] or []), strict=False):
        if value is not None and offset < length:
            activations[offset] = value
    named = ("band", "rank", "document", "sequence", "start", "position", "label", "tokens")
    return {
        **{name: row[name] for name in named},
        "strings": None if tokens is None else [strings.get(token) for token in tokens],
        "activations": activations,
        "max_activation": row["max_activation"],
    }
