"""The page of one feature: what is drawn of its contexts and numbers, and where its links lead."""

import json
import math
from urllib.parse import parse_qs, urlsplit

import pytest
from visit import client_of, drawn, elements, page_text, show, texts
from worlds import capitals_experiment as world

from cltdb.database import Database
from cltdb.database.display import histogram
from cltdb.errors import CltdbError
from cltdb.interchange.feature_json import write_features
from dashboards import urls, work
from dashboards.feature import contexts, explanations, figures, judged, neighbours, relations, tried
from dashboards.jobs import Job

PAGE = urls.feature_url(world.DICT, *world.CAPITALS)


def test_the_last_feature_of_a_layer_has_no_next_one(database):
    pages = [
        page_text(database, urls.feature_url(world.DICT, 0, feature))
        for feature in (0, world.N_FEATURES - 2, world.N_FEATURES - 1)
    ]
    assert [("previous" in page, "next ›" in page) for page in pages] == [(False, True), (True, True), (True, False)]


def test_a_feature_is_given_as_json_and_chance_chooses_a_live_one(database, tmp_path):
    client = client_of(database)
    answer = client.get(urls.feature_json_url(world.DICT, *world.CAPITALS))
    write_features(database, world.DICT, [world.CAPITALS], tmp_path, scan="s")
    [written] = tmp_path.rglob("*.json")
    assert answer.get_json() == json.loads(written.read_text()) and "attachment" in answer.headers["Content-Disposition"]
    assert client.get(urls.feature_json_url(world.DICT, 0, 99_999)).status_code == 404
    live = {
        urls.feature_url(world.DICT, *place)
        for place in Database(database)
        .sql("SELECT layer, feature FROM features WHERE dict_id = ? AND NOT dead", [world.DICT])
        .rows()
    }
    chosen = [client.get(urls.random_url(world.DICT)) for _ in range(8)]
    assert {one.status_code for one in chosen} == {302} and {one.location for one in chosen} <= live
    assert len({one.location for one in chosen}) > 1
    assert client.get(urls.random_url("gone")).location == urls.search_url(dict_id="gone")


def test_without_a_database_what_is_given_of_features_says_so(tmp_path):
    client = client_of(tmp_path / "none.duckdb")
    for url in (urls.random_url(world.DICT), urls.feature_json_url(world.DICT, 0, 1)):
        answer = client.get(url)
        assert answer.status_code == 400 and "none.duckdb: found no database" in answer.get_data(as_text=True)


def row(words, *, peak=0, activation=1.0, **fields):
    """A row of feature_contexts: fires at its peak alone, which stands at position `peak` of a window that begins at 0."""
    strings = words.split(" ")
    activations = [activation if i == peak else 0.0 for i in range(len(strings))]
    given = {"strings": strings, "tokens": list(range(len(strings))), "activations": activations, "start": 0, "position": peak}
    return {**given, "max_activation": activation, "label": None, "document": 3, "sequence": 2001} | fields


def test_windows_are_trimmed_around_their_peak_and_the_rest_unfolds():
    words = " ".join(f"w{i}" for i in range(40))
    [window] = contexts.windows([row(words, peak=20, start=5, position=25)], scale=2.0)
    assert (window["first"], window["end"], window["peak"]) == (20 - contexts.BEFORE, 20 + contexts.AFTER + 1, 20)
    assert (
        len(window["strings"]) == 40 and window["heat"][20] == 0.5 and window["activations"][20] == "1" and window["start"] == 5
    )
    assert window["where"] == "document 3 · sequence 2,001 · position 25"
    [at_the_start] = contexts.windows([row("a b c", peak=0)], scale=1.0)
    assert (at_the_start["first"], at_the_start["end"]) == (0, 3)


def test_windows_of_the_same_trimmed_text_are_one_with_their_number_and_lowest_peak():
    far = " ".join(["x"] * 30)
    same = [row(f"{first} {far} the peak", peak=31 + 1, activation=value) for first, value in (("one", 3.0), ("two", 2.5))]
    found = contexts.windows(
        [*same, row(f"one {far} the other", peak=32), row(f"one {far} the peak", peak=32, label="fr")], scale=3.0
    )
    assert [(window["n"], window["value"], window["lowest"], window["label"]) for window in found] == [
        (2, "3", "2.5", None), (1, "1", None, None), (1, "1", None, "fr")
    ]  # fmt: skip


def test_a_band_says_what_its_peaks_are():
    rows = [
        row("a b", activation=value) | {"band": band}
        for band, value in (("top", 4.0), ("top", 3.0), ("q0", 0.5), ("q1", math.nan))
    ]
    [data] = drawn(contexts.contexts(rows, scale=4.0), "contexts")
    assert [band["peaks"] for band in data["bands"]] == ["3 to 4", "0.5", None]


def test_heat_is_the_share_of_the_scale_and_nothing_for_what_is_no_activation():
    heat = contexts.heat(["a", "b", "c", None, "\u202e", "x" * 60], [4.0, 1.0, math.nan, -1.0, 8.0, math.pi], scale=4.0)
    assert heat["heat"] == [1.0, 0.25, 0, 0, 1.0, 0.785] and heat["activations"] == ["4", "1", "NaN", "-1", "8", "3.14159"]
    assert heat["strings"][3:5] == ["∅", r"\u202e"] and len(heat["strings"][5]) == 48 and heat["whole"] == {5: "x" * 60}
    json.dumps(heat, allow_nan=False)


def test_a_window_whose_strings_or_activations_are_unknown_is_still_drawn():
    [window] = contexts.windows([row("a b") | {"strings": None, "activations": None}], scale=math.nan)
    assert window["strings"] == ["∅", "∅"] and window["heat"] == [0, 0] and window["activations"] == ["–", "–"]


def test_the_histogram_puts_every_token_in_its_bar():
    card = {"histogram": [{"low": 1.0, "n": 6}, {"low": 1.25, "n": 3}, {"low": 1.75, "n": 1}], "quantiles": None, "dead": False}
    [bars] = drawn(figures.activation_histogram(card), "bars")
    assert [(bar["x"], bar["height"], bar["hint"]) for bar in bars["bars"]] == [
        (0.0, 1.0, "1 to 1.25: 6 tokens"), (0.25, 0.5, "1.25 to 1.5: 3 tokens"), (0.75, 1 / 6, "1.75 to 2: 1 tokens")
    ]  # fmt: skip
    assert histogram.place([1.0, 1.25, 1.5, 1.75, 2.0], 1.375) == 0.375 and histogram.place([1.0, 2.0], 3.0) == 1.0
    [nothing] = drawn(figures.activation_histogram({"histogram": [], "dead": True}), "bars")
    assert "never active" in nothing["nothing"]


def test_the_ends_of_the_logits_lie_where_their_effects_are():
    effect = lambda token, value: {"token": token, "string": token, "value": value}  # noqa: E731
    card = {"promoted": [effect("up", 3.0), effect("nan", math.nan)], "suppressed": [effect("down", -1.0)]}
    [bars] = drawn(figures.logit_extremes(card), "bars")
    assert [(bar["x"], bar["tone"]) for bar in bars["bars"]] == [(0.0, "suppresses"), (1.0, "promotes")]
    assert [tick["x"] for tick in bars["ticks"]] == [0.0, 0.25, 1.0] and bars["tokens"] == ["down", "up, nan"]


def test_a_graph_of_neighbours_has_a_column_per_layer_and_leads_to_each_one():
    card = {"dict_id": "d", "layer": 2, "feature": 7, "text": "here"}
    ends = [("from", 0, 4, -0.5), ("from", 0, 5, math.nan), ("to", 3, 1, 0.25)]
    connected = [{"direction": d, "layer": layer, "feature": f, "twera": t, "text": None} for d, layer, f, t in ends]
    similar = [{"neighbour": 8, "cosine": 0.9, "text": "y" * 100}]
    found = neighbours.elements(card, connected, similar)
    places = {one["data"]["id"]: one["position"] for one in found if "position" in one}
    assert places["0:4"]["x"] == places["0:5"]["x"] < places["2:7"]["x"] == places["2:8"]["x"] < places["3:1"]["x"]
    assert len({(place["x"], place["y"]) for place in places.values()}) == len(places) == 5
    hrefs = {one["data"]["id"]: one["data"]["href"] for one in found if "position" in one}
    assert hrefs["2:7"] is None and hrefs["0:4"] == urls.feature_url("d", 0, 4)
    edges = {(one["data"]["source"], one["data"]["target"]): one for one in found if "position" not in one}
    assert edges["0:4", "2:7"]["classes"] == "negative" and edges["2:7", "2:8"]["classes"] == "similar" and len(edges) == 4
    assert all(len(one["data"]["label"]) <= neighbours.LABEL_CHARS for one in found if "position" in one)
    json.dumps(found, allow_nan=False)
    assert neighbours.neighbourhood(card, [], [], id="x") is None


def test_an_explanation_stands_beside_chance_and_its_baselines(database):
    page = show(database, PAGE)
    table = texts(page)
    for expected in ("detection chance 0.5", "baseline:shuffled", "names of countries", "n 40", "rules · input side"):
        assert expected in table
    [interval, *_] = [one["style"] for one in elements(page) if one.get("className") == "interval"]
    assert interval["--chance"] == "50.0%" and float(interval["--low"][:-1]) < float(interval["--high"][:-1])
    unscored = explanations.explanations(explained(text=None, status="failed", error="no answer", scorer=None))
    assert "the explainer failed" in texts(unscored) and "no answer" in texts(unscored)


def explained(**row):
    return [{"side": "input", "explainer": "llm", "model": "m", "chance": None, **row}]


def data_of(database, column):
    """A column of the feature of PAGE."""
    where = "dict_id = ? AND layer = ? AND feature = ?"
    return Database(database).sql(f"SELECT {column} FROM features WHERE {where}", [world.DICT, *world.CAPITALS]).item(0, 0)


def test_the_page_shows_contexts_numbers_tokens_and_links(database):
    page = show(database, PAGE)
    text = texts(page)
    for expected in ("capital of", "Paris", "driven by", "0:4, TWERA −0.75, virtual weight −1.25", world.HOSTILE, "reads from"):
        assert expected in text
    [data] = drawn(page, "contexts")
    assert [(band["title"], band["n"]) for band in data["bands"]] == [
        ("Strongest", 8), ("Quantile band q1", 3), ("Quantile band q0", 3)
    ]  # fmt: skip
    n_firings = sum(one["n"] for one in data_of(database, "histogram"))
    assert f"Activation, on the {n_firings} tokens on which it fires" in text
    assert any("query=feature_card" in (one.get("href") or "") for one in elements(page))
    assert {"France", "The"} & set(data["bands"][0]["windows"][0]["strings"])
    links = {one.get("href") for one in elements(page)}
    assert urls.feature_url(world.DICT, *world.HOSTILE_FEATURE) in links
    assert any(link and link.startswith(urls.graph_url(world.GRAPH)) and "sel=" in link for link in links)
    assert "No edges to features" in page_text(database, urls.feature_url(world.DICT, *world.NAN))


def test_a_page_has_few_components_however_long_its_contexts(database):
    assert sum(1 for _ in elements(show(database, PAGE))) < 300


@pytest.mark.parametrize("key", [world.UNEXPLAINED, world.DEAD, world.NAN, world.HOSTILE_FEATURE])
def test_feature_pages_of_odd_features(database, key):
    text = page_text(database, urls.feature_url(world.DICT, *key))
    assert {
        world.UNEXPLAINED: "Not explained",
        world.DEAD: "A dead feature",
        world.NAN: "NaN",
        world.HOSTILE_FEATURE: world.HOSTILE,
    }[key] in text


def test_an_intervention_says_what_was_set_and_what_it_did():
    ablated = [{"position": 5, "operation": "set", "value": 0.0}]
    row = {"intervention_id": "i", "graph_id": "g", "prompt": "The capital", "mode": "free", "n_features": 3, "settings": ablated}
    row |= {"string": "Paris", "before": 17.24, "after": 16.1, "predicted": 14.0}
    assert "ablated at position 5, mode free, with 2 more :  logit of “ Paris ” 17.2 → 16.1, predicted 14" in texts(
        relations.interventions([row], n=1, key={})
    )
    doubled = [{"position": at, "operation": "scale", "value": 2.0} for at in (None, 1, 2, 3)]
    unmeasured = row | {"after": None, "n_features": 1, "graph_id": None}
    everywhere = relations.interventions([unmeasured | {"settings": doubled[:1]}], n=1, key={})
    assert "times 2 at all positions, mode free" in texts(everywhere)
    several = relations.interventions([unmeasured | {"settings": [*doubled[1:], *ablated]}], n=1, key={})
    assert "times 2 at positions 1 to 3, ablated at position 5, mode free" in texts(several)


def test_of_many_graphs_and_interventions_the_first_are_said_to_be_and_lead_to_all():
    key = {"dict_id": "d", "layer": 1, "feature": 2}
    row = {"graph_id": "g", "node_id": 3, "prompt": "p", "position": 5, "activation": 1.0, "influence": 0.5, "kept": True}
    assert "all of them" not in texts(relations.graphs([row, row], n=2, key=key))
    shown = relations.graphs([row, row], n=1009, key=key)
    assert texts(shown).startswith("The 2 nodes of highest influence of 1,009:  all of them")
    [whole] = [one["href"] for one in elements(shown) if one.get("href", "").startswith("/sql")]
    assert parse_qs(urlsplit(whole).query) == {
        "query": ["page_feature_graphs"], "p.dict_id": ["d"], "p.layer": ["1"], "p.feature": ["2"], "p.limit": ["1009"]
    }  # fmt: skip


class Records:
    """Stands for `jobs.Jobs`: the jobs on record."""

    def __init__(self, *found):
        self.found = found

    def all(self):
        return list(self.found)


def job(status, text="a b", *, feature=7, output="", error=None):
    fields = {"dict_id": "d", "layer": 2, "feature": feature, "text": text}
    return Job("1", "encode", fields, text, status, 1.0, None, error, [], output)


def test_what_moves_when_it_is_raised_stands_with_its_fact_and_a_link(database):
    page = show(database, urls.feature_url(world.DICT, 0, 4))
    said = texts(page)
    for part in (
        "by 4 × its high, 2", "leakage 4 in later layers, KL 0.04 nats on 2 unrelated prompts", "most by 1:4, 0.25",
        f"its concept “ {world.HOSTILE} ”: old answer gone in 50 % of 8 exchanges, new one there in 25 % of 8 exchanges",
    ):  # fmt: skip
        assert part in said, said
    links = {one.get("href") for one in elements(page)}
    assert {urls.isolation_url(dict_a=world.DICT), urls.feature_url(world.DICT, 1, 4)} <= links
    assert "no leakage to measure" in page_text(database, urls.feature_url(world.DICT, world.N_LAYERS - 1, 7))
    assert "When it is raised" not in page_text(database, urls.feature_url(world.DICT, 0, 5))


def test_a_tried_text_shows_where_it_fires_and_one_that_runs_or_failed_says_so():
    key = {"dict_id": "d", "layer": 2, "feature": 7}
    answer = {"strings": ["<s>", "a", "b"], "features": [{"activations": [None, 0.0, 3.0]}]}
    finished = job("finished", output=json.dumps(answer))
    found, runs = tried.tried(
        Records(job("running"), job("finished", feature=8), finished, job("failed", error="no memory")), key, scale=6.0
    )
    assert runs and len(found) == 3 and [texts(found[i]) for i in (0, 2)] == ["a b runs", "a b no memory"]
    [window] = drawn(found[1], "snippets")[0]["windows"]
    assert (
        window["strings"] == ["<s>", "a", "b"]
        and window["heat"] == [0, 0, 0.5]
        and window["peak"] == 2
        and window["activations"][0] == "–"
    )
    assert "fires on 1 of 2 tokens, at most with 3, 50 % of its maximum" in texts(found[1])
    assert "silent on these 2 tokens" in tried.summary([0.0, 0.0], 6.0)
    silent = job("finished", output=json.dumps({"strings": ["<s>"], "features": [{"activations": [None]}]}))
    assert "silent on these 0 tokens" in texts(tried.tried(Records(silent), key, scale=None)[0])


def test_a_text_is_tried_by_one_command_that_takes_it_as_it_is(within_app):
    request = work.request("encode", {"dict_id": world.DICT, "layer": 2, "feature": 7, "text": "--json; $(x)"})
    assert request.command == "encode" and request.options == ("--text=--json; $(x)", "--feature=2:7", "--json")
    for wrong in ({"text": " "}, {"layer": "1"}, {"feature": -1}, {"dict_id": "gone"}):
        with pytest.raises(CltdbError):
            work.request("encode", {"dict_id": world.DICT, "layer": 2, "feature": 7, "text": "a"} | wrong)


def test_the_labels_it_fires_on_stand_with_the_rate_on_each():
    whole = {"label_entropy": 0.25, "label_information_bits": 0.125, "label_information_matched_bits": 0.0625}
    counts = [("fr", 200, 20, 0.1, 0.8), ("en", 1000, 25, 0.025, 0.2)]
    rows = [dict(zip(("label", "tokens", "firings", "rate", "share"), row, strict=True)) | whole for row in counts]
    said = texts(relations.label_shares(rows))
    for part in ("fr", "10 %", "en", "2.5 %", "0.125 bits", "0.0625 at equal token frequency", "entropy 0.25"):
        assert part in said, said
    assert relations.label_shares([]) == []
    assert "and 5 more labels" in texts(relations.label_shares([rows[0]] * 15))


DETAIL = {"n_pos": 2, "n_neg": 2, "tpr": 0.5, "tnr": 1.0, "negatives": {"random": 1, "same_tokens": 1}}


def scored(**detail):
    return {
        "side": "input",
        "explainer": "rules",
        "scorer": "detection",
        "n": 4,
        "n_failed": 1,
        "judge": "rule",
        "detail": json.dumps(detail),
    }


def test_what_a_score_was_counted_from():
    said = judged.counted(scored(**DETAIL))
    assert said[:1] == ["it fires: 1 of 2 right"] and said[2] == "1 without a usable answer"
    assert said[1] == "others: 2 of 2 right (1 random, 1 with tokens on which it fires elsewhere)"
    assert judged.counted(scored(n_right=3))[0] == "3 of 4 choices right"
    assert judged.counted(scored(n_tokens=1600))[0] == "activations of 1,600 tokens in 4 windows"
    assert judged.counted(scored() | {"detail": None, "n_failed": 0}) == ["no counts are stored"]
    assert judged.right(DETAIL | {"n_neg": 0, "tnr": None}) == (1, 0)


def test_examples_stand_in_groups_and_those_of_another_score_are_not_shown():
    window = lambda kind, value: {"strings": ["a", world.HOSTILE], "activations": [0.0, value], "kind": kind, "marked": None}  # noqa: E731
    windows = [
        window("positive", 2.0),
        window("positive", 1.0),
        window("random", 0.0),
        window("same_tokens", 0.0),
        window("random", 0.0),
    ]
    of = {"side": "input", "explainer": "rules", "scorer": "detection", "why": None, "answers": [True, False, False, False, None]}
    made = {"windows": {"detection": windows}, "scores": [of]}
    shown, lacking = judged.behind([scored(**DETAIL)], made, 2.0)
    [score] = shown["scores"]
    assert score["title"] == "detection of rules: 3 of 5 right" and lacking == []
    assert [(group["title"], group["windows"]) for group in score["groups"]] == [
        ("Wrong: it fires, judged no", [1]), ("No usable answer: it is silent", [4]),
        ("Right: it fires, judged yes", [0]), ("Right: it is silent, judged no", [2, 3]),
    ]  # fmt: skip
    assert [(one["peak"], one["kind"]) for one in shown["windows"]["detection"][1:3]] == [(1, None), (None, "random")]
    for rows, reason in (
        ([scored(**DETAIL | {"tpr": 1.0})], "scored since"),
        ([scored(**DETAIL) | {"explainer": "x"}], "scored since"),
    ):
        shown, [line] = judged.behind(rows, made, 2.0)
        assert not shown["scores"] and reason in line
    _, [line] = judged.behind([scored(**DETAIL)], made | {"scores": [of | {"answers": None, "why": "because"}]}, 2.0)
    assert line == "without examples: 1 score, because"


def test_the_counts_behind_scores_are_shown_also_where_no_work_is_started(database):
    key = dict(zip(("dict_id", "layer", "feature"), (world.DICT, *world.CAPITALS), strict=True))
    client = client_of(database)
    with client.application.test_request_context(headers={"Host": "localhost"}):
        said = texts(judged.results(key, None, 1.0))
        assert "no counts are stored" in said and "this machine alone" in said
        assert "was scored" in texts(judged.results(key | {"feature": 0, "layer": 99}, None, 1.0))
    asked = work_request(database, key)
    assert asked.options == (f"--feature={world.CAPITALS[0]}:{world.CAPITALS[1]}", "--json") and asked.command == "judged"


def work_request(database, key):
    with client_of(database).application.app_context():
        with pytest.raises(CltdbError):
            work.request("judged", key | {"layer": "1 --x"})
        return work.request("judged", key)
