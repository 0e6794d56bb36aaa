import shutil
from pathlib import Path

import pytest
import visit
from worlds import capitals_experiment as world
from worlds.shared import made_once

visit.opened(Path("no.duckdb"))  # Dash imports the pages of an app; from here on tests can


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Path of the database of the made-up experiment; pages only read it."""
    made = made_once(tmp_path_factory, "dashboards", world.build) / "cltdb.duckdb"
    return shutil.copy(made, tmp_path_factory.mktemp("dashboards") / made.name)  # a test keeps readers out for a moment


@pytest.fixture
def within_app(database):
    """The functions of pages may ask for named queries."""
    with visit.client_of(database).application.app_context():
        yield
