"""Embeddings of explanations by the model that `database: {search: {embeddings: …}}` of cltdb.yaml names.

A text is embedded once, whatever features have it: vectors are known by the text's hash and by the model. They are put into the database as
they come, so a killed process leaves what it has asked for. Reads: best_explanations. Writes: text_embeddings.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache

from cltdb import log
from cltdb.database.project import PathAlone, asked_section, project_settings
from cltdb.database.store import connect, connect_current, transaction
from cltdb.engine.locks import held
from cltdb.errors import CltdbError

BATCH_TEXTS = 96
"""Texts of a request: some providers take no more."""
CONCURRENCY = 8
"""Requests at once."""
TIMEOUT_S = 60
MEND = "check the model's name, the server and the key, and run again (embeddings that are there are kept), or take the setting out of cltdb.yaml"
MISSING = """
SELECT DISTINCT text FROM (SELECT text, text_md5 FROM best_explanations WHERE trim(text) <> '')
ANTI JOIN (FROM text_embeddings WHERE model = $model) USING (text_md5) ORDER BY text
"""


class _Busy(Exception):
    """Another process asks for the same embeddings."""


def n_missing(path):
    """How many texts of explanations lack the embedding that the database's cltdb.yaml asks for."""
    search = project_settings(path).search
    if search.embeddings is None:
        return 0
    with connect_current(path) as connection:
        return connection.execute(f"SELECT count(*) FROM ({MISSING})", {"model": search.vectors}).fetchone()[0]


def refresh_embeddings(path):
    """Embeds the explanations of the database that are not yet, where its cltdb.yaml says so; CltdbError where the provider does not answer.
    What is there by then stays. Does nothing where another process is at it."""
    search = project_settings(path).search
    if search.embeddings is None:
        return
    with suppress(_Busy), held(f"{path}.embedding", refused=_Busy()):
        while texts := _missing(path, search.vectors):
            with log.progress("embeddings", total=len(texts), unit="texts") as bar, ThreadPoolExecutor(CONCURRENCY) as pool:
                for group in _cut(texts, CONCURRENCY * BATCH_TEXTS):
                    batches = _cut(group, BATCH_TEXTS)
                    asked = [pool.submit(embed, batch, search, retries=5) for batch in batches]
                    refused = [future.exception() for future in asked]
                    _write(path, search.vectors, [
                        (text, vector)
                        for batch, future in zip(batches, asked, strict=True) if not future.exception()
                        for text, vector in zip(batch, future.result(), strict=True)
                    ])  # fmt: skip
                    for error in filter(None, refused):
                        raise error
                    bar.advance(len(group))


def _cut(texts, size):
    return [texts[first : first + size] for first in range(0, len(texts), size)]


def _missing(path, model):
    with connect_current(path) as connection:
        return [text for (text,) in connection.execute(MISSING, {"model": model}).fetchall()]


def _write(path, model, embedded):
    import pyarrow as pa

    if not embedded:
        return
    texts, vectors = zip(*embedded, strict=True)
    incoming = pa.table({"text": list(texts), "vector": pa.array(vectors, pa.list_(pa.float32()))})
    with connect(path, write=True) as connection, transaction(connection):
        connection.register("incoming", incoming)
        connection.execute(
            "INSERT INTO text_embeddings BY NAME SELECT $model AS model, md5(text) AS text_md5, vector FROM incoming",
            {"model": model},
        )
        connection.unregister("incoming")


def copy_embeddings(connection, sources):
    """Puts into the database of a connection the embeddings of `sources`, names of databases that are attached to it."""
    rows = " UNION ALL ".join(f"FROM {source}.text_embeddings" for source in sources)
    connection.execute(
        f"INSERT INTO text_embeddings SELECT DISTINCT ON (model, text_md5) * FROM ({rows}) ORDER BY model, text_md5"
    )


# What is searched for


def search_settings(path):
    """Section `database.search` where `path`, a database or an exported folder, is asked."""
    _, section = asked_section(path) or (None, PathAlone())
    return section.search


@lru_cache(maxsize=256)
def embedding_of(text, search):
    """The vector of one text, as a list of floats; a process asks for each once."""
    [vector] = embed([text], search, retries=2)
    return vector.tolist()


# The provider


def embed(texts, search, *, retries):
    """float32 vectors of length 1 of some texts, by the model of `search`, a section `settings.Search`. retries: of a server that is busy or
    does not answer, with growing pauses: 5 take some 15 s, 2 take 2."""
    import openai

    from cltdb.explain.requests.access import Access, load_litellm, reached
    from cltdb.explain.requests.faults import fault_of

    where = f"database.search.embeddings {search.embeddings}"
    options, secrets = reached(search, "database.search.embeddings")
    asked = {"input": list(texts), "encoding_format": "float", "timeout": TIMEOUT_S, "max_retries": retries, **options}
    if search.dimensions:
        asked |= {"dimensions": search.dimensions, "allowed_openai_params": ["dimensions"]}  # of names that litellm does not know
    try:
        answer = load_litellm().embedding(**asked)
    except openai.OpenAIError as error:  # the base of all litellm exceptions
        fault = fault_of(error, Access(options, {}, secrets).scrubbed)
        raise CltdbError(where, found=f"no embeddings ({fault.text})", expected="an answer", do=MEND) from error
    vectors = _unit_vectors(answer, len(texts))
    if vectors is None or search.dimensions not in (None, vectors.shape[1]):
        found = "another answer" if vectors is None else f"vectors of {vectors.shape[1]:,} numbers"
        expected = f"{len(texts)} vectors" + f" of {search.dimensions or 0:,} numbers" * bool(search.dimensions)
        raise CltdbError(where, found=found, expected=expected, do=MEND)
    return vectors


def _unit_vectors(answer, n):
    """float32 [n, dimensions], each of length 1; None where the answer is no such list."""
    import numpy as np

    try:
        rows = sorted(answer.data, key=lambda row: row["index"])
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if vectors.ndim != 2 or len(vectors) != n or not (np.isfinite(vectors).all() and lengths.all()):
        return None
    return (vectors / lengths).astype(np.float32)
