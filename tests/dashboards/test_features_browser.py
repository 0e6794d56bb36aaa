"""The table of features in headless Chromium."""

from browser import MARKS, find, wait_for
from worlds import capitals_experiment as world

from dashboards import urls
from dashboards.pages import features

pytestmark = MARKS


def names(browser):
    return browser.execute_script("return [...document.querySelectorAll('.feature-link')].map(link => link.textContent)")


def summary(browser):
    return browser.execute_script(f"return document.getElementById('{features.SUMMARY}')?.textContent")


def sort_by(browser, name):
    """Clicks the heading of a column."""
    wait_for(browser, lambda _: names(browser))
    headings = "[...document.querySelectorAll('.ag-header-cell-label')]"
    browser.execute_script(f"{headings}.find(one => one.textContent.trim() === arguments[0]).click()", name)


def test_text_filters_and_sort_are_in_the_address_and_back_undoes_them(browser, site):
    browser.get(site + urls.SEARCH)
    everything = wait_for(browser, lambda _: summary(browser) == f"{len(world.KEYS) - 1} features" and names(browser))
    find(browser, f"#{features.TEXT}")[0].send_keys("word1")
    by_relevance = wait_for(
        browser, lambda _: "text=word1" in browser.current_url and (found := names(browser))[:3] != everything[:3] and found
    )
    sort_by(browser, "density")
    wait_for(browser, lambda _: "sort=-density" in browser.current_url and names(browser)[:3] != by_relevance[:3])
    address = browser.current_url
    browser.back()
    wait_for(browser, lambda _: "sort" not in browser.current_url and names(browser)[:3] == by_relevance[:3])
    browser.back()
    wait_for(browser, lambda _: find(browser, f"#{features.TEXT}")[0].get_attribute("value") == "")
    wait_for(browser, lambda _: names(browser)[:3] == everything[:3])
    browser.get(address.replace("sort=-density", "sort=density&layer=1..1"))
    wait_for(browser, lambda _: names(browser) and all(name.startswith("1:") for name in names(browser)))
    assert find(browser, f"#{features.TEXT}")[0].get_attribute("value") == "word1"


def test_a_filter_in_a_header_chooses_among_all_rows(browser, site):
    browser.get(site + urls.SEARCH)
    wait_for(browser, lambda _: names(browser))
    find(browser, ".ag-floating-filter-input input")[0].send_keys("countries")
    wait_for(browser, lambda _: summary(browser) == "1 feature" and names(browser) == ["2:7"])
    assert "about=countries" in browser.current_url


def test_enter_on_a_layer_and_feature_goes_there(browser, site):
    from selenium.webdriver.common.keys import Keys

    browser.get(site + urls.SEARCH)
    wait_for(browser, lambda _: names(browser))
    find(browser, f"#{features.TEXT}")[0].send_keys("2:7")
    wait_for(browser, lambda _: names(browser) == ["2:7"])
    find(browser, f"#{features.TEXT}")[0].send_keys(Keys.ENTER)
    assert "names of countries" in find(browser, ".feature h1")[0].text
