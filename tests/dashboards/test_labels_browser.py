"""The page Groups in a browser: its link is what it shows, its choices change its parts, and it fits its width."""

import pytest
from browser import MARKS, find, set_scheme, set_width, text_of, wait_for
from test_accessibility import SETTLED, WITHOUT_CONTRAST, faults
from worlds.compared_labels import BARE, LABELS, WHOLE

from dashboards import urls
from dashboards.pages import groups

pytestmark = MARKS
FR, DE, EN = LABELS
WIDTHS = (700, 1024, 1440)
OPTION = "return [...document.querySelectorAll('.dash-dropdown-option')].find((one) => one.innerText.trim() === arguments[0])"


def shows(driver, text):
    return wait_for(driver, lambda driver: text in text_of(driver, "main"))


def choose(driver, id, option):
    def named(driver):
        return driver.execute_script(OPTION, option)

    find(driver, f"#{id}")[0].click()
    driver.execute_script("arguments[0].click()", wait_for(driver, named))


def test_choices_change_the_page_and_its_link_which_leads_back(browser, site):
    link = urls.groups_url(groups_id=WHOLE, label_a=DE, label_b=EN, weighting="influence", label=EN, first_layer=2)
    browser.get(site + link)
    shows(browser, f"{DE} to {EN}")
    assert f"{FR} to" not in text_of(browser, "main")
    wait_for(browser, lambda driver: len(driver.find_elements("css selector", ".js-plotly-plot .main-svg")) >= 6)
    wait_for(browser, lambda driver: len(driver.find_elements("css selector", ".label-features .window")) == 8)
    choose(browser, groups.PAIR, groups.tables.ALL_PAIRS)
    shows(browser, "Beside controls")
    choose(browser, groups.LABEL, DE)
    wait_for(browser, lambda driver: driver.find_elements("link text", "2:15"))
    wait_for(browser, lambda driver: "label_a" not in driver.current_url and "label=de" in driver.current_url)
    browser.refresh()
    wait_for(browser, lambda driver: driver.find_elements("link text", "2:15"))
    shows(browser, "Beside controls")
    choose(browser, groups.COMPARISON, BARE)
    shows(browser, "No substitutions")
    assert f"groups_id={BARE}" in browser.current_url and "weighting=influence" in browser.current_url
    browser.back()
    shows(browser, "Beside controls")
    assert browser.execute_script("return document.title") == "Groups · cltdb"


@pytest.mark.parametrize(
    "pair", [{}, pytest.param({"label_a": FR, "label_b": DE}, marks=pytest.mark.slow)], ids=["all pairs", "one pair"]
)
def test_it_fits_every_width_and_has_no_serious_violation(browser, site, pair):
    set_width(browser, WIDTHS[0])
    browser.get(site + urls.groups_url(groups_id=WHOLE, **pair))
    find(browser, ".label-features .window")
    for width in WIDTHS:  # the page is opened at the least; figures follow others a moment later
        set_width(browser, width)
        wait_for(browser, lambda driver: driver.execute_script(SETTLED))
        wait_for(browser, lambda driver: driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"))
    assert faults(browser, rules=WITHOUT_CONTRAST) == []


@pytest.mark.slow  # contrast takes three quarters of the time
@pytest.mark.parametrize("width", WIDTHS)
def test_it_has_no_serious_violation_of_any_kind_in_either_theme(browser, site, width):
    set_width(browser, width)
    pair = {"label_a": FR, "label_b": DE} if width == 700 else {}
    browser.get(site + urls.groups_url(groups_id=WHOLE, **pair))
    find(browser, ".label-features .window")
    found = {}
    for scheme in ("light", "dark"):
        set_scheme(browser, scheme)
        wait_for(browser, lambda driver: driver.execute_script(SETTLED))
        if wrong := faults(browser):
            found[scheme] = wrong
    set_scheme(browser, "light")
    assert found == {}
