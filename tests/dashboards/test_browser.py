"""The pages in headless Chromium."""

import time

import pytest
from browser import MARKS, POLL_S, find, set_width, wait_for
from worlds import capitals_experiment as world

from dashboards import urls
from dashboards.pages import attribute, features, frontier
from dashboards.pages import graph as graph_page

pytestmark = MARKS
WIDTHS = (700, 1280)
DRAWN = "return (el => el ? [el._cyreg.cy.nodes('.feature').length, el._cyreg.cy.edges().length] : [0, 0])" + (
    "([...document.querySelectorAll('#graph-drawing, #graph-drawing *')].find(el => el._cyreg))"
)
NODE_PLACE = """
const el = [...document.querySelectorAll('#graph-drawing, #graph-drawing *')].find(el => el._cyreg);
const at = el._cyreg.cy.nodes('.feature')[0].renderedPosition(), box = el.getBoundingClientRect();
return [Math.round(box.left + at.x), Math.round(box.top + at.y), el._cyreg.cy.nodes('.feature')[0].data('title')];
"""


def test_search_finds_a_feature_and_its_page_shows_contexts(browser, site):
    browser.get(site + urls.SEARCH)
    find(browser, ".feature-link")
    find(browser, f"#{features.TEXT}")[0].send_keys("countries")
    wait_for(browser, lambda _: find(browser, f"#{features.SUMMARY}")[0].text == "1 feature")
    link = wait_for(browser, lambda _: [a for a in find(browser, ".feature-link") if a.text == "2:7"])[0]
    link.click()
    assert "names of countries" in find(browser, ".feature h1")[0].text
    assert "France" in find(browser, ".windows .token.peak")[0].text
    assert find(browser, ".windows .token[style*='--heat-share']") and find(browser, ".js-plotly-plot .bars")


def test_graph_page_draws_a_graph_and_a_click_shows_the_nodes_card(browser, site):
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.by import By

    browser.get(site + urls.graph_url(world.GRAPH))
    n_nodes, n_edges = wait_for(browser, lambda driver: (drawn := driver.execute_script(DRAWN)) and drawn[1] and drawn)
    assert n_nodes > 5 and n_edges > 10
    wait_for(browser, lambda driver: driver.execute_script(NODE_PLACE)[1] < 900)

    def clicked(driver):
        """Clicks where the node stands now; on a busy machine the drawing may still be moving."""
        place = driver.execute_script(NODE_PLACE)
        action = ActionBuilder(driver)
        action.pointer_action.move_to_location(*place[:2]).click()
        action.perform()
        deadline = time.monotonic() + 1
        while (
            not (shown := driver.find_elements(By.CSS_SELECTOR, f"#{graph_page.CARD} .edge-list")) and time.monotonic() < deadline
        ):
            time.sleep(POLL_S)
        return shown and place

    title = wait_for(browser, clicked)[2]
    card = find(browser, f"#{graph_page.CARD} .edge-list")
    assert card and title.split(" · ")[1] in find(browser, f"#{graph_page.CARD}")[0].text
    link = find(browser, f"#{graph_page.CARD} a")[0]
    assert "/feature/" in link.get_attribute("href")
    link.click()
    find(browser, ".feature .windows")


def test_sliders_prune_and_the_selector_leads_to_another_graph(browser, site):
    from selenium.webdriver.common.keys import Keys

    browser.get(site + urls.graph_url(world.GRAPH))
    before = wait_for(browser, lambda driver: (drawn := driver.execute_script(DRAWN)) and drawn[1] and drawn)
    handle = find(browser, f"#{graph_page.NODE_SHARE} [role=slider]")[0]
    handle.send_keys(Keys.HOME)
    wait_for(browser, lambda driver: driver.execute_script(DRAWN)[0] < before[0])
    browser.get(site + urls.graph_url(world.SECOND_GRAPH))
    wait_for(browser, lambda driver: driver.execute_script(DRAWN)[0] > before[0])


def test_a_point_of_the_frontier_leads_to_the_dictionarys_features(browser, site):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.get(site + urls.frontier_url(sweep=world.SWEEP))
    points = wait_for(
        browser, lambda _: (found := find(browser, f"#{frontier.FIGURE} .points path")) and len(found) == 12 and found
    )
    ActionChains(browser).move_to_element(points[0]).click().perform()
    find(browser, f"#{features.TEXT}")
    assert "dict_id=zoo-kind_" in browser.current_url


def test_a_prompt_is_attributed_by_a_job_that_outlives_a_reload(browser, site):
    """The spec of the made-up experiment names no model, so the job fails and says so."""
    browser.get(site + urls.ATTRIBUTE)
    find(browser, f"#{attribute.PROMPT}")[0].send_keys("The capital of Spain is")
    find(browser, f"#{attribute.START}")[0].click()
    assert "The capital of Spain is" in find(browser, ".job h3")[0].text
    browser.refresh()
    assert "model" in find(browser, ".job.failed .error")[0].text


@pytest.mark.parametrize(
    "url, there",
    [
        (urls.OVERVIEW, ".js-plotly-plot .legendtext"),
        (urls.search_url(text="word1"), ".feature-link"),
        (urls.feature_url(world.DICT, *world.CAPITALS), ".windows .token"),
        (urls.feature_url(world.DICT, *world.HOSTILE_FEATURE), ".windows .token"),
        (urls.feature_url(world.DICT, *world.NAN), ".windows .token"),
        (urls.feature_url(world.DICT, *world.DEAD), ".stats"),
        (urls.frontier_url(sweep=world.SWEEP), ".numbers tbody tr"),
        (urls.GRAPH, f"#{graph_page.DRAWING} canvas"),
        (urls.ATTRIBUTE, f"#{attribute.PROMPT}"),
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
