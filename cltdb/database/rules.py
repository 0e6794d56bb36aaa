"""What holds of the rows of a sound database beside what the schema declares (keys, references, ranges): `cltdb db check` asks it.

A rule is a condition on the columns of a row; of rows for which it is NULL nothing is known. The columns that begin with `known_` are
facts of the row's dictionary, graph or intervention (`FACTS`). What is slow is asked of large tables with `--full` alone. Questions across tables:
questions.py.
"""

from typing import NamedTuple

from cltdb.database.words import STEM


class Rule(NamedTuple):
    """A condition that holds for every row of a table."""

    condition: str
    expected: str
    slow: bool = False


FACTS = {
    "dict_id": """
        SELECT dict_id, n_layers AS known_layers, n_features AS known_features, v.n AS known_tokens, m.n AS known_context
        FROM dictionaries LEFT JOIN (SELECT model_id, max(token) + 1 AS n FROM vocabulary GROUP BY ALL) AS v USING (model_id)
        LEFT JOIN (SELECT model_id, max(max_context) AS n FROM models GROUP BY ALL) AS m USING (model_id)""",
    "graph_id": """
        SELECT graph_id, coalesce(g.n_layers, d.n_layers) AS known_layers, d.n_features AS known_features, v.n AS known_tokens,
               coalesce(len(g.tokens), len(g.token_strings)) AS known_positions
        FROM graphs AS g LEFT JOIN dictionaries AS d USING (dict_id)
        LEFT JOIN (SELECT model_id, max(token) + 1 AS n FROM vocabulary GROUP BY ALL) AS v ON v.model_id = g.model_id""",
    "intervention_id": """
        SELECT intervention_id, d.n_layers AS known_layers, d.n_features AS known_features, v.n AS known_tokens, len(i.tokens) AS known_positions
        FROM interventions AS i LEFT JOIN dictionaries AS d USING (dict_id)
        LEFT JOIN (SELECT model_id, max(token) + 1 AS n FROM vocabulary GROUP BY ALL) AS v ON v.model_id = i.model_id""",
}
"""Facts that rules use, by the column that tables have of them; the first that a table has counts."""
LAYER = Rule("layer < known_layers", "a layer of the dictionary")
FEATURE = Rule("feature < known_features", "a feature of the dictionary")
TOKENS = "token ids of the model's vocabulary"


def _effects(column):
    """Rules of a list of tokens with the effects on them: the first is the largest of `top`, the smallest of `bottom`."""
    token, value = (f"list_transform({column}, lambda e: e.{name})" for name in ("token", "value"))
    return (
        Rule(f"list_min({token}) >= 0 AND list_max({token}) < known_tokens", TOKENS),
        Rule(f"isfinite(list_max({value})) AND isfinite(list_min({value}))", "finite numbers"),
        Rule(f"{value} = list_{'reverse_' * column.startswith('top')}sort({value})", "the strongest effect first"),
    )


def _settings(field):
    return f"list_transform(settings, lambda s: s.{field})"


WORD = (Rule("word_hash = md5_number_lower(word)", "the hash of the word"), Rule(f"stem = ({STEM})", "the stem of the word"))
RULES = {
    "metrics": (
        LAYER,
        Rule("NOT ends_with(name, '_frac') OR value BETWEEN 0 AND 1", "shares from 0 to 1 where the name ends in _frac"),
        Rule("ci_low <= ci_high", "an interval whose ends are in order"),
        Rule(
            "NOT regexp_full_match(name, 'fvu|fvu_model_units|l0|dead|kl_nats|ce_(original|replacement|zero|mean)') OR value > -1e-6",
            "no number below 0",
        ),
        Rule("NOT starts_with(name, 'top1_agreement') OR value BETWEEN 0 AND 1", "shares from 0 to 1 as agreement"),
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
        Rule(
            "try_cast(regexp_extract(via, 'L([0-9]+)H', 1) AS INTEGER) BETWEEN source_layer + 1 AND target_layer",
            "a head between source and target",
        ),
    ),
    "feature_neighbours": (LAYER, FEATURE, Rule("neighbour <> feature", "another feature")),
    "input_edges": (
        LAYER,
        FEATURE,
        Rule("kind <> 'token' OR input BETWEEN 0 AND known_tokens - 1", TOKENS),
        Rule("kind <> 'position' OR input BETWEEN 0 AND known_context - 1", "positions of the model's context"),
    ),
    "interventions": (
        Rule(
            f"list_max({_settings('layer')}) < known_layers AND list_min({_settings('layer')}) >= 0", "layers of the dictionary"
        ),
        Rule(
            f"list_max({_settings('feature')}) < known_features AND list_min({_settings('feature')}) >= 0",
            "features of the dictionary",
        ),
        Rule(
            f"list_max({_settings('position')}) < len(tokens) AND list_min({_settings('position')}) >= 0",
            "positions of the prompt",
        ),
        Rule(f"list_has_all(['set', 'scale'], {_settings('operation')})", "set or scale as operation"),
        Rule(f"isfinite(list_max({_settings('value')})) AND isfinite(list_min({_settings('value')}))", "finite values"),
        Rule("list_min(tokens) >= 0 AND list_max(tokens) < known_tokens", TOKENS),
        Rule("until_layer BETWEEN 0 AND known_layers - 1", "a layer of the dictionary"),
        Rule(
            "list_has_all(list_transform(given, lambda g: split_part(g, '@', 1)), list_transform(settings, lambda s: concat(s.layer, ':', s.feature)))",
            "the features that were asked for among those that were set",
        ),
    ),
    "intervention_effects": (
        LAYER,
        Rule("feature < known_features", "a feature of the dictionary"),
        Rule("position < known_positions", "a position of the prompt"),
        Rule("token < known_tokens", TOKENS),
        Rule("(kind = 'feature') = (feature IS NOT NULL)", "an index of features alone"),
    ),
    "text_embeddings": (
        Rule("regexp_full_match(text_md5, '[0-9a-f]{32}')", "an md5 hash"),
        Rule("abs(list_inner_product(vector, vector) - 1) < 1e-3", "a vector of length 1"),
    ),
    "words": (*WORD, Rule("abs(array_inner_product(vector, vector) - 1) < 1e-3", "a vector of length 1")),
    "word_forms": WORD,
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
    "stage_runs": (
        Rule("versions IS NULL OR json_valid(versions)", "JSON as versions"),
        Rule("(status IN ('failed', 'killed')) = (error IS NOT NULL)", "the reason of a failure, and only of that"),
    ),
    "annotation_events": (Rule("json_valid(content)", "JSON as content"),),
}
"""{table: rules}."""
