import dashboard_world as world
import pytest


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Path of the database of the made-up experiment; pages only read it."""
    return world.build(tmp_path_factory.mktemp("dashboards"))
