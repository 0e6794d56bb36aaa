"""axe-core finds nothing serious on any page, in light and dark; the shell by keyboard, its colours, its notices."""

from importlib.resources import files

import pytest
from browser import MARKS, every_page, find, set_scheme, set_width, wait_for
from selenium.webdriver.common.keys import Keys
from worlds import capitals_experiment as world

from dashboards import urls

pytestmark = MARKS
AXE = files("axe_core_python").joinpath("axe.min.js").read_text()
FAULTS = """
const [options, done] = arguments;
axe.run(document, { resultTypes: ["violations"], ...options }).then(({ violations }) => done(violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => [id, help, nodes.slice(0, 5).map(({ target, failureSummary }) => [target.join(" "), failureSummary])])));
"""
VISIT = 'history.pushState({}, "", arguments[0]); dispatchEvent(new CustomEvent("_dashprivate_pushstate"))'
SETTLED = "return !document.querySelector('[data-dash-is-loading]') && document.getAnimations().length === 0"
WITHOUT_CONTRAST = {"color-contrast": {"enabled": False}}
"""Rules but the one that takes three quarters of the time, which the slow tests ask for."""
NOTICE = {"where": "a place", "found": "a fault", "expected": "none", "do": "mend it"}


def faults(browser, **options):
    """Serious and critical violations of the page as it stands. options: of `axe.run`."""
    if not browser.execute_script("return typeof axe === 'object'"):
        browser.execute_script(AXE)
    return browser.execute_async_script(FAULTS, options)


def visit(browser, url):
    """Goes on to an address as links do, which takes half the time of opening it: titles are all different."""
    before = browser.title
    browser.execute_script(VISIT, url)
    wait_for(browser, lambda _: browser.title != before)
    find(browser, "main > *")


def pages():
    return [
        *every_page(),
        "/nowhere",
        urls.feature_url(world.DICT, *world.HOSTILE_FEATURE),
        urls.feature_url(world.DICT, *world.DEAD),
    ]


@pytest.mark.parametrize(
    "theme, options",
    [
        ("light", {"rules": WITHOUT_CONTRAST}),
        pytest.param("light", {"runOnly": ["color-contrast"]}, marks=pytest.mark.slow),
        pytest.param("dark", {"runOnly": ["color-contrast"]}, marks=pytest.mark.slow),
    ],  # the rest is the same in both
)
def test_no_page_has_a_serious_violation(browser, site, theme, options):
    found = {}
    browser.get(site + pages()[-1])
    for url in pages():
        visit(browser, url)
        wait_for(browser, lambda driver: driver.execute_script(SETTLED))
        browser.execute_script("cltdb.notices.show(arguments[0])", NOTICE)
        if url == urls.FRONTIER:
            find(browser, ".dash-dropdown")[0].click()
        browser.execute_script("cltdb.theme.choose(arguments[0])", theme)
        wait_for(browser, lambda driver: driver.execute_script(SETTLED))
        if wrong := faults(browser, **options):
            found[url] = wrong
    browser.execute_script("localStorage.clear()")
    assert found == {}


def test_colours_are_chosen_kept_and_otherwise_the_systems(browser, site):
    def shown():
        return browser.execute_script(
            "return [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"
        )

    set_scheme(browser, "dark")
    browser.get(site + urls.FRONTIER)
    dark = shown()
    assert dark[0] == "dark" and browser.find_element("css selector", "html").get_attribute("lang") == "en"
    browser.execute_script("document.addEventListener('cltdb:theme', event => { window.told = event.detail.shown; })")
    find(browser, ".theme-switch")[0].click()
    light = shown()
    assert light[0] == "light" and light[1] != dark[1] and browser.execute_script("return told") == "light"
    browser.refresh()
    find(browser, ".theme-switch")
    assert shown() == light
    browser.find_element("css selector", ".theme-switch").click()
    assert shown() == dark
    browser.find_element("css selector", ".theme-switch").click()
    set_scheme(browser, "light")
    wait_for(browser, lambda _: shown() == light)
    browser.execute_script("localStorage.clear()")


def test_the_keyboard_skips_to_the_page_and_sees_where_it_is(browser, site):
    browser.get(site + urls.FRONTIER)
    find(browser, "main h1")
    body = browser.find_element("css selector", "body")
    body.send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the page" and skip.rect["x"] >= 0
    skip.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "cltdb"
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    skip.send_keys(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.execute_script("return document.querySelector('main').contains(document.activeElement)")
    assert browser.execute_script("return location.pathname") == urls.FRONTIER
    current = "return [...document.querySelectorAll('.masthead [aria-current=page]')].map((link) => link.textContent)"
    wait_for(browser, lambda _: browser.execute_script(current) == ["Frontier"])
    browser.find_element("link text", "SQL").click()
    wait_for(browser, lambda _: browser.execute_script(current) == ["SQL"])


@pytest.mark.parametrize("width", [700, 1280])
def test_a_long_word_breaks_and_never_widens_a_page(browser, site, width):
    set_width(browser, width)
    browser.get(site + urls.graph_url("x" * 3000))
    find(browser, ".notice")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert len(browser.title) < 120
