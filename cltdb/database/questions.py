"""What holds of the rows of a sound database across tables: `cltdb db check` asks it, beside the rules of single rows (rules.py).

A question selects the rows that are wrong. What is slow is asked of large tables with `--full` alone.
"""

from typing import NamedTuple


class Question(NamedTuple):
    """A query whose rows, each with the key of a row of `table` and what is wrong with it, are none."""

    table: str
    sql: str
    expected: str
    slow: bool = False


def _coin_bits(p):
    """SQL of the entropy of a coin, in bits."""
    p = f"({p})"
    return f"(if({p} > 0, -{p} * log2({p}), 0) + if({p} < 1, -(1 - {p}) * log2(1 - {p}), 0))"


QUESTIONS = (
    Question(
        "dictionaries",
        """SELECT dict_id, layer, n_features, coalesce(n, 0) AS found
        FROM (SELECT dict_id, n_features, unnest(range(n_layers)) AS layer FROM dictionaries SEMI JOIN features USING (dict_id))
        LEFT JOIN (SELECT dict_id, layer, count(*) AS n FROM features GROUP BY ALL) USING (dict_id, layer)
        WHERE n_features <> coalesce(n, 0)""",
        "n_features features in each of n_layers layers",
    ),
    *(
        Question(
            "graphs",
            f"""SELECT graph_id, n_{part}, coalesce(n, 0) AS found FROM graphs
            LEFT JOIN (SELECT graph_id, count(*) AS n FROM {part} GROUP BY ALL) USING (graph_id) WHERE n_{part} <> coalesce(n, 0)""",
            f"as many {part} as n_{part} says",
        )
        for part in ("nodes", "edges")
    ),
    Question(
        "nodes",
        """SELECT n.graph_id, n.node_id, g.dict_id, n.layer, n.feature FROM nodes AS n JOIN graphs AS g USING (graph_id)
        SEMI JOIN features AS any_of ON any_of.dict_id = g.dict_id
        ANTI JOIN features AS f ON f.dict_id = g.dict_id AND f.layer = n.layer AND f.feature = n.feature WHERE n.kind = 'feature'""",
        "a row of features for every node of kind feature",
    ),
    Question(
        "edges",
        """SELECT e.graph_id, e.source_id, e.target_id FROM edges AS e
        JOIN nodes AS s ON s.graph_id = e.graph_id AND s.node_id = e.source_id
        JOIN nodes AS t ON t.graph_id = e.graph_id AND t.node_id = e.target_id WHERE e.kept AND NOT (s.kept AND t.kept)""",
        "both ends kept where the edge is",
    ),
    Question(
        "edges",
        """SELECT e.graph_id, e.source_id, e.target_id, s.kind AS source_kind, t.kind AS target_kind FROM edges AS e
        JOIN nodes AS s ON s.graph_id = e.graph_id AND s.node_id = e.source_id
        JOIN nodes AS t ON t.graph_id = e.graph_id AND t.node_id = e.target_id
        SEMI JOIN (FROM graphs WHERE dict_id IS NOT NULL) AS g ON g.graph_id = e.graph_id
        WHERE t.kind IN ('embedding', 'error') OR s.kind = 'logit' OR s.layer >= t.layer AND t.kind = 'feature'""",
        "edges from inputs and features to features of later layers and logits",
    ),
    Question(
        "prune_curves",
        """SELECT c.graph_id, c.node_threshold, c.edge_threshold, c.n_nodes, g.n_nodes AS of_nodes, c.n_edges, g.n_edges AS of_edges
        FROM prune_curves AS c JOIN graphs AS g USING (graph_id) WHERE c.n_nodes > g.n_nodes OR c.n_edges > g.n_edges""",
        "no more nodes and edges than the graph has",
    ),
    Question(
        "interventions",
        """SELECT intervention_id, model_id FROM interventions ANTI JOIN models USING (model_id)
        WHERE model_id IS NOT NULL AND dict_id IN (SELECT dict_id FROM dictionaries)""",
        "model_id of a row of models",
    ),
    Question(
        "words",
        """SELECT w.dict_id, w.word FROM words AS w JOIN word_statistics AS s USING (dict_id)
        JOIN (SELECT dict_id, min(place) AS base, count(*) FILTER (reaches AND vector IS NOT NULL) AS n_reaching FROM words GROUP BY dict_id) AS d
            USING (dict_id)
        WHERE s.n_vectors IS NOT NULL AND ((w.vector IS NOT NULL) <> (w.place - d.base < s.n_vectors)
            OR (w.vector IS NULL) <> (w.neighbours IS NULL) OR list_max(w.neighbours) >= greatest(n_reaching, 1))""",
        "neighbours among the words that reach features, of the words that have a vector, which come first",
    ),
    Question("word_forms", "SELECT word FROM word_forms ANTI JOIN words USING (word_hash)", "words of a dictionary"),
    Question(
        "text_embeddings",
        "SELECT model, min(len(vector)) AS shortest, max(len(vector)) AS longest FROM text_embeddings GROUP BY ALL HAVING shortest < longest",
        "vectors of one length of each model",
    ),
    Question(
        "supernodes",
        """SELECT s.supernode_id, s.node_id FROM (SELECT supernode_id, graph_id, unnest(node_ids) AS node_id FROM supernodes) AS s
        ANTI JOIN nodes AS n USING (graph_id, node_id)""",
        "nodes of its graph",
    ),
    Question(
        "paths",
        "SELECT graph_id, target_id, sum(share) AS shares FROM paths GROUP BY ALL HAVING sum(share) > 1 + 1e-6",
        "shares of one target that add up to at most 1",
    ),
    Question(
        "paths",
        "SELECT graph_id, target_id, count(*) AS paths, max(rank) AS ranks FROM paths GROUP BY ALL HAVING paths <> ranks",
        "ranks 1, 2, 3, … without a gap",
    ),
    Question(
        "path_steps",
        """SELECT s.*, e.weight FROM (
            SELECT graph_id, path_id, step, source_id, target_id, sum(input_factor * weight_factor) AS routes,
                   sum(abs(input_factor * weight_factor)) AS mass
            FROM path_steps GROUP BY ALL) AS s
        JOIN edges AS e USING (graph_id, source_id, target_id)
        WHERE abs(s.routes - e.weight) > 1e-3 * abs(e.weight) + 1e-4 * s.mass + 1e-6""",
        "routes that add up to the weight of their edge",
        slow=True,
    ),
    Question(
        "group_overlaps",
        """SELECT n.groups_id, n.layer, n.label_a, n.label_b, n.keyed_by, n.weighting, n.null_kind, o.value AS overlap, n.value, n.corrected
        FROM group_overlaps AS n LEFT JOIN group_overlaps AS o ON o.null_kind = 'none' AND o.groups_id = n.groups_id AND o.layer = n.layer
            AND o.label_a IS NOT DISTINCT FROM n.label_a AND o.label_b IS NOT DISTINCT FROM n.label_b
            AND o.keyed_by = n.keyed_by AND o.weighting = n.weighting
        WHERE n.null_kind <> 'none' AND (o.n IS NULL OR abs(o.value - n.value - n.corrected) > 1e-9)""",
        "beside each null the overlap of one concept, and their difference",
    ),
    Question(
        "group_prompts",
        """SELECT groups_id, concept, count(*) AS n, any_value(labels) AS labels FROM group_prompts
        JOIN (SELECT groups_id, count(DISTINCT label) AS labels FROM group_prompts GROUP BY ALL) USING (groups_id)
        GROUP BY groups_id, concept HAVING count(*) <> any_value(labels)""",
        "every concept under each label",
    ),
    *(
        Question(
            table,
            f"SELECT groups_id, {label} FROM {table} AS t ANTI JOIN group_prompts AS p ON p.groups_id = t.groups_id AND p.label = t.{label}"
            f" WHERE {label} IS NOT NULL AND groups_id IN (SELECT groups_id FROM group_prompts)",
            "a label of its prompts",
        )
        for table, names in {
            "group_overlaps": ("label_a", "label_b"),
            "label_features": ("label",),
            "label_scores": ("label",),
            "substitutions": ("label_from", "label_to"),
        }.items()
        for label in names
    ),
    Question(
        "label_features",
        """SELECT groups_id, label, layer, count(*) AS features, max(rank) AS ranks, count(DISTINCT rank) AS distinct_ranks FROM label_features
        GROUP BY ALL HAVING count(*) <> max(rank) OR count(*) <> count(DISTINCT rank)""",
        "ranks 1, 2, 3, … without a gap",
    ),
    Question(
        "substitutions",
        """SELECT groups_id, label_from, label_to, count(*) FILTER (part = 'choice' AND is_best) AS best_points,
               count(DISTINCT (n_features, positions, suppress, boost)) FILTER (is_best AND control = 'none') AS measured_points
        FROM substitutions GROUP BY ALL
        HAVING count(*) FILTER (part = 'choice' AND is_best) <> 1
            OR count(DISTINCT (n_features, positions, suppress, boost)) FILTER (is_best AND control = 'none') <> 1""",
        "one best point of each pair of labels, which is the one that is measured",
    ),
    Question(
        "path_lengths",
        "SELECT graph_id, sum(share) AS shares FROM path_lengths GROUP BY ALL HAVING sum(share) > 1 + 1e-6",
        "shares of one graph that add up to at most 1",
    ),
    Question(
        "windows",
        """SELECT dict_id, layer, feature, band, rank, list_max(activations) AS activation, f.max_activation
        FROM windows AS w JOIN features AS f USING (dict_id, layer, feature) WHERE list_max(activations) > f.max_activation""",
        "no activation above features.max_activation",
    ),
    Question(
        "windows",
        """WITH text AS (
            SELECT dict_id, sequence, unnest(tokens) AS token, generate_subscripts(tokens, 1) - 1 AS position FROM harvested_text
        )
        SELECT dict_id, layer, feature, band, rank, peak_token, token FROM windows LEFT JOIN text USING (dict_id, sequence, position)
        WHERE tokens IS NULL AND token IS DISTINCT FROM peak_token""",
        "a text with peak_token at the peak",
    ),
    Question(
        "windows",
        """SELECT w.dict_id, w.layer, w.feature, w.band, w.rank, w.start, w.length, t.n AS text_length FROM windows AS w
        JOIN (SELECT dict_id, sequence, len(tokens) AS n FROM harvested_text) AS t USING (dict_id, sequence)
        WHERE w.tokens IS NULL AND w.start + w.length > t.n""",
        "windows that end inside their text",
    ),
    Question(
        "windows",
        """SELECT dict_id, layer, feature, band, count(*) AS windows, max(rank) + 1 AS ranks FROM windows
        GROUP BY ALL HAVING count(*) <> max(rank) + 1""",
        "ranks 0, 1, 2, … without a gap",
        slow=True,
    ),
    Question(
        "windows",
        """SELECT dict_id, layer, feature, band, any_value(max_activation) FILTER (rank = 0) AS first, max(max_activation) AS highest FROM windows
        GROUP BY ALL HAVING first < highest""",
        "the highest activation at rank 0",
        slow=True,
    ),
    Question(
        "feature_labels",
        """SELECT dict_id, layer, feature, sum(share) AS shares, count(*) AS labels, of_text.n AS labels_of_text FROM feature_labels
        JOIN (SELECT dict_id, layer, count(DISTINCT label) AS n, count(DISTINCT (label, tokens)) AS sizes FROM feature_labels GROUP BY ALL)
        AS of_text USING (dict_id, layer)
        GROUP BY ALL HAVING abs(sum(share) - 1) > 1e-6 OR count(*) <> of_text.n OR any_value(sizes) <> of_text.n""",
        "for every label of the text one row, with its tokens, and shares that add up to 1",
        slow=True,
    ),
    Question(
        "features",
        """WITH profiles AS (
            SELECT dict_id, layer, feature, sum(firings) AS firings,
                   -sum(if(share > 0, share * ln(share), 0)) / ln(count(*)) AS entropy, """
        + ", ".join(
            f"{_coin_bits(f'avg({rate})')} - avg({_coin_bits(rate)}) AS {name}"
            for rate, name in (("rate", "bits"), ("matched_rate", "matched"))
        )
        + """ FROM feature_labels GROUP BY ALL
        )
        SELECT dict_id, layer, feature, label_entropy, entropy, label_information_bits, bits, label_information_matched_bits, matched
        FROM features LEFT JOIN profiles USING (dict_id, layer, feature)
        WHERE label_entropy IS DISTINCT FROM entropy AND coalesce(abs(label_entropy - entropy) > 1e-6, true)
           OR abs(label_information_bits - bits) > 1e-6 OR abs(label_information_matched_bits - matched) > 1e-6
           OR firings > list_sum(list_transform(histogram, lambda bin: bin.n))""",
        "entropy, information and firings as its rows of feature_labels give them",
        slow=True,
    ),
    Question(
        "features",
        """SELECT dict_id, layer, feature, n_contexts, coalesce(n, 0) AS found FROM features LEFT JOIN
        (SELECT dict_id, layer, feature, count(DISTINCT (sequence, position)) AS n FROM windows GROUP BY ALL)
        USING (dict_id, layer, feature) WHERE n_contexts <> coalesce(n, 0)""",
        "as many places of windows as n_contexts says",
        slow=True,
    ),
    Question(
        "features",
        """WITH counted AS (
            SELECT dict_id, artifact_key, layer, feature, density,
                   list_sum(list_transform(histogram, lambda bin: bin.n)) AS firings FROM features WHERE density > 0
        ), harvests AS (SELECT artifact_key, median(firings / density) AS n_tokens FROM counted GROUP BY ALL)
        SELECT dict_id, layer, feature, density, firings FROM counted JOIN harvests USING (artifact_key)
        WHERE abs(firings - density * n_tokens) > 0.5""",
        "a histogram that counts the tokens of which density is the share",
    ),
)
"""Questions across tables."""
