"""Steering, and two graphs beside each other, in headless Chromium."""

from browser import MARKS, find, wait_for
from selenium.webdriver.common.keys import Keys
from test_accessibility import faults
from worlds import capitals_experiment as world

from dashboards import urls
from dashboards.feature import judged
from dashboards.feature import steering as of_feature
from dashboards.graph import ids, steering

pytestmark = MARKS


def test_the_selection_is_steered_and_what_was_stored_is_shown(browser, site):
    """The spec of the made-up experiment names no model, so the job fails and says so."""
    node = next(i for i, one in enumerate(world.graph_nodes(3)) if (one.get("layer"), one.get("feature")) == world.CAPITALS)
    browser.get(site + urls.graph_url(world.GRAPH, sel=node))
    find(browser, f"#{steering.TAB}")[0].click()
    stored = find(browser, f"#{steering.STORED} .intervention")[0]
    assert "now Berlin 70 %" in stored.text and world.HOSTILE in stored.text
    wait_for(browser, lambda _: "the selection: 1 feature" in find(browser, f"#{steering.TARGET}")[0].text)
    find(browser, f"#{steering.RUN}")[0].click()
    assert "model" in find(browser, f"#{steering.JOBS} .job.failed .error")[0].text
    assert find(browser, f"#{ids.STEER} .job button")[0].text == "Start again"
    assert "cltdb" in browser.title, "hostile text was run"


def test_a_feature_is_set_from_its_page_by_keyboard_and_what_was_judged_is_shown(browser, site):
    browser.get(site + urls.feature_url(world.DICT, *world.CAPITALS))
    find(browser, f"#{judged.OPENED}")[0].send_keys(Keys.ENTER)
    assert "no counts are stored" in find(browser, f"#{judged.STORED} table")[0].text
    find(browser, f"#{judged.RUN}")[0].send_keys(Keys.ENTER)
    find(browser, f"#{judged.JOBS} .job.failed .error")
    find(browser, f"#{of_feature.OPENED}")[0].send_keys(Keys.ENTER)
    stored = find(browser, f"#{of_feature.STORED} .intervention")[0]
    assert "now Berlin 70 %" in stored.text and world.HOSTILE in stored.text and "cltdb" in browser.title
    strength = find(browser, f"#{of_feature.VALUE}")[0]
    assert float(strength.get_attribute("value")) > 0
    find(browser, f"#{of_feature.RUN}")[0].send_keys(Keys.ENTER)
    assert "model" in find(browser, f"#{of_feature.JOBS} .job.failed .error")[0].text
    assert faults(browser) == []


def test_two_graphs_stand_beside_each_other_and_lead_to_their_nodes(browser, site):
    browser.get(site + urls.compare_url(world.GRAPH))
    link = find(browser, ".compare .cell a[href*='sel=']")[0]
    address = link.get_attribute("href")
    link.click()
    find(browser, f"#{ids.CARD} .edge-list")
    assert browser.current_url.startswith(address.split("?")[0]) and "sel=" in browser.current_url
