"""The page of a graph in headless Chromium: milliseconds of the first view, a step of a slider, a node's card and a selection; medians and 95th
percentiles, with the machine's load.

    python tests/benchmarks/browser_graph.py

First view: from the start of the navigation until the marks are painted; the server has the graph in memory after the first of them, which is
a row of its own. The others: from the event until the frame that shows its effect, the round trip to the server included where there is one.
Slider: half of the steps keep less, each less than the one before, the others more. Node card, selection: another node each time; a card is
there once its buttons are those of the node that was clicked.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "dashboards")]

import browser
from measured import load_average
from worlds import wide_graphs

from dashboards import urls
from dashboards.graph import ids

SIZES = {
    "nodes-2000": {"n_tokens": 24, "n_layers": 12, "n_features": 1_700, "n_edges": 700_000},
    "nodes-10000": {"n_tokens": 60, "n_layers": 26, "n_features": 8_400, "n_edges": 2_000_000},
}
WATCH = """
window.times = {};
const painted = (name) => requestAnimationFrame(() => setTimeout(() => (window.times[name] ??= performance.now())));
new MutationObserver(() => {
    if (document.querySelector(".plane .node")) painted("view");
}).observe(document, { childList: true, subtree: true });
window.measure = (name, event, until, act) => new Promise((resolve) => {
    let start = null;
    document.addEventListener(event, () => (start = performance.now()), { capture: true, once: true });
    until(() => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start))));
    act?.();
});
"""
STARTED = """
const [name, event, wait] = arguments;
const waits = {
    pruned: (done) => { const heard = (changed) => { if (changed.has("pruned")) { remove(heard); done(); } };
                        const remove = (one) => cltdb.graph.listeners.splice(cltdb.graph.listeners.indexOf(one), 1);
                        cltdb.graph.on(heard); },
    card: (done) => new MutationObserver((_, self) => {
        if (!document.querySelector(`#graph-card [data-act=pin][data-of="${cltdb.graph.state.selected}"]`)) return;
        self.disconnect();
        done();
    }).observe(document.getElementById("graph-card"), { childList: true, subtree: true }),
    selected: (done) => { const heard = (changed) => { if (changed.has("selected")) { remove(heard); done(); } };
                          const remove = (one) => cltdb.graph.listeners.splice(cltdb.graph.listeners.indexOf(one), 1);
                          cltdb.graph.on(heard); },
};
window.outcome = window.measure(name, event, waits[wait]);
"""
OUTCOME = "window.outcome.then(arguments[0]);"


def measure(driver, wait, event, act):
    """Milliseconds from `event`, which act() brings about, until the frame after what `wait` names."""
    driver.execute_script(STARTED, wait, event, wait)
    act()
    return driver.execute_async_script(OUTCOME)


def first_view(driver, url):
    driver.get("about:blank")
    driver.get(url)
    browser.wait_for(driver, lambda driver: driver.execute_script("return window.times?.view"))
    return driver.execute_script("return window.times.view")


def times(driver, url, repeats):
    """{what: its times in milliseconds}."""
    taken = {"first view, graph not read yet": [first_view(driver, url)]}
    taken["first view"] = [first_view(driver, url) for _ in range(repeats)]
    handle = browser.find(driver, f"#{ids.NODE_SHARE} [role=slider]")[0]
    keys = ["\ue012", "\ue014"]  # left, right
    click = (
        "document.querySelector(`.plane [data-node='${arguments[0]}']`).dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    steps = [keys[2 * i // repeats] for i in range(repeats)]
    taken["slider"] = [measure(driver, "pruned", "keydown", lambda key=key: handle.send_keys(key)) for key in steps]
    marks = driver.execute_script(
        "return [...document.querySelectorAll('.plane .node.feature')].map((mark) => mark.dataset.node)"
    )
    step = max(1, len(marks) // (2 * repeats + 2))
    for what, wait, first in (("node card", "card", 0), ("selection", "selected", step * repeats)):
        taken[what] = []
        for i in range(repeats):
            node = marks[(first + step * i) % len(marks)]
            taken[what].append(measure(driver, wait, "click", lambda node=node: driver.execute_script(click, node)))
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        path = wide_graphs.build(Path(folder), SIZES)
        print(f"load before: {load_average()}\n")
        print("| what | nodes | edges | median ms | 95th percentile ms |\n|---|---|---|---|---|")
        with browser.serving(path) as site, browser.chromium(profile) as driver:
            browser.set_width(driver, 1440)
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
            for graph_id, size in SIZES.items():
                for what, taken in times(driver, site + urls.graph_url(graph_id), options.repeats).items():
                    high = sorted(taken)[max(0, -(-95 * len(taken) // 100) - 1)]
                    nodes, edges = graph_id.removeprefix("nodes-"), f"{size['n_edges']:,}"
                    print(f"| {what} | {int(nodes):,} | {edges} | {statistics.median(taken):.0f} | {high:.0f} |", flush=True)
            print(f"\nload after: {load_average()}; problems: {browser.problems(driver) or 'none'}")


if __name__ == "__main__":
    main()
