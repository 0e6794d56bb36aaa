"""What holds of the rows of a sound database beside what the schema declares (keys, references, ranges): `cltdb db check` asks it.

A rule is a condition on the columns of a row; of rows for which it is NULL nothing is known. The columns that begin with `known_` are
facts of the row's dictionary, graph or intervention (`FACTS`). What is slow is asked of a piece of large tables, with `--full` of all. Questions across tables:
questions_of_features.py and questions_of_graphs.py.
"""

from typing import NamedTuple

from cltdb.database.literals import quoted
from cltdb.database.stems import STEM
from cltdb.database.tables import MADE_COLUMNS


class Rule(NamedTuple):
    """A condition that holds for every row of a table."""

    condition: str
    expected: str
    slow: bool = False
    of_artifact: str = ""
    """A column: it is a rule of artifacts that have values there."""


FACTS = {
    "dict_id": """
        SELECT dict_id, kind AS known_kind, n_layers AS known_layers, n_features AS known_features, v.n AS known_tokens, m.n AS known_context
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
RUN_ID = "-[0-9]{21}-[0-9]+$"
"""How the id of a run ends: with its start, in milliseconds of UTC and the zeros of that zone, and the process."""
OF_NODES = {
    "source": "kind AS known_source_kind, layer AS known_source_layer, position AS known_source_position, kept AS known_source_kept",
    "target": "kind AS known_target_kind, layer AS known_target_layer, position AS known_target_position, kept AS known_target_kept,"
    " influence + coalesce(probability, 0) AS known_target_influence, dropped_mass AS known_dropped, expanded AS known_target_expanded",
}
SOURCES = {
    "edges": "edges "
    + " ".join(
        f"LEFT JOIN (SELECT graph_id, node_id AS {end}_id, {facts} FROM nodes) USING (graph_id, {end}_id)"
        for end, facts in OF_NODES.items()
    )
    + " LEFT JOIN (SELECT graph_id, target_id, sum(abs(weight)) AS known_mass FROM edges GROUP BY ALL) USING (graph_id, target_id)"
    " LEFT JOIN (SELECT graph_id, dict_id IS NOT NULL AS known_here, token_strings IS NULL AS known_made_here FROM graphs) USING (graph_id)",
    "experiments": "experiments LEFT JOIN (SELECT DISTINCT experiment, spec_hash, true AS known_otherwise FROM stage_runs"
    f" WHERE NOT regexp_matches(run_id, '{RUN_ID}|-cached$')) USING (experiment, spec_hash)",
}
"""Tables whose rules need facts of several rows: what their rows are read from, with these facts."""
MAY_LACK = {
    "nodes": ("layer", "activation", "pre_activation", "bias"),
    "explanations": ("prompt_tokens", "completion_tokens", "created_at"),
    "scores": ("ci_low", "ci_high", "detail"),
    "requests": ("prompt_tokens", "completion_tokens", "seconds", "created_at"),
    "group_prompts": ("target_token",),
    "group_overlaps": ("ci_low", "ci_high", "corrected", "corrected_ci_low", "corrected_ci_high"),
    "label_scores": ("auc_matched",),
    "substitutions": ("text_rate_label", "text_rate_right"),
    "isolation": ("most_feature", "most_change", "success_drop", "n_include", "success_include"),
}
"""{table: columns that are NULL in some rows, of which rules or the columns beside them say when}."""
IMPORTED = "(SELECT artifact_key FROM graphs WHERE token_strings IS NOT NULL)"
"""SQL of the artifacts of imported graphs, whose files may have a value in some rows alone."""
LAYER = Rule("layer < known_layers", "a layer of the dictionary")
FEATURE = Rule("feature < known_features", "a feature of the dictionary")
TOKENS = "token ids of the model's vocabulary"
HEAD = "L[0-9]+H[0-9]+"
HEAD_LAYER = "try_cast(regexp_extract(via, 'L([0-9]+)H', 1) AS INTEGER)"


def _listed(column, field):
    """A field of the structs of a list."""
    return f"list_transform({column}, lambda e: e.{field})"


def _made(table):
    """Rules of the columns of a table that the loader makes of its others."""
    return (Rule(f"{name} IS NOT DISTINCT FROM {sql}", f"{sql} as {name}") for name, sql in MADE_COLUMNS[table].items())


def _effects(column):
    """Rules of a list of tokens with the effects on them: the first is the largest of `top`, the smallest of `bottom`."""
    token, value = (_listed(column, name) for name in ("token", "value"))
    return (
        Rule(f"list_min({token}) >= 0 AND list_max({token}) < known_tokens", TOKENS),
        Rule(f"isfinite(list_max({value})) AND isfinite(list_min({value}))", "finite numbers"),
        Rule(f"{value} = list_{'reverse_' * column.startswith('top')}sort({value})", "the strongest effect first"),
        Rule(f"list_unique({token}) = len({column})", "each token once", slow=True),
    )


def _settings(field):
    return _listed("settings", field)


SCORERS = ("detection", "fuzzing", "simulation", "pick_one", "intruder", "intervention")


def _quoted_all(names):
    return ", ".join(map(quoted, names))


WORD = (Rule("word_hash = md5_number_lower(word)", "the hash of the word"), Rule(f"stem = ({STEM})", "the stem of the word"))
RULES = {
    "models": (Rule("n_layers > 0 AND d_model > 0 AND vocab_size > 0", "sizes above 0"),),
    "dictionaries": (
        Rule("kind IN ('clt', 'plt', 'sae')", "clt, plt or sae as kind"),
        Rule("activation IN ('jumprelu', 'relu', 'topk', 'batchtopk')", "jumprelu, relu, topk or batchtopk as activation"),
        Rule("n_layers > 0 AND n_features > 0 AND d_model > 0", "sizes above 0"),
        Rule("regexp_full_match(sha256, '[0-9a-f]{64}')", "a SHA-256"),
    ),
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
        Rule(
            "len(decoder_norms) = if(known_kind = 'clt', known_layers - layer, 1)",
            "one decoder norm, or of a CLT one for each layer from its own on",
        ),
        Rule("dead OR max_activation > 0 AND mean_activation > 0", "activations above 0 unless it is dead"),
        Rule("std_activation <= max_activation * 1.0001", "a standard deviation of at most the maximum"),
        *(rule for side in ("top", "bottom") for kind in ("logits", "embeddings") for rule in _effects(f"{side}_{kind}")),
        Rule(
            "quantiles = list_sort(quantiles) AND quantiles[-1] <= max_activation * 1.0001",
            "quantiles that rise up to the maximum",
        ),
        Rule("dead = (len(histogram) = 0) AND n_contexts >= n_documents", "counts of activations above 0 unless it is dead"),
        Rule("(n_contexts > 0) = (n_documents > 0)", "documents where there are windows"),
        Rule(
            f"{_listed('histogram', 'low')} = list_sort(list_distinct({_listed('histogram', 'low')}))",
            "bins that rise",
            slow=True,
        ),
        Rule(f"list_min({_listed('histogram', 'n')}) > 0", "bins that are not empty", slow=True),
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
        Rule(
            "coalesce(activations[list_position(offsets, position - start)] = max_activation, offsets IS NULL)",
            "max_activation at the peak",
        ),
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
        Rule("status <> 'ok' OR error IS NULL", "no reason of a failure where status is ok"),
        Rule("trim(text) <> ''", "a text that is not empty"),
        Rule("rule IS NULL OR json_valid(rule)", "JSON as rule"),
    ),
    "requests": (
        Rule("(status = 'ok') = (error IS NULL)", "the reason why there is no usable answer, and only of that"),
        Rule("regexp_full_match(request_id, '[0-9a-f]{64}')", "a SHA-256 as request_id"),
        Rule(f"starts_with(purpose, 'explain:') OR purpose IN ({_quoted_all(SCORERS)})", "an explainer or scorer as purpose"),
    ),
    "scores": (
        Rule("scorer = 'simulation' OR score BETWEEN 0 AND 1", "a score from 0 to 1, but for simulation"),
        Rule("score BETWEEN ci_low - 1e-9 AND ci_high + 1e-9", "a score inside its interval"),
        Rule(f"scorer IN ({_quoted_all(SCORERS)})", f"a scorer: {', '.join(SCORERS)}"),
        Rule("n > 0 OR score IS NULL", "a score of at least one question"),
        Rule(
            "scorer NOT IN ('detection', 'fuzzing') OR abs(score - (json_value(if(json_valid(detail), detail, NULL), '$.tpr')::DOUBLE"
            " + json_value(if(json_valid(detail), detail, NULL), '$.tnr')::DOUBLE) / 2) < 1e-6",
            "the mean of tpr and tnr of its detail as score",
            slow=True,
        ),
        Rule(
            "scorer NOT IN ('pick_one', 'intruder', 'intervention') OR abs(score * n - round(score * n)) < 1e-6",
            "a share of n questions as score",
        ),
        Rule("detail IS NULL OR json_valid(detail)", "JSON as detail"),
        *_made("scores"),
    ),
    "graphs": (
        Rule("list_min(tokens) >= 0 AND list_max(tokens) < known_tokens", TOKENS),
        Rule("n_nodes > 0 AND n_edges >= 0", "counts of what it has"),
        Rule("token_strings IS NOT NULL OR starts_with(graph_id, prompt_id || '-')", "a graph_id that begins with prompt_id"),
    ),
    "nodes": (
        LAYER,
        Rule("position < known_positions", "a position of the prompt"),
        Rule("token < known_tokens", TOKENS),
        Rule("kind <> 'feature' OR (layer IS NOT NULL AND feature IS NOT NULL)", "layer and index of a feature"),
        Rule("kind = 'feature' OR feature IS NULL", "an index of features alone"),
        Rule("(kind = 'feature') = (activation IS NOT NULL) OR activation IS NULL", "an activation of features alone"),
        Rule("kind NOT IN ('feature', 'error') OR token IS NULL", "a token of embeddings and logits alone"),
        Rule("kind <> 'error' OR layer IS NOT NULL", "the layer of an error"),
    ),
    "edges": (
        Rule("source_id <> target_id", "two nodes"),
        Rule("NOT kept OR known_source_kept AND known_target_kept", "both ends kept where the edge is"),
        Rule(
            "NOT known_here OR known_target_kind IN ('feature', 'logit') AND known_source_kind <> 'logit'"
            " AND (known_target_kind <> 'feature' OR known_source_kind = 'embedding' OR known_source_layer < known_target_layer)",
            "edges from inputs and features to features of later layers and logits",
        ),
        Rule(
            "NOT known_here OR known_source_position <= known_target_position", "a source that is no later token than the target"
        ),
        Rule("NOT known_made_here OR known_target_expanded", "a target that is expanded"),
        Rule(
            "NOT known_made_here OR abs(influence * (known_mass + known_dropped) - abs(weight) * known_target_influence)"
            " <= 1e-4 * abs(weight) * known_target_influence + 1e-9",
            "the edge's share of all that enters its target, times the target's influence, as influence",
        ),
    ),
    "feature_edges": (
        Rule("source_layer < target_layer AND target_layer < known_layers", "a target in a later layer"),
        Rule("isfinite(virtual_weight) AND isfinite(coalesce(era, 0)) AND isfinite(coalesce(twera, 0))", "finite numbers"),
        Rule(
            f"via IS NULL OR regexp_full_match(via, '{HEAD}') AND era IS NULL AND twera IS NULL AND coactivation IS NULL",
            "a head such as L3H2 as via, with no mean over tokens beside it",
        ),
        Rule(
            f"{HEAD_LAYER} BETWEEN source_layer + 1 AND target_layer",
            "a head between source and target",
        ),
        Rule("coactivation > 0 OR era = 0 AND twera = 0", "means of 0 where the two are never active together"),
        *_made("feature_edges"),
    ),
    "feature_neighbours": (LAYER, FEATURE, Rule("neighbour <> feature", "another feature")),
    "input_edges": (
        LAYER,
        FEATURE,
        Rule("kind <> 'token' OR input BETWEEN 0 AND known_tokens - 1", TOKENS),
        Rule("kind <> 'position' OR input BETWEEN 0 AND known_context - 1", "positions of the model's context"),
        Rule("kind <> 'token' OR via IS NOT NULL", "a head as via of a token"),
        Rule(
            f"regexp_full_match(via, '{HEAD}') AND {HEAD_LAYER} <= layer",
            "a head before the feature as via, such as L3H2",
            slow=True,
        ),
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
        Rule("until_layer IS NULL OR mode = 'constrained'", "a last layer in mode constrained alone"),
        Rule(
            "list_has_all(list_transform(given, lambda g: split_part(g, '@', 1)), list_transform(settings, lambda s: concat(s.layer, ':', s.feature)))",
            "the features that were asked for among those that were set",
        ),
        Rule(
            "NOT regexp_matches(intervention_id, '-ablate-[0-9]+-[0-9]+-[0-9]+(-free)?$') OR len(settings) = 1 AND intervention_id = graph_id"
            " || concat_ws('-', '-ablate', settings[1].layer, settings[1].feature, settings[1].position, nullif(mode, 'iterative'))",
            "layer, feature, position and mode as intervention_id has them",
        ),
        Rule(  # of an intervention by hand on a prompt: words of it, its hash, and a hash of what was done
            "graph_id IS NOT NULL OR NOT regexp_matches(intervention_id, '-[0-9a-f]{6}-[0-9a-f]{8}$')"
            " OR intervention_id[-15:-10] = sha256(prompt)[:6]",
            "the prompt of which intervention_id has the hash",
        ),
    ),
    "intervention_effects": (
        LAYER,
        Rule("feature < known_features", "a feature of the dictionary"),
        Rule("position < known_positions", "a position of the prompt"),
        Rule("token < known_tokens", TOKENS),
        Rule("(kind = 'feature') = (feature IS NOT NULL)", "an index of features alone"),
        Rule("(kind = 'feature') = (layer IS NOT NULL)", "a layer of features alone"),
        Rule("(kind = 'logit') = (token IS NOT NULL)", "a token of logits alone"),
        Rule(
            "(probability_before IS NULL) = (probability_after IS NULL) AND (kind = 'logit' OR probability_after IS NULL)",
            "two probabilities or none, of logits alone",
        ),
    ),
    "paths": (Rule("weight = 0 OR share > 0", "a share above 0"),),
    "path_steps": (
        Rule("(head IS NULL) = (source_position IS NULL)", "a position that the head reads, where there is one"),
        Rule(
            f"NOT regexp_full_match(via, '{HEAD}( {HEAD})*') OR head = string_split(via, ' ')[-1]",
            "the last head of the route",
            slow=True,
        ),
        Rule("source_position < known_positions", "a position of the prompt"),
        Rule("source_id <> target_id", "two nodes"),
    ),
    "prune_curves": (Rule("n_nodes >= 0 AND n_edges >= 0", "counts of at least 0"),),
    "supernodes": (Rule("len(node_ids) = list_unique(node_ids)", "each node once"),),
    "pullback_overlaps": (
        LAYER,
        FEATURE,
        Rule("abs(overlap * k - round(overlap * k)) < 1e-6", "a share of k sources"),
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
        *(
            Rule(f"abs({rate} * n - round({rate} * n)) < 1e-6", f"a share of n prompts as {rate}")
            for rate in ("rate_label", "rate_concept", "rate_right", "text_rate_label", "text_rate_right")
        ),
        Rule("(control = 'random') = (draw IS NOT NULL) OR draw IS NULL", "a draw of random features alone"),
        Rule("part = 'test' OR text_rate_right IS NULL", "continuations on the half that measures"),
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
        Rule("(leakage_later IS NULL) = (layer = known_layers - 1)", "a change of later layers, but for the last"),
        Rule("most_layer >= layer", "a feature of its own or a later layer as the one that changed most"),
    ),
    "label_scores": (Rule("first_layer < known_layers", "a layer of the dictionary"),),
    "experiments": (
        Rule("swept IS NULL OR json_valid(swept)", "JSON as swept"),
        Rule("(sweep IS NULL) = (swept IS NULL)", "what was swept where there is a sweep"),
        Rule(
            "coalesce(known_otherwise, false) OR NOT regexp_full_match(spec_hash, '[0-9a-f]{16}') OR spec_hash = sha256(spec_yaml)[:16]",
            "the hash of spec_yaml as spec_hash",
        ),
    ),
    "stage_runs": (
        Rule("versions IS NULL OR json_valid(versions)", "JSON as versions"),
        Rule("(status IN ('failed', 'killed')) = (error IS NOT NULL)", "the reason of a failure, and only of that"),
        Rule("status NOT IN ('done', 'failed') OR seconds IS NOT NULL", "how long it took"),
        Rule(
            f"NOT regexp_matches(run_id, '{RUN_ID}') OR starts_with(run_id,"
            " concat_ws('-', experiment, stage, key[:8], strftime(started_at, '%Y%m%d%H%M%S%g') || '0000-'))",
            "experiment, stage, key and started_at as its run_id has them",
        ),
        Rule(
            "NOT ends_with(run_id, '-cached') OR run_id = concat_ws('-', experiment, spec_hash, stage, key[:8], 'cached')",
            "experiment, spec_hash, stage and key as its run_id has them",
        ),
    ),
    "annotation_events": (Rule("json_valid(content)", "JSON as content"),),
    "dictionary_matches": (
        Rule("n_matched <= least(n_a, n_b)", "no more pairs than features"),
        Rule(
            "abs(share_a * n_a - n_matched) < 1e-6 AND abs(share_b * n_b - n_matched) < 1e-6",
            "n_matched / n_a and n_matched / n_b as shares",
        ),
        *(
            Rule(  # solved: an end p is 1.96 of its own standard errors from the share
                f"share_{side} BETWEEN share_{side}_low AND share_{side}_high AND "
                + " AND ".join(
                    f"abs(n_{side} * (share_{side} - {end}) ** 2 - 1.959964 ** 2 * {end} * (1 - {end})) < 1e-6 * (n_{side} + 4)"
                    for end in (f"share_{side}_low", f"share_{side}_high")
                ),
                f"Wilson's interval of share_{side}",
            )
            for side in "ab"
        ),
    ),
    "feature_matches": (
        Rule("layer_a = layer_b", "features of one layer"),
        Rule(
            "(relation = 'appeared') = (feature_a IS NULL) AND (relation = 'vanished') = (feature_b IS NULL)",
            "two features, but one of what appeared or vanished",
        ),
        *(Rule(f"(layer_{side} IS NULL) = (feature_{side} IS NULL)", "layer and index of a feature") for side in "ab"),
    ),
}
"""{table: rules}."""
