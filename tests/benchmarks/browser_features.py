"""The table of features and the page of a feature in headless Chromium: milliseconds from the event to the frame that shows its effect, the
server's work included; medians and 95th percentiles, with the machine's load.

    python tests/benchmarks/browser_features.py FOLDER/cltdb.duckdb        a database of synthetic_database.py; --n 20

Search: the last letter of a text is typed until the first hits are there; the field waits 350 ms for further letters, which is in none of the
figures. Sort: a click on a column's heading until other rows are there. Page: the address of a feature is followed from another feature's page
until its contexts are drawn; cold: the same as the first page of the browser's tab, all scripts from the browser's cache.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "dashboards")]

import browser
from measured import load_average

from cltdb.database import Database
from dashboards import urls

TEXTS = (
    "capital cities",
    "Paris",
    "houses",
    "clothes",
    "numbers",
    "family",
    "weather",
    "music",
    "python code",
    "the end of a phrase",
)
COLUMNS = ("density", "score", "max act.", "layer")
DEBOUNCE_MS = 350
SHOWN = """
const [until, done] = arguments, before = window.before, start = window.start;
const look = () => { const now = until === 'table' ? table() : page();
                     if (now && now !== before) requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
                     else requestAnimationFrame(look); };
const table = () => [...document.querySelectorAll('.feature-link')].slice(0, 8).map(link => link.textContent).join() || null;
const page = () => document.querySelector('.windows .token') && document.querySelector('.crumbs').textContent;
look();
"""
REMEMBER = """
window.before = arguments[0] === 'table'
    ? [...document.querySelectorAll('.feature-link')].slice(0, 8).map(link => link.textContent).join()
    : document.querySelector('.crumbs')?.textContent;
window.start = performance.now();
"""
TYPE = """
const field = document.getElementById('search-text');
Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, arguments[0]);
field.dispatchEvent(new Event('input', { bubbles: true }));
"""
CLICK = "[...document.querySelectorAll('.ag-header-cell-label')].find(one => one.textContent.trim() === arguments[0]).click()"


def timed(driver, until, script, *arguments):
    """Milliseconds from a script's event until the page shows another table or feature."""
    driver.execute_script(REMEMBER, until)
    driver.execute_script(script, *arguments)
    return driver.execute_async_script(SHOWN, until)


def opened(driver, site, address, selector):
    driver.get(site + address)
    browser.find(driver, selector)
    time.sleep(1)


def measurements(driver, site, features, n):
    """(what was measured, milliseconds of each of n times)."""
    table = urls.search_url(dict_id=features[0][0])
    opened(driver, site, table, ".feature-link")
    searches, sorts = [], []
    for i in range(n):
        text = TEXTS[i % len(TEXTS)] + (" " * (i // len(TEXTS)))
        searches.append(timed(driver, "table", TYPE, text) - DEBOUNCE_MS)
        time.sleep(0.4)
    yield "search", searches
    opened(driver, site, table, ".feature-link")
    for i in range(n):
        sorts.append(timed(driver, "table", CLICK, COLUMNS[i % len(COLUMNS)]))
        time.sleep(0.4)
    yield "sort", sorts
    opened(driver, site, urls.feature_url(*features[-1]), ".windows .token")
    pages = []
    for key in features[:n]:
        pages.append(timed(driver, "page", "cltdb.visit(arguments[0])", urls.feature_url(*key)))
        time.sleep(0.4)
    yield "page of a feature", pages
    cold = []
    for key in features[:n]:
        driver.get("about:blank")
        start = time.perf_counter()
        driver.get(site + urls.feature_url(*key))
        browser.find(driver, ".windows .token")
        cold.append(1000 * (time.perf_counter() - start))
    yield "page of a feature, cold", cold


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--n", type=int, default=20)
    options = parser.parse_args()
    sql = "SELECT dict_id, layer, feature FROM features WHERE NOT dead AND dict_id = (SELECT dict_id FROM features GROUP BY 1 ORDER BY count(*) DESC LIMIT 1)"
    with Database(options.database).session() as database:
        n_features = database.sql("SELECT count(*) FROM features").item()
        found = database.sql(f"{sql} AND feature % 997 = 5 ORDER BY hash(layer, feature) LIMIT {options.n + 1}").rows()
    print(f"{n_features:,} features, {options.n} times each. Load average {load_average()}.\n")
    print("| what | median ms | 95 % ms |\n|---|---|---|")
    with browser.serving(options.database) as site, tempfile.TemporaryDirectory() as profile, browser.chromium(profile) as driver:
        driver.set_script_timeout(60)
        for what, taken in measurements(driver, site, found, options.n):
            p95 = statistics.quantiles(taken, n=20, method="inclusive")[-1]
            print(f"| {what} | {statistics.median(taken):,.0f} | {p95:,.0f} |", flush=True)
    print(f"\nLoad average {load_average()}.")


if __name__ == "__main__":
    main()
