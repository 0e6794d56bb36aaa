"""axe-core finds nothing serious on any page, in light and dark, and each fits its width; the shell by keyboard, its colours, its notices."""

from importlib.resources import files

import pytest
from browser import MARKS, WIDTH, every_page, find, set_scheme, set_width, wait_for
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
FITS = "return document.documentElement.scrollWidth <= innerWidth"
SETTLED = "return !document.querySelector('[data-dash-is-loading]') && document.getAnimations().length === 0"
WITHOUT_CONTRAST = {"color-contrast": {"enabled": False}}
"""Rules but the one that takes three quarters of the time, which the slow tests ask for."""
NARROW = 700
"""In CSS pixels, as all widths."""
WIDEST = (
    urls.search_url(text="word1"), urls.frontier_url(sweep=world.SWEEP), urls.feature_url(world.DICT, *world.HOSTILE_FEATURE),
    urls.graph_url(world.GRAPH),
)  # fmt: skip
"""Pages that a narrow window is soonest too narrow for."""
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
        WIDEST[0],
        urls.feature_url(world.DICT, *world.NAN),
        WIDEST[1],
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
    """Nor is one wider than its window, nor is hostile text run."""
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
        assert browser.title.endswith("cltdb"), "hostile text was run"
        assert not browser.execute_script("return [...document.images].some(img => img.src.endsWith('/x'))")
        for width in (WIDTH, NARROW)[: 2 if url in WIDEST else 1]:
            set_width(browser, width)
            wait_for(browser, lambda driver: driver.execute_script(FITS))
        set_width(browser, WIDTH)
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


def test_a_long_word_breaks_and_never_widens_a_page(browser, site):
    browser.get(site + urls.graph_url("x" * 3000))
    find(browser, ".notice")
    for width in (NARROW, WIDTH):
        set_width(browser, width)
        assert browser.execute_script(FITS)
    assert len(browser.title) < 120
