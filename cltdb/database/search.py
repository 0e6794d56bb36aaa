"""What `cltdb search` asks: named query feature_search, and beside it the embeddings of explanations, where the database has them.

Both rank features; a feature's relevance is the mean of 61 / (60 + its place) over both rankings, 0 where one lacks it (reciprocal rank
fusion): 1 for what is first in both, about a half for what is first in one alone. Features whose explanations are equally near share a
place. Of the embeddings the 500 texts nearest to what is searched for are ranked.
Source: Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods".
"""

from cltdb.database.embeddings import embedding_of, search_settings
from cltdb.database.folder import reading
from cltdb.database.named_queries import named_query, named_query_params

BY_WORDS = 500
"""At least so many features of feature_search are ranked."""
FUSED = """
WITH by_words AS MATERIALIZED (
    SELECT dict_id, layer, feature, found_in,
           row_number() OVER (ORDER BY dead, relevance DESC, dict_id, layer, feature) AS place FROM (
{feature_search}
    )
), explained AS MATERIALIZED (
    SELECT dict_id, layer, feature, coalesce(text_md5, md5(text)) AS text_md5 FROM best_explanations  -- NULL in exports of an earlier cltdb
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
      AND ($min_score::DOUBLE IS NULL OR score >= $min_score::DOUBLE)
), near AS MATERIALIZED (
    SELECT text_md5, list_inner_product(vector, $vector::FLOAT[]) AS cosine
    FROM text_embeddings SEMI JOIN explained USING (text_md5)
    WHERE model = $model::VARCHAR AND len(vector) = len($vector::FLOAT[])
    ORDER BY cosine DESC, text_md5 LIMIT 500
), by_meaning AS MATERIALIZED (
    SELECT dict_id, layer, feature, cosine, dense_rank() OVER (ORDER BY cosine DESC) AS place
    FROM explained JOIN near USING (text_md5)
), ranked AS MATERIALIZED (
    SELECT dict_id, layer, feature, round(30.5 * (coalesce(1 / (60 + w.place), 0) + coalesce(1 / (60 + m.place), 0)), 6) AS relevance,
           concat_ws('; ', w.found_in, 'meaning of the explanation (cosine ' || printf('%.2f', m.cosine) || ')') AS found_in
    FROM by_words AS w FULL JOIN by_meaning AS m USING (dict_id, layer, feature)
)
SELECT r.dict_id, r.layer, r.feature, r.relevance, r.found_in, b.text, b.score, b.explainer, f.density, f.max_activation, f.dead
FROM ranked AS r
JOIN (FROM features WHERE feature IN (SELECT feature FROM ranked)) AS f USING (dict_id, layer, feature)
LEFT JOIN (FROM best_explanations WHERE feature IN (SELECT feature FROM ranked)) AS b USING (dict_id, layer, feature)
WHERE $alive::BOOLEAN IS NOT TRUE OR NOT f.dead
ORDER BY f.dead, r.relevance DESC, r.dict_id, r.layer, r.feature
LIMIT $n::BIGINT
"""


def search_query(path, text, *, limit=50, **chosen):
    """(SQL, its parameters) that finds features of the database or exported folder at `path` that have to do with `text`; columns and other
    parameters as those of query feature_search. CltdbError where the text is to be embedded and the provider does not answer."""
    query = named_query("feature_search")
    settings = search_settings(path)
    if settings.embeddings is None or not text.strip() or not _has_vectors(path, settings.vectors):
        return query.sql, named_query_params(query, {"text": text, "limit": limit, **chosen})
    params = named_query_params(query, {"text": text, "limit": max(limit, BY_WORDS), **chosen})
    fused = {"n": limit, "model": settings.vectors, "vector": embedding_of(text, settings)}
    return FUSED.replace("{feature_search}", query.sql), params | fused


def _has_vectors(path, model):
    with reading(path) as connection:
        return connection.execute("SELECT count(*) > 0 FROM text_embeddings WHERE model = ?", [model]).fetchone()[0]
