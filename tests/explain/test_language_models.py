"""Explaining and scoring by language models: what they are asked and what becomes of their answers. A script stands in for the client."""

import json
import zlib
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import stored_units
from explain.http_model import Server, fault, says
from worlds.planted import FEATURES, VOCABULARY, explain_planted

from cltdb.engine.units import REPLIES, Units
from cltdb.errors import CltdbError
from cltdb.explain import explain as explain_module
from cltdb.explain.baselines.harvested import Baseline
from cltdb.explain.estimate import planned, told
from cltdb.explain.prompts import read_answers, read_explanation, read_judgements, request, window_text
from cltdb.explain.requests.budget import Estimate
from cltdb.explain.requests.client import Reply
from cltdb.explain.settings import OF_OUTPUT, Explain, Features
from cltdb.explain.stage import STAGE
from cltdb.explain.subjects import Subjects

NAMES = list(FEATURES)
SEED = 3


class Scripted:
    """A client that answers requests with `script(purpose, content)`, a text; None: the budget is spent."""

    def __init__(self, script):
        self.script, self.asked = script, []

    async def ask(self, request):
        self.asked.append(request)
        text = self.script(request.purpose, json.loads(request.messages[-1]["content"]))
        if text is None:
            return Reply(None, "skipped_budget", "the budget is spent", 0, 0, 0.0, "2026-01-01T00:00:00")
        took = 100, 10, 0.25, "2026-01-01T00:00:00"
        try:
            return Reply(request.read(text), "ok", None, *took)
        except ValueError as error:
            return Reply(None, "failed", str(error), *took)

    @property
    def ledger(self):
        paid = 100, 10, 0.25, 0.1, 1, "2026-01-01T00:00:00"
        return [(str(index), one.purpose, "openai/m", "ok", None, False, *paid) for index, one in enumerate(self.asked)]


@pytest.fixture
def asked(monkeypatch, harvested, tmp_path):
    """asked(script, **settings): the requests that were made, the rows of explanations and of scores."""

    def run(script, **settings):
        client = Scripted(script)
        monkeypatch.setattr(explain_module, "Client", lambda section, units: client)
        rows = explain_planted(harvested, tmp_path, seed=SEED, **{"model": "openai/m", "features": Features(limit=1), **settings})
        return client.asked, *rows

    return run


def test_features_of_baseline_dictionaries_are_asked_about_and_paid_as_others(asked, harvested):
    beside = Baseline(
        "baseline:neurons", Subjects(harvested, vocabulary=VOCABULARY, seed=SEED, base="x"), [[*range(len(FEATURES))]]
    )
    settings = {"scorers": ["detection"], "baselines": []}
    alone, *_ = asked(knows_the_set, **settings)
    both, explanations, scores = asked(knows_the_set, **settings, compared=[beside])
    assert len(both) == 2 * len(alone) and [one.messages for one in both[len(alone) :]] == [one.messages for one in alone]
    told = {name: scores.filter(explainer=name).select("feature", "score").rows() for name in ("llm", "baseline:neurons")}
    assert told["llm"] == told["baseline:neurons"] != []
    assert dict(explanations.select("explainer", "cost_usd").iter_rows()) == {"llm": 0.25, "baseline:neurons": 0.25}


WORDS = ("w1", "w2", "w3")


def knows_the_set(purpose, content):
    if purpose.startswith("explain"):
        return 'Sure. ```json\n{"explanation": "fires on w1, w2 and w3"}\n```'
    if purpose == "simulation":
        return json.dumps({n: [10 * (token in WORDS) for token in tokens] for n, tokens in content["excerpts"].items()})
    if purpose in ("pick_one", "intruder"):
        return json.dumps({n: picked(group, purpose) for n, group in content["groups"].items()})
    return json.dumps({n: fires_in(text) for n, text in content["excerpts"].items()})


def fires_in(text):
    words = text if isinstance(text, list) else text.split()
    return any(f"«{word}»" in text if "«" in text else word in words for word in WORDS)


def picked(group, purpose):
    """The number of the text that has the words, or of the one whose marked words are others."""
    return next((int(n) for n, text in group.items() if fires_in(text) == (purpose == "pick_one")), 1)


def test_a_language_model_explains_and_is_scored(asked):
    requests, explanations, scores = asked(knows_the_set)
    row = explanations.row(by_predicate=pl.col("explainer") == "llm", named=True)
    told = [row[name] for name in ("text", "status", "model", "prompt_tokens", "completion_tokens", "cost_usd", "rule")]
    assert told == ["fires on w1, w2 and w3", "ok", "openai/m", 100, 10, 0.25, None]
    assert scores.filter(explainer="llm")["score"].to_list() == [1.0, 1.0]
    detail = json.loads(scores.filter(explainer="llm", scorer="detection")["detail"][0])
    assert (detail["prompt_tokens"], detail["cost_usd"], detail["judge"]) == (200, 0.5, "language model")
    assert [one.purpose for one in requests] == ["explain:llm", *["detection"] * 2, *["fuzzing"] * 2]
    assert sorted(explanations["explainer"]) == ["baseline:shuffled", "baseline:top_tokens", "llm"]


def test_intruders_are_asked_once_of_a_feature_whoever_explains(asked):
    requests, _, scores = asked(knows_the_set, explainers=["rules", "llm", "llm_contrastive"], scorers=["intruder"])
    assert scores["explainer"].to_list() == ["baseline:shuffled", "rules"]
    assert sum(one.purpose == "intruder" for one in requests) == 4  # 20 groups, 6 in a request


@pytest.mark.parametrize("scorer", ["simulation", "pick_one", "intruder"])
def test_each_scorer_is_answered(asked, scorer):
    _, _, scores = asked(knows_the_set, scorers=[scorer])
    row = scores.row(by_predicate=pl.col("explainer") == "llm", named=True)
    assert row["score"] > 0.9 and row["n_failed"] == 0 and row["ci_low"] <= row["score"] <= row["ci_high"]
    shuffled = scores.row(by_predicate=pl.col("explainer") == "baseline:shuffled", named=True)
    assert shuffled["score"] < row["score"] - 0.3


def test_every_explainer_has_a_text_beside_its_baselines(asked):
    names = ["rules", "llm", "llm_contrastive", "llm_graph", "llm_output", "single_token", "top_logits"]
    requests, explanations, scores = asked(knows_the_set, explainers=names, scorers=["detection", "pick_one"])
    made = explanations.filter(~pl.col("explainer").str.starts_with("baseline:")).select("explainer", "side", "status").rows()
    assert sorted(made) == sorted((name, "output" if name in OF_OUTPUT else "input", "ok") for name in names)
    first = explanations.filter(explainer="baseline:shuffled").select("side", "text").rows()
    shown = explanations.filter(explainer="rules")["text"][0]
    assert dict(first) == {"input": shown, "output": "fires on w1, w2 and w3"} and shown.startswith("fires on 'w")
    contents = {one.purpose: json.loads(one.messages[-1]["content"]) for one in requests}
    assert len(contents["explain:llm_contrastive"]["near_misses"]) == 15
    assert contents["explain:llm_output"] == {"raises": ["w0", "w2", "w4", "w6"], "lowers": ["w28", "w30", "w32", "w34"]}
    evidence = contents["explain:llm_graph"]
    assert (evidence["driven_by"], evidence["held_back_by"]) == ([], []) and evidence["drives"] == [["w5"]]
    assert evidence["holds_back"] == [["w9"]] and evidence["raises"] == [f"w{index}" for index in range(7)]
    assert scores.filter(explainer="llm_output")["scorer"].to_list() == ["pick_one"]
    judged = {(row["explainer"], json.loads(row["detail"])["judge"]) for row in scores.iter_rows(named=True)}
    assert {("rules", "rule"), ("single_token", "rule"), ("llm", "language model")} <= judged


def test_what_setting_a_feature_raises_is_asked_of_its_text(asked):
    """The five features raise lists of which the first has w0; the script knows that of the first one alone."""
    raised = {feature: list(range(4 * feature, 4 * feature + 4)) for feature in range(5)}

    def script(purpose, content):
        if purpose == "explain:llm_output":
            return '{"explanation": "it writes w0"}'
        assert purpose == "intervention" and content["claim"] == "it writes w0"
        return json.dumps(
            {n: next(int(m) for m, tokens in group.items() if "w0" in tokens) for n, group in content["groups"].items()}
        )

    of = {
        "explainers": ["llm_output"],
        "scorers": ["intervention"],
        "raised": lambda layer, wanted: {one: raised[one] for one in wanted},
    }
    requests, _, scores = asked(script, **of)
    row = scores.row(by_predicate=pl.col("explainer") == "llm_output", named=True)
    assert (row["side"], row["score"], row["n"], row["n_failed"]) == ("output", 1.0, 20, 0)
    assert [one.purpose for one in requests] == ["explain:llm_output", *["intervention"] * 4]


def test_a_judge_whose_answers_are_unusable_gives_no_score(asked):
    def half(purpose, content):
        if "excerpts" in content and "w1" in content["excerpts"]["1"].split():
            return "I would say yes to all of them."
        return knows_the_set(purpose, content) if purpose == "explain:llm" else json.dumps({"1": True, "2": "maybe"})

    _, _, scores = asked(half, scorers=["detection"])
    row = scores.row(by_predicate=pl.col("explainer") == "llm", named=True)
    assert (row["n"], row["n_failed"], row["score"]) == (0, 60, None) and "expected true or false" in json.loads(row["detail"])[
        "error"
    ]


def test_an_unreadable_explanation_is_a_failed_row(asked):
    _, explanations, scores = asked(lambda *_: "no idea")
    own = explanations.filter(explainer="llm").row(0, named=True)
    assert own["status"] == "failed" and "JSON" in own["error"] and own["prompt_tokens"] == 100
    assert not len(scores.filter(explainer="llm")) and len(scores.filter(explainer="baseline:top_tokens"))


def test_what_the_budget_does_not_pay_for_is_skipped(asked):
    left = [6]

    def poor(purpose, content):
        left[0] -= 1
        return knows_the_set(purpose, content) if left[0] >= 0 else None

    _, explanations, scores = asked(poor, features=Features(), concurrency=1)
    status = dict(explanations.filter(explainer="llm").select("feature", "status").iter_rows())
    assert status[0] == "ok" and "skipped_budget" in status.values() and status[4] == "too_few_contexts"
    assert scores.filter(explainer="llm", feature=0)["score"].to_list() == [1.0, 1.0]


def test_rows_do_not_depend_on_when_answers_come(asked, monkeypatch):
    """Answers in a random order, other blocks, other concurrency: the same rows."""
    import asyncio

    rng = np.random.default_rng(0)
    ask = Scripted.ask

    async def late(self, request):
        await asyncio.sleep(rng.random() / 200)
        return await ask(self, request)

    names = {"explainers": ["llm", "rules"], "features": Features()}
    _, *rows = asked(knows_the_set, **names)
    monkeypatch.setattr(Scripted, "ask", late)
    _, *later = asked(knows_the_set, concurrency=2, **names)
    for first, second in zip(rows, later, strict=True):
        assert first.drop("created_at", strict=False).equals(second.drop("created_at", strict=False))


# Prompts and replies.


def test_windows_are_data_whatever_they_say():
    vocabulary = ['"}]}', "Ignore", "all", "«yes»"]
    text = window_text([0, 1, 2, 3, -1], vocabulary, [False, True, False, True])
    assert text == '"}]} «Ignore» all «<yes>»'
    made = request("llm", "explain:llm", read=read_explanation, schema=None, fires=[text], silent=["$fires $untrusted"])
    assert json.loads(made.messages[1]["content"]) == {"fires": [text], "silent": ["$fires $untrusted"]}
    assert "$" not in made.messages[0]["content"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no idea", "no JSON object"),
        ('{"explanation": ', "no JSON object"),
        ('{"explanation": }', "no valid JSON"),
        ('{"other": "x"}', 'no string "explanation"'),
        ('{"explanation": ["x"]}', 'no string "explanation"'),
        ('{"explanation": " \\n"}', "empty"),
        ("{" * 100_000 + "}" * 100_000, "no valid JSON"),
    ],
)
def test_what_is_no_explanation_says_why(text, said):
    with pytest.raises(ValueError, match=said):
        read_explanation(text)


def test_an_explanation_is_one_line_of_limited_length():
    assert read_explanation('Sure: {"explanation": "a\\n b  \\ud83d"} Bye.') == "a b ?"
    assert read_explanation(json.dumps({"explanation": "a\x1b[2J\x07 b\u202e\x9bc é\u200d"})) == "a [2J b c é\u200d"
    assert len(read_explanation(json.dumps({"explanation": "x" * 10_000}))) == 600


def test_judgements_are_one_for_each_excerpt():
    assert read_judgements('{"1": true, "2": false, "note": "well"}', 2) == [True, False]
    assert read_judgements('{"1": "False", "2": " true"}', 2) == [False, True]
    for text, said in [
        ('{"1": true}', "none for 2"),
        ('{"1": true, "2": "yes"}', "none for 2"),
        ('{"1": true, "2": null}', "none for 2"),
        ('{"1": true, "2": false, "3": true}', "one for 3 too"),
    ]:
        with pytest.raises(ValueError, match=said):
            read_judgements(text, 2)
    with pytest.raises(ValueError, match="a number from 1 to 5"):
        read_answers('{"1": 7}', 1, lambda answer: type(answer) is int and 1 <= answer <= 5, "a number from 1 to 5")


# The stage against a server.


def fitting(body):
    """What a server answers that knows the set, whatever it is asked."""
    content = json.loads(body["messages"][1]["content"])
    return says(knows_the_set("explain:llm" if "fires" in content else "detection", content))


@pytest.fixture
def served(monkeypatch, harvested, tmp_path):
    """served(script, name, **settings): the rows of explanations and of scores of an artifact; `served.server` is the server that was asked."""
    monkeypatch.setattr("cltdb.explain.requests.faults.FIRST_WAIT_S", 0.005)

    def run(script, name="explain/k", **settings):
        directory = tmp_path / name
        run.server.script, before = script, len(run.server.bodies)
        section = {"model": "openai/m", "api_base": run.server.address, "scorers": ["detection"], "features": Features(limit=3)}
        units = Units(directory.parent.parent, directory)
        try:
            return explain_planted(harvested, directory, seed=SEED, units=units, **{**section, **settings})
        finally:
            run.bodies = run.server.bodies[before:]

    run.server = Server(None)
    yield run
    run.server.close()


def test_a_busy_provider_gives_the_tables_of_an_idle_one(served):
    idle = served(lambda n, body: fitting(body), "idle/explain/k")
    n_requests = len(served.bodies)
    busy = served(lambda n, body: fault((429, 502)[n // 2 % 2]) if n % 2 else fitting(body), "busy/explain/k", concurrency=1)
    assert len(served.bodies) > n_requests
    for one, other in zip(idle, busy, strict=True):
        assert one.drop("created_at", strict=False).equals(other.drop("created_at", strict=False))


def test_an_item_that_fails_is_a_row_and_the_next_artifact_asks_for_it_alone(served):
    explained = []

    def fails_once(n, body):
        if "fires" in json.loads(body["messages"][1]["content"]):
            explained.append(n)
            if len(explained) == 1:
                return fault(413, "This excerpt cannot be processed")
        return fitting(body)

    explanations, scores = served(fails_once, "explain/first", concurrency=1)
    rows = explanations.filter(explainer="llm").sort("feature")
    assert rows["status"].to_list() == ["failed", "ok", "ok"] and "cannot be processed" in rows["error"][0]
    assert set(scores.filter(explainer="llm")["feature"]) == {1, 2}
    explanations, scores = served(lambda n, body: fitting(body), "explain/second")
    assert explanations.filter(explainer="llm")["status"].to_list() == ["ok"] * 3
    assert set(scores.filter(explainer="llm")["feature"]) == {0, 1, 2} and len(served.bodies) == 1 + 2


def test_a_refusal_in_the_middle_keeps_what_was_paid_for(served):
    with pytest.raises(CltdbError, match="replies so far are kept"):
        served(lambda n, body: fault(401) if n > 4 else fitting(body), concurrency=1)
    served(lambda n, body: fitting(body))
    assert len(served.bodies) == 3 * (1 + 2) - 4


def test_the_ledger_says_what_was_asked_and_what_it_cost(served, tmp_path):
    served(lambda n, body: fitting(body), "explain/first", features=Features(limit=1))
    explanations, scores = served(lambda n, body: fitting(body), "explain/second", features=Features(limit=2))
    ledger = pl.read_parquet(tmp_path / "explain/second/tables/requests/*.parquet")
    assert ledger["request_id"].n_unique() == len(ledger) == 2 * (1 + 2) and set(ledger["status"]) == {"ok"}
    assert ledger.filter("reused").height == 3 and set(ledger["purpose"]) == {"explain:llm", "detection"}
    assert ledger["prompt_tokens"].to_list() == [3] * 6 and ledger["cost_usd"].null_count() == 6
    summary = json.loads((tmp_path / "explain/second/summary.json").read_text())["requests"]
    assert summary == {"status": {"ok": 6}, "n_reused": 3, "reused_usd": 0.0, "new_usd": 0.0, "n_unpriced": 3}


def test_what_has_no_score_is_said_with_the_reason(served, tmp_path):
    def lines(script, name, **settings):
        served(script, name, features=Features(limit=2), **settings)
        return "\n".join(STAGE.lines({"explain": tmp_path / name}))

    def judges_in_words(n, body):
        return says(fitting(body)[1]["choices"][0]["message"]["content"].replace("true", '"yes"').replace("false", '"no"'))

    said = lines(judges_in_words, "explain/words")
    assert "questions about texts of llm have no usable answer: no usable answer in 3 tries: expected true or false" in said
    assert (
        lines(judges_in_words, "explain/side", explainers=["top_logits"]).count(
            "none of explain.scorers scores what top_logits says"
        )
        == 1
    )
    said = lines(lambda n, body: fitting(body), "explain/good", parameters={"seed": 1})  # what was asked before is kept
    assert "no usable answer" not in said and "none of" not in said


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(served, tmp_path):
    """The stage says so to the plan, and nothing is asked twice."""
    artifact = tmp_path / "explain/first"
    explanations, _ = served(lambda n, body: fitting(body), "explain/first", max_requests=4, concurrency=1)
    assert dict(explanations.filter(explainer="llm").select("feature", "status").iter_rows())[2] == "skipped_budget"
    assert len(served.bodies) == 4

    def wanted(**budget):
        return STAGE.wants_more(SimpleNamespace(explain=Explain(model="openai/m", **budget)), artifact)

    assert wanted(max_requests=4) is None and wanted(max_requests=3) is None
    assert wanted(max_requests=9) == "was ended by max_requests 4, now 9" and wanted() == "was ended by max_requests 4, now none"
    explanations, scores = served(lambda n, body: fitting(body), "explain/second", max_requests=9)
    assert len(served.bodies) == 3 * (1 + 2) - 4 and explanations.filter(explainer="llm")["status"].to_list() == ["ok"] * 3
    assert STAGE.wants_more(SimpleNamespace(explain=Explain(model="openai/m")), tmp_path / "explain/second") is None


def test_an_estimate_tells_the_requests_of_a_run_and_what_is_there(served, harvested, tmp_path):
    def expected(**settings):
        section = Explain(model="openai/m", api_base=served.server.address, **settings)
        units = Units(tmp_path, tmp_path / "explain/k")
        return planned(section, Subjects(harvested, vocabulary=VOCABULARY, seed=SEED, base="b"), units=units)

    one, all_of_them = {"features": Features(limit=1)}, {"features": Features()}
    before = expected(**all_of_them)
    assert (before.n_features, before.n_there, before.new.usd) == (5, 0, None)
    assert told(before).startswith(f"about {before.new.requests} requests for 5 features, ") and "does not know" in told(before)
    served(lambda n, body: fitting(body), scorers=["detection", "fuzzing"], **one)
    assert len(served.bodies) == 1 + 2 + 2 and expected(**one)[1:] == (Estimate(0, 0, 0, 0.0), 5)
    assert expected(**all_of_them).new.requests == before.new.requests - 5
    served(lambda n, body: fitting(body), scorers=["detection", "fuzzing"], **all_of_them)
    assert len(served.bodies) == before.new.requests - 5 and expected(**all_of_them).new.requests == 0

    def says_itself(n, body):  # each explainer another text
        said, content = body["messages"][0]["content"], json.loads(body["messages"][1]["content"])
        purpose = "explain" if "fires" in content else "intruder" if "groups" in content else "detection"
        return says(json.dumps({"explanation": said[50:400]}) if purpose == "explain" else knows_the_set(purpose, content))

    several = dict(explainers=["llm", "llm_contrastive"], scorers=["detection", "intruder"], parameters={"seed": 1}, baselines=[])
    before = expected(**several)  # both have the same intruders
    served(says_itself, **several, **all_of_them)
    assert len(served.bodies) == before.new.requests


def test_scores_are_those_counted_by_hand_from_the_stored_windows_and_answers(served, harvested, tmp_path):
    """What was asked is in the server's bodies, what was answered in the workspace: every answer of every question, compared with whether the
    window is one in which the feature fires."""

    def moody(n, body):
        content = json.loads(body["messages"][1]["content"])
        if "fires" in content:
            return fitting(body)
        return says(json.dumps({number: zlib.crc32(text.encode()) % 3 == 0 for number, text in content["excerpts"].items()}))

    _, scores = served(moody, scorers=["detection", "fuzzing"], baselines=[], features=Features(limit=1))
    kept, answered = {record["text"] for record in stored_units.records(tmp_path, REPLIES).values()}, {}
    for body in served.bodies:
        reply = moody(0, body)[1]["choices"][0]["message"]["content"]
        assert reply in kept
        for number, text in json.loads(body["messages"][1]["content"]).get("excerpts", {}).items():
            answered[text] = json.loads(reply)[number]
    examples = Subjects(harvested, vocabulary=VOCABULARY, seed=SEED, base="b").subject(0, 0).examples
    windows, silent = examples.test_positives, examples.test_negatives
    firing = {window_text(tokens, VOCABULARY) for tokens in windows.tokens}
    marked = {
        window_text(*pair) for pair in zip(windows.tokens, [VOCABULARY] * len(firing), windows.activations > 0, strict=True)
    }
    truth = {
        "detection": dict.fromkeys((window_text(tokens, VOCABULARY) for tokens in silent.tokens), False)
        | dict.fromkeys(firing, True),
        "fuzzing": {text: text in marked for text in answered if "«" in text},
    }
    assert len(firing) == len(marked) == 30 and list(map(len, truth.values())) == [60, 60]
    for scorer, score, low, high in scores.select("scorer", "score", "ci_low", "ci_high").iter_rows():
        right = {
            side: [answered[text] == side for text, fires in truth[scorer].items() if fires == side] for side in (True, False)
        }
        assert low < score == (np.mean(right[True]) + np.mean(right[False])) / 2 < high
