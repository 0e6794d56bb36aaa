"""What holds of the rows of a sound database across tables: `cltdb db check` asks it, beside the rules of single rows (rules.py).

A question selects the rows that are wrong. What is slow is asked of a
piece of large tables, with `--full` of all.
"""

from collections.abc import Callable
from typing import NamedTuple

from cltdb.database.proofs import lie_in_their_text


class Question(NamedTuple):
    """A query whose rows, each with the key of a row of `table` and what is wrong with it, are none."""

    table: str
    sql: str
    expected: str
    slow: bool = False
    proof: Callable | None = None
    """Of large tables: a function of the connection that is true where it is quickly seen that there are no such rows."""


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
        FROM windows AS w JOIN features AS f USING (dict_id, layer, feature) WHERE list_max(activations) > f.max_activation
           OR band = 'top' AND rank = 0 AND tokens IS NULL AND w.max_activation <> f.max_activation""",
        "no activation above features.max_activation, which the first window has",
    ),
    Question(
        "windows",
        """WITH text AS (
            SELECT dict_id, sequence, unnest(tokens) AS token, generate_subscripts(tokens, 1) - 1 AS position FROM harvested_text
        )
        SELECT dict_id, layer, feature, band, rank, peak_token, token FROM windows LEFT JOIN text USING (dict_id, sequence, position)
        WHERE tokens IS NULL AND token IS DISTINCT FROM peak_token""",
        "a text with peak_token at the peak",
        proof=lie_in_their_text,
    ),
    Question(
        "windows",
        """SELECT w.dict_id, w.layer, w.feature, w.band, w.rank, w.start, w.length, t.n AS text_length FROM windows AS w
        JOIN (SELECT dict_id, sequence, len(tokens) AS n FROM harvested_text) AS t USING (dict_id, sequence)
        WHERE w.tokens IS NULL AND w.start + w.length > t.n""",
        "windows that end inside their text",
        proof=lie_in_their_text,
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
        """SELECT dict_id, layer, feature, n_contexts, coalesce(n, 0) AS found, n_documents, coalesce(documents, 0) AS found_documents
        FROM features LEFT JOIN
        (SELECT dict_id, layer, feature, count(DISTINCT (sequence, position)) AS n, count(DISTINCT document) AS documents FROM windows GROUP BY ALL)
        USING (dict_id, layer, feature) WHERE n_contexts <> coalesce(n, 0) OR n_documents <> coalesce(documents, 0)""",
        "as many places and documents of windows as n_contexts and n_documents say",
        slow=True,
    ),
    Question(
        "windows",
        """SELECT dict_id, layer, feature, band, highest, next_band, next_lowest FROM (
            SELECT *, lead(band) OVER of_feature AS next_band, lead(lowest) OVER of_feature AS next_lowest FROM (
                SELECT dict_id, layer, feature, band, min(max_activation) AS lowest, max(max_activation) AS highest FROM windows
                WHERE band <> 'top' AND tokens IS NULL GROUP BY ALL)
            WINDOW of_feature AS (PARTITION BY dict_id, layer, feature ORDER BY try_cast(band[2:] AS INTEGER)))
        WHERE highest > next_lowest""",
        "bands that rise",
        slow=True,
    ),
    Question(
        "windows",
        """SELECT dict_id, document, min(label) AS label, max(label) AS other_label FROM windows WHERE tokens IS NULL
        GROUP BY dict_id, document HAVING min(label) <> max(label) OR count(label) NOT IN (0, count(*))""",
        "one label of each document",
        slow=True,
    ),
    Question(
        "windows",
        """SELECT dict_id, sequence, document, first, next_document, next_first FROM (
            SELECT *, lead(document) OVER in_text AS next_document, lead(first) OVER in_text AS next_first FROM (
                SELECT dict_id, sequence, document, min(start) AS first, max(start + length) AS stop FROM windows WHERE tokens IS NULL GROUP BY ALL)
            WINDOW in_text AS (PARTITION BY dict_id, sequence ORDER BY first, stop))
        WHERE next_first < stop""",
        "windows of different documents that share no token",
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
    Question(
        "models",
        """SELECT model_id, revision, vocab_size, n, most FROM models
        JOIN (SELECT model_id, count(*) AS n, max(token) + 1 AS most FROM vocabulary GROUP BY ALL) USING (model_id)
        WHERE n <> most OR most > vocab_size""",
        "a row of vocabulary for each token up to the last, and no more than vocab_size",
    ),
    Question(
        "dictionaries",
        """SELECT d.dict_id, d.n_layers, m.n_layers AS of_model, d.d_model, m.d_model AS width FROM dictionaries AS d JOIN models AS m
        ON m.model_id = d.model_id AND m.revision IS NOT DISTINCT FROM d.revision WHERE d.n_layers > m.n_layers OR d.d_model <> m.d_model""",
        "no more layers than the model has, and its width",
    ),
    Question(
        "features",
        """SELECT dict_id, artifact_key, min(n) AS least, max(n) AS most FROM (
            SELECT dict_id, artifact_key, unnest([len(top_logits), 1000 + len(bottom_logits), 10000 + len(lens_logits)]) AS n FROM features)
        GROUP BY dict_id, artifact_key, n // 1000 HAVING min(n) < max(n)""",
        "lists of tokens that are equally long for all features",
    ),
    Question(
        "feature_labels",
        """SELECT dict_id, layer, feature, label, share, rate / total AS expected FROM feature_labels
        JOIN (SELECT dict_id, layer, feature, sum(rate) AS total FROM feature_labels GROUP BY ALL) USING (dict_id, layer, feature)
        WHERE abs(share * total - rate) > 1e-6 * total""",
        "rate / the sum of the rates of all labels as share",
        slow=True,
    ),
    Question(
        "feature_labels",
        """SELECT dict_id, layer, feature, label, mass, firings, f.max_activation FROM feature_labels JOIN features AS f USING (dict_id, layer, feature)
        WHERE mass > firings * f.max_activation * 1.0001""",
        "a mass of at most firings times the largest activation",
        slow=True,
    ),
    Question(
        "feature_neighbours",
        """SELECT dict_id, layer, feature, count(*) AS neighbours, max(rank) + 1 AS ranks, count(DISTINCT neighbour) AS different FROM feature_neighbours
        GROUP BY ALL HAVING count(*) <> max(rank) + 1 OR count(*) <> count(DISTINCT neighbour)""",
        "ranks 0, 1, 2, … without a gap, each of another neighbour",
        slow=True,
    ),
    Question(
        "feature_neighbours",
        """SELECT n.dict_id, n.layer, n.feature, n.rank, n.cosine, m.cosine AS next FROM feature_neighbours AS n JOIN feature_neighbours AS m
        ON m.dict_id = n.dict_id AND m.layer = n.layer AND m.feature = n.feature AND m.rank = n.rank + 1 WHERE n.cosine < m.cosine - 1e-6""",
        "the most similar neighbour first",
        slow=True,
    ),
    Question(
        "feature_neighbours",
        """SELECT n.dict_id, n.layer, n.feature, n.neighbour, n.cosine, m.cosine AS other FROM feature_neighbours AS n JOIN feature_neighbours AS m
        ON m.dict_id = n.dict_id AND m.layer = n.layer AND m.feature = n.neighbour AND m.neighbour = n.feature AND m.feature < n.feature
        WHERE abs(n.cosine - m.cosine) > 1e-3""",
        "the same cosine from both sides",
        slow=True,
    ),
    Question(
        "harvested_text",
        """SELECT dict_id, sequence FROM harvested_text ANTI JOIN windows USING (dict_id, sequence)
        WHERE artifact_key NOT IN (SELECT artifact_key FROM loaded_parts WHERE superseded AND starts_with(part, 'windows/'))""",
        "a window of every sequence",
        slow=True,
    ),
    Question(
        "scores",
        """SELECT s.dict_id, s.layer, s.feature, s.side, s.explainer, s.scorer, e.status FROM scores AS s
        JOIN explanations AS e USING (dict_id, layer, feature, side, explainer, artifact_key) WHERE e.status <> 'ok'""",
        "explanations that were made",
    ),
    Question(
        "graphs",
        """SELECT graph_id, g.model_id, d.model_id AS of_dictionary FROM graphs AS g JOIN dictionaries AS d USING (dict_id) WHERE g.model_id <> d.model_id""",
        "the model of its dictionary",
    ),
    Question(
        "graphs",
        """SELECT graph_id, n_features_active, n FROM graphs JOIN
        (SELECT graph_id, count(*) AS n FROM nodes WHERE kind = 'feature' GROUP BY ALL) USING (graph_id) WHERE n_features_active < n""",
        "no more nodes of features than were active",
    ),
    Question(
        "graphs",
        """SELECT graph_id, error_share, errors / total AS expected FROM graphs JOIN (
            SELECT graph_id, sum(influence) AS total, coalesce(sum(influence) FILTER (kind = 'error'), 0) AS errors FROM nodes GROUP BY ALL)
        USING (graph_id) WHERE token_strings IS NULL AND abs(error_share * total - errors) > 1e-6 * total""",
        "the share of errors in the influence of its nodes as error_share",
    ),
    Question(
        "graphs",
        """SELECT graph_id, mean_path_length, mean FROM graphs JOIN (SELECT graph_id, sum(length * share) AS mean FROM path_lengths GROUP BY ALL)
        USING (graph_id) WHERE token_strings IS NULL AND abs(mean_path_length - mean) > 1e-6 * mean""",
        "the mean of path_lengths as mean_path_length",
    ),
    Question(
        "graphs",
        """SELECT graph_id, node_threshold, edge_threshold, pruned_replacement_score, c.replacement_score FROM graphs AS g
        JOIN prune_curves AS c USING (graph_id, node_threshold, edge_threshold)
        WHERE token_strings IS NULL AND (abs(pruned_replacement_score - c.replacement_score) > 1e-9
           OR abs(pruned_completeness_score - c.completeness_score) > 1e-9)""",
        "the scores that prune_curves has at its thresholds",
    ),
    *(
        Question(
            "graphs",
            f"""SELECT graph_id, n AS kept_{part}, c.n_{part} FROM graphs JOIN prune_curves AS c USING (graph_id, node_threshold, edge_threshold)
            JOIN (SELECT graph_id, count(*) FILTER (kept) AS n FROM {part} GROUP BY ALL) USING (graph_id)
            WHERE token_strings IS NULL AND n <> c.n_{part}""",
            f"as many kept {part} as prune_curves has at its thresholds",
        )
        for part in ("nodes", "edges")
    ),
    Question(
        "graphs",
        """SELECT graph_id, n_ablations, n FROM graphs JOIN (
            SELECT graph_id, count(*) AS n FROM interventions SEMI JOIN graphs USING (graph_id, artifact_key)
            WHERE mode = 'iterative' AND contains(intervention_id, '-ablate-') GROUP BY ALL) USING (graph_id) WHERE n_ablations <> n""",
        "as many ablations as n_ablations says",
    ),
    Question(
        "nodes",
        """SELECT graph_id, node_id, kind, layer, position, feature FROM (
            SELECT *, row_number() OVER (PARTITION BY graph_id ORDER BY list_position(['feature', 'error', 'embedding', 'logit'], kind),
                layer, position, feature, node_id) - 1 AS place FROM nodes SEMI JOIN (FROM graphs WHERE token_strings IS NULL) USING (graph_id))
        WHERE place <> node_id""",
        "features, errors, embeddings and logits by layer, position and feature, numbered from 0",
    ),
    Question(
        "nodes",
        """SELECT n.graph_id, n.node_id, n.position, n.token, g.tokens[n.position + 1] AS of_prompt FROM nodes AS n JOIN graphs AS g USING (graph_id)
        WHERE n.kind = 'embedding' AND n.token <> g.tokens[n.position + 1]""",
        "the token of the prompt at its position",
    ),
    Question(
        "prune_curves",
        """SELECT graph_id, c.node_threshold, c.edge_threshold, c.n_nodes, m.node_threshold AS higher, m.n_nodes AS less FROM prune_curves AS c
        JOIN prune_curves AS m USING (graph_id, edge_threshold) WHERE c.node_threshold < m.node_threshold AND c.n_nodes > m.n_nodes""",
        "no fewer nodes where more influence is kept",
    ),
    Question(
        "paths",
        """SELECT graph_id, path_id, rank, weight, share, abs(weight) / share AS total FROM paths
        JOIN (SELECT graph_id, target_id, max(abs(weight) / share) AS most FROM paths WHERE share > 0 GROUP BY ALL) USING (graph_id, target_id)
        WHERE abs(abs(weight) - share * most) > 1e-5 * abs(weight) + 1e-12""",
        "shares in proportion to weights",
    ),
    Question(
        "paths",
        """SELECT p.graph_id, p.path_id, p.rank, p.weight, q.weight AS next FROM paths AS p JOIN paths AS q
        ON q.graph_id = p.graph_id AND q.target_id = p.target_id AND q.rank = p.rank + 1 WHERE abs(p.weight) < abs(q.weight) * (1 - 1e-6)""",
        "the strongest path first",
    ),
    Question(
        "path_steps",
        """SELECT a.graph_id, a.path_id, a.step, a.target_id, b.source_id AS next_source, p.target_id AS end_of_path
        FROM (SELECT DISTINCT graph_id, path_id, step, source_id, target_id FROM path_steps) AS a
        JOIN paths AS p USING (graph_id, path_id)
        LEFT JOIN (SELECT DISTINCT graph_id, path_id, step - 1 AS step, source_id FROM path_steps) AS b USING (graph_id, path_id, step)
        WHERE a.target_id <> coalesce(b.source_id, p.target_id)""",
        "steps that follow each other up to the end of their path",
    ),
    Question(
        "paths",
        "SELECT p.graph_id, p.path_id, p.rank FROM paths AS p ANTI JOIN path_steps AS s ON s.graph_id = p.graph_id AND s.path_id = p.path_id AND s.step = 0"
        " SEMI JOIN path_steps AS any_of ON any_of.graph_id = p.graph_id",
        "a first step",
    ),
    Question(
        "interventions",
        """SELECT i.intervention_id, i.graph_id, i.dict_id, g.dict_id AS of_graph FROM interventions AS i JOIN graphs AS g USING (graph_id)
        WHERE i.dict_id <> g.dict_id OR i.model_id <> g.model_id OR i.tokens <> g.tokens""",
        "dictionary, model and tokens of its graph",
    ),
    Question(
        "interventions",
        """SELECT intervention_id, graph_id, dict_id FROM interventions AS i WHERE artifact_key IN (SELECT artifact_key FROM graphs)
        AND (graph_id, artifact_key) NOT IN (SELECT (graph_id, artifact_key) FROM graphs)""",
        "a graph of its artifact",
    ),
    Question(
        "intervention_effects",
        """SELECT intervention_id, layer, position, feature, after, value FROM intervention_effects JOIN (
            SELECT intervention_id, s.layer, s.position, s.feature, s.value FROM (
                SELECT intervention_id, unnest(settings) AS s FROM interventions WHERE mode = 'iterative') WHERE s.operation = 'set')
        USING (intervention_id, layer, position, feature) WHERE abs(after - value) > 1e-4 * abs(value) + 1e-6""",
        "the value that was set",
    ),
    *(
        Question(
            table,
            f"SELECT groups_id, dict_id FROM {table} ANTI JOIN group_prompts USING (groups_id, dict_id)",
            "a comparison of labels that has prompts",
        )
        for table in ("group_overlaps", "label_features", "label_scores", "substitutions")
    ),
    Question(
        "group_prompts",
        """SELECT groups_id, concept, label, target, target_token, string FROM group_prompts JOIN dictionaries USING (dict_id)
        JOIN vocabulary AS v ON v.model_id = dictionaries.model_id AND v.token = target_token
        WHERE NOT starts_with(lower(trim(target)), lower(trim(string)))
          AND regexp_full_match(string, '[ -Z^-~]+') AND NOT starts_with(string, '<0x')""",  # others may be a tokenizer's spelling of bytes
        "the first token of target as target_token",
    ),
    Question(
        "group_overlaps",
        """SELECT groups_id, label_a, label_b, keyed_by, weighting, null_kind, count(*) AS layers, d.n_layers FROM group_overlaps
        JOIN dictionaries AS d USING (dict_id) GROUP BY ALL HAVING count(*) <> d.n_layers""",
        "a row for each layer",
    ),
    Question(
        "label_features",
        """SELECT a.groups_id, a.label, a.layer, a.feature, a.rank, a.contrast, b.contrast AS next FROM label_features AS a JOIN label_features AS b
        ON b.groups_id = a.groups_id AND b.label = a.label AND b.layer = a.layer AND b.rank = a.rank + 1 WHERE a.contrast < b.contrast - 1e-12""",
        "the feature of highest contrast first",
    ),
    Question(
        "label_scores",
        """SELECT groups_id, label, first_layer, n_features, n FROM label_scores AS s JOIN (
            SELECT s.groups_id, s.label, s.first_layer, count(DISTINCT (f.layer, f.feature)) AS n
            FROM (SELECT DISTINCT groups_id, label, first_layer FROM label_scores) AS s
            JOIN label_features AS f ON f.groups_id = s.groups_id AND f.label = s.label AND f.layer >= s.first_layer GROUP BY ALL)
        USING (groups_id, label, first_layer) WHERE n_features > n""",
        "no more features than the label has from that layer on",
    ),
    Question(
        "substitutions",
        """SELECT groups_id, label_from, label_to, n_features, positions, suppress, boost, s.rate_right, most FROM substitutions AS s JOIN (
            SELECT groups_id, label_from, label_to, max(rate_right) AS most FROM substitutions WHERE part = 'choice' GROUP BY ALL)
        USING (groups_id, label_from, label_to) WHERE part = 'choice' AND is_best AND rate_right < most""",
        "the highest rate_right of the half that chooses as best",
    ),
    Question(
        "isolation",
        """SELECT dict_id, layer, feature, count(DISTINCT (concept, is_sampled, high, decoder_norm, decoder_overlap)) AS n FROM isolation
        GROUP BY ALL HAVING count(DISTINCT (concept, is_sampled, high, decoder_norm, decoder_overlap)) > 1""",
        "the same scale, norm and concept at every multiple",
    ),
    Question(
        "dictionary_matches",
        """SELECT dict_a, dict_b, layer, above, n_a, n_b, n_matched FROM dictionary_matches AS m JOIN (
            SELECT dict_a, dict_b, above, sum(n_a) AS all_a, sum(n_b) AS all_b, sum(n_matched) AS matched FROM dictionary_matches
            WHERE layer IS NOT NULL GROUP BY ALL) USING (dict_a, dict_b, above)
        WHERE layer IS NULL AND (n_a, n_b, n_matched) <> (all_a, all_b, matched)""",
        "the sums of the layers where layer is NULL",
    ),
    Question(
        "dictionary_matches",
        """SELECT m.dict_a, m.dict_b, m.layer, m.above, m.n_matched, m.more, n.n_matched AS of_more FROM (
            SELECT *, lead(above) OVER (PARTITION BY dict_a, dict_b, layer ORDER BY above) AS more FROM dictionary_matches) AS m
        JOIN dictionary_matches AS n ON n.dict_a = m.dict_a AND n.dict_b = m.dict_b AND n.layer IS NOT DISTINCT FROM m.layer AND n.above = m.more
        WHERE n.n_matched > m.n_matched""",
        "no more pairs at a higher similarity",
    ),
    Question(
        "feature_matches",
        """SELECT dict_a, layer_a, feature_a, dict_b, count(*) AS n FROM feature_matches WHERE relation IN ('matched', 'merged', 'vanished')
        GROUP BY ALL HAVING count(*) > 1""",
        "each feature of a once as matched, merged or vanished",
    ),
    Question(
        "feature_matches",
        """SELECT dict_b, layer_b, feature_b, dict_a, count(*) AS n FROM feature_matches WHERE relation IN ('matched', 'split', 'appeared')
        GROUP BY ALL HAVING count(*) > 1""",
        "each feature of b once as matched, split or appeared",
    ),
    Question(
        "pullback_overlaps",
        """SELECT dict_id, layer, feature, route, count(DISTINCT n_tokens) AS n FROM pullback_overlaps GROUP BY ALL HAVING count(DISTINCT n_tokens) > 1""",
        "the same tokens for every k",
    ),
    Question(
        "loaded_parts",
        "SELECT artifact_key, part FROM loaded_parts ANTI JOIN loaded_artifacts USING (artifact_key)",
        "a row of loaded_artifacts",
    ),
    Question(
        "loaded_artifacts",
        "SELECT artifact_key, made_at FROM loaded_artifacts WHERE made_at <> '' AND try_cast(made_at AS TIMESTAMP) IS NULL",
        "a time, or nothing, as made_at",
    ),
)
"""Questions across tables."""
