"""No failure is invisible: callbacks that raise, functions of the browser that throw, a server that is gone."""

import json
import re
import threading

import dash._callback
import pytest
from browser import MARKS, every_page, find, leave, problems, wait_for
from visit import opened, show, texts
from werkzeug.serving import make_server

from cltdb.errors import CltdbError
from dashboards import failures, urls
from dashboards.app import create_app
from dashboards.pages import overview

THROWN = "made to fail"
NOTICES = "return [...document.querySelectorAll('#notices .failure')].map(notice => notice.querySelector('b').textContent)"
ON_THIS_PAGE = """
const { dependenciesRequest, paths } = dash_stores[0].getState();
const plain = arguments => arguments.every(({ id }) => id.startsWith?.("{") || id in paths.strs);
const outputs = text => text.replace(/^\\.\\.|\\.\\.$/g, "").split("...").map(part => part.slice(0, part.lastIndexOf(".")));
return dependenciesRequest.content
    .map((callback, place) => ({ place, ids: outputs(callback.output), output: callback.output, first: callback.inputs[0],
                                 here: callback.inputs[0].id in paths.strs && plain(callback.inputs), own: callback.clientside_function }))
    .filter(({ ids, here, output }) => here && ids.every(id => id in paths.strs) && !/_pages_(content|dummy)/.test(output));
"""
FAIL = """
const [{ first, own }, thrown] = arguments;
const [name, namespace] = own ? [own.function_name, dash_clientside[own.namespace]] : [];
const kept = own && namespace[name];
if (own) namespace[name] = () => { namespace[name] = kept; throw new Error(thrown); };
document.querySelectorAll("#notices .failure button").forEach(button => button.click());
const component = dash_stores[0].getState().paths.strs[first.id].reduce((part, key) => part[key], dash_stores[0].getState().layout);
dash_clientside.set_props(first.id, { [first.property]: component.props[first.property] ?? null });
"""


@pytest.fixture
def failing(monkeypatch):
    """Callbacks raise what is put into this list."""
    invoke, errors = dash._callback._invoke_callback, []

    def fail(function, *args, **kwargs):
        if errors:
            raise errors[0]
        return invoke(function, *args, **kwargs)

    monkeypatch.setattr(dash._callback, "_invoke_callback", fail)
    return errors


def alike(pattern):
    """An id that a pattern of ids fits."""
    return {name: "any" if isinstance(value, list) else value for name, value in json.loads(pattern).items()}


def call(client, dependency):
    """What the server answers to a callback, with nothing as every value and one component for each pattern of ids."""
    text, multi = dependency["output"], dependency["output"].startswith("..")
    outputs = []
    for part in text.strip(".").split("...") if multi else [text]:
        name, _, prop = part.rpartition(".")
        outputs.append({"id": name, "property": prop})
    body = {"output": text, "outputs": outputs if multi else outputs[0], "changedPropIds": []}
    for given, wanted in (("inputs", dependency["inputs"]), ("state", dependency["state"])):
        body[given] = [
            [{**one, "id": alike(one["id"]), "value": None}] if one["id"].startswith("{") else {**one, "value": None}
            for one in wanted
        ]
    return client.post("/_dash-update-component", json=body)


def test_every_callback_that_raises_says_so(database, failing):
    client = opened(database)
    dependencies = client.get("/_dash-dependencies").json
    failing.append(CltdbError("a place", found="a fault", expected="none", do="mend it"))
    n_seen = n_patterns = 0
    for dependency in dependencies:
        if dependency["clientside_function"]:
            continue
        given = call(client, dependency)
        assert given.status_code == 200, dependency["output"]
        said = given.json["sideUpdate"][failures.FAILURE]["data"]
        assert {name: said[name] for name in ("where", "found", "do")} == {
            "where": "a place",
            "found": "a fault",
            "do": "mend it",
        }
        n_seen += 1
        n_patterns += "ALL" in str(dependency["inputs"] + dependency["state"])
    assert n_seen > 12 and n_patterns > 2


def test_an_error_of_cltdb_itself_says_which_part_it_was(database, failing, caplog):
    client = opened(database)
    [dependency] = [one for one in client.get("/_dash-dependencies").json if overview.TRAIN_FIGURE in one["output"]]
    failing.append(ZeroDivisionError("division by zero"))
    said = call(client, dependency).json["sideUpdate"][failures.FAILURE]["data"]
    assert overview.TRAIN_FIGURE in said["where"] and "ZeroDivisionError: division by zero" in said["found"]
    assert "Traceback" in caplog.text


def test_a_page_that_cannot_be_made_says_so(database, monkeypatch):
    client = opened(database)
    monkeypatch.setattr("dashboards.data.query", lambda *_, **__: 1 / 0)
    assert "the page Frontier: an error of cltdb itself (ZeroDivisionError" in texts(show(database, urls.FRONTIER, client=client))


class TestInChromium:
    pytestmark = MARKS

    @pytest.mark.slow
    def test_every_callback_of_every_page_fails_once_and_is_seen(self, browser, site, failing):
        seen = set()
        for url in every_page():
            failing.clear()
            browser.get(site + url)
            find(browser, "main")
            callbacks = wait_for(browser, lambda driver: driver.execute_script(ON_THIS_PAGE))
            failing.append(RuntimeError(THROWN))
            for callback in callbacks:
                if callback["output"] in seen:
                    continue
                browser.execute_script(FAIL, callback, THROWN)
                wait_for(browser, lambda driver: any(THROWN in said for said in driver.execute_script(NOTICES)))
                seen.add(callback["output"])
        failing.clear()
        everything = browser.execute_script("return dash_stores[0].getState().dependenciesRequest.content")
        missed = {one["output"] for one in everything} - seen
        assert {output for output in missed if not re.search("_pages_(content|dummy)", output)} == set() and len(seen) > 15
        assert all(THROWN in problem for problem in problems(browser))

    def test_what_throws_outside_of_callbacks_is_seen(self, browser, site):
        browser.get(site + urls.FRONTIER)
        find(browser, "main")
        add = "const script = document.createElement('script'); script.textContent = arguments[0]; document.head.append(script);"
        browser.execute_script(add, "setTimeout(() => { throw new Error('<b>loose</b>'); })")
        wait_for(browser, lambda driver: any("<b>loose</b>" in said for said in driver.execute_script(NOTICES)))
        browser.execute_script(add, "Promise.reject(new Error('promised'))")
        wait_for(browser, lambda driver: any("promised" in said for said in driver.execute_script(NOTICES)))
        problems(browser)

    @pytest.mark.slow
    def test_a_server_that_is_gone_is_told_until_it_is_back(self, browser, database):
        servers = []

        def serve(port):
            servers.append(make_server("127.0.0.1", port, create_app(database).server, threaded=True))
            threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
            return servers[-1].port

        def stop():
            servers[-1].shutdown()
            servers[-1].server_close()

        port = serve(0)
        browser.get(f"http://127.0.0.1:{port}{urls.FRONTIER}")
        find(browser, "main")
        stop()
        click = "[...document.querySelectorAll('a.place')].find(link => link.textContent === 'Overview').click()"
        browser.execute_script(click)
        wait_for(browser, lambda driver: any("no answer" in said for said in driver.execute_script(NOTICES)))
        serve(port)
        wait_for(browser, lambda driver: driver.execute_script(NOTICES) == [])
        browser.execute_script(click.replace("Overview", "Features"))
        find(browser, ".feature-link")
        leave(browser)
        stop()
        problems(browser)
