"""Pinning, grouping and naming in headless Chromium: saved at once, seen by others, kept through a lost server."""

import json
import shutil
import urllib.request
from contextlib import closing

import browser as in_browser
import pytest
from browser import MARKS, find, leave, wait_for
from selenium.webdriver.common.keys import Keys
from worlds import capitals_experiment as world

from cltdb.annotations.log import Log
from cltdb.annotations.operations import GRAPH
from cltdb.annotations.state import graph_state
from cltdb.database.api import Database
from cltdb.spec import Project
from dashboards import urls
from dashboards.annotations import store_of
from dashboards.graph import ids

pytestmark = MARKS
MARK = f"#{ids.DRAWING} .node.feature"
SAVED = f"#{ids.GROUPS} .saving"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def project(database, tmp_path_factory):
    """A project whose pages save, with a copy of the database."""
    root = tmp_path_factory.mktemp("saving")
    (root / "cltdb.yaml").write_text("{}\n")
    shutil.copy(database, root / "cltdb.duckdb")
    return Project(root, root / "artifacts", root / "cltdb.duckdb")


@pytest.fixture
def site(project, browser):
    store = store_of(project)
    with closing(store.writer), in_browser.serving(project.database, store=store) as address:
        yield address
        leave(browser)  # it asks what is new, also while its server ends
    shutil.rmtree(project.workspace, ignore_errors=True)


def state(driver, name):
    return driver.execute_script(f"return window.cltdb.graph?.state?.{name}")


def is_saved(driver):
    return driver.execute_script("return window.cltdb.graph.annotations && window.cltdb.graph.saving().status === 'saved'")


def stored(project):
    return graph_state(Log(project.workspace, GRAPH, world.GRAPH).events())


def open_graph(driver, site):
    driver.get(site + urls.graph_url(world.GRAPH))
    wait_for(driver, lambda _: len(find(driver, MARK)) > 5)
    wait_for(driver, is_saved)


def press(driver, selector):
    driver.execute_script("arguments[0].click()", find(driver, selector)[0])


def test_pin_group_name_and_find_it_in_another_browser(browser, site, project, tmp_path):
    open_graph(browser, site)
    marks = find(browser, MARK)[:3]
    nodes = [int(mark.get_attribute("data-node")) for mark in marks]
    for node in nodes:
        browser.execute_script(f"window.cltdb.graph.select({node})")
        find(browser, f"#{ids.CARD} [data-act=pin][data-of='{node}']")[0].click()
    wait_for(browser, lambda _: list(stored(project).pinned) == nodes)
    wait_for(browser, lambda _: "pinned: replacement" in find(browser, f"#{ids.SCORES}")[0].text)
    browser.execute_script(f"window.cltdb.graph.set({{selected: {nodes[0]}, also: [{nodes[1]}], tab: 'groups'}})")
    find(browser, f"#{ids.GROUPS} [data-do=group]")[0].click()
    field = find(browser, f"#{ids.GROUPS} .group input")[0]
    wait_for(browser, lambda _: browser.switch_to.active_element == field)
    field.send_keys(HOSTILE, Keys.ENTER)
    wait_for(browser, lambda _: [group.name for group in stored(project).groups] == [HOSTILE])
    wait_for(browser, lambda _: find(browser, SAVED)[0].text == "Saved.")
    address = browser.current_url
    file = json.load(urllib.request.urlopen(find(browser, f"#{ids.GROUPS} [data-do=export]")[0].get_attribute("href")))
    assert file["qParams"]["supernodes"][0][0] == HOSTILE and len(file["qParams"]["pinnedIds"]) >= 2
    with in_browser.chromium(tmp_path / "other") as other:
        other.get(address)
        wait_for(other, is_saved)
        wait_for(other, lambda _: state(other, "pinned") == nodes)
        assert find(other, f"#{ids.GROUPS} .group input")[0].get_attribute("value") == HOSTILE
        other.execute_script(f"window.cltdb.graph.pin({nodes[2]}, false)")
        browser.execute_script(f"window.cltdb.graph.hide({nodes[2]})")
        for driver in (browser, other):  # each hears of the other, when it asks next
            wait_for(driver, is_saved)
            driver.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
        for driver in (browser, other):
            wait_for(driver, lambda driver: (state(driver, "pinned"), state(driver, "hidden")) == (nodes[:2], [nodes[2]]))
        assert in_browser.problems(other) == []
    wait_for(browser, lambda _: Database(project.database).query("supernode_list")["name"].to_list()[:1] == [HOSTILE])
    find(browser, f"#{ids.GROUPS} [data-do=undo]")[0].click()
    wait_for(browser, lambda _: list(stored(project).hidden) == [])


def test_keys_pin_and_group_and_changes_can_be_taken_back(browser, site, project):
    open_graph(browser, site)
    mark = find(browser, MARK)[0]
    node = int(mark.get_attribute("data-node"))
    browser.execute_script("arguments[0].focus()", mark)
    browser.switch_to.active_element.send_keys("p")
    wait_for(browser, lambda _: list(stored(project).pinned) == [node])
    browser.switch_to.active_element.send_keys("g")
    wait_for(browser, lambda _: [group.members for group in stored(project).groups] == [(node,)])
    press(browser, f"#{ids.GROUPS} details[data-of=changes] summary")
    entry = wait_for(
        browser, lambda _: [li for li in find(browser, f"#{ids.GROUPS} details[data-of=changes] li") if "pinned" in li.text]
    )[0]
    entry.find_element("css selector", "button").click()
    wait_for(browser, lambda _: list(stored(project).pinned) == [])


def test_what_could_not_be_saved_is_kept_over_a_reload(browser, project, database):
    store = store_of(project)
    with closing(store.writer), in_browser.serving(project.database, store=store) as address:
        open_graph(browser, address)
        node = int(find(browser, MARK)[0].get_attribute("data-node"))
        browser.execute_script(
            "window.realFetch = window.fetch; const isOurs = (to, how) => how && String(to).includes('/annotations');"
            "window.fetch = (to, how) => isOurs(to, how) ? Promise.reject(new TypeError('gone')) : window.realFetch(to, how);"
            f"window.cltdb.graph.pin({node}); window.cltdb.graph.set({{tab: 'groups'}})"
        )
        wait_for(browser, lambda _: "Not saved yet" in find(browser, SAVED)[0].text)
        assert state(browser, "pinned") == [node] and list(stored(project).pinned) == []
        browser.refresh()
        wait_for(browser, lambda _: list(stored(project).pinned) == [node])
        wait_for(browser, lambda _: state(browser, "pinned") == [node])
        leave(browser)
    shutil.rmtree(project.workspace, ignore_errors=True)


def test_proposals_are_taken_over_and_pages_of_another_database_say_that_they_save_nothing(browser, site, project, database):
    open_graph(browser, site)
    browser.execute_script("window.cltdb.graph.set({tab: 'groups'})")
    n_proposed = len(browser.execute_script("return window.cltdb.graph.annotations.proposals"))
    browser.execute_script("window.cltdb.graph.takeOver(window.cltdb.graph.annotations.proposals)")
    wait_for(browser, lambda _: len(stored(project).groups) == n_proposed)
    wait_for(browser, lambda _: browser.execute_script("return window.cltdb.graph.annotations.proposals") == [])
    with in_browser.serving(database) as readonly:
        browser.get(readonly + urls.graph_url(world.GRAPH))
        wait_for(
            browser, lambda _: len(find(browser, MARK)) > 5 and browser.execute_script("return !!window.cltdb.graph.annotations")
        )
        node = find(browser, MARK)[0].get_attribute("data-node")
        browser.execute_script(f"window.cltdb.graph.pin({node}); window.cltdb.graph.set({{tab: 'groups'}})")
        wait_for(browser, lambda _: "save nothing" in find(browser, SAVED)[0].text)
        assert f"pin={node}" in browser.current_url
        leave(browser)


def test_own_labels_stand_first_and_stars_are_kept(browser, site, project):
    """Of a feature on its node's card, in the drawing and on its page; of an answer on its card alone."""
    open_graph(browser, site)
    feature = int(find(browser, MARK)[0].get_attribute("data-node"))
    answer = int(find(browser, f"#{ids.DRAWING} .node.logit")[0].get_attribute("data-node"))
    places = browser.execute_script(
        "const { byId, nodes } = window.cltdb.graph.data; return arguments[0].map((id) => [nodes.layer[byId.get(id)], nodes.feature[byId.get(id)]])",
        [feature],
    )
    about = {answer: f'"node":{answer}', feature: '"layer":{},"feature":{}'.format(*places[0])}
    for node, text in ((answer, "the answer"), (feature, HOSTILE)):
        browser.execute_script(f"window.cltdb.graph.select({node})")
        find(browser, f"#{ids.CARD} [data-drawn=own][data-of*='{about[node]}'] input")[0].send_keys(text, Keys.ENTER)
        wait_for(browser, lambda _, node=node, text=text: state(browser, "labels").get(str(node)) == text)
    assert {node: text.text for node, text in stored(project).labels.items()} == {answer: "the answer"}
    browser.get(find(browser, f"#{ids.CARD} a[href*='/feature/']")[0].get_attribute("href"))
    wait_for(browser, lambda _: find(browser, ".feature [data-drawn=own] input")[0].get_attribute("value") == HOSTILE)
    find(browser, ".feature [data-drawn=own] button")[0].click()
    starred = "return document.querySelector('.feature [data-drawn=own] [data-of=stars] summary')?.textContent"
    wait_for(browser, lambda _: browser.execute_script(starred) == "★ Starred")
    [row] = wait_for(browser, lambda _: Database(project.database).query("annotation_list", kind="star").to_dicts())
    assert row["list"] == "Starred" and row["dict_id"] == world.DICT
    cards = Database(project.database).feature_cards(world.DICT)
    assert cards.filter(own_label=HOSTILE).select("layer", "feature").rows() == [(row["layer"], row["feature"])]


def test_a_box_stays_where_it_was_put(browser, site, project):
    from selenium.webdriver.common.action_chains import ActionChains

    open_graph(browser, site)
    nodes = [int(mark.get_attribute("data-node")) for mark in find(browser, MARK)[:2]]
    browser.execute_script(f"window.cltdb.graph.group({nodes}); window.cltdb.graph.set({{view: 'subgraph'}})")
    box = "document.querySelector('[data-box]')"
    wait_for(browser, lambda _: is_saved(browser) and browser.execute_script(f"return !!{box}"))
    ActionChains(browser).drag_and_drop_by_offset(find(browser, "[data-box]")[0], 60, 40).perform()
    [(key, place)] = wait_for(browser, lambda _: stored(project).places).items()
    assert key == f"group:{stored(project).groups[0].id}"
    browser.refresh()
    where = f"return {box}?.getAttribute('transform')"
    wait_for(browser, lambda _: browser.execute_script(where) == "translate({:.0f} {:.0f})".format(*place))
