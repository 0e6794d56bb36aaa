"""What `cltdb search` asks: named query feature_search, and beside it the embeddings of explanations, where the database has them.

Both rank features; a feature's relevance is the mean of 61 / (60 + its place) over both rankings, 0 where one lacks it (reciprocal rank
fusion): 1 for what is first in both, about a half for what is first in one alone. Features whose explanations are equally near share a
place. Of the embeddings the 500 texts nearest to what is searched for are ranked.
Source: Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods".
"""

from cltdb.database.embeddings import embedding_of, search_settings
from cltdb.database.folder import reading
from cltdb.database.named_queries import named_query, named_query_params

BY_MEANING = "meaning of the explanation"
"""How the reason begins for which a feature is found by its embedding."""
BY_WORDS = 500
"""At least so many features of feature_search are ranked."""
EXPLAINED = """
    FROM best_explanations WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
      AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER) AND ($min_score::DOUBLE IS NULL OR score >= $min_score::DOUBLE)
"""
WITHOUT_NEIGHBOURS = """
SELECT count(*) FROM word_statistics WHERE n_vectors IS NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
"""
"""Dictionaries whose words an earlier cltdb made, in an exported folder or before the next load."""
FUSED = """
WITH by_words AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY dead, relevance DESC, dict_id, layer, feature) AS place FROM (
{feature_search}
    )
), cosines AS MATERIALIZED (  -- before texts are compared, which would carry the vectors along
    SELECT text_md5, list_inner_product(vector, $vector::FLOAT[]) AS cosine
    FROM text_embeddings WHERE model = $model::VARCHAR AND len(vector) = len($vector::FLOAT[])
), near AS MATERIALIZED (
    FROM cosines SEMI JOIN ({explained}) USING (text_md5) ORDER BY cosine DESC, text_md5 LIMIT 500
), by_meaning AS MATERIALIZED (
    SELECT m.*, f.density, f.max_activation, f.dead
    FROM (SELECT dict_id, layer, feature, text, score, explainer, cosine, dense_rank() OVER (ORDER BY cosine DESC) AS place
          FROM ({explained}) JOIN near USING (text_md5)) AS m
    JOIN features AS f USING (dict_id, layer, feature)
)
SELECT dict_id, layer, feature, round(30.5 * (coalesce(1 / (60 + w.place), 0) + coalesce(1 / (60 + m.place), 0)), 6) AS relevance,
       concat_ws('; ', w.found_in, '{by_meaning} (cosine ' || printf('%.2f', m.cosine) || ')') AS found_in,
       coalesce(w.text, m.text) AS text, coalesce(w.score, m.score) AS score, coalesce(w.explainer, m.explainer) AS explainer,
       coalesce(w.density, m.density) AS density, coalesce(w.max_activation, m.max_activation) AS max_activation, coalesce(w.dead, m.dead) AS dead
FROM by_words AS w FULL JOIN by_meaning AS m USING (dict_id, layer, feature)
WHERE $alive::BOOLEAN IS NOT TRUE OR NOT coalesce(w.dead, m.dead)
ORDER BY dead, relevance DESC, dict_id, layer, feature
LIMIT $n::BIGINT
"""


def search_query(path, text, *, limit=50, **chosen):
    """(SQL, its parameters) that finds features of the database or exported folder at `path` that have to do with `text`; columns and other
    parameters as those of query feature_search. CltdbError where the text is to be embedded and the provider does not answer."""
    query = named_query("feature_search")
    settings = search_settings(path)
    if settings.embeddings is None or not text.strip() or not _has_vectors(path, settings.vectors):
        return query.sql, named_query_params(query, {"text": text, "limit": limit, **chosen}, path)
    params = named_query_params(query, {"text": text, "limit": max(limit, BY_WORDS), **chosen}, path)
    fused = {"n": limit, "model": settings.vectors, "vector": embedding_of(text, settings)}
    sql = FUSED.replace("{by_meaning}", BY_MEANING).replace("{explained}", EXPLAINED).replace("{feature_search}", query.sql)
    return sql, params | fused


def may_have_unknown_words(text, found_in):
    """Whether a text may have words that lead to no feature, which query unknown_words says: not where it is one word, by which features were
    found. found_in: this column of what was found."""
    return not (text.strip().isalnum() and any(not reasons.startswith(BY_MEANING) for reasons in found_in))


def without_neighbours(connection, dict_id=None):
    """Whether some of the words were made by an earlier cltdb, so that a search finds no neighbours in meaning of them. connection: with `sql`."""
    return connection.sql(WITHOUT_NEIGHBOURS, {"dict_id": dict_id}).item() > 0


def _has_vectors(path, model):
    with reading(path) as connection:
        return connection.execute("SELECT count(*) > 0 FROM text_embeddings WHERE model = ?", [model]).fetchone()[0]
