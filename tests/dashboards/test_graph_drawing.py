"""The drawing of a graph in headless Chromium: what can be read of it, and what pointer and keys do, the first time too."""

import pytest
from browser import MARKS, find, leave, set_width, wait_for
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from worlds import capitals_experiment as world
from worlds import wide_graphs
from worlds.shared import made_once

from dashboards import urls
from dashboards.graph import ids

pytestmark = MARKS
SIZES = {
    f"wide-{n_tokens}-{n_layers}": {
        "n_tokens": n_tokens,
        "n_layers": n_layers,
        "n_features": 12 * n_tokens + 60,
        "n_edges": 40 * n_tokens + 2000,
    }
    for n_tokens in (8, 30, 60)
    for n_layers in (4, 26)
}
WIDTHS = (1440, 1024, 700)
NODE, FEATURE = f"#{ids.DRAWING} .node", f"#{ids.DRAWING} .node.feature"
READ = """
const corners = (text) => {
    const {x, y, width, height} = text.getBBox(), to = text.getScreenCTM();
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]].map(([a, b]) => new DOMPoint(a, b).matrixTransform(to));
};
const apart = (one, other) => [one, other].some((shape) => [0, 1].some((side) => {
    const [dx, dy] = [shape[side + 1].x - shape[side].x, shape[side + 1].y - shape[side].y];
    const [a, b] = [one, other].map((points) => points.map((point) => point.x * dx + point.y * dy));
    return Math.max(...a) <= Math.min(...b) + 0.01 || Math.max(...b) <= Math.min(...a) + 0.01;
}));
const found = {sizes: [], overlaps: [], texts: 0, cut: []};
for (const part of ["plane", "layer-axis", "token-axis"]) {
    const texts = [...document.querySelectorAll(`#graph-drawing .${part} text`)].filter((text) => text.textContent);
    found[part] = texts.map((text) => text.textContent);
    found.sizes.push(...texts.map((text) => parseFloat(getComputedStyle(text).fontSize)));
    const shapes = texts.map(corners);
    for (let i = 0; i < texts.length; i += 1) for (let j = 0; j < i; j += 1)
        if (!apart(shapes[i], shapes[j])) found.overlaps.push([texts[i].textContent, texts[j].textContent]);
}
const marks = [...document.querySelectorAll("#graph-drawing .node .mark")].map((mark) => mark.getBoundingClientRect());
const plane = document.querySelector("#graph-drawing .plane").getBoundingClientRect();
found.used = (Math.max(...marks.map((box) => box.right)) - Math.min(...marks.map((box) => box.left))) / plane.width;
const inside = (box) => box.left >= plane.left - 1 && box.right <= plane.right + 1 && box.top >= plane.top - 1 && box.bottom <= plane.bottom + 1;
found.outside = marks.filter((box) => !inside(box)).length;
return found;
"""


@pytest.fixture(scope="session")
def wide_site(tmp_path_factory):
    from browser import serving

    sizes = {name: SIZES[name] for name in ALL_THE_TIME}
    folder = made_once(tmp_path_factory, "wide-graphs", lambda root: wide_graphs.build(root, sizes))
    with serving(folder / "cltdb.duckdb") as address:
        yield address


@pytest.fixture(scope="session")
def every_wide_site(tmp_path_factory):
    from browser import serving

    folder = made_once(tmp_path_factory, "all-wide-graphs", lambda root: wide_graphs.build(root, SIZES))
    with serving(folder / "cltdb.duckdb") as address:
        yield address


def opened(browser, url):
    browser.get(url)
    return find(browser, NODE)


ALL_THE_TIME = ("wide-60-26", "wide-30-26")


@pytest.mark.parametrize(
    "graph_id, on",
    [(ALL_THE_TIME[0], "wide_site"), *(pytest.param(name, "every_wide_site", marks=pytest.mark.slow) for name in SIZES)],
)
def test_every_label_can_be_read_and_none_covers_another(browser, graph_id, on, request):
    """At all widths, with everything kept too, and with a selection: labels of 11 pixels at least, all tokens and layers, marks across the
    drawing."""
    size, site = SIZES[graph_id], request.getfixturevalue(on)
    for share, widths in ((0.8, WIDTHS), (1, (1024,))):
        opened(browser, f"{site}{urls.graph_url(graph_id)}?n={share}")
        for width in widths:
            set_width(browser, width)
            browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
            for _ in range(2):
                found = browser.execute_script(READ)
                assert found["overlaps"] == [] and min(found["sizes"]) >= 11, (width, share)
                assert len(found["token-axis"]) == size["n_tokens"] and len(found["layer-axis"]) == size["n_layers"] + 2
                assert found["used"] >= 0.6 and found["outside"] == 0, (width, share, found["used"])
                assert any("%" in text for text in found["plane"]), "the answer has a label"
                browser.execute_script(
                    "const marks = document.querySelectorAll(arguments[0]); marks[marks.length >> 1].dispatchEvent("
                    "new MouseEvent('click', {bubbles: true}))",
                    FEATURE,
                )
            browser.execute_script("cltdb.graph.select(null)")


DRAWN_ANEW = """
const drawn = () => [...document.querySelectorAll("#graph-drawing .plane > g")].map((layer) =>
    [...layer.children].map((one) => one.outerHTML.replace(/ tabindex="-?\\d"/, "")).sort());
const before = drawn();
document.getElementById("graph-drawing").replaceChildren();
cltdb.graph.draw(document.getElementById("graph-drawing"));
const after = drawn();
return [before.map((layer) => layer.length), before.map((layer, i) => layer.filter((one, j) => one !== after[i][j]).concat(after[i].slice(layer.length)))];
"""
SELECT = """
const [id, done] = arguments;
const near = () => [...document.querySelectorAll("#graph-drawing .node.near")].map((mark) => mark.dataset.node);
const before = near();
const touched = new Set();
const watch = new MutationObserver((changes) => changes.forEach((change) => touched.add(change.target.closest("[data-node]")?.dataset.node)));
watch.observe(document.querySelector("#graph-drawing .nodes"), {childList: true, subtree: true, attributeFilter: ["class", "transform", "d", "r"]});
cltdb.graph.select(id);
requestAnimationFrame(() => done([[...touched], [...new Set([...before, ...near()])]]));
"""


def test_a_selection_touches_the_marks_that_it_is_about_and_gives_the_same_as_a_new_drawing(browser, wide_site):
    opened(browser, wide_site + urls.graph_url("wide-60-26") + "?n=1")
    marks = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((mark) => Number(mark.dataset.node))", FEATURE
    )
    all_marks = len(browser.find_elements("css selector", NODE))
    has_no_mark = "(id) => !document.querySelector(`#graph-drawing [data-node='${id}']`)"
    folded = browser.execute_script(f"return cltdb.graph.pruned.kept.find({has_no_mark})")
    for node, moves in (
        (marks[0], False),
        (marks[9], False),
        (folded, True),
        (marks[-1], True),
        (marks[4], False),
        (None, False),
    ):
        touched, about = browser.execute_async_script(SELECT, node)
        assert len(about) < all_marks / 2 and (moves or set(touched) <= set(about)), node
        counts, differences = browser.execute_script(DRAWN_ANEW)
        assert differences == [[]] * len(counts), node


FITS = """
const {data, pruned, state} = cltdb.graph, found = [];
for (let width = 900; width < 930; width += 3) for (let height = 470; height < 480; height += 1) {
    const layout = cltdb.drawing.layout(data, new Set(pruned.kept), {width, height}, {measure: cltdb.drawing.measure});
    found.push([layout.width - width, layout.height - height]);
}
return found;
"""
DRAWS = """
const [n, done] = arguments;
const next = (left) => left ? requestAnimationFrame(() => next(left - 1)) : done(window.draws);
next(n);
"""


def test_a_drawing_fills_its_room_to_the_pixel_and_settles(browser, wide_site):
    """A pixel more would bring a scroll bar, which takes room, so that the next drawing needs none: for ever."""
    opened(browser, wide_site + urls.graph_url("wide-30-26"))
    assert {tuple(more) for more in browser.execute_script(FITS)} == {(0, 0)}
    browser.execute_script("const draw = cltdb.drawing.draw; cltdb.drawing.draw = (box) => { window.draws += 1; draw(box); };")
    for width in (1440, 1031, 700):
        set_width(browser, width)
        browser.execute_async_script(DRAWS, 4)
        browser.execute_script("window.draws = 0")
        assert browser.execute_async_script(DRAWS, 4) == 0, width


def test_the_first_click_selects_what_is_under_the_pointer(browser, site):
    for which in (0, 3):
        leave(browser)
        mark = opened(browser, site + urls.graph_url(world.SECOND_GRAPH))[which]
        title = mark.get_attribute("aria-label")
        ActionChains(browser).move_to_element(mark).click().perform()
        assert browser.execute_script("return cltdb.graph.state.selected") == int(mark.get_attribute("data-node"))
        assert mark.get_attribute("aria-pressed") == "true"
        assert find(browser, ".drawing-tip:not([hidden])")[0].text == title.strip()


def test_pointing_names_the_node_without_moving_anything(browser, site):
    marks = opened(browser, site + urls.graph_url(world.GRAPH))
    before = browser.execute_script("return document.querySelector('#graph-drawing .plane').getBoundingClientRect().top")
    for mark in marks[:: max(1, len(marks) // 3)]:
        ActionChains(browser).move_to_element(mark).perform()
        title = mark.get_attribute("aria-label")
        said = wait_for(browser, lambda _: find(browser, ".drawing-said")[0].text)
        assert said.startswith(title.split(" · ")[0]) and find(browser, ".drawing-tip")[0].text == title.strip()
    after = browser.execute_script("return document.querySelector('#graph-drawing .plane').getBoundingClientRect().top")
    assert before == after


def test_a_step_of_a_slider_keeps_selection_zoom_and_place(browser, wide_site):
    opened(browser, f"{wide_site}{urls.graph_url('wide-30-26')}?z=2")
    browser.execute_script("cltdb.graph.select(Number(document.querySelector(arguments[0]).dataset.node))", FEATURE)
    scroll = "const s = document.querySelector('.drawing-scroll'); return [s.scrollLeft / s.scrollWidth, cltdb.graph.state.zoom]"
    browser.execute_script("const s = document.querySelector('.drawing-scroll'); s.scrollLeft = s.scrollWidth / 2")
    kept = browser.execute_script("return cltdb.graph.pruned.kept.length")
    before = browser.execute_script(scroll)
    selected = browser.execute_script("return cltdb.graph.state.selected")
    find(browser, f"#{ids.NODE_SHARE} [role=slider]")[0].send_keys(Keys.ARROW_RIGHT)
    wait_for(browser, lambda driver: driver.execute_script("return cltdb.graph.pruned.kept.length") != kept)
    after = browser.execute_script(scroll)
    assert after[1] == before[1] == 2 and after[0] == pytest.approx(before[0], abs=0.1)
    assert browser.execute_script("return cltdb.graph.state.selected") == selected


def test_a_click_beside_the_marks_clears_the_selection_and_a_wheel_notch_is_one_step(browser, site):
    opened(browser, site + urls.graph_url(world.GRAPH))
    find(browser, FEATURE)[0].click()
    plane = find(browser, f"#{ids.DRAWING} .band")[0]
    ActionChains(browser).move_to_element_with_offset(plane, 0, -plane.size["height"] // 2 + 3).click().perform()
    assert browser.execute_script("return cltdb.graph.state.selected") is None
    wheel = "document.querySelector('.drawing-scroll').dispatchEvent(new WheelEvent('wheel', {deltaY: -120, ctrlKey: true, cancelable: true}))"
    browser.execute_script(wheel)
    assert browser.execute_script("return cltdb.graph.state.zoom") == pytest.approx(1.2)


def test_the_graph_is_walked_and_worked_by_keys_alone(browser, site):
    opened(browser, site + urls.graph_url(world.GRAPH))
    first = browser.execute_script(
        "const m = document.querySelector('#graph-drawing .plane [tabindex=\"0\"]'); m.focus(); return m"
    )
    assert len(browser.find_elements("css selector", f"#{ids.DRAWING} .plane [tabindex='0']")) == 1
    place = "const [x, y] = document.activeElement.getAttribute('transform').match(/-?[\\d.]+/g).map(Number); return [x, y]"
    above = browser.execute_script(place)
    first.send_keys(Keys.ARROW_DOWN)
    below = browser.execute_script(place)
    assert below[1] > above[1]
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert browser.execute_script(place)[0] < below[0]
    here = int(browser.switch_to.active_element.get_attribute("data-node"))
    for key, state, expected in (
        (Keys.ENTER, "selected", here), ("p", "pinned", [here]), ("p", "pinned", []), (Keys.ESCAPE, "selected", None),
        ("h", "hidden", [here]),
    ):  # fmt: skip
        browser.switch_to.active_element.send_keys(key)
        assert browser.execute_script(f"return cltdb.graph.state.{state}") == expected, key
    assert not browser.find_elements("css selector", f"{NODE}[data-node='{here}']"), "what is hidden is not drawn"


def test_shift_and_drag_selects_several_and_a_folded_stack_opens(browser, wide_site):
    opened(browser, wide_site + urls.graph_url("wide-60-26") + "?n=1")
    chip = "document.querySelector('#graph-drawing .chip')"
    n = "return document.querySelectorAll('#graph-drawing .node').length"
    before, folded = browser.execute_script(n), int(browser.execute_script(f"return {chip}.textContent").removeprefix("+"))
    browser.execute_script(f"{chip}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    assert browser.execute_script(n) >= before + folded and "open=" in browser.current_url
    scroll = find(browser, f"#{ids.DRAWING} .drawing-scroll")[0]
    drag = ActionChains(browser).key_down(Keys.SHIFT).move_to_element_with_offset(scroll, -250, -180).click_and_hold()
    drag.move_by_offset(500, 300).release().key_up(Keys.SHIFT).perform()
    state = browser.execute_script("return cltdb.graph.state")
    assert state["selected"] is not None and len(state["also"]) >= 2


def test_an_export_is_one_file_with_all_labels_and_looks_of_its_own(browser, site):
    opened(browser, site + urls.graph_url(world.GRAPH))
    svg = browser.execute_script("return cltdb.drawing.svgText().text")
    parsed = browser.execute_script(
        "const doc = new DOMParser().parseFromString(arguments[0], 'image/svg+xml');"
        "return [doc.querySelectorAll('parsererror').length, [...doc.querySelectorAll('text')].map((text) => text.textContent),"
        "[...doc.querySelectorAll('[class], [style], script, image, foreignObject')].length]",
        svg,
    )
    assert parsed[0] == 0 and parsed[2] == 0 and "var(--" not in svg and "font-family" in svg
    shown = browser.execute_script("return [...document.querySelectorAll('#graph-drawing text')].map((text) => text.textContent)")
    assert sorted(parsed[1]) == sorted(shown)
    size = browser.execute_async_script("cltdb.graph.exportPng().then((blob) => arguments[0]([blob.type, blob.size]))")
    assert size[0] == "image/png" and size[1] > 5000


def test_a_stored_path_is_drawn_by_a_click_and_by_its_link_and_an_empty_selection_selects_nothing(browser, site):
    opened(browser, f"{site}{urls.graph_url(world.GRAPH)}?tab=paths&sel=")
    drawn = "return [...document.querySelectorAll('#graph-drawing .path .edge')].length"
    assert browser.execute_script("return cltdb.graph.state.selected") is None and browser.execute_script(drawn) == 0
    line = find(browser, f"#{ids.INPUT_PATHS} [data-stored='2']")[0]
    line.click()
    wait_for(browser, lambda driver: driver.execute_script(drawn) == 2)
    assert line.get_attribute("aria-pressed") == "true" and "stored=2" in browser.current_url
    assert len(find(browser, f"#{ids.PATHS} .path-steps > li")) == 2
    browser.refresh()
    wait_for(browser, lambda driver: driver.execute_script(drawn) == 2)
    find(browser, f"#{ids.PATHS} [data-act=nopath]")[0].click()
    wait_for(browser, lambda driver: driver.execute_script(drawn) == 0)
    assert "stored" not in browser.current_url
