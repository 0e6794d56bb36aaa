"""The page of a feature in headless Chromium."""

from browser import MARKS, find, wait_for
from selenium.webdriver.common.action_chains import ActionChains
from worlds import capitals_experiment as world

from dashboards import urls

pytestmark = MARKS
NODE = """
const cy = document.querySelector('.neighbourhood .__________cytoscape_container')._cyreg.cy, box = cy.container().getBoundingClientRect();
const at = cy.getElementById(arguments[0]).renderedPosition();
return [Math.round(box.left + at.x), Math.round(box.top + at.y)];
"""


def test_contexts_unfold_and_hold_no_markup(browser, site):
    browser.get(site + urls.feature_url(world.DICT, *world.CAPITALS))
    assert "activation" in find(browser, ".windows .token.peak")[0].get_attribute("title")
    assert not browser.execute_script("return document.querySelector('.windows img, .windows script')")
    heights = "return [...document.querySelectorAll('svg.bars .bin')].map(bin => [bin.height.baseVal.value, bin.getBoundingClientRect().height])"
    assert all(abs(said - drawn) < 1.5 for said, drawn in browser.execute_script(heights)), (
        "another style sheet sets the height of bars"
    )
    more = find(browser, ".windows .more")[0]
    line = more.find_element("xpath", "..")
    before = len(line.find_elements("css selector", ".token"))
    more.click()
    assert len(line.find_elements("css selector", ".token")) > before
    assert browser.switch_to.active_element.text == "less"
    assert not find(browser, ".drawn-contexts details")[1].find_elements("css selector", ".token")
    find(browser, ".drawn-contexts details summary")[1].click()
    wait_for(browser, lambda _: find(browser, ".drawn-contexts details")[1].find_elements("css selector", ".token"))


def test_the_first_click_on_a_neighbour_leads_to_it(browser, site):
    browser.get(site + urls.feature_url(world.DICT, *world.CAPITALS))
    wait_for(browser, lambda driver: driver.execute_script("return !!document.querySelector('.neighbourhood canvas')"))
    find(browser, ".windows .token")
    browser.execute_script("document.querySelector('.neighbourhood').scrollIntoView({block: 'center'})")
    x, y = browser.execute_script(NODE, "0:4")
    action = ActionChains(browser)
    action.w3c_actions.pointer_action.move_to_location(x, y).click()
    action.perform()
    wait_for(browser, lambda driver: driver.current_url.endswith("/0/4") and "Feature 0:4" in driver.title)
    assert find(browser, ".feature h1")
