"""Questions of `cltdb db check` about dictionaries, their features and texts, and what compares features."""

from cltdb.database.proofs import lie_in_their_text
from cltdb.database.question import Question
from cltdb.database.word_pages import PAGES


def _coin_bits(p):
    """SQL of the entropy of a coin, in bits."""
    p = f"({p})"
    return f"(if({p} > 0, -{p} * log2({p}), 0) + if({p} < 1, -(1 - {p}) * log2(1 - {p}), 0))"


QUESTIONS = (
    Question(
        "dictionaries",
        """SELECT dict_id, n_layers, n_features, n AS layers, least, most FROM dictionaries JOIN (
            SELECT dict_id, count(*) AS n, min(n) AS least, max(n) AS most FROM (SELECT dict_id, layer, count(*) AS n FROM features GROUP BY ALL)
            GROUP BY dict_id) USING (dict_id) WHERE n <> n_layers OR least <> n_features OR most <> n_features""",
        "n_features features in each of n_layers layers",
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
        "words",
        """SELECT dict_id, word, place, ought FROM (
            SELECT dict_id, word, place, base + (row_number() OVER (PARTITION BY dict_id ORDER BY place >= base + n_vectors, NOT reaches, word) - 1)
                AS ought
            FROM words JOIN (SELECT dict_id, n_vectors, md5_number_lower(dict_id) // 16777216 * 16777216 AS base FROM word_statistics) USING (dict_id)
            WHERE n_vectors IS NOT NULL)
        WHERE place <> ought""",
        "places from the number of the dictionary on: words that have a vector and reach features, others that have one, the rest",
    ),
    Question(
        "word_statistics",
        """SELECT dict_id, mean_length, n_words / n_explanations AS words, mean_effect, effect FROM word_statistics
        LEFT JOIN (SELECT dict_id, sum(n)::DOUBLE AS n_words FROM explanation_words GROUP BY dict_id) USING (dict_id)
        LEFT JOIN (SELECT dict_id, count(*) AS n_explanations FROM best_explanations GROUP BY dict_id) USING (dict_id)
        LEFT JOIN (SELECT dict_id, avg(weight) AS effect FROM token_features WHERE role = 'promotes' AND weight > 0 GROUP BY dict_id) USING (dict_id)
        WHERE NOT coalesce(abs(mean_length - words) <= 1e-6 * words, mean_length IS NULL AND words IS NULL)
           OR NOT coalesce(abs(mean_effect - effect) <= 1e-6 * effect, mean_effect IS NULL AND effect IS NULL)""",
        "the mean number of words of an explanation, and the mean effect on promoted tokens",
    ),
    Question(
        "word_pages",
        f"""WITH made AS MATERIALIZED ({PAGES.format(words="words")})
        SELECT dict_id, page FROM word_pages AS p FULL JOIN made AS m USING (dict_id, page) WHERE p.words IS DISTINCT FROM m.words""",
        "the words of the dictionary whose hashes begin so",
    ),
    Question("word_forms", "SELECT word FROM word_forms ANTI JOIN words USING (word_hash)", "words of a dictionary"),
    Question(
        "text_embeddings",
        "SELECT model, min(len(vector)) AS shortest, max(len(vector)) AS longest FROM text_embeddings GROUP BY ALL HAVING shortest < longest",
        "vectors of one length of each model",
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
            SELECT dict_id, layer, feature, sum(firings) AS firings, sum(mass) AS mass,
                   -sum(if(share > 0, share * ln(share), 0)) / ln(count(*)) AS entropy, """
        + ", ".join(
            f"{_coin_bits(f'avg({rate})')} - avg({_coin_bits(rate)}) AS {name}"
            for rate, name in (("rate", "bits"), ("matched_rate", "matched"))
        )
        + """ FROM feature_labels GROUP BY ALL
        )
        SELECT dict_id, layer, feature, label_entropy, entropy, label_information_bits, bits, label_information_matched_bits, matched,
               mean_activation, mass / nullif(firings, 0) AS mean
        FROM features LEFT JOIN profiles USING (dict_id, layer, feature)
        WHERE label_entropy IS DISTINCT FROM entropy AND coalesce(abs(label_entropy - entropy) > 1e-6, true)
           OR abs(label_information_bits - bits) > 1e-6 OR abs(label_information_matched_bits - matched) > 1e-6
           OR firings > list_sum(list_transform(histogram, lambda bin: bin.n))
           OR firings = list_sum(list_transform(histogram, lambda bin: bin.n)) AND abs(mean_activation * firings - mass) > 1e-4 * mass""",
        "entropy, information and firings as its rows of feature_labels give them",
        slow=True,
    ),
    Question(
        "features",
        """SELECT dict_id, layer, feature, n_contexts, coalesce(n, 0) AS found, n_documents, coalesce(documents, 0) AS found_documents
        FROM features LEFT JOIN
        (SELECT dict_id, layer, feature, len(list_distinct(list(hash(sequence, position)))) AS n, len(list_distinct(list(document))) AS documents
         FROM windows GROUP BY ALL)
        USING (dict_id, layer, feature) WHERE n_contexts <> coalesce(n, 0) OR n_documents <> coalesce(documents, 0)""",  # DISTINCT takes twice the memory
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
        WHERE n <> most OR most > (SELECT max(m.vocab_size) FROM models AS m WHERE m.model_id = models.model_id)""",
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
            SELECT dict_id, artifact_key, unnest([len(top_logits), 1000 + len(bottom_logits), 2000 + coalesce(len(top_embeddings), 0),
                3000 + coalesce(len(bottom_embeddings), 0), 10000 + coalesce(len(lens_logits), 0)]) AS n FROM features)
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
        "isolation",
        """SELECT dict_id, layer, feature, count(DISTINCT (concept, is_sampled, high, decoder_norm, decoder_overlap)) AS n FROM isolation
        GROUP BY ALL HAVING count(DISTINCT (concept, is_sampled, high, decoder_norm, decoder_overlap)) > 1""",
        "the same scale, norm and concept at every multiple",
    ),
    Question(
        "metrics",
        """SELECT dict_id, stage, step, name, label, pooled, mean FROM (
            SELECT dict_id, stage, step, name, label, any_value(value) FILTER (layer IS NULL) AS pooled, count(layer) AS n,
                avg(value) FILTER (layer IS NOT NULL) AS mean
            FROM metrics WHERE variant IS NULL AND name IN ('l0', 'heldout_l0', 'dead_frac', 'density') GROUP BY ALL)
        JOIN (SELECT dict_id, stage, count(DISTINCT layer) AS n FROM metrics WHERE variant IS NULL GROUP BY ALL) USING (dict_id, stage, n)
        WHERE abs(pooled - mean) > 1e-4 * mean""",
        "the mean over all layers where layer is NULL",
    ),
    Question(
        "metrics",
        """SELECT dict_id, stage, step, layer, variant, label, recovered, (zero - replacement) / (zero - original) AS expected FROM (
            SELECT dict_id, stage, step, layer, variant, label, """
        + ", ".join(
            f"any_value(value) FILTER (name = 'ce_{one}') AS {one}" for one in ("recovered", "original", "replacement", "zero")
        )
        + """ FROM metrics WHERE starts_with(name, 'ce_') GROUP BY ALL)
        WHERE abs(recovered * (zero - original) - (zero - replacement)) > 1e-6 * (abs(zero) + abs(replacement))""",
        "(zero - replacement) / (zero - original) of the cross-entropies as ce_recovered",
    ),
    Question(
        "isolation",
        """SELECT i.dict_id, layer, feature, multiple, decoder_norm, norm FROM isolation AS i
        JOIN (SELECT dict_id, layer, feature, sqrt(list_sum(list_transform(decoder_norms, lambda n: n ** 2))) AS norm FROM features)
        USING (dict_id, layer, feature) WHERE abs(decoder_norm - norm) > 1e-4 * norm""",
        "the norm of features.decoder_norms together as decoder_norm",
    ),
    Question(
        "dictionary_matches",
        """SELECT dict_a, dict_b, layer, count(DISTINCT (matched_by, n_a, n_b, highest_a, highest_b, control_highest, n_tokens)) AS n
        FROM dictionary_matches GROUP BY ALL HAVING n > 1""",
        "the same features, means of the highest similarity and tokens in all rows of a layer",
    ),
    Question(
        "dictionary_matches",
        """SELECT dict_a, dict_b, layer, above, highest_a, mean_a, highest_b, mean_b, control_highest, control FROM dictionary_matches JOIN (
            SELECT dict_a, dict_b, above, sum(n_a * highest_a) / sum(n_a) AS mean_a, sum(n_b * highest_b) / sum(n_b) AS mean_b,
                sum(n_a * control_highest) / sum(n_a) AS control FROM dictionary_matches WHERE layer IS NOT NULL GROUP BY ALL)
        USING (dict_a, dict_b, above)
        WHERE layer IS NULL AND (abs(highest_a - mean_a) > 1e-5 OR abs(highest_b - mean_b) > 1e-5 OR abs(control_highest - control) > 1e-5)""",
        "the means over the features of all layers where layer is NULL",
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
    *(
        Question(
            "dictionary_matches",
            f"""SELECT dict_a, dict_b, layer, n_{side}, n FROM (SELECT DISTINCT dict_a, dict_b, layer, n_{side} FROM dictionary_matches) JOIN (
                SELECT dict_a, dict_b, layer_{side} AS layer, count(*) AS n FROM feature_matches WHERE relation IN ({relations}) GROUP BY ALL)
            USING (dict_a, dict_b, layer) WHERE n_{side} <> n""",
            f"as many features of {side} in feature_matches as n_{side} says",
        )
        for side, relations in {"a": "'matched', 'merged', 'vanished'", "b": "'matched', 'split', 'appeared'"}.items()
    ),
    *(
        Question(
            "feature_matches",
            f"""SELECT dict_a, layer_a, feature_a, dict_b, layer_b, feature_b, n_layers, n_features FROM feature_matches
            JOIN dictionaries ON dict_id = dict_{side} WHERE layer_{side} NOT BETWEEN 0 AND n_layers - 1 OR feature_{side} NOT BETWEEN 0 AND n_features - 1""",
            f"a feature of the dictionary dict_{side}",
        )
        for side in "ab"
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
