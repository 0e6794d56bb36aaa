"""What tests of the pages in headless Chromium share. One Chromium and one server serve all of them (fixtures `browser` and `site`).

A file of such tests begins with `pytestmark = browser.MARKS`. After each test the fixture `browser` looks at `problems`: what the console called an
error, what the server answered with 5xx, and callbacks that failed there. A test that provokes some reads them itself, which empties the list.
"""

import logging
import re
import shutil
import threading
from contextlib import contextmanager

import dash
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from werkzeug.serving import make_server
from worlds import capitals_experiment as world

from dashboards import ahead, urls
from dashboards.app import create_app

MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs Chromium and its driver"),
]
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,900", "--kiosk",  # which draws no window around pages
)  # fmt: skip
WIDTH = 1280
WAIT_S, POLL_S = 120, 0.03
EMPTY = "/empty"
"""A page of every server of `serving`."""
_server_errors = []  # "500 /path" of every answer of a server of `serving` that was an error of its own
_served = set()  # addresses of the servers of `serving`


@contextmanager
def serving(database, **options):
    """The address of a server of the pages over `database`, while the block runs. options: of `create_app`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = create_app(database, **options).server
    ahead.install(application)

    def watched(environ, start_response):
        if environ["PATH_INFO"] == EMPTY:
            start_response("200 OK", [("Content-Type", "text/html")])
            return [b"<link rel=icon href=data:,>"]

        def start(status, *rest):
            if status.startswith("5"):
                _server_errors.append(f"{status} {environ['PATH_INFO']}")
            return start_response(status, *rest)

        return application(environ, start)

    server = make_server("127.0.0.1", 0, watched, threaded=True)
    threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
    address = f"http://127.0.0.1:{server.port}"
    _served.add(address)
    try:
        yield address
    finally:
        _served.remove(address)
        server.shutdown()
        server.server_close()


@contextmanager
def chromium(profile):
    """A Chromium of its own, driven by selenium, while the block runs. profile: an empty folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def every_page():
    """An address of each page."""
    own = [page["path"] for page in dash.page_registry.values() if page["supplied_path"]]
    features = [(world.DICT, *key) for key in (world.CAPITALS, world.HOSTILE_FEATURE)]
    return [
        *own, urls.feature_url(*features[0]), urls.graph_url(world.GRAPH), urls.run_url("toy"),
        urls.compare_url(world.GRAPH, world.SECOND_GRAPH), urls.compare_features_url(*features), urls.STARRED,
    ]  # fmt: skip


def problems(driver):
    """What went wrong since the last call: errors of the console (failed requests are among them) and of the server."""
    console = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    server, _server_errors[:] = _server_errors[:], []
    return console + server


def leave(driver):
    """Leaves the page, which asks its server nothing more, for an empty one. It is the server's: so the next page has the same process of Chromium,
    with all scripts compiled, and takes half the time."""
    server, page = re.fullmatch(r"(\w+://[^/]+)?(.*)", driver.current_url).groups()
    if page not in (EMPTY, "about:blank"):
        driver.get(f"{server}{EMPTY}" if server in _served else "about:blank")


def wait_for(driver, condition):
    """What `condition(driver)` returns once that is true. An element that went while it was looked at is looked for again."""
    gone = (StaleElementReferenceException,)
    return WebDriverWait(driver, WAIT_S, poll_frequency=POLL_S, ignored_exceptions=gone).until(condition)


def find(driver, selector):
    """The elements of a CSS selector once there are some."""
    return wait_for(driver, lambda driver: driver.find_elements(By.CSS_SELECTOR, selector))


def text_of(driver, selector):
    """What the elements of a CSS selector show, joined: of a large part of a page far faster than an element's `text`, which looks at every style."""
    script = "return [...document.querySelectorAll(arguments[0])].map(element => element.innerText).join(' ')"
    return driver.execute_script(script, selector)


def set_width(driver, width):
    """Makes the page so wide, in CSS pixels."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def set_scheme(driver, scheme):
    """Makes the system's choice of colours `light` or `dark`."""
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
