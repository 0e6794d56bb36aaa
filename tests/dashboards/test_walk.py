"""What the browser is for, from the first page on: see how the model finds Paris, group and name what matters, take it away, ask the same of
Spain, and find everything again in another browser. The server is `cltdb dash`, its work that of real commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import MARKS, find, wait_for
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from worlds import walked_project
from worlds.shared import made_once

import cltdb
from dashboards.graph import ids, steering
from dashboards.pages import ask

pytestmark = MARKS
ROOT = Path(cltdb.__file__).parents[1]
MARK = f"#{ids.DRAWING} .node.feature"
NEURONPEDIA_NEEDS = {
    "metadata": {"slug", "scan", "prompt_tokens", "prompt"},
    "nodes": {"node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"},
    "links": {"source", "target", "weight"},
}
"""The required keys of Neuronpedia's graph schema."""


@contextmanager
def served(folder):
    """Address of `cltdb dash` in `folder`."""
    command = [sys.executable, "-P", "-m", "cltdb", "dash", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = made_once(tmp_path_factory, "walked", walked_project.build)
    return shutil.copytree(made, tmp_path_factory.mktemp("walk") / "project")


def click(driver, selector, *, text=None):
    """Clicks the first element of a selector, or the one that says `text`, once."""
    wait_for(
        driver, lambda _: [one for one in driver.find_elements(By.CSS_SELECTOR, selector) if text is None or text in one.text]
    )[0].click()


def choose(driver, component, text):
    """Chooses what says `text` in a dropdown."""
    click(driver, f"#{component}")
    wait_for(
        driver, lambda _: [one for one in driver.find_elements(By.CSS_SELECTOR, ".dash-options-list-option") if text in one.text]
    )
    click(driver, ".dash-options-list-option", text=text)


def reads(driver, selector, pattern):
    """The match of `pattern` in the text of a selector, once it is there."""
    return wait_for(driver, lambda _: next((m for one in find(driver, selector) if (m := re.search(pattern, one.text))), None))


def strongest(driver, n):
    """The marks of the `n` most influential features that are drawn."""
    script = (
        "const g = cltdb.graph, of = (m) => g.data.nodes.influence[g.data.byId.get(+m.dataset.node)];"
        "return [...document.querySelectorAll(arguments[0])].sort((a, b) => of(b) - of(a)).slice(0, arguments[1])"
    )
    return wait_for(driver, lambda _: len(marks := driver.execute_script(script, MARK, n)) == n and marks)


def state(driver, name):
    return driver.execute_script("return cltdb.graph.state[arguments[0]]", name)


def downloads(driver, folder):
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})


def downloaded(driver, folder, pattern):
    return wait_for(driver, lambda _: next(folder.glob(pattern), None))


def test_a_model_is_seen_to_think_and_worked_with(folder, browser, tmp_path):
    with served(folder) as site:
        downloads(browser, tmp_path)
        browser.get(site)
        click(browser, "a", text="The capital of France is")  # first click

        first, second, third = strongest(browser, 3)
        nodes = [int(mark.get_attribute("data-node")) for mark in (first, second, third)]
        first.click()  # second click: the features behind the answer
        assert find(browser, f"#{ids.CARD} .edge-list") and state(browser, "selected") == nodes[0]
        for node in nodes:
            find(browser, f"{MARK}[data-node='{node}']")[0].click()
            wait_for(
                browser,
                lambda _, node=node: find(browser, f"#{ids.CARD} [data-act=pin]")[0].get_attribute("data-of") == str(node),
            )
            click(browser, f"#{ids.CARD} [data-act=pin]")
        assert sorted(state(browser, "pinned")) == sorted(nodes)
        reads(browser, f"#{ids.SCORES}", r"pinned: replacement 0\.\d+")

        find(browser, f"{MARK}[data-node='{nodes[0]}']")[0].click()
        other = find(browser, f"{MARK}[data-node='{nodes[1]}']")[0]
        ActionChains(browser).key_down(Keys.CONTROL).click(other).key_up(Keys.CONTROL).perform()
        click(browser, "[data-tab=groups]")
        click(browser, f"#{ids.GROUPS} [data-do=group]", text="(2)")
        find(browser, f"#{ids.GROUPS} .group input")[0].send_keys(Keys.CONTROL, "a")
        find(browser, f"#{ids.GROUPS} .group input")[0].send_keys("Say a capital", Keys.ENTER)
        wait_for(browser, lambda _: [sorted(group["nodes"]) for group in state(browser, "groups")] == [sorted(nodes[:2])])
        reads(browser, f"#{ids.GROUPS} .saving", "Saved")

        click(browser, "[data-tab=steer]")
        choose(browser, steering.TARGET, "Say a capital")
        click(browser, f"#{steering.RUN}")
        fell = reads(browser, f"#{steering.STORED} .intervention summary", r"Paris ([\d.]+) % → ([\d.]+) %")
        assert float(fell[2]) < float(fell[1])
        row = reads(browser, f"#{steering.STORED} .effects-of tbody tr", r"Paris[^−]*−([\d.]+)\s+−([\d.]+)")
        assert float(row[1]) > 0 and float(row[2]) > 0, "the logit fell, as the graph predicted"

        link = browser.current_url
        click(browser, "[data-act=svg]")
        drawing = ElementTree.parse(downloaded(browser, tmp_path, "*.svg")).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg" and "Paris" in "".join(drawing.itertext())
        click(browser, "[data-tab=groups]")
        click(browser, f"#{ids.GROUPS} [data-do=export]")
        assert_for_neuronpedia(json.loads(downloaded(browser, tmp_path, "*.json").read_text()), n_pinned=3)

        click(browser, "a", text="Ask another prompt")
        prompt = find(browser, f"#{ask.PROMPT}")[0]
        wait_for(browser, lambda _: prompt.get_attribute("value") == "The capital of France is")
        prompt.send_keys(Keys.CONTROL, "a")
        prompt.send_keys("The capital of Spain is")
        click(browser, f"#{ask.ATTRIBUTE_BUTTON}")
        asked = wait_for(browser, lambda _: [job for job in find(browser, ".job.finished") if "Spain" in job.text])[0]
        asked.find_element(By.TAG_NAME, "a").click()
        reads(browser, ".graph-summary", "Madrid")

        origin = browser.execute_script("sessionStorage.clear(); return location.origin")
        browser.get("about:blank")
        browser.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
        browser.get(link)  # as another browser would: nothing is left here of what was done
        wait_for(browser, lambda _: browser.execute_script("return cltdb.graph?.state.groups.length"))
        assert sorted(state(browser, "pinned")) == sorted(nodes) and state(browser, "groups")[0]["name"] == "Say a capital"
        click(browser, "[data-tab=steer]")
        reads(browser, f"#{steering.STORED} .intervention summary", re.escape(fell[0]))
        browser.get("about:blank")


def assert_for_neuronpedia(graph, *, n_pinned):
    """What its schema asks for, and that all that is pinned, grouped and linked is there."""
    assert graph["metadata"].keys() >= NEURONPEDIA_NEEDS["metadata"]
    for part in ("nodes", "links"):
        assert graph[part] and all(one.keys() >= NEURONPEDIA_NEEDS[part] for one in graph[part])
    known = {node["node_id"] for node in graph["nodes"]}
    assert {end for one in graph["links"] for end in (one["source"], one["target"])} <= known
    state = graph["qParams"]
    assert len(state["pinnedIds"]) >= n_pinned and set(state["pinnedIds"]) <= known
    [(name, *members)] = state["supernodes"]
    assert name == "Say a capital" and len(members) == 2 and set(members) <= set(state["pinnedIds"])
