-- The macros and the views, each with its comments. Applied anew with every migration, because CREATE OR REPLACE VIEW drops comments.

CREATE OR REPLACE MACRO wilson(share, n) AS CASE WHEN share IS NOT NULL AND n > 0 THEN {
    low: greatest(0, least(share, (share + 1.959964 ** 2 / (2 * n) - 1.959964 * sqrt(share * (1 - share) / n + 1.959964 ** 2 / (4 * n ** 2))) / (1 + 1.959964 ** 2 / n))),
    high: least(1, greatest(share, (share + 1.959964 ** 2 / (2 * n) + 1.959964 * sqrt(share * (1 - share) / n + 1.959964 ** 2 / (4 * n ** 2))) / (1 + 1.959964 ** 2 / n)))
} END;

COMMENT ON MACRO wilson IS 'Wilson''s 95 % interval {low, high} of a share (0 to 1) of n, as cltdb.intervals.wilson has it of k of n: NULL where share or n is NULL, or n is 0.';

CREATE OR REPLACE MACRO student(n) AS CASE  -- from 21 values on the expansion in 1 / (n - 1) of Abramowitz and Stegun, 26.7.5
    WHEN n > 20 THEN 1.9599640 + 2.3722712 / (n - 1) + 2.8224986 / (n - 1) ** 2 + 2.5558497 / (n - 1) ** 3 + 1.5895340 / (n - 1) ** 4
    WHEN n >= 2 THEN [
        12.7062047, 4.3026527, 3.1824463, 2.7764451, 2.5705818, 2.4469119, 2.3646243, 2.3060041, 2.2621572,
        2.2281389, 2.2009852, 2.1788128, 2.1603687, 2.1447867, 2.1314495, 2.1199053, 2.1098156, 2.1009220, 2.0930241
    ][n::BIGINT - 1]
END;

COMMENT ON MACRO student IS 'How many standard errors on either side of a mean of n values hold 95 % (Student''s t with n - 1 degrees of freedom): NULL of fewer than two.';

CREATE OR REPLACE VIEW contexts AS
SELECT w.dict_id, w.layer, w.feature, w.band, w.rank, w.document, w.sequence, w.start, w.position, w.label,
       coalesce(w.tokens, t.tokens[w.start + 1 : w.start + w.length]) AS tokens,
       list_transform(range(w.length), lambda i: coalesce(w.activations[list_position(w.offsets, i::USMALLINT)], 0::FLOAT)) AS activations,
       w.max_activation, w.artifact_key
FROM windows AS w
LEFT JOIN harvested_text AS t USING (dict_id, sequence);

COMMENT ON VIEW contexts IS 'One row per window of text around a peak of a feature''s activation. Where only its statistics are wanted, table windows answers sooner. Key: dict_id, layer, feature, band, rank.';
COMMENT ON COLUMN contexts.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN contexts.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN contexts.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN contexts.band IS 'top for the highest activations, q0 to q<n-1> for the bands between quantiles, highest last.';
COMMENT ON COLUMN contexts.rank IS 'Place within the band, 0 first (highest activation).';
COMMENT ON COLUMN contexts.document IS 'Document that the window comes from; a window never crosses documents.';
COMMENT ON COLUMN contexts.sequence IS 'Sequence of the harvest that the window comes from.';
COMMENT ON COLUMN contexts.start IS 'Position in the sequence of the window''s first token, 0 first.';
COMMENT ON COLUMN contexts.position IS 'Position in the sequence of the peak, 0 first.';
COMMENT ON COLUMN contexts.label IS 'Label of the text source, such as a language; NULL where it has none.';
COMMENT ON COLUMN contexts.tokens IS 'Token ids of the window.';
COMMENT ON COLUMN contexts.activations IS 'Activation of the feature at each token of the window, in model units.';
COMMENT ON COLUMN contexts.max_activation IS 'Activation at the peak, in model units (at least 0).';
COMMENT ON COLUMN contexts.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

CREATE OR REPLACE VIEW feature_cards AS
SELECT f.dict_id, f.layer, f.feature, b.text, b.score, b.detection, b.fuzzing, b.explainer, b.side,
       f.density, f.max_activation, f.mean_activation, f.threshold, f.encoder_norm, f.decoder_norms, f.dead,
       f.top_logits, f.bottom_logits, f.top_embeddings, f.bottom_embeddings, a.text AS own_label
FROM features AS f
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
LEFT JOIN (SELECT dict_id, layer, feature, text FROM annotations WHERE kind = 'label' AND graph_id IS NULL) AS a
    USING (dict_id, layer, feature);

COMMENT ON VIEW feature_cards IS 'One row per feature: its statistics and its best explanation. Explanations of side input come before those of side output, then the highest score counts, then the explainer''s name. Baselines never count. Key: dict_id, layer, feature.';
COMMENT ON COLUMN feature_cards.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN feature_cards.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN feature_cards.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN feature_cards.text IS 'The best explanation; NULL where there is none.';
COMMENT ON COLUMN feature_cards.score IS 'Its score: detection where that was measured, else fuzzing, else the mean of the others (0 to 1).';
COMMENT ON COLUMN feature_cards.detection IS 'Its balanced accuracy in detection.';
COMMENT ON COLUMN feature_cards.fuzzing IS 'Its balanced accuracy in fuzzing.';
COMMENT ON COLUMN feature_cards.explainer IS 'Who wrote it, as in explanations.explainer.';
COMMENT ON COLUMN feature_cards.side IS 'input: the text says what makes the feature fire; output: what the feature writes.';
COMMENT ON COLUMN feature_cards.density IS 'Share of the harvest''s ordinary tokens (see activations.exclude_tokens) on which the feature''s activation is above 0 (0 to 1).';
COMMENT ON COLUMN feature_cards.max_activation IS 'Largest activation over the harvest''s tokens, in model units (at least 0).';
COMMENT ON COLUMN feature_cards.mean_activation IS 'Mean activation over the tokens on which the feature is active, in model units (at least 0).';
COMMENT ON COLUMN feature_cards.threshold IS 'JumpReLU threshold in model units; NULL where the activation function has none.';
COMMENT ON COLUMN feature_cards.encoder_norm IS 'L2 norm of the feature''s encoder vector, in model units (at least 0).';
COMMENT ON COLUMN feature_cards.decoder_norms IS 'L2 norms of the feature''s decoder vectors, one per target layer (at least 0): its own layer first, then each later one. A per-layer transcoder has one.';
COMMENT ON COLUMN feature_cards.dead IS 'True where density is 0.';
COMMENT ON COLUMN feature_cards.top_logits IS 'Tokens that the feature promotes most directly, largest first. Value: the token''s row of W_U times (final norm gain * sum of the feature''s decoder vectors), less its mean over the vocabulary.';
COMMENT ON COLUMN feature_cards.bottom_logits IS 'Tokens that the feature suppresses most directly, in the same units; smallest first.';
COMMENT ON COLUMN feature_cards.top_embeddings IS 'Tokens whose embedding drives the feature most directly, largest first. Value: <the embedding as it enters the residual stream, the direction of the residual stream that W_enc reads>. This is what the embedding adds to the pre-activation along the residual stream alone, before the MLP''s norm divides by its denominator.';
COMMENT ON COLUMN feature_cards.bottom_embeddings IS 'Tokens whose embedding inhibits the feature most directly, in the same units; smallest first.';
COMMENT ON COLUMN feature_cards.own_label IS 'Label that a user gave the feature in the browser; NULL where nobody did. Pages show it before text; scores and text are as without it.';

CREATE OR REPLACE VIEW named_edges AS
WITH named_nodes AS (
    SELECT n.graph_id, n.node_id, n.kind, n.layer, n.position, n.feature, n.activation,
           coalesce(v.string, CASE n.kind WHEN 'logit' THEN n.label ELSE g.token_strings[n.position + 1] END) AS string,
           CASE n.kind WHEN 'feature' THEN coalesce(c.text, n.label) ELSE n.kind || ' ' || coalesce(string, '') END AS text
    FROM nodes AS n
    JOIN graphs AS g USING (graph_id)
    LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = coalesce(n.token, g.tokens[n.position + 1])
    LEFT JOIN feature_cards AS c
        ON n.kind = 'feature' AND c.dict_id = g.dict_id AND c.layer = n.layer AND c.feature = n.feature
)
SELECT e.graph_id, e.source_id, e.target_id, e.weight, e.influence, e.kept, e.measured,
       s.kind AS source_kind, s.layer AS source_layer, s.position AS source_position, s.feature AS source_feature,
       s.activation AS source_activation, s.string AS source_string, s.text AS source_text,
       t.kind AS target_kind, t.layer AS target_layer, t.position AS target_position, t.feature AS target_feature,
       t.activation AS target_activation, t.string AS target_string, t.text AS target_text
FROM edges AS e
JOIN named_nodes AS s ON s.graph_id = e.graph_id AND s.node_id = e.source_id
JOIN named_nodes AS t ON t.graph_id = e.graph_id AND t.node_id = e.target_id;

COMMENT ON VIEW named_edges IS 'One row per edge of a graph, with both of its ends spelled out. Key: graph_id, source_id, target_id.';
COMMENT ON COLUMN named_edges.graph_id IS 'Graph, as in graphs.graph_id.';
COMMENT ON COLUMN named_edges.source_id IS 'Node that the edge leaves, as in nodes.node_id.';
COMMENT ON COLUMN named_edges.target_id IS 'Node that the edge enters, as in nodes.node_id.';
COMMENT ON COLUMN named_edges.weight IS 'Direct effect of the source on the target''s pre-activation, with attention patterns and norm denominators frozen.';
COMMENT ON COLUMN named_edges.influence IS 'Share of the edge in the absolute weights that enter the target (dropped ones too), times the influence of the target (at least 0).';
COMMENT ON COLUMN named_edges.kept IS 'True where the edge survives pruning.';
COMMENT ON COLUMN named_edges.measured IS 'What the target loses when an intervention removes the source, under the same freezing: what weight says, measured. NULL where it was not measured.';
COMMENT ON COLUMN named_edges.source_kind IS 'Kind of the source: feature, error, embedding or logit.';
COMMENT ON COLUMN named_edges.source_layer IS 'Layer of the source.';
COMMENT ON COLUMN named_edges.source_position IS 'Token position of the source.';
COMMENT ON COLUMN named_edges.source_feature IS 'Index of the source in its layer; NULL unless it is a feature.';
COMMENT ON COLUMN named_edges.source_activation IS 'Activation of the source, in model units.';
COMMENT ON COLUMN named_edges.source_string IS 'Token of the source: its own for an embedding or logit, the prompt''s at its position for a feature or error.';
COMMENT ON COLUMN named_edges.source_text IS 'What the source stands for: of a feature its best explanation, or its label in an imported graph; of other nodes their kind and token.';
COMMENT ON COLUMN named_edges.target_kind IS 'Kind of the target: feature, error, embedding or logit.';
COMMENT ON COLUMN named_edges.target_layer IS 'Layer of the target.';
COMMENT ON COLUMN named_edges.target_position IS 'Token position of the target.';
COMMENT ON COLUMN named_edges.target_feature IS 'Index of the target in its layer; NULL unless it is a feature.';
COMMENT ON COLUMN named_edges.target_activation IS 'Activation of the target, in model units.';
COMMENT ON COLUMN named_edges.target_string IS 'Token of the target: its own for an embedding or logit, the prompt''s at its position for a feature or error.';
COMMENT ON COLUMN named_edges.target_text IS 'What the target stands for: of a feature its best explanation, or its label in an imported graph; of other nodes their kind and token.';

CREATE OR REPLACE VIEW window_counts AS
WITH counted AS (
    SELECT dict_id, layer, feature, count(DISTINCT (sequence, position)) AS n_contexts, count(DISTINCT document) AS n_documents
    FROM windows
    SEMI JOIN (SELECT dict_id, layer, feature FROM features WHERE n_contexts IS NULL) USING (dict_id, layer, feature)
    GROUP BY dict_id, layer, feature
)
SELECT dict_id, layer, feature, n_contexts::BIGINT AS n_contexts, coalesce(n_documents, 0)::BIGINT AS n_documents,
       density, max_activation, dead
FROM features
WHERE n_contexts IS NOT NULL
UNION ALL  -- so that those that were counted, nearly always all, are not joined
SELECT f.dict_id, f.layer, f.feature, coalesce(c.n_contexts, 0), coalesce(f.n_documents, c.n_documents, 0),
       f.density, f.max_activation, f.dead
FROM features AS f
LEFT JOIN counted AS c USING (dict_id, layer, feature)
WHERE f.n_contexts IS NULL;

COMMENT ON VIEW window_counts IS 'One row per feature: how many windows it has, also where an earlier cltdb harvested and did not count them. Key: dict_id, layer, feature.';
COMMENT ON COLUMN window_counts.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN window_counts.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN window_counts.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN window_counts.n_contexts IS 'Windows of the feature, each place once.';
COMMENT ON COLUMN window_counts.n_documents IS 'Documents that these windows come from.';
COMMENT ON COLUMN window_counts.density IS 'As features.density.';
COMMENT ON COLUMN window_counts.max_activation IS 'As features.max_activation.';
COMMENT ON COLUMN window_counts.dead IS 'True where density is 0.';
