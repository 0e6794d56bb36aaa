"""What holds of the rows of a sound database beside what the schema declares (keys, references, ranges): `cltdb db check` asks it.

A rule is a condition on the columns of a row; of rows for which it is NULL nothing is known. The columns that begin with `known_` are
facts of the row's dictionary or graph (`FACTS`). A question selects the rows that are wrong, across tables. What is slow is asked of
large tables with `--full` alone.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    """A condition that holds for every row of a table."""

    condition: str
    expected: str
    slow: bool = False


class Question(NamedTuple):
    """A query whose rows, each with the key of a row of `table` and what is wrong with it, are none."""

    table: str
    sql: str
    expected: str
    slow: bool = False


FACTS = {
    "dict_id": """
        SELECT dict_id, n_layers AS known_layers, n_features AS known_features, v.n AS known_tokens
        FROM dictionaries LEFT JOIN (SELECT model_id, max(token) + 1 AS n FROM vocabulary GROUP BY ALL) AS v USING (model_id)""",
    "graph_id": """
        SELECT graph_id, coalesce(g.n_layers, d.n_layers) AS known_layers, d.n_features AS known_features, v.n AS known_tokens,
               coalesce(len(g.tokens), len(g.token_strings)) AS known_positions
        FROM graphs AS g LEFT JOIN dictionaries AS d USING (dict_id)
        LEFT JOIN (SELECT model_id, max(token) + 1 AS n FROM vocabulary GROUP BY ALL) AS v ON v.model_id = g.model_id""",
}
"""Facts that rules use, by the column that tables have of them; the first that a table has counts."""
LAYER = Rule("layer < known_layers", "a layer of the dictionary")
FEATURE = Rule("feature < known_features", "a feature of the dictionary")
TOKENS = "token ids of the model's vocabulary"


def _effects(column):
    token, value = (f"list_transform({column}, lambda e: e.{name})" for name in ("token", "value"))
    return (
        Rule(f"list_min({token}) >= 0 AND list_max({token}) < known_tokens", TOKENS),
        Rule(f"isfinite(list_max({value})) AND isfinite(list_min({value}))", "finite numbers"),
    )


def _coin_bits(p):
    """SQL of the entropy of a coin, in bits."""
    p = f"({p})"
    return f"(if({p} > 0, -{p} * log2({p}), 0) + if({p} < 1, -(1 - {p}) * log2(1 - {p}), 0))"


RULES = {
    "metrics": (
        LAYER,
        Rule("NOT ends_with(name, '_frac') OR value BETWEEN 0 AND 1", "shares from 0 to 1 where the name ends in _frac"),
        Rule("ci_low <= ci_high", "an interval whose ends are in order"),
    ),
    "features": (
        LAYER,
        FEATURE,
        Rule("dead = (density = 0)", "dead where density is 0, and only there"),
        Rule("mean_activation <= max_activation * 1.0001", "a mean of at most the maximum"),
        Rule("len(decoder_norms) IN (1, known_layers - layer)", "one decoder norm, or one for each layer from its own on"),
        *(rule for side in ("top", "bottom") for kind in ("logits", "embeddings") for rule in _effects(f"{side}_{kind}")),
        Rule(
            "quantiles = list_sort(quantiles) AND quantiles[-1] <= max_activation * 1.0001",
            "quantiles that rise up to the maximum",
        ),
        Rule("dead = (len(histogram) = 0) AND n_contexts >= n_documents", "counts of activations above 0 unless it is dead"),
    ),
    "feature_labels": (
        LAYER,
        FEATURE,
        Rule("firings <= tokens", "at most one firing per token"),
        Rule("abs(rate - firings / tokens) < 1e-9", "firings / tokens as rate"),
        Rule("(firings > 0) = (mass > 0) AND (firings > 0) = (matched_rate > 0)", "a mass and a matched_rate where it fires"),
    ),
    "harvested_text": (Rule("len(tokens) > 0 AND list_min(tokens) >= 0 AND list_max(tokens) < known_tokens", TOKENS),),
    "windows": (
        LAYER,
        FEATURE,
        Rule("position BETWEEN start AND start + length - 1", "a peak inside the window"),
        Rule("peak_token BETWEEN 0 AND known_tokens - 1", TOKENS),
        Rule("len(offsets) = len(activations)", "as many offsets as activations"),
        Rule("list_min(activations) > 0 AND isfinite(max_activation)", "activations above 0"),
        Rule("offsets[-1] < length", "offsets inside the window"),
        Rule("activations[list_position(offsets, position - start)] = max_activation", "max_activation at the peak"),
        Rule("offsets = list_sort(list_distinct(offsets))", "offsets that rise", slow=True),
        Rule(
            "len(tokens) = length AND tokens[position - start + 1] = peak_token",
            "as many tokens as it is long, at the peak peak_token",
        ),
        Rule("list_min(tokens) >= 0 AND list_max(tokens) < known_tokens", TOKENS, slow=True),
        Rule("regexp_full_match(band, 'top|q[0-9]+')", "top or q and a number"),
    ),
    "explanations": (
        LAYER,
        FEATURE,
        Rule("(status = 'ok') = (text IS NOT NULL)", "a text where status is ok, and only there"),
        Rule("status <> 'failed' OR error IS NOT NULL", "the reason of a failure"),
        Rule("rule IS NULL OR json_valid(rule)", "JSON as rule"),
    ),
    "requests": (Rule("status = 'ok' OR error IS NOT NULL", "the reason why there is no usable answer"),),
    "scores": (
        Rule("scorer = 'simulation' OR score BETWEEN 0 AND 1", "a score from 0 to 1, but for simulation"),
        Rule("score BETWEEN ci_low - 1e-9 AND ci_high + 1e-9", "a score inside its interval"),
        Rule("detail IS NULL OR json_valid(detail)", "JSON as detail"),
    ),
    "graphs": (Rule("list_min(tokens) >= 0 AND list_max(tokens) < known_tokens", TOKENS),),
    "nodes": (
        LAYER,
        Rule("position < known_positions", "a position of the prompt"),
        Rule("token < known_tokens", TOKENS),
        Rule("kind <> 'feature' OR (layer IS NOT NULL AND feature IS NOT NULL)", "layer and index of a feature"),
        Rule("kind = 'feature' OR feature IS NULL", "an index of features alone"),
    ),
    "edges": (Rule("source_id <> target_id", "two nodes"),),
    "feature_edges": (
        Rule("source_layer < target_layer AND target_layer < known_layers", "a target in a later layer"),
        Rule("isfinite(virtual_weight) AND isfinite(coalesce(era, 0)) AND isfinite(coalesce(twera, 0))", "finite numbers"),
        Rule(
            "via IS NULL OR regexp_full_match(via, 'L[0-9]+H[0-9]+') AND era IS NULL",
            "a head such as L3H2 as via, with no mean over tokens beside it",
        ),
    ),
    "interventions": (Rule("list_max(list_transform(settings, lambda s: s.layer)) < known_layers", "layers of the dictionary"),),
    "intervention_effects": (Rule("(kind = 'feature') = (feature IS NOT NULL)", "an index of features alone"),),
    "text_embeddings": (
        Rule("regexp_full_match(text_md5, '[0-9a-f]{32}')", "an md5 hash"),
        Rule("abs(list_inner_product(vector, vector) - 1) < 1e-3", "a vector of length 1"),
    ),
    **{name: (Rule("word_hash = md5_number_lower(word)", "the hash of the word"),) for name in ("words", "word_forms")},
    "group_prompts": (
        Rule("list_min(tokens) >= 0 AND list_max(tokens) < known_tokens", TOKENS),
        Rule("target_token BETWEEN 0 AND known_tokens - 1 AND top_token BETWEEN 0 AND known_tokens - 1", TOKENS),
        Rule("(target IS NULL) = (target_token IS NULL)", "a token where there is a target, and only there"),
        *(
            Rule(f"len({name}) = known_layers", "a number for each layer")
            for name in ("n_active", "feature_influence", "error_influence")
        ),
    ),
    "group_overlaps": (
        LAYER,
        Rule("label_a < label_b", "two labels, the first in the alphabet first"),
        Rule("(label_a IS NULL) = (label_b IS NULL)", "two labels, or none for all pairs"),
        Rule("ci_low <= ci_high AND corrected_ci_low <= corrected_ci_high", "intervals that rise"),
        Rule("(n = 0) = (value IS NULL)", "a value where there are pairs, and only there"),
        Rule("null_kind <> 'none' OR corrected IS NULL", "a difference beside nulls alone"),
    ),
    "label_features": (
        LAYER,
        FEATURE,
        Rule("contrast <= influence * 1.0001", "a contrast of at most the influence"),
    ),
    "substitutions": (
        Rule("label_from <> label_to", "two labels"),
        Rule("rate_right <= rate_concept + 1e-9", "right answers among those of the concept"),
        Rule("part <> 'test' OR is_best", "the best point alone on the half that measures"),
        Rule("part <> 'choice' OR control = 'none'", "controls on the half that measures"),
        Rule("(control = 'untouched') = (boost IS NULL)", "a point where something is set, and only there"),
        Rule("n_suppressed <= n_features AND n_boosted <= n_features", "no more features set than were asked for"),
    ),
    "isolation": (
        LAYER,
        FEATURE,
        Rule("most_layer < known_layers AND most_feature < known_features", "another feature of the dictionary"),
        Rule("(most_layer, most_feature) <> (layer, feature)", "another feature as the one that changed most"),
        Rule("multiple <> 0 AND high > 0", "a feature that was raised"),
        Rule("n_unrelated <= n_prompts AND (n_unrelated = 0) = (kl_nats IS NULL)", "a KL where prompts are unrelated"),
        Rule(
            "(n_drop > 0) = (success_drop IS NOT NULL) AND (n_include > 0) = (success_include IS NOT NULL)",
            "a share of some exchanges",
        ),
        Rule("is_sampled OR concept IS NOT NULL", "a feature that was drawn, or is a concept's"),
    ),
    "label_scores": (Rule("first_layer < known_layers", "a layer of the dictionary"),),
    "experiments": (Rule("swept IS NULL OR json_valid(swept)", "JSON as swept"),),
    "stage_runs": (Rule("versions IS NULL OR json_valid(versions)", "JSON as versions"),),
}
"""{table: rules}."""

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
        "words",
        """SELECT w.dict_id, w.word FROM words AS w JOIN word_statistics AS s USING (dict_id)
        JOIN (SELECT dict_id, min(place) AS base, count(*) FILTER (reaches AND vector IS NOT NULL) AS n_reaching FROM words GROUP BY dict_id) AS d
            USING (dict_id)
        WHERE s.n_vectors IS NOT NULL AND ((w.vector IS NOT NULL) <> (w.place - d.base < s.n_vectors)
            OR (w.vector IS NULL) <> (w.neighbours IS NULL) OR list_max(w.neighbours) >= greatest(n_reaching, 1))""",
        "neighbours among the words that reach features, of the words that have a vector, which come first",
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
