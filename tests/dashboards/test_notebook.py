"""What a notebook shows: features, graphs and figures of the made-up experiment, some of whose text is hostile."""

import math
import re
import runpy
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from command_line import ROOT
from worlds import capitals_experiment as world
from worlds import tables as of

from cltdb.database import Database
from cltdb.database.display import histogram
from cltdb.database.display.markup import element
from cltdb.errors import CltdbError

TAGS = {
    "div", "span", "b", "i", "br", "bdi", "ul", "li", "details", "summary", "table", "tr", "td", "th",
    "svg", "title", "line", "rect", "circle", "polygon", "text",
}  # fmt: skip
ATTRIBUTES = {
    "style", "title", "open", "role", "aria-label", "xmlns", "viewbox", "width", "height", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r",
    "rx", "points", "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "font-size", "font-family",
    "text-anchor", "transform",
}  # fmt: skip
ODD = "a\u202eb\x1b[2J\u2066c\x07 \"'<b onmouseover=x>&amp;</bdi></text>"


class Page(HTMLParser):
    """The tags, attributes and texts of a page; every element is closed where it should be."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts, self.above = set(), set(), [], []
        self.feed(html)
        self.close()
        assert self.above == []
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        assert not any("url(" in (value or "") or "expression" in (value or "") for _, value in attributes)
        if tag != "br":
            self.above.append(tag)

    def handle_endtag(self, tag):
        assert self.above.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page(shown):
    found = Page(shown._repr_html_())
    assert found.tags <= TAGS and found.attributes <= ATTRIBUTES, (found.tags - TAGS, found.attributes - ATTRIBUTES)
    return found


@pytest.fixture(scope="module")
def db(database):
    return Database(database)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A database all of whose texts are ODD."""
    root = tmp_path_factory.mktemp("odd")
    key = {"dict_id": ODD, "layer": 0, "feature": 0}
    window = {"document": 0, "sequence": 0, "start": 0, "position": 1, "label": ODD, "tokens": [0, 1], "activations": [0.5, 1.0]}
    tables = {
        **of.model("m", [ODD, ODD]),
        "dictionaries": [{"dict_id": ODD, "model_id": "m", "n_layers": 1, "n_features": 1}],
        "features": [key | {"density": 0.1, "dead": False, "max_activation": 1.0, "top_logits": [{"token": 0, "value": 1.0}]}],
        "contexts": [key | {"band": "top", "rank": 0, "max_activation": 1.0} | window],
        "explanations": [key | {"side": "input", "explainer": ODD, "text": ODD, "status": "ok"}],
        "scores": [key | {"side": "input", "explainer": ODD, "scorer": ODD, "score": 0.5}],
    } | of.graph(
        {"graph_id": ODD, "dict_id": ODD, "model_id": "m", "prompt_id": "p", "prompt": ODD, "tokens": [0, 1]},
        of.rows(
            "kind layer position feature token activation influence probability",
            [("feature", 0, 1, 0, None, 1.0, 0.5, None), ("embedding", None, 0, None, 0, None, 0.5, None), ("logit", None, 1, None, 1, None, 1.0, 0.9)],
        ),
        of.rows("source_id target_id weight influence", [(1, 0, 1.0, 0.5), (0, 2, -1.0, 0.5)]),
    )  # fmt: skip
    of.load(root / "cltdb.duckdb", root, "key", tables)
    return Database(root / "cltdb.duckdb")


@pytest.mark.parametrize("key", [world.CAPITALS, world.UNEXPLAINED, world.DEAD, world.NAN, world.HOSTILE_FEATURE], ids=str)
def test_a_feature_is_shown_whatever_is_known_of_it(db, key):
    feature = db.feature(world.DICT, *key)
    found = page(feature)
    assert f"{key[0]}:{key[1]} of {world.DICT}" in found.text and feature.title in found.text
    assert repr(feature).startswith(f"feature {key[0]}:{key[1]} of {world.DICT}: {feature.title}") and "\n" in repr(feature)


def test_a_feature_shows_its_explanation_statistics_windows_and_neighbours(db):
    feature = db.feature(world.DICT, *world.CAPITALS)
    html, found = feature._repr_html_(), page(feature)
    for part in (
        "capital",
        "density",
        "13",
        "documents",
        "promotes",
        "Paris",
        "3.1",
        "Strongest contexts",
        "Explanations",
        "median",
    ):
        assert part in found.text, part
    [top] = feature.contexts.filter(band="top", rank=0).to_dicts()
    peak = top["position"] - top["start"]
    strong = re.findall(
        r"background:rgba\(224,138,40,0\.62\)[^>]*underline[^>]*title=\"activation ([^,]*), position (\d+)\">([^<]*)<", html
    )
    assert (f"{top['max_activation']:.3g}", str(top["position"]), top["strings"][peak]) in strong
    n_active = sum(a > 0 for row in feature.contexts.to_dicts() for a in row["activations"] if not math.isnan(a))
    assert html.count("rgba(224,138,40") == n_active


def test_a_drawing_shows_the_strongest_part_of_the_pruned_graph(db):
    drawing = db.draw(world.SECOND_GRAPH, max_nodes=30, max_edges=50)
    pruned = db.subgraph(world.SECOND_GRAPH)
    inner = sorted((-n["influence"], n["node_id"]) for n in pruned.nodes.to_dicts() if n["kind"] != "logit")
    logits = {n["node_id"] for n in pruned.nodes.to_dicts() if n["kind"] == "logit"}
    chosen = logits | {node for _, node in inner[: 30 - len(logits)]}
    between = [e for e in pruned.edges.to_dicts() if {e["source_id"], e["target_id"]} <= chosen]
    expected = sorted(between, key=lambda e: (-e["influence"], e["source_id"], e["target_id"]))[:50]
    pairs = [(e["source_id"], e["target_id"]) for e in expected]
    assert list(drawing.edges.select("source_id", "target_id").iter_rows()) == pairs
    assert set(drawing.nodes["node_id"]) == logits | {end for pair in pairs for end in pair}
    found = page(drawing)
    assert drawing.svg.count("<circle") == drawing.nodes.filter(kind="feature").height
    assert drawing.svg.count("<line") == drawing.edges.height == 50 or drawing.edges.height == len(between)
    assert f"of {pruned.nodes.height} nodes" in found.text and f"of {pruned.edges.height} edges" in repr(drawing)
    assert len(drawing._repr_html_()) < 60_000


def test_places_in_a_drawing_are_positions_and_layers(db):
    drawing = db.draw(world.GRAPH, node_threshold=1.0, edge_threshold=1.0)
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>L(\d+) · \d+ · position (\d+)', drawing.svg)
    assert len(circles) == drawing.nodes.filter(kind="feature").height > 3
    for x, y, layer, position in circles:
        for other_x, other_y, other_layer, other_position in circles:
            assert position >= other_position or float(x) < float(other_x)
            assert layer <= other_layer or float(y) < float(other_y)


def test_text_from_outside_stays_text(odd):
    shown = r"a\u202eb\x1b[2J\u2066c\x07 " + ODD[ODD.index('"') :]
    for thing, least in ((odd.feature(ODD, 0, 0), 9), (odd.draw(ODD), 6)):
        html, found = thing._repr_html_(), page(thing)
        assert all(one.isprintable() for one in html) and found.text.count(shown[:20]) >= least and shown in found.text
        assert "onmouseover" in found.text and all(line.isprintable() for line in repr(thing).splitlines())
    assert "<script" not in element("p", "<script>", title='"><script>') and element("p", None, "é", title=None) == "<p>é</p>"


def test_bins_are_those_between_the_lowest_and_the_highest():
    edges, counts = histogram.steps([{"low": 0.875, "n": 3}, {"low": 1.25, "n": 5}, {"low": 2.0, "n": 1}])
    assert edges == [0.875, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5] and counts == [3, 0, 5, 0, 0, 1]
    values = np.float32([0.9, 0.97, 1.2, 1.3, 5.0])
    lows = ((values.view(np.int32) >> 21) << 21).view(np.float32)
    edges, counts = histogram.steps(
        [{"low": float(low), "n": int(n)} for low, n in zip(*np.unique(lows, return_counts=True), strict=True)]
    )
    assert [counts[i] for i, low in enumerate(edges[:-1]) if counts[i]] == [2, 1, 1, 1]
    assert np.histogram(values, edges)[0].tolist() == counts
    assert histogram.steps(None) == histogram.steps([]) == ([], [])
    assert (
        histogram.ticks(1.25, 1.75) == [1.25, 1.75]
        and histogram.ticks(0.3, 5.0) == [0.5, 1.0, 2.0, 4.0]
        and len(histogram.ticks(1e-3, 900.0)) <= 7
    )


def test_figures_have_titles_with_units_and_the_rows_of_the_database(db):
    figure = db.plot.histogram(*world.CAPITALS, dict_id=world.DICT)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("activation, model units", "tokens")
    [trace], card = figure.data, db.feature(world.DICT, *world.CAPITALS).card
    assert sum(trace.y) == sum(one["n"] for one in card["histogram"]) and trace.x[0] == card["histogram"][0]["low"]
    assert len(figure.layout.shapes) == 2 and figure.layout.shapes[0].x0 == pytest.approx(card["quantiles"][2])
    for key, text in ((world.UNEXPLAINED, histogram.UNKNOWN), (world.DEAD, histogram.SILENT)):
        assert text in db.plot.histogram(*key, dict_id=world.DICT).layout.annotations[0].text
    frontier = db.plot.frontier(world.SWEEP)
    assert frontier.layout.xaxis.title.text.startswith("L0, ") and frontier.layout.yaxis.title.text.startswith("FVU, ")
    assert sum(len(trace.x) for trace in frontier.data if trace.mode == "markers") == 12
    assert sum(len(trace.x) for trace in db.plot.frontier(layer=1).data if trace.mode == "markers") == 14
    curve = db.plot.curve("loss", world.DICT)
    assert [trace.name for trace in curve.data][-1] == "pooled" and len(curve.data) == world.N_LAYERS + 1
    every = db.plot.curve("l0")
    assert len(every.data) == 15 and every.layout.yaxis.title.text == "L0, active features per layer and token"
    bars = db.plot.evaluation(dict_id=world.OTHER_DICT)
    assert list(bars.data[0].x) == list(range(world.N_LAYERS)) and bars.layout.yaxis.title.text.startswith("FVU, share")


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda db: db.plot.curve("fuv"), "plot.curve: found no metric 'fuv'; expected one of dead_frac, fvu, l0, loss; do this: did you mean fvu?"),
        (lambda db: db.plot.curve(dict_id="toy-clt-0123abce"), "found no dictionary 'toy-clt-0123abce'.*did you mean toy-clt-0123abcd?"),
        (lambda db: db.plot.evaluation("fuv", world.DICT), "plot.evaluation: found no metric 'fuv'.*did you mean fvu?"),
        (lambda db: db.plot.evaluation(), "plot.evaluation: found 14 dictionaries: .*; expected one; do this: say which, with dict_id="),
        (lambda db: db.plot.frontier("zo"), "plot.frontier: found no sweep 'zo'.*did you mean zoo?"),
        (lambda db: db.plot.frontier(layer=9), "plot.frontier: found no layer '9'; expected one of 0, 1, 2, 3"),
        (lambda db: db.plot.histogram(0, 1, "toy-clt-0123"), "plot.histogram: found no dictionary 'toy-clt-0123'.*did you mean toy-clt-0123abcd?"),
        (lambda db: db.plot.histogram(0, 999, world.DICT), "feature 0:999 of toy-clt-0123abcd: found no such feature; expected 0 to 29"),
        (lambda db: db.feature(world.DICT, 9, 0), "feature 9:0 of .*: found no layer 9; expected one of 0 to 3"),
        (lambda db: db.feature("toy-clt-0123abc", 0, 0), "found no harvest of this dictionary; .*did you mean toy-clt-0123abcd?"),
        (lambda db: db.draw("nope"), "found no graph 'nope'"),
        (lambda db: db.draw(world.GRAPH, max_edges=-1), "draw max_edges: found -1; expected a whole number, 0 or more"),
        (lambda db: db.feature(world.DICT, 0, 0, neighbours=-1), "feature neighbours: found -1; expected a whole number, 0 or more"),
        (lambda db: db.strongest_paths(world.GRAPH, n=-3), "strongest_paths n: found -3; expected a whole number, 0 or more"),
        (lambda db: db.strongest_paths(world.GRAPH, n=True), "strongest_paths n: found true"),
        (lambda db: db.group_features(world.GRAPH, similarity=5), "group_features similarity: found 5; expected a share between 0 and 1"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_error_that_names_the_nearest(db, ask, message):
    with pytest.raises(CltdbError, match=message.replace("?", "[?]")):
        ask(db)


def test_the_tour_of_a_database_runs(database, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["explore_database.py", str(database)])
    runpy.run_path(str(ROOT / "experiments/explore_database.py"))
    printed = capsys.readouterr().out
    assert all(text in printed for text in (world.DICT, "feature ", "graph ", "windows"))
    written = {path.name for path in (tmp_path / "explored").iterdir()}
    assert written == {"frontier.html", "fvu.html", "plotly.min.js", "feature.html", "histogram.html", "graph.svg", "graph.html"}
