import shutil
from pathlib import Path

import browser as in_browser
import pytest
import visit
from worlds import capitals_experiment as world
from worlds import random_experiment, tables
from worlds.shared import made_once

from dashboards.jobs import Jobs

visit.opened(Path("no.duckdb"))  # Dash imports the pages of an app; from here on tests can


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Path of the database of the made-up experiment; pages only read it."""
    made = made_once(tmp_path_factory, "dashboards", world.build) / "cltdb.duckdb"
    return shutil.copy(made, tmp_path_factory.mktemp("dashboards") / made.name)  # a test keeps readers out for a moment


@pytest.fixture(scope="session")
def random_database(tmp_path_factory):
    """Path of the database of a random experiment, in which dictionaries were matched and isolation measured."""
    fill = lambda folder: random_experiment.build(folder / "cltdb.duckdb", folder / "artifacts", random_experiment.rows_of())  # noqa: E731
    return made_once(tmp_path_factory, "random", fill) / "cltdb.duckdb"


@pytest.fixture(scope="session")
def bare_database(tmp_path_factory):
    """Path of the database of a training alone."""
    root = tmp_path_factory.mktemp("bare")
    tables.load(root / "cltdb.duckdb", root, "train-key", world.dictionary_tables(world.DICT, "clt", scale=1.0))
    return root / "cltdb.duckdb"


@pytest.fixture
def within_app(database):
    """The functions of pages may ask for named queries."""
    with visit.client_of(database).application.app_context():
        yield


@pytest.fixture
def local(database, tmp_path):
    """A test client of an app that starts work."""
    return visit.opened(database, jobs=Jobs(tmp_path / "jobs", tmp_path))


@pytest.fixture(scope="session")
def site(database, tmp_path_factory):
    """Address of the pages over `database`, which start jobs in an empty project."""
    root = tmp_path_factory.mktemp("project")
    jobs = Jobs(root / "jobs", root)
    with in_browser.serving(database, jobs=jobs) as address:
        yield address
    jobs.close()


@pytest.fixture(scope="session")
def shared_chromium(tmp_path_factory):
    with in_browser.chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def browser(shared_chromium):
    """A Chromium on an empty page, 1280 pixels wide; after the test nothing has gone wrong in it or in a server (`browser.problems`)."""
    in_browser.set_width(shared_chromium, in_browser.WIDTH)
    yield shared_chromium
    problems = in_browser.problems(shared_chromium)
    in_browser.leave(shared_chromium)
    assert problems == []
