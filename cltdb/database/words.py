"""What a search knows of words: how common each is, which tokens and labels it stands for, which words are near it in meaning.

Table `words` of a dictionary is made from its explanations and from the text of its harvest, after these were loaded. Meaning is learnt from
nothing else: the TF-IDF matrix of words and documents (an explanation, a sentence of the text) is cut down to its strongest dimensions by a
truncated SVD. Words that stand in the same documents come out near each other, and so do words that stand beside the same words. The first 16
dimensions know topics, all 64 tell cities of one country from those of another: a vector holds both, each of half weight (measured on the toy
world: tests/benchmarks/search.py).

Seeded and on one thread: on one machine the same rows give the same vectors, bit for bit. Reads: explanation_words, token_features,
harvested_text, windows, window_labels, vocabulary. Writes: words, word_pages, word_forms, word_statistics.
Source: Deerwester et al. 1990, "Indexing by latent semantic analysis".
"""

import hashlib
from typing import NamedTuple

from cltdb.database.literals import quoted
from cltdb.database.stems import STEM
from cltdb.database.store import connect, connect_current, transaction
from cltdb.database.word_pages import PAGES

VERSION = 4
"""Raised when words are made in another way: then all are made anew."""
TOPICS, DIMENSIONS = 16, 64
MOST_WORDS, MOST_TOKENS, MOST_EXPLANATIONS = 20_000, 600_000, 40_000
"""Vectors are learnt for the most common words, from about so many tokens of text and so many explanations, evenly spread."""
MOST_NEIGHBOURS, NEAR = 48, 0.4
"""Of a word so many neighbours in meaning are kept, of at least so large an inner product."""
LEAST_WEIGHT = 0.05
"""Of a word that every text has, as query feature_search weighs it."""
BLOCK_WORDS, GROUPS = 512, 256
"""So many words are compared with all others at once, and in so many groups of others the nearest is looked for first."""
NUMBERS = 2**24
"""The place of a word is a multiple of this, the dictionary's, plus the word's number there."""
FEWEST_DOCUMENTS = 500
"""Fewer documents say nothing of meaning: no vectors are made."""
SENTENCE_WORDS = 32
"""Longer sentences are cut."""
WORD = r"[\p{L}\p{M}\p{N}_]+"
LANGUAGES = (
    "af afrikaans ar arabic be belarusian bg bulgarian bn bengali bs bosnian ca catalan cs czech cy welsh da danish de german el greek en english "
    "eo esperanto es spanish et estonian eu basque fa persian fi finnish fr french ga irish gl galician gu gujarati he hebrew hi hindi "
    "hr croatian hu hungarian hy armenian id indonesian is icelandic it italian ja japanese ka georgian kk kazakh km khmer kn kannada ko korean "
    "ky kyrgyz la latin lo lao lt lithuanian lv latvian mk macedonian ml malayalam mn mongolian mr marathi ms malay my burmese ne nepali nl dutch "
    "no norwegian pa punjabi pl polish ps pashto pt portuguese ro romanian ru russian sa sanskrit si sinhala sk slovak sl slovenian sq albanian "
    "sr serbian sv swedish sw swahili ta tamil te telugu tg tajik th thai tl tagalog tr turkish tt tatar uk ukrainian ur urdu uz uzbek "
    "vi vietnamese yi yiddish yo yoruba zh chinese zu zulu"
).split()
"""ISO 639-1 codes, each with its language."""

KEYS = """
SELECT DISTINCT dict_id, artifact_key FROM explanations WHERE {which} UNION ALL SELECT DISTINCT dict_id, artifact_key FROM features WHERE {which}
UNION ALL SELECT DISTINCT dict_id, artifact_key FROM harvested_text WHERE {which}
UNION ALL SELECT d.dict_id, m.artifact_key FROM dictionaries AS d JOIN models AS m USING (model_id) WHERE {which}
"""
"""Artifacts that the words of dictionaries are made from. which: SQL that is true of the dictionaries."""
PARTS = """
SELECT artifact_key, string_agg(concat_ws(' ', artifact_key, l.made_at, p.part, p.rows, p.superseded) ORDER BY p.part),
       bool_or(NOT starts_with(p.part, 'vocabulary/'))
FROM loaded_artifacts AS l JOIN loaded_parts AS p USING (artifact_key)
WHERE split_part(p.part, '/', 1) IN ('explanations', 'scores', 'features', 'windows', 'contexts', 'harvested_text', 'vocabulary')
GROUP BY artifact_key
"""
"""What is loaded of each artifact that words can be made from, and whether that is more than a vocabulary."""
SENTENCES = f"""
WITH texts AS (
    SELECT sequence, tokens FROM harvested_text WHERE dict_id = $dict_id
    UNION ALL SELECT -1 - row_number() OVER (ORDER BY layer, feature, rank), tokens FROM windows
    WHERE dict_id = $dict_id AND tokens IS NOT NULL AND band = 'top' AND rank < 3
), vocabulary_of AS (
    SELECT token, string FROM vocabulary WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id)
), chosen AS (
    FROM texts WHERE sequence % greatest(1, (SELECT sum(len(tokens)) FROM texts) // {MOST_TOKENS}) = 0
), whole AS (
    SELECT sequence, strip_accents(lower(string_agg(gap || string, '' ORDER BY place))) AS text
    FROM (SELECT sequence, unnest(tokens) AS token, generate_subscripts(tokens, 1) AS place FROM chosen) JOIN vocabulary_of USING (token),
         (SELECT CASE WHEN bool_or(starts_with(string, ' ')) THEN '' ELSE ' ' END AS gap FROM vocabulary_of)
    GROUP BY sequence
), sentences AS (
    SELECT sequence, unnest(parts) AS sentence, generate_subscripts(parts, 1) AS n
    FROM (SELECT sequence, regexp_split_to_array(text, '[.!?…。\\n]+') AS parts FROM whole)
), said AS (
    SELECT sequence, n, unnest(words) AS word, generate_subscripts(words, 1) AS place
    FROM (SELECT sequence, n, regexp_extract_all(sentence, '{WORD}') AS words FROM sentences) WHERE len(words) > 1
)
SELECT dense_rank() OVER (ORDER BY sequence, n, (place - 1) // {SENTENCE_WORDS}) AS document, word, count(*) AS n
FROM said GROUP BY sequence, n, (place - 1) // {SENTENCE_WORDS}, word ORDER BY document, word
"""
"""Words of the sentences of a sample of the harvest's text; of a harvest by an earlier cltdb, of its strongest windows."""
EXPLANATIONS = f"""
SELECT dense_rank() OVER (ORDER BY layer, feature) AS document, word, n FROM explanation_words
WHERE dict_id = $dict_id AND feature % (SELECT 1 + count(*) // {MOST_EXPLANATIONS} FROM best_explanations WHERE dict_id = $dict_id) = 0
ORDER BY document, word
"""
TOKENS = r"""
SELECT token, trim(strip_accents(lower(string))) AS word
FROM vocabulary
WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id) AND string IS NOT NULL
  AND token IN (SELECT token FROM token_features WHERE dict_id = $dict_id)
ORDER BY token
"""


def refresh_words(path):
    """Makes the words of dictionaries anew of which something was loaded or taken out, and returns these. They are made beside the database: a
    writer's lock is held only to put them in."""
    with connect_current(path) as connection:
        changed = _changed(connection)
        material = {dict_id: _material(connection, dict_id, made_from) for dict_id, made_from in [*changed.items()][:1]}
    for dict_id in changed:
        if dict_id not in material:
            with connect(path) as connection:
                material = {dict_id: _material(connection, dict_id, _sources(connection, dict_id).get(dict_id))}
        made_from, tables = material.pop(dict_id)
        rows = made_from and _rows(dict_id, tables)
        with connect(path, write=True) as connection, transaction(connection):
            if _sources(connection, dict_id).get(dict_id) != made_from:
                continue  # another process loads: it makes them anew
            for table in ("words", "word_pages", "word_statistics"):
                connection.execute(f"DELETE FROM {table} WHERE dict_id = ?", [dict_id])
            if made_from:
                _write(connection, dict_id, rows, _means(tables), made_from)
            connection.execute("DELETE FROM word_forms WHERE word_hash NOT IN (SELECT word_hash FROM words)")
    return list(changed)


def changed_words(connection):
    """Dictionaries whose words are not those of what is loaded."""
    return list(_changed(connection))


def _changed(connection):
    """{dict_id: digest of what its words are to be made from, None where that is nothing} of these dictionaries."""
    now = _sources(connection)
    made = dict(connection.execute("SELECT dict_id, made_from FROM word_statistics").fetchall())
    return {dict_id: now.get(dict_id) for dict_id in sorted(now.keys() | made.keys()) if now.get(dict_id) != made.get(dict_id)}


def _sources(connection, dict_id=None):
    """{dict_id: digest of what its words are made from} of one dictionary or of all."""
    which = "dict_id IN (SELECT dict_id FROM dictionaries)" if dict_id is None else f"dict_id = {quoted(dict_id)}"
    keys = connection.execute(KEYS.format(which=which)).fetchall()
    parts = {key: (said, is_more) for key, said, is_more in connection.execute(PARTS).fetchall()}
    found = {}
    for one, key in sorted(set(keys)):
        if key in parts:
            found.setdefault(one, []).append(parts[key])
    digest = lambda texts: hashlib.md5(",".join(texts).encode()).hexdigest()  # noqa: E731
    return {
        one: f"{VERSION}:{digest(said for said, _ in of_one)}"
        for one, of_one in found.items()
        if any(is_more for _, is_more in of_one)
    }


def _material(connection, dict_id, made_from):
    """(digest of what the words of a dictionary are made from, that itself: `_read`); (None, None) where there is nothing."""
    return made_from, made_from and _read(connection, dict_id)


def _read(connection, dict_id):
    """{name: pyarrow.Table} of what the words of a dictionary are made from."""
    ask = {
        "sentences": SENTENCES,
        "explanations": EXPLANATIONS,
        "tokens": TOKENS,
        "counts": "SELECT word, count(*) AS n FROM explanation_words WHERE dict_id = $dict_id GROUP BY word ORDER BY word",
        "labels": "SELECT DISTINCT label FROM window_labels WHERE dict_id = $dict_id ORDER BY label",
        "size": "SELECT (SELECT count(*) FROM best_explanations WHERE dict_id = $dict_id) AS n_explanations,"
        " (SELECT sum(n) FROM explanation_words WHERE dict_id = $dict_id)::DOUBLE AS n_words,"
        " (SELECT avg(weight) FROM token_features WHERE dict_id = $dict_id AND role = 'promotes' AND weight > 0) AS mean_effect",
    }
    return {name: connection.sql(sql, params={"dict_id": dict_id}).to_arrow_table() for name, sql in ask.items()}


def _rows(dict_id, tables):
    """The rows of table `words` as a pyarrow.Table, less their stems, in the order of their place. Hashed here, where nobody waits."""
    import numpy as np
    import pyarrow as pa

    facts, vectors = _facts(tables), _learn(tables)
    reaching = facts.reaching
    words = sorted({*reaching, *facts.labels, *vectors}, key=lambda word: (word not in vectors, word not in reaching, word))
    shares, tokens, labels, reaches = zip(*map(facts.of, words), strict=True) if words else ((), (), (), ())
    comparable = words[: len(vectors)]
    of_words = np.array([vectors[word] for word in comparable], np.float32).reshape(-1, TOPICS + DIMENSIONS)
    n_reaching = sum(word in reaching for word in comparable)
    neighbours, nearness = _neighbours(of_words, np.array(shares[: len(comparable)]), n_reaching)
    first_place = hashed(dict_id) // NUMBERS * NUMBERS
    columns = {
        "dict_id": [dict_id] * len(words),
        "word": words,
        "word_hash": pa.array(map(hashed, words), pa.uint64()),
        "place": pa.array(range(first_place, first_place + len(words)), pa.uint64()),
        "share": pa.array(shares, pa.float32()),
        "tokens": pa.array(tokens, pa.list_(pa.int32())),
        "labels": pa.array(labels, pa.list_(pa.string())),
        "reaches": pa.array(reaches, pa.bool_()),
        "vector": pa.array([vectors.get(word) for word in words], pa.list_(pa.float32(), TOPICS + DIMENSIONS)),
        "neighbours": _padded(neighbours, len(words), pa.uint16()),
        "nearness": _padded(nearness, len(words), pa.float32()),
    }
    return pa.table(columns)


def hashed(text):
    """DuckDB's md5_number_lower."""
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little")


class _Facts(NamedTuple):
    """What is known of words but their vectors."""

    shares: dict
    rare: float
    """Share of a word that is in no explanation and no sentence."""
    tokens: dict
    labels: dict
    reaching: set

    def of(self, word):
        """share, tokens, labels and reaches of a word."""
        return self.shares.get(word, self.rare), self.tokens.get(word), self.labels.get(word), word in self.reaching


def _facts(tables):
    tokens = _tokens_by_word(tables["tokens"])
    return _Facts(
        _shares(tables),
        1 / (2 + tables["counts"].num_rows + tables["sentences"].num_rows),
        tokens,
        _labels_by_word(tables["labels"]["label"].to_pylist()),
        {*tables["counts"]["word"].to_pylist(), *tokens},
    )


def against_texts(connection):
    """What is wrong with the words of dictionaries, one sentence each. Vectors are not made anew, as machines make them with other last digits: they
    are what nearness is made from."""
    import numpy as np

    stale = set(changed_words(connection))
    for (dict_id,) in connection.execute("SELECT dict_id FROM word_statistics ORDER BY ALL").fetchall():
        if dict_id not in stale:
            tables = _read(connection, dict_id)
            facts = _facts(tables)
            there = {
                word: tuple(known)
                for word, *known in connection.execute(
                    "SELECT word, share, tokens, labels, reaches FROM words WHERE dict_id = ?", [dict_id]
                ).fetchall()
            }
            wrong = [
                word
                for word in sorted({*there, *facts.reaching, *facts.labels})
                if word not in there or there[word] != (float(np.float32(facts.of(word)[0])), *facts.of(word)[1:])
            ]
            if wrong:
                yield f"words: {len(wrong):,} of dictionary {dict_id}, such as {wrong[0]!r}; expected share, tokens, labels and reaches as its rows give them"
            if far := _otherwise_near(connection, dict_id):
                yield f"words: {len(far):,} of dictionary {dict_id}, such as {far[0]!r}; expected nearness as the vectors of the words give it, falling"


def _otherwise_near(connection, dict_id):
    """Words of which the neighbours are otherwise near than their vectors say (see `_neighbours`), or not the nearest first."""
    import numpy as np

    rows = connection.sql(
        "SELECT word, share, vector, neighbours, nearness FROM words WHERE dict_id = $dict_id AND vector IS NOT NULL ORDER BY place",
        params={"dict_id": dict_id},
    ).to_arrow_table()
    if any(column.null_count for column in rows.columns):  # made by an earlier cltdb
        return []
    vectors, numbers, nearness = (
        np.stack(rows[name].to_numpy()) if len(rows) else None for name in ("vector", "neighbours", "nearness")
    )
    rarity, wrong = np.maximum(-np.log(rows["share"].to_numpy().astype(float)), 0), []
    for first in range(0, len(rows), BLOCK_WORDS):
        block = slice(first, first + BLOCK_WORDS)
        near, number = nearness[block], np.minimum(numbers[block], len(rows) - 1)
        cosine = np.einsum("wd,wnd->wn", vectors[block], vectors[number])
        ought = np.minimum(cosine**2, 1) * np.minimum(rarity[number] / np.maximum(rarity[block, None], LEAST_WEIGHT), 1)
        is_wrong = (near > 0) & ((np.abs(near - ought) > 1e-3) | (cosine < NEAR - 1e-3))
        is_wrong[:, 1:] |= near[:, 1:] > near[:, :-1]
        wrong += (first + np.flatnonzero(is_wrong.any(axis=1))).tolist()
    words = rows["word"].to_pylist()
    return [words[place] for place in wrong]


def _means(tables):
    """mean_length and mean_effect of a dictionary."""
    size = tables["size"].to_pylist()[0]
    return [size["n_words"] / size["n_explanations"] if size["n_explanations"] else None, size["mean_effect"]]


def _tokens_by_word(tokens):
    """{word: tokens that are this word}; number, digit and punctuation have all tokens of this kind, a sign also its name of one word."""
    import unicodedata

    found = {}
    for token, word in zip(tokens["token"].to_pylist(), map(str.strip, tokens["word"].to_pylist()), strict=True):
        names = [word] if word else []
        if word.isdigit():
            names += ["number", "digit"]
        elif word and not any(character.isalnum() for character in word):
            name = unicodedata.name(word, "").lower() if len(word) == 1 else ""
            names += ["punctuation", *([name] if name.isalpha() else [])]
        for name in names:
            found.setdefault(name, []).append(token)
    return found


def _labels_by_word(labels):
    """{word: labels that it names}."""
    import re

    languages, found = dict(zip(LANGUAGES[::2], LANGUAGES[1::2], strict=True)), {}
    for label in labels:
        named = {*re.findall(r"\w+", label.lower()), languages.get(label.lower(), "")} - {""}
        for word in named:
            found.setdefault(word, []).append(label)
    return found


def _shares(tables):
    """{word: share of the explanations or sentences that have it, the larger} of all words that were read."""
    import numpy as np

    n_explanations, sentences = tables["size"].to_pylist()[0]["n_explanations"], tables["sentences"]
    shares = dict(zip(tables["counts"]["word"].to_pylist(), np.divide(tables["counts"]["n"], n_explanations), strict=True))
    if n_sentences := int(sentences["document"].to_numpy().max(initial=0)):
        for row in sentences["word"].value_counts().to_pylist():
            shares[row["values"]] = max(row["counts"] / n_sentences, shares.get(row["values"], 0))
    return shares


def _learn(tables):
    """{word: float32 vector} of the commonest words that were read."""
    import numpy as np
    import pyarrow as pa

    documents, words, counts, n_documents = [], [], [], 0
    for name in ("explanations", "sentences"):
        table = tables[name]
        documents.append(table["document"].to_numpy() - 1 + n_documents)
        words += table["word"].chunks
        counts.append(table["n"].to_numpy())
        n_documents += int(table["document"].to_numpy().max(initial=0))
    if n_documents < FEWEST_DOCUMENTS:
        return {}
    coded = pa.chunked_array(words, pa.string()).combine_chunks().dictionary_encode()
    codes, names = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    common = np.bincount(codes)
    chosen = sorted((word for word in range(len(names)) if common[word] > 1), key=lambda word: (-common[word], names[word]))[
        :MOST_WORDS
    ]
    place = np.full(len(names), -1)
    place[chosen] = range(len(chosen))
    keep = place[codes] >= 0
    entries = np.concatenate(counts)[keep], (np.concatenate(documents)[keep], place[codes][keep])
    vectors = _vectors(entries, shape=(n_documents, len(chosen)))
    return {names[word]: vector for word, vector in zip(chosen, vectors, strict=True) if vector.any()}


def _vectors(entries, *, shape):
    """float32 [word, 80]. entries: counts and their (document, word); shape: how many there are of both."""
    import numpy as np
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        weights = TfidfTransformer(sublinear_tf=True).fit_transform(csr_matrix(entries, shape=shape, dtype=np.float64))
        svd = TruncatedSVD(min(DIMENSIONS, shape[1] - 1), random_state=0)
        found = svd.fit_transform(weights.T.tocsr())
    found = np.pad(found, ((0, 0), (0, DIMENSIONS - found.shape[1])))
    scaled = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (found[:, :TOPICS], found)]
    return (np.concatenate(scaled, axis=1) / np.sqrt(2)).astype(np.float32)


def _neighbours(vectors, shares, n_reaching):
    """(numbers, nearness) of the neighbours of every word, uint16 and float32 [word, MOST_NEIGHBOURS], nearest first and then by number; zeros
    where there are fewer. Neighbours are among the first n_reaching words. vectors: float32 [word, 80]; shares: of the words."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    numbers = np.zeros((len(vectors), MOST_NEIGHBOURS), np.uint16)
    nearness = np.zeros((len(vectors), MOST_NEIGHBOURS), np.float32)
    rarity = np.maximum(-np.log(np.float32(shares).astype(np.float64)), 0)
    more = -n_reaching % GROUPS
    others = np.pad(vectors[:n_reaching], ((0, more), (0, 0))).T.copy()
    of_others = np.float32(np.pad(rarity[:n_reaching], (0, more)))
    with threadpool_limits(1):
        for first in range(0, len(vectors) if n_reaching else 0, BLOCK_WORDS):
            block = slice(first, first + BLOCK_WORDS)
            found = vectors[block] @ others
            found *= found >= NEAR
            np.square(found, out=found)
            np.minimum(found, 1, out=found)  # of equal vectors, rounded
            found *= np.minimum(of_others / np.float32(np.maximum(rarity[block, None], LEAST_WEIGHT)), 1)
            # The largest of each group: MOST_NEIGHBOURS or more are no less than the least of them.
            largest = found.reshape(len(found), -1, GROUPS).max(axis=1)
            least = np.partition(largest, -MOST_NEIGHBOURS, axis=1)[:, [-MOST_NEIGHBOURS]]
            flat = np.flatnonzero((found >= least) & (found > 0))
            row, number = np.divmod(flat, found.shape[1])
            near = found.ravel()[flat]
            order = np.lexsort((-near, row))  # stable: by number where they are equally near
            row, number, near = row[order], number[order], near[order]
            place = np.arange(len(row)) - np.searchsorted(row, row)
            kept = place < MOST_NEIGHBOURS
            numbers[first + row[kept], place[kept]] = number[kept]
            nearness[first + row[kept], place[kept]] = near[kept]
    return numbers, nearness


def _padded(rows, n, kind):
    """The rows of an array as a pyarrow.Array of lists of its width, and None up to n of them."""
    import pyarrow as pa

    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), kind), rows.shape[1])
    return pa.concat_arrays([lists, pa.nulls(n - len(rows), lists.type)])


def _write(connection, dict_id, rows, means, made_from):
    connection.register("incoming_words", rows)
    connection.execute(f"INSERT INTO words BY NAME SELECT *, {STEM} AS stem FROM incoming_words")
    of_dictionary = PAGES.format(words="words WHERE dict_id = $dict_id")
    connection.execute(f"INSERT INTO word_pages BY NAME {of_dictionary} ORDER BY page", {"dict_id": dict_id})
    connection.execute(  # those of another version
        "DELETE FROM word_forms AS f USING words AS w WHERE w.dict_id = $dict_id AND w.word_hash = f.word_hash AND w.stem <> f.stem",
        {"dict_id": dict_id},
    )
    connection.execute(
        "INSERT INTO word_forms BY NAME SELECT word, stem, word_hash FROM words WHERE dict_id = $dict_id"
        " AND word_hash NOT IN (SELECT word_hash FROM word_forms) ORDER BY word",
        {"dict_id": dict_id},
    )
    connection.execute(
        "INSERT INTO word_statistics BY NAME SELECT $dict_id AS dict_id, $mean_length AS mean_length, $mean_effect AS mean_effect,"
        " $made_from AS made_from, (SELECT count(vector) FROM incoming_words) AS n_vectors",
        {"dict_id": dict_id, "mean_length": means[0], "mean_effect": means[1], "made_from": made_from},
    )
    connection.unregister("incoming_words")
