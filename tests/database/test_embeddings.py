"""Embeddings of explanations by a provider, beside words: each text asked for once, both rankings fused, one error where nobody answers."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from command_line import in_one_form
from polars.testing import assert_frame_equal
from worlds import tiny_experiment as world
from worlds.tables import contents, load, rows

from cltdb.__main__ import main
from cltdb.database import embeddings
from cltdb.database.api import Database
from cltdb.database.check import check
from cltdb.database.embeddings import n_missing, refresh_embeddings
from cltdb.database.export import export
from cltdb.database.load import unload_artifact
from cltdb.database.merge import merge
from cltdb.database.rebuild import rebuild
from cltdb.database.settings import Search
from cltdb.database.store import connect
from cltdb.errors import CltdbError

TEXTS = ["fires on seats of government", "fires on names of animals", "fires on Paris", "fires on seats of government"]
"""Explanations of the live features of the tiny experiment."""
DIRECTIONS = {"government": (5, 0, 1), "animals": (0, 3, 1), "Paris": (3, 0, 3), "conurbation": (4, 0, 2), "dog": (0, 1, 0)}
"""What the provider takes the texts with a word for."""


class Provider:
    """A local server that speaks OpenAI's protocol for embeddings. texts: those it was asked for, a list per request; answer: (status, body)
    instead of the vectors, from request `answer_from` on."""

    def __init__(self):
        self.texts, self.bodies, self.answer, self.answer_from, provider = [], [], None, 1, self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                provider.texts.append(body["input"])
                provider.bodies.append(body | {"path": self.path, "key": self.headers["Authorization"]})
                is_answer = provider.answer and len(provider.texts) >= provider.answer_from
                status, reply = provider.answer if is_answer else (200, vectors(body["input"]))
                content = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def vectors(texts):
    """The provider's answer, the last text first."""
    found = [next((of_word for word, of_word in DIRECTIONS.items() if word in text), (1, 1, 1)) for text in texts]
    data = [{"object": "embedding", "index": i, "embedding": list(map(float, vector))} for i, vector in enumerate(found)]
    return {"object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Provider()
    yield made
    made.close()


def set_up(path, provider, **more):
    """Makes `path` the database of a project that embeds."""
    search = {"embeddings": "openai/embedder", "api_base": provider.address, **more}
    (path.parent / "cltdb.yaml").write_text(f"database: {{path: {path.name}, search: {json.dumps(search)}}}\n")


def explained(texts=TEXTS):
    keys = [(*key, "llm") for key in world.ALIVE]
    same = {"dict_id": world.DICT, "side": "input"}
    explanations = rows(
        "layer feature explainer text", [(*key, text) for key, text in zip(keys, texts, strict=True)], status="ok", **same
    )
    scores = rows("layer feature explainer scorer score", [(*key, "detection", 0.95) for key in keys], n=40, n_failed=0, **same)
    return {"explanations": explanations, "scores": scores}


def explain(path, root, key="later", **options):
    load(path, root, key, explained(**options), started_at=f"2027-01-01T00:00:00+00:0{len(key) % 9}")


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """(database, provider) whose explanations that provider has embedded when they were loaded."""
    provider, folder = Provider(), tmp_path_factory.mktemp("embedded")
    database = Path(shutil.copy(tiny[1], folder / "cltdb.duckdb"))
    set_up(database, provider)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        explain(database, folder / "artifacts")
    provider.close()
    return database, provider


@pytest.fixture
def embedded(made, provider, tmp_path):
    """A copy of that database, and of what its provider was asked, as if `provider` had been it."""
    database, theirs = made
    shutil.copytree(database.parent / "artifacts", tmp_path / "artifacts")
    path = Path(shutil.copy(database, tmp_path / database.name))
    set_up(path, provider)
    with connect(path, write=True) as connection:
        connection.execute("UPDATE text_embeddings SET model = replace(model, ?, ?)", [theirs.address, provider.address])
    provider.texts, provider.bodies = list(theirs.texts), list(theirs.bodies)
    return path


def asked(provider):
    return sorted(text for texts in provider.texts for text in texts)


def test_each_text_is_embedded_once(embedded, provider, tmp_path):
    assert asked(provider) == sorted(set(TEXTS)) and n_missing(embedded) == 0
    assert provider.bodies[0]["path"] == "/v1/embeddings" and provider.bodies[0]["model"] == "embedder"
    stored = Database(embedded).sql("SELECT text, vector FROM text_embeddings JOIN best_explanations USING (text_md5)")
    for text, vector in stored.iter_rows():
        wanted = np.array(next(of_word for word, of_word in DIRECTIONS.items() if word in text), dtype=float)
        assert vector == pytest.approx(wanted / np.linalg.norm(wanted))
    refresh_embeddings(embedded)
    explain(embedded, tmp_path / "artifacts", key="more", texts=["fires on dogs", *TEXTS[1:]])
    assert "fires on dogs" in asked(provider) and len(asked(provider)) == 4
    unload_artifact(embedded, key="more")
    explain(embedded, tmp_path / "artifacts", key="again")
    assert len(asked(provider)) == 4 and check(embedded) == []


def test_texts_go_in_batches_of_several_requests_at_once(database, provider, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "BATCH_TEXTS", 2)
    set_up(database, provider, dimensions=3)
    explain(database, tmp_path / "artifacts")
    assert sorted(map(len, provider.texts)) == [1, 2] and {body["dimensions"] for body in provider.bodies} == {3}
    assert (
        Database(database).sql("SELECT DISTINCT model FROM text_embeddings").item()
        == f"openai/embedder, 3 dimensions, at {provider.address}"
    )


def slow_fusion(db, path, text, vector, *, layer=None):
    """[(relevance, (layer, feature))] by the definition."""
    by_words = [row[1:3] for row in Database(path).query("feature_search", text=text, layer=layer, limit=500).iter_rows()]
    stored = db.sql("SELECT layer, feature, vector FROM best_explanations JOIN text_embeddings USING (text_md5)").rows()
    cosine = {
        (row[0], row[1]): round(float(np.dot(row[2], vector) / np.linalg.norm(vector)), 5)
        for row in stored
        if layer in (None, row[0])
    }
    falling = sorted(set(cosine.values()), reverse=True)
    places = [{key: 1 + n for n, key in enumerate(by_words)}, {key: 1 + falling.index(value) for key, value in cosine.items()}]
    relevance = {key: sum(30.5 / (60 + of[key]) for of in places if key in of) for of in places for key in of}
    return sorted(((round(value, 6), key) for key, value in relevance.items()), key=lambda one: (-one[0], one[1]))


@pytest.mark.parametrize(
    ("text", "options"), [("conurbation", {}), ("Paris", {}), ("Paris", {"layer": 1}), ("dog of France", {})]
)
def test_both_rankings_are_fused_as_documented(embedded, provider, text, options):
    db = Database(embedded)
    found = db.search(text, **options)
    vector = next(of_word for word, of_word in DIRECTIONS.items() if word in text)
    wanted = slow_fusion(db, embedded, text, vector, **options)
    live = found.filter(~found["dead"])
    assert list(zip(live["relevance"], live.select("layer", "feature").rows(), strict=True)) == wanted[: live.height]
    assert found["dead"].is_sorted() and found.height >= len(wanted) > 1 and asked(provider).count(text) == 1
    db.search(text, **options)
    assert asked(provider).count(text) == 1, "a process asks for a text once"


def test_a_hit_says_what_led_to_it(embedded):
    db = Database(embedded)
    assert db.sql("SELECT count(*) FROM words WHERE word = 'conurbation'").item() == 0
    first = db.search("conurbation").row(0, named=True)
    assert first["text"] == TEXTS[0] and first["found_in"] == "meaning of the explanation (cosine 0.96)"
    paris = db.search("Paris").row(0, named=True)
    assert paris["text"] == "fires on Paris" and paris["relevance"] > 0.9
    assert paris["found_in"].endswith("meaning of the explanation (cosine 1.00)") and "explanation 'paris'" in paris["found_in"]
    both = db.search("conurbation", limit=2)
    assert both["relevance"].n_unique() == 1 and set(both["text"]) == {TEXTS[0]}, "the same text has the same place"
    with pytest.raises(CltdbError, match="no dictionary 'another'"):
        db.search("conurbation", dict_id="another")
    assert not any(db.search("Paris", alive=True)["dead"])
    assert db.search(" ").is_empty()


def test_without_the_setting_nothing_is_asked_for(database, tmp_path, monkeypatch):
    monkeypatch.setattr("cltdb.explain.requests.access.load_litellm", None)
    explain(database, tmp_path / "artifacts")
    assert n_missing(database) == 0 and Database(database).search("Paris").height
    assert Database(database).sql("FROM text_embeddings").is_empty()


def test_what_was_paid_for_goes_along(embedded, provider, tmp_path, artifacts, monkeypatch):
    """With a rebuild, an export and a merge; the provider is not asked."""
    before, n_requests = contents(embedded)["text_embeddings"], len(provider.texts)
    everything = [*artifacts, ("later", tmp_path / "artifacts/later")]
    export(embedded, tmp_path / "exported")
    merge([embedded, tmp_path / "exported"], tmp_path / "merged.duckdb")
    assert rebuild(embedded, artifacts=everything, experiments=[], stage_runs=[]) == []
    assert contents(embedded)["text_embeddings"] == before == contents(tmp_path / "merged.duckdb")["text_embeddings"]
    assert len(provider.texts) == n_requests and n_missing(embedded) == 0
    answers = [Database(path).search("conurbation") for path in (embedded, tmp_path / "exported", tmp_path / "merged.duckdb")]
    for other in answers[1:]:
        assert_frame_equal(answers[0], other, rel_tol=1e-12)
    assert "meaning" in answers[0]["found_in"][0]


def test_where_the_provider_fails_rows_and_embeddings_stay(database, provider, tmp_path, monkeypatch):
    for name in ("BATCH_TEXTS", "CONCURRENCY"):
        monkeypatch.setattr(embeddings, name, 1)
    set_up(database, provider)
    provider.answer, provider.answer_from = (400, {"error": {"message": "no more today", "code": "c"}}), 2
    with pytest.raises(
        CltdbError,
        match=r"database.search.embeddings openai/embedder: found no embeddings \(.*no more today\); expected an answer",
    ):
        explain(database, tmp_path / "artifacts")
    assert Database(database).query("feature_search", text="government").height and n_missing(database) == 2
    provider.answer = None
    refresh_embeddings(database)
    assert n_missing(database) == 0 and len(asked(provider)) == 4  # one was refused


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"error": {"message": "wrong key", "code": "c"}}), r"found no embeddings \(.*wrong key\)"),
        ((200, {"object": "list", "data": []}), "found another answer; expected 1 vectors"),
        ((200, vectors(["a", "b"])), "found another answer; expected 1 vectors"),
        ((200, {"data": [{"index": 0, "embedding": [0.0, 0.0]}]}), "found another answer; expected 1 vectors"),
        ((200, {"data": [{"index": 0, "embedding": [1.0, 0.0]}]}), "found vectors of 2 numbers; expected 1 vectors of 3 numbers"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(provider, answer, said):
    provider.answer = answer
    with pytest.raises(CltdbError, match=said):
        embeddings.embed(["text"], Search(embeddings="openai/m", api_base=provider.address, dimensions=3), retries=0)


def test_keys_come_from_the_environment(provider, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = {"embeddings": "openai/m", "api_base": provider.address}
    with pytest.raises(CltdbError, match="found no MY_KEY in the environment"):
        embeddings.embed(["text"], Search(**settings, api_key_env="MY_KEY"), retries=0)
    with pytest.raises(CltdbError, match="found no OPENAI_API_KEY in the environment"):
        embeddings.embed(["text"], Search(embeddings="openai/m"), retries=0)
    monkeypatch.setenv("MY_KEY", "secret")
    embeddings.embed(["text"], Search(**settings, api_key_env="MY_KEY"), retries=0)
    assert provider.bodies[-1]["key"] == "Bearer secret"


def test_the_command_says_in_one_line_that_nobody_answers(embedded, provider, monkeypatch, capsys):
    monkeypatch.chdir(embedded.parent)
    assert main(["search", "conurbation", "--limit", "1"]) == 0
    assert f"meaning of the explanation (cosine 0.96),{TEXTS[0]}," in capsys.readouterr().out
    provider.close()
    assert main(["search", "dog"]) == 1
    assert "database.search.embeddings openai/embedder: found no embeddings (no connection" in in_one_form(
        capsys.readouterr().err
    )
