"""What pages show of frames, and of what the database holds."""

import json
import math
from copy import copy
from urllib.parse import parse_qs

import polars as pl
import pytest
from visit import by_id, client_of, elements, page_text, show, texts
from worlds import capitals_experiment as world

from cltdb.database.display import figures, layered, words
from cltdb.graphs.stored_graph import prune_stored
from dashboards import data, urls
from dashboards.graph import card, payload, pruned, scores, stored
from dashboards.pages import frontier, overview
from dashboards.pages import graph as graph_page

pytestmark = pytest.mark.usefixtures("within_app")


@pytest.fixture(scope="module")
def graph(database):
    with client_of(database).application.app_context():
        return stored.graph(world.GRAPH)


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
    shares = [words.percent(v) for v in (None, 0.887, 0.0, 5.4156e-5, 1e-7, math.nan)]
    assert shares == ["–", "88.7 %", "0 %", "0.00542 %", "1.0e-05 %", "NaN"]
    assert [words.seconds(v) for v in (None, 1.26, 59.0, 61, 7300)] == ["–", "1.3 s", "59 s", "1 min 01 s", "2 h 01 min"]
    assert words.token_text("\n") == "⏎" and words.token_text("") == "∅" and words.token_text(None) == "∅"
    assert words.token_text("a\u202eb\x1b\xa0c\u200d") == r"a\u202eb\x1b\xa0c\u200d" and words.token_text(" é中") == " é中"
    assert len(words.token_text(world.LONG)) == words.MAX_TOKEN_CHARS


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
    no_edges = graph.edges.clear()
    with_page, without = (
        str(card.node_card(node, dict_id=name, inputs=no_edges, outputs=no_edges)) for name in (world.DICT, None)
    )
    assert "/feature/" in with_page and "/feature/" not in without and f"Feature {node['layer']}:{node['feature']}" in without


def test_pruning_everything_in_leaves_only_loose_ends_out_and_grows_with_the_share(graph):
    sizes = [prune_stored(graph.nodes, graph.edges, node_threshold=share, edge_threshold=0.95) for share in (0.3, 0.6, 0.9, 1.0)]
    assert [part.nodes.height for part in sizes] == sorted(part.nodes.height for part in sizes)
    for part in sizes:
        nodes, edges = part.nodes, part.edges
        there, sources, targets = set(nodes["node_id"]), set(edges["source_id"]), set(edges["target_id"])
        assert sources | targets <= there
        for node in nodes.to_dicts():
            if node["kind"] == "feature":
                assert node["node_id"] in sources and node["node_id"] in targets
        kinds = nodes["kind"].to_list()
        assert kinds.count("embedding") == len(world.PROMPT) and kinds.count("logit") == 3


def test_the_browser_gets_every_node_as_columns_of_plain_json(graph):
    sent = payload.graph_data(graph, graph_id=world.GRAPH, prompt="p", node_share=0.8, edge_share=0.98)
    columns = sent["nodes"]
    assert columns["id"] == graph.nodes["node_id"].to_list() and {len(column) for column in columns.values()} == {
        graph.nodes.height
    }
    assert all(0 < len(label) <= payload.MAX_LABEL_CHARS for label in columns["label"])
    assert len(sent["tokens"]) == len(world.PROMPT) and sent["n_layers"] == world.N_LAYERS
    nan = copy(graph)
    nan.nodes = graph.nodes.with_columns(influence=pl.lit(math.nan))
    for shown in (sent, payload.graph_data(nan, graph_id="g", prompt=None, node_share=1, edge_share=1)):
        json.dumps(shown, allow_nan=False)


def test_the_sliders_send_what_pruning_keeps():
    for share in (0.5, 1.0):
        sent = pruned.pruned_graph(world.GRAPH, node_share=share, edge_share=share)
        kept = pruned.subgraph(world.GRAPH, node_share=share, edge_share=share)
        assert sent["kept"] == kept.nodes["node_id"].to_list() and f"{kept.nodes.height:,} of" in sent["caption"]
        pairs = set(zip(sent["edges"]["source"], sent["edges"]["target"], strict=True))
        assert pairs == set(kept.edges.select("source_id", "target_id").rows())
        json.dumps(sent, allow_nan=False)


def test_scores_follow_what_is_shown_and_what_is_pinned(graph):
    kept = prune_stored(graph.nodes, graph.edges, node_threshold=0.8, edge_threshold=0.95)
    assert scores.of_shown(graph, kept, hidden=[]) == pytest.approx(kept.scores)
    strongest = kept.nodes.filter(kind="feature").sort("influence")["node_id"][-1]
    assert scores.of_shown(graph, kept, hidden=[strongest]).replacement < kept.scores.replacement
    everything = prune_stored(graph.nodes, graph.edges, node_threshold=1.0, edge_threshold=1.0)
    assert tuple(scores.of_pinned(graph, pinned=everything.nodes["node_id"])) == pytest.approx(tuple(everything.scores))


def test_only_the_most_influential_edges_of_a_large_graph_are_drawn(graph):
    drawn = layered.strongest(graph.edges, limit=10)
    assert drawn["influence"].to_list() == sorted(graph.edges["influence"], reverse=True)[:10]


def test_overview_shows_dictionaries_graphs_and_experiments(database):
    text = page_text(database, "/")
    for expected in (world.DICT, world.OTHER_DICT, "0.08", "88.7 %", "NaN", "Paris", "toy", "All 14 experiments"):
        assert expected in text


@pytest.mark.parametrize(
    "page, what",
    [
        (f"{urls.SEARCH}?dict_id=gone", "dictionary  gone"), (f"{urls.FRONTIER}?sweep=gone", "sweep or experiment  gone"),
        (f"{urls.STARRED}?list=gone", "list  gone"), (f"{urls.RUNS}?compare=toy,gone", "experiment  gone"),
        (f"{urls.RUNS}?sweep=gone", "sweep gone"), (f"{urls.GROUPS}?groups_id=gone", "comparison of labels  gone"),
        (f"{urls.ISOLATION}?dict_a=gone", "measurement of dictionary  gone"),
    ],
)  # fmt: skip
def test_a_page_says_of_a_name_in_its_address_that_it_is_not_there(database, random_database, page, what):
    path, _, search = page.partition("?")
    has_none = path in (urls.GROUPS, urls.ISOLATION)
    said = page_text(random_database if has_none else database, path, f"?{search}")
    assert f"There is no {what}" in said
    assert "There is no" not in page_text(random_database if has_none else database, path)
    nearly = page_text(database, urls.SEARCH, f"?dict_id={world.DICT}x")
    assert f"did you mean {world.DICT}?" in nearly or f"did you mean {world.OTHER_DICT}?" in nearly


def frontier_of(sweep=None, layer=None):
    return frontier.draw(frontier.ALL if sweep is None else frontier.PREFIX + sweep, layer)


def test_overview_has_cards_of_the_newest_experiments_dictionaries():
    table = data.query("page_dictionaries")[:1]
    many = pl.concat([table.with_columns(dict_id=pl.lit(f"d{i:02}"), experiment=pl.lit(f"e{i:02}")) for i in range(30)])
    begun = {f"e{i:02}": [] for i in reversed(range(29))}  # e29 is of a database that was merged, without its runs
    cards, more = overview.dictionary_cards(many, begun)
    assert [card.children[0].children for card in cards.children] == [f"d{i:02}" for i in range(5, 29)]
    assert texts(more).startswith("and 6 more, of earlier experiments")
    others = ("d00", "d01", "d02", "d03", "d04", "d29")
    assert [url for one in elements(more) if "dict_id" in (url := one.get("href", ""))] == [
        urls.search_url(dict_id=one) for one in others
    ]
    [cards] = overview.dictionary_cards(many[:24], begun)
    assert len(cards.children) == 24


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


def test_graph_card_of_every_kind_of_node(graph):
    for kind in ("feature", "error", "embedding", "logit"):
        node_id = graph.nodes.filter(pl.col("kind") == kind)["node_id"][-1]
        text = texts(graph_page.card_of(world.GRAPH, node_id))
        assert "Strongest inputs" in text and "Strongest outputs" in text
