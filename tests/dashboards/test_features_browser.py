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


def test_reasons_wrap_in_rows_of_a_search_and_its_summary_says_that_it_goes_on(browser, site):
    browser.get(site + urls.SEARCH)
    wait_for(browser, lambda _: names(browser))
    shown = "getComputedStyle(document.getElementById(arguments[0]), '::after').content"
    browser.execute_script(
        f"window.said = new Set(); new MutationObserver(() => window.said.add({shown.replace('arguments[0]', repr(features.SUMMARY))}))"
        f".observe(document.getElementById({features.SUMMARY!r}), {{attributes: true}})"
    )
    height = "return document.querySelector('.ag-row .ag-cell[col-id=text]').clientHeight"
    before = browser.execute_script(height)
    find(browser, f"#{features.TEXT}")[0].send_keys("word1")
    wait_for(
        browser, lambda _: "text=word1" in browser.current_url and names(browser) and browser.execute_script(height) > before
    )
    assert '"Searching …"' in browser.execute_script("return [...window.said]")
    assert browser.execute_script(f"return {shown}", features.SUMMARY) == "none"
    lines = "const cell = document.querySelector('.ag-cell[col-id=found_in]'); return [cell.innerText, getComputedStyle(cell).whiteSpace]"
    assert "word1" in browser.execute_script(lines)[0] and browser.execute_script(lines)[1] == "normal"
    browser.get(browser.current_url)  # the same from its address
    wait_for(browser, lambda _: names(browser) and browser.execute_script(height) > before)
    browser.back()
    find(browser, f"#{features.TEXT}")[0].clear()
    wait_for(browser, lambda _: names(browser) and browser.execute_script(height) == before)
