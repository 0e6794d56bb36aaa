"""What pages show of frames, and of what the database holds."""

import json
import math
from urllib.parse import parse_qs

import polars as pl
import pytest
from dash.development.base_component import Component
from visit import by_id, client_of, page_text, show, texts
from worlds import capitals_experiment as world

from cltdb.database.display import figures, layered, words
from cltdb.graphs.stored_graph import prune_stored
from dashboards import components, data, graph_elements, node_card, urls
from dashboards.pages import features, frontier, overview
from dashboards.pages import graph as graph_page

pytestmark = pytest.mark.usefixtures("within_app")


@pytest.fixture(scope="module")
def graph(database):
    with client_of(database).application.app_context():
        return data.graph(world.GRAPH)


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "–"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "−∞"), (0, "0"), (0.0, "0"), (1234567, "1,234,567"),
        (0.12345, "0.123"), (-2.5, "−2.5"), (1e-5, "1.0e-05"), (12345.6, "12,346"),
    ],
)  # fmt: skip
def test_numbers_as_text(value, text):
    assert words.number(value) == text


def test_shares_durations_and_tokens_as_text():
    assert [words.percent(v) for v in (None, 0.887, 0.0, 1e-6, math.nan)] == ["–", "88.7 %", "0 %", "1.0e-04 %", "NaN"]
    assert [words.seconds(v) for v in (None, 1.26, 59.0, 61, 7300)] == ["–", "1.3 s", "59 s", "1 min 01 s", "2 h 01 min"]
    assert words.token_text("\n") == "⏎" and words.token_text("") == "∅" and words.token_text(None) == "∅"
    assert words.token_text("a\u202eb\x1b\xa0c\u200d") == r"a\u202eb\x1b\xa0c\u200d" and words.token_text(" é中") == " é中"
    assert len(words.token_text(world.LONG)) == words.MAX_TOKEN_CHARS


def test_heat_is_the_share_of_the_scale_and_nothing_for_what_is_no_activation():
    window = components.heat_tokens(["a", "b", "c", None], [4.0, 1.0, math.nan, -1.0], scale=4.0, start=10, peak=11)
    spans = [piece for piece in window.children if isinstance(piece, Component)]
    assert [span.style and span.style["--heat-share"] for span in spans] == ["1.00", "0.25", None, None]
    assert "peak" in spans[1].className and "position 11" in spans[1].title


def test_training_curve_has_a_line_per_layer_and_evaluation_a_bar_per_layer():
    chosen = {"dict_id": world.DICT, "name": "fvu"}
    curve = figures.training_curve(data.query("metrics_curve", stage="train", **chosen), name="fvu")
    assert [trace.name for trace in curve.data] == [f"layer {i}" for i in range(world.N_LAYERS)] + ["pooled"]
    bars = figures.evaluation_bars(data.query("metrics_curve", stage="evaluate", **chosen), name="fvu")
    assert list(bars.data[0].x) == list(range(world.N_LAYERS)) and bars.data[0].y[0] == pytest.approx(0.08)
    assert "pooled" in bars.layout.annotations[0].text


def test_figures_without_rows_or_with_nan_say_so():
    frame = pl.DataFrame({"step": [0, 1], "layer": [None, None], "value": [math.nan, 1.0]}, schema_overrides={"layer": pl.Int32})
    assert list(figures.training_curve(frame, name="loss").data[0].y) == [None, 1.0]
    empty = figures.training_curve(frame.clear(), name="loss")
    assert "not measured" in empty.layout.annotations[0].text
    assert "no decoder norms" in figures.decoder_profile(None, layer=0).layout.annotations[0].text


def test_a_feature_of_a_graph_without_dictionary_has_no_page_to_go_to(graph):
    node = next(row for row in graph.nodes.to_dicts() if row["kind"] == "feature")
    with_page, without = (str(node_card.node_card(node, graph, dict_id=name)) for name in (world.DICT, None))
    assert "/feature/" in with_page and "/feature/" not in without and f"Feature {node['layer']}:{node['feature']}" in without


def test_pruning_everything_in_leaves_only_loose_ends_out_and_grows_with_the_share(graph):
    sizes = [prune_stored(graph.nodes, graph.edges, node_threshold=share, edge_threshold=0.95) for share in (0.3, 0.6, 0.9, 1.0)]
    assert [pruned.nodes.height for pruned in sizes] == sorted(pruned.nodes.height for pruned in sizes)
    for pruned in sizes:
        nodes, edges = pruned.nodes, pruned.edges
        there, sources, targets = set(nodes["node_id"]), set(edges["source_id"]), set(edges["target_id"])
        assert sources | targets <= there
        for node in nodes.to_dicts():
            if node["kind"] == "feature":
                assert node["node_id"] in sources and node["node_id"] in targets
        kinds = nodes["kind"].to_list()
        assert kinds.count("embedding") == len(world.PROMPT) and kinds.count("logit") == 3


def test_elements_put_positions_on_x_and_layers_on_y(graph):
    drawing, caption = graph_page.draw(graph, node_share=1.0, edge_share=1.0)
    places = {e["data"]["id"]: e["position"] for e in drawing if "position" in e}
    rows = {graph_elements.node_key(n["node_id"]): n for n in graph.nodes.to_dicts()}
    drawn = {key: rows[key] for key in places if key in rows}
    low, high = (min if end == "low" else max for end in ("low", "high"))
    assert places["token0"]["y"] > high(places[k]["y"] for k, n in drawn.items() if n["kind"] == "embedding")
    for layer in range(world.N_LAYERS - 1):
        assert low(places[k]["y"] for k, n in drawn.items() if n["layer"] == layer) > high(
            places[k]["y"] for k, n in drawn.items() if n["layer"] == layer + 1
        )
    logits = [places[k]["y"] for k, n in drawn.items() if n["kind"] == "logit"]
    assert max(logits) < low(places[k]["y"] for k, n in drawn.items() if n["kind"] == "feature")
    for position in range(len(world.PROMPT) - 1):
        assert places[f"token{position}"]["x"] < places[f"token{position + 1}"]["x"]
    assert len({(p["x"], p["y"]) for p in places.values()}) == len(places), "nodes cover each other"
    edges = [e for e in drawing if "source" in e["data"]]
    assert {e["data"]["source"] for e in edges} | {e["data"]["target"] for e in edges} <= set(drawn)
    assert str(len(drawn)) in caption and {e["classes"] for e in edges} == {"promotes", "suppresses"}
    json.dumps(drawing, allow_nan=False)


def test_only_the_most_influential_edges_of_a_large_graph_are_drawn(graph):
    drawn = layered.strongest(graph.edges, limit=10)
    assert drawn["influence"].to_list() == sorted(graph.edges["influence"], reverse=True)[:10]


def test_elements_of_nan_weights_and_of_nothing(graph):
    edges = graph.edges.head(2).with_columns(weight=pl.lit(math.nan), influence=pl.lit(math.nan))
    nodes = graph.nodes.with_columns(influence=pl.lit(math.nan))
    json.dumps(graph_elements.elements(nodes, edges, tokens=["a"]), allow_nan=False)
    assert graph_elements.elements(graph.nodes.clear(), graph.edges.clear(), tokens=[])


def search(text=None, sort="relevance", layer=None, alive=False):
    return features.features(text, sort=sort, dict_id=world.DICT, layer=layer, alive=alive)


def test_search_says_why_it_found_a_feature():
    found, said = search("COUNTRY")
    assert list(zip(found["layer"], found["feature"], strict=True)) == [world.CAPITALS] and said == "1 feature"
    assert found["found_in"].to_list() == ["explanation 'countries'"]
    france, _ = search("Frances")
    of_capitals = france.filter((pl.col("layer") == 2) & (pl.col("feature") == 7))
    assert "fires on 'France'" in of_capitals["found_in"][0]
    nothing, said = search("% Parris")
    assert nothing.is_empty() and "no word is like “%”" in said and "“parris” (spelled like it: paris)" in said
    assert search("'; DROP TABLE features")[0].height >= 0 and "No feature" in search("zebra")[1]


def test_search_and_features_by_their_numbers():
    everything, said = search()
    assert everything.height == len(world.KEYS) and said == f"{len(world.KEYS)} features"
    assert search(alive=True)[0].height == len(world.KEYS) - 1
    layer, _ = search(layer=1, sort="density")
    assert set(layer["layer"]) == {1} and layer["density"].to_list() == sorted(layer["density"], reverse=True)
    strongest, _ = search(sort="max_activation")
    assert math.isnan(strongest["max_activation"][-1]), "unknown numbers come last"
    words, _ = search("word1", sort="density")
    known = words["density"].drop_nulls().to_list()
    assert len(known) > 4 and known == sorted(known, reverse=True) and words["relevance"].to_list() != sorted(words["relevance"])
    assert search("word1", sort="layer")[0]["layer"].is_sorted()
    few = data.query("page_features", dict_id=world.DICT, limit=5)
    assert few.height == 5 and set(few["n_features"]) == {len(world.KEYS)}
    json.dumps(features.rows(everything) + features.rows(words), allow_nan=False)


def test_overview_shows_dictionaries_runs_and_errors(database):
    text = page_text(database, "/")
    for expected in (world.DICT, world.OTHER_DICT, "0.08", "88.7 %", "NaN", "27 min 18 s", "failed", "Paris"):
        assert expected in text


def test_overview_shows_a_training_that_goes_on(database):
    text = page_text(database, "/")
    assert world.IN_TRAINING in text and "in training · step 1,000" in text and "In training" in text
    found = by_id(show(database, "/"))
    assert found[overview.DICT_SELECT]["value"] == world.IN_TRAINING and not found[overview.TICK]["disabled"]
    assert overview.curves([world.DICT]).children[0].disabled
    finished = overview.training_card({**data.query("page_in_training").to_dicts()[0], "status": "done"})
    assert "trained; its stage database has not run" in texts(finished)


def frontier_of(sweep=None, layer=None):
    return frontier.draw(frontier.ALL if sweep is None else frontier.PREFIX + sweep, layer)


def test_frontier_has_a_point_per_dictionary_in_colours_of_kind_and_activation():
    figure, table = frontier_of(world.SWEEP)
    points = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert set(points) == {"clt batchtopk", "clt relu", "plt batchtopk", "plt relu"} and all(
        len(t.x) == 3 for t in points.values()
    )
    assert len({(trace.marker.color, trace.marker.symbol) for trace in points.values()}) == 4
    href = points["clt batchtopk"].customdata[0]
    path, _, fields = href.partition("?")
    assert path == urls.SEARCH and parse_qs(fields)["dict_id"][0] in texts(table)
    [best] = [trace for trace in figure.data if trace.mode == "lines"]
    assert list(best.x) == sorted(best.x) and list(best.y) == sorted(best.y, reverse=True)
    for expected in ("l0", "kind", "label", "1 min 04 s", "96.8 %"):
        assert expected in texts(table)
    assert texts(table).count("activation") == 6 * 2  # in the names of dictionaries, not as a column beside `kind`
    everything, _ = frontier_of()
    assert sum(len(trace.x) for trace in everything.data if trace.mode == "markers") == 14


def test_frontier_per_layer_and_texts_are_escaped():
    pooled, layer = frontier_of(world.SWEEP), frontier_of(world.SWEEP, "3")
    ratio = [deep / flat for deep, flat in zip(layer[0].data[1].y, pooled[0].data[1].y, strict=True)]
    assert ratio == pytest.approx([1.3] * 3)
    shown = " ".join(text for trace in pooled[0].data if trace.mode == "markers" for text in trace.text)
    assert "&lt;img src=x" in shown and "<img" not in shown and world.HOSTILE in texts(pooled[1])
    nothing, table = frontier_of("no such sweep")
    assert "nothing was evaluated" in nothing.layout.annotations[0].text and table is None


def test_the_axes_of_a_frontier_begin_at_nothing_or_above():
    rows = data.query("frontier", sweep=world.SWEEP).with_columns(swept=pl.lit(None)).to_dicts()
    modes = []
    for of in (rows[:1], rows):
        axes = figures.frontier([row | {"swept": {}} for row in of]).layout
        modes.append((axes.xaxis.rangemode, axes.yaxis.rangemode))
    assert modes == [("tozero", "tozero"), ("nonnegative", "nonnegative")]


def test_frontier_choices_come_from_the_address(database):
    def chosen(search):
        found = by_id(show(database, urls.FRONTIER, search))
        return found[frontier.SWEEP_SELECT]["value"], found[frontier.LAYER_SELECT]["value"]

    assert chosen("?sweep=zoo&layer=2") == (":zoo", "2")
    assert chosen("?sweep=gone&layer=77") == chosen("") == (frontier.ALL, frontier.POOLED)


def test_swept_keys_are_short_where_they_can_be():
    assert figures.swept('{"train.l0": 5, "a.seed": 1, "b.seed": "x"}') == {"l0": "5", "a.seed": "1", "b.seed": "x"}
    assert figures.swept(None) == {}


def test_feature_page_shows_explanation_scores_contexts_and_effects(database):
    text = page_text(database, urls.feature_url(world.DICT, *world.CAPITALS))
    for expected in (
        "capital of",
        "France",
        "strongest",
        "quantile band q1",
        "detection",
        "baseline:shuffled",
        "Paris",
        "The capital of",
        "driven by",
        "0:4, TWERA −0.75, virtual weight −1.25",
        world.HOSTILE,
    ):
        assert expected in text
    assert "No edges to features" in page_text(database, urls.feature_url(world.DICT, *world.NAN))


@pytest.mark.parametrize("key", [world.UNEXPLAINED, world.DEAD, world.NAN, world.HOSTILE_FEATURE])
def test_feature_pages_of_odd_features(database, key):
    text = page_text(database, urls.feature_url(world.DICT, *key))
    assert {
        world.UNEXPLAINED: "Not explained",
        world.DEAD: "A dead feature",
        world.NAN: "NaN",
        world.HOSTILE_FEATURE: world.HOSTILE,
    }[key] in text


def test_graph_card_of_every_kind_of_node(graph):
    for kind in ("feature", "error", "embedding", "logit"):
        node_id = graph.nodes.filter(pl.col("kind") == kind)["node_id"][-1]
        text = texts(graph_page.card_of(world.GRAPH, graph_elements.node_key(node_id)))
        assert "Strongest inputs" in text and "Strongest outputs" in text
