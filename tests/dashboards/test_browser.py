"""The pages in headless Chromium."""

import pytest
from browser import MARKS, find, set_width, text_of, wait_for
from worlds import capitals_experiment as world

from cltdb.database import store
from dashboards import urls
from dashboards.graph import ids
from dashboards.pages import ask, features, frontier

pytestmark = MARKS
WIDTHS = (700, 1280)
FEATURES = f"#{ids.DRAWING} .node.feature"


def scripts(browser):
    return browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name).join()")


def test_search_finds_a_feature_and_its_page_shows_contexts(browser, site):
    browser.get(site + urls.SEARCH)
    find(browser, ".feature-link")
    assert "dash_ag_grid" in scripts(browser)
    unsearched = find(browser, f"#{features.SUMMARY}")[0].text
    find(browser, f"#{features.TEXT}")[0].send_keys("countries")
    wait_for(browser, lambda _: find(browser, f"#{features.SUMMARY}")[0].text != unsearched)
    link = wait_for(browser, lambda _: [a for a in find(browser, ".feature-link")[:1] if a.text == "2:7"])[0]
    link.click()
    assert "names of countries" in find(browser, ".feature h1")[0].text
    assert "France" in find(browser, ".windows .token.peak")[0].text
    assert find(browser, ".windows .token[style*='--heat-share']") and find(browser, "svg.bars .bin")


def test_one_click_on_a_mark_shows_its_card_and_what_is_selected_stays_in_the_link(browser, site):
    browser.get(site + urls.graph_url(world.GRAPH))
    mark = wait_for(browser, lambda _: len(marks := find(browser, FEATURES)) > 5 and marks[0])
    layer, feature = mark.get_attribute("aria-label").split(" · ")[:2]
    mark.click()
    find(browser, f"#{ids.CARD} .edge-list")
    assert feature in find(browser, f"#{ids.CARD}")[0].text and "sel=" in browser.current_url
    first = browser.current_url
    walked = find(browser, f"#{ids.CARD} .edge-list [data-node]")[0]
    walked.click()
    address = f"/{layer.removeprefix('L')}/{feature}"  # of the page of the feature that was clicked first
    links = f"#{ids.CARD} a[href$='{address}']"
    wait_for(browser, lambda driver: browser.current_url != first and not driver.find_elements("css selector", links))
    browser.back()
    link = find(browser, links)[0]
    assert browser.current_url == first
    link.click()
    find(browser, ".feature .windows")


def test_sliders_prune_and_the_selector_leads_to_another_graph(browser, site):
    from selenium.webdriver.common.keys import Keys

    browser.get(site + urls.graph_url(world.GRAPH))
    before = len(find(browser, FEATURES))
    handle = find(browser, f"#{ids.NODE_SHARE} [role=slider]")[0]
    handle.send_keys(Keys.HOME)
    wait_for(browser, lambda driver: len(driver.find_elements("css selector", FEATURES)) < before)
    assert "n=0" in browser.current_url
    browser.get(site + urls.graph_url(world.SECOND_GRAPH))
    wait_for(browser, lambda _: len(find(browser, FEATURES)) > before)


def test_a_point_of_the_frontier_leads_to_the_dictionarys_features(browser, site):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.get(site + urls.frontier_url(sweep=world.SWEEP))
    points = wait_for(
        browser, lambda _: (found := find(browser, f"#{frontier.FIGURE} .points path")) and len(found) == 12 and found
    )
    assert "dash_ag_grid" not in scripts(browser) and "dash_cytoscape" not in scripts(browser)
    ActionChains(browser).move_to_element(points[0]).click().perform()
    find(browser, f"#{features.TEXT}")
    assert "dict_id=zoo-kind_" in browser.current_url


def test_while_another_process_writes_a_page_says_that_it_loads(browser, site, database):
    said = "return getComputedStyle(document.querySelector('#_pages_content'), '::before').content"
    with store.connect(database, write=True):
        browser.get(site + urls.FRONTIER)
        wait_for(
            browser,
            lambda driver: driver.find_elements("css selector", "#_pages_content") and "Loading" in driver.execute_script(said),
        )
        assert find(browser, ".masthead .place") and not browser.find_elements("css selector", "main")
    find(browser, f"#{frontier.FIGURE}")
    assert browser.execute_script(said) == "none"


def test_a_prompt_is_attributed_by_a_job_that_outlives_a_reload(browser, site):
    """The spec of the made-up experiment names no model, so the job fails and says so."""
    browser.get(site + urls.ATTRIBUTE)
    find(browser, f"#{ask.PROMPT}")[0].send_keys("The capital of Spain is")
    find(browser, f"#{ask.ATTRIBUTE_BUTTON}")[0].click()
    wait_for(browser, lambda _: "The capital of Spain is" in text_of(browser, ".job h3"))  # cards are drawn anew as jobs go on
    browser.refresh()
    wait_for(browser, lambda _: "model" in text_of(browser, ".job.failed .error"))


@pytest.mark.slow  # test_accessibility opens most of these, at both widths, without waiting for what is drawn last
@pytest.mark.parametrize(
    "url, there",
    [
        (urls.search_url(text="word1"), ".feature-link"),
        (urls.feature_url(world.DICT, *world.HOSTILE_FEATURE), ".windows .token"),
        (urls.frontier_url(sweep=world.SWEEP), ".numbers tbody tr"),
        (urls.GRAPH, FEATURES),
        (urls.OVERVIEW, ".js-plotly-plot .legendtext"),
        (urls.feature_url(world.DICT, *world.CAPITALS), ".windows .token"),
        (urls.feature_url(world.DICT, *world.NAN), ".windows .token"),
        (urls.feature_url(world.DICT, *world.DEAD), ".stats"),
        (urls.ASK, f"#{ask.PROMPT}"),
        ("/nowhere", ".notice"),
    ],
)
def test_pages_fit_and_report_no_errors(browser, site, url, there):
    for width in WIDTHS:
        set_width(browser, width)
        if width == WIDTHS[0]:
            browser.get(site + url)
        find(browser, there)
        wait_for(browser, lambda driver: driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"))
    assert browser.title.endswith("cltdb"), "hostile text was run"
    assert not browser.execute_script("return [...document.querySelectorAll('img')].some(img => img.src.endsWith('/x'))")
