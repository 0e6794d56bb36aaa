"""Pages of runs and SQL in a browser."""

import json
import os
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import MARKS, find, leave, serving, text_of, wait_for
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_runs_page import write_run
from worlds import capitals_experiment as world

from cltdb.engine import records
from cltdb.engine.workspace import Workspace
from dashboards import questions, urls
from dashboards.pages import sql
from dashboards.runs import live

pytestmark = MARKS
ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
HOSTILE = f"""SELECT layer, '{world.HOSTILE.replace("'", "''")}' AS "<b>x</b>.y" FROM features ORDER BY layer LIMIT 3"""


def asked(driver):
    return parse_qs(urlsplit(driver.current_url).query).get("q", [None])[0]


@pytest.fixture
def site_of_questions(database, monkeypatch):
    """(address, its `Questions`)."""
    made, kind = [], questions.Questions
    monkeypatch.setattr(questions, "Questions", lambda path: made.append(kind(path)) or made[-1])
    with serving(database) as address:
        yield address, made[0]
    made[0].close()


def test_a_question_is_written_asked_linked_and_left(browser, site_of_questions):
    site, running = site_of_questions
    browser.get(site + urls.sql_url(q=HOSTILE))
    wait_for(browser, lambda driver: "3 rows · 2 columns" in text_of(driver, f"#{sql.STATUS}"))
    wait_for(
        browser,
        lambda driver: world.HOSTILE[:20] in text_of(driver, ".ag-cell") and "<b>x</b>.y" in text_of(driver, ".ag-header"),
    )
    assert browser.title != "owned" and not browser.find_elements(By.CSS_SELECTOR, ".ag-cell img")
    editor = find(browser, f"#{sql.EDITOR}")[0]
    editor.send_keys(Keys.CONTROL, "a")
    editor.send_keys(Keys.DELETE, "SELECT count(*) AS n FROM feature_car")
    wait_for(browser, lambda driver: text_of(driver, "#sql-names") == "feature_cards")
    editor.send_keys(Keys.TAB)
    assert editor.get_property("value").endswith("FROM feature_cards") and browser.switch_to.active_element == editor
    find(browser, "#sql-find")[0].send_keys("decoder_norms")
    shown = wait_for(
        browser, lambda driver: [one for one in find(driver, "#sql-schema [data-insert=decoder_norms]") if one.is_displayed()]
    )
    editor.send_keys(" WHERE ")
    shown[0].click()
    assert editor.get_property("value").endswith(" WHERE decoder_norms")
    editor.send_keys(" IS NOT NULL", Keys.CONTROL, Keys.ENTER)
    wait_for(browser, lambda driver: "1 row · 1 column " in text_of(driver, f"#{sql.STATUS}"))
    assert asked(browser).endswith("WHERE decoder_norms IS NOT NULL") and text_of(browser, ".ag-header-cell-text") == "n"
    browser.back()
    wait_for(browser, lambda driver: "3 rows · 2 columns" in text_of(driver, f"#{sql.STATUS}"))
    assert find(browser, f"#{sql.EDITOR}")[0].get_property("value") == HOSTILE

    browser.get(site + urls.sql_url(q=ENDLESS))
    wait_for(browser, lambda driver: running._running and find(driver, f"#{sql.HALT}")[0].is_displayed())
    find(browser, f"#{sql.HALT}")[0].click()
    wait_for(browser, lambda driver: "stopped" in text_of(driver, f"#{sql.FAILURE}"))
    find(browser, f"#{sql.RUN}")[0].click()
    wait_for(browser, lambda driver: running._running)
    next(link for link in find(browser, "a.place") if link.text == "Frontier").click()
    wait_for(browser, lambda driver: not running._running)
    find(browser, ".frontier")
    leave(browser)  # before its server ends


def test_cards_follow_what_runs_and_stop(browser, database, tmp_path, monkeypatch):
    alive = {os.getpid()}
    monkeypatch.setattr(records, "is_alive", lambda record: record["pid"] in alive)
    monkeypatch.setattr(live, "REFRESH_MS", 150)
    workspace = tmp_path / "artifacts"
    record = write_run(workspace, "train")

    def say(done):
        said = {"label": "train", "total": 400, "unit": "steps", "done": done, "per_second": 2.0, "note": "fvu 0.2"}
        Workspace(workspace).report_path(record["run_id"]).write_text(json.dumps(said))

    say(100)
    with serving(database, workspace=workspace) as site:
        browser.get(site + urls.run_url("toy"))
        wait_for(browser, lambda driver: "100 of 400 steps" in text_of(driver, f"#{live.LIVE}"))
        say(300)
        wait_for(browser, lambda driver: "300 of 400 steps" in text_of(driver, f"#{live.LIVE}"))
        Workspace(workspace).save_run(record | {"status": "done", "seconds": 1.0})
        wait_for(browser, lambda driver: text_of(driver, f"#{live.LIVE}") == "")
        disabled = f"return dash_component_api.getLayout('{live.TICK}').props.disabled"
        assert not browser.execute_script(disabled)  # its process may begin another stage
        alive.clear()
        wait_for(browser, lambda driver: driver.execute_script(disabled))
        leave(browser)
