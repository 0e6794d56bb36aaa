from pathlib import Path

import pytest
import visit
from worlds import capitals_experiment as world

visit.opened(Path("no.duckdb"))  # Dash imports the pages of an app; from here on tests can


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Path of the database of the made-up experiment; pages only read it."""
    return world.build(tmp_path_factory.mktemp("dashboards"))


@pytest.fixture
def within_app(database):
    """The functions of pages may ask for named queries."""
    with visit.client_of(database).application.app_context():
        yield
