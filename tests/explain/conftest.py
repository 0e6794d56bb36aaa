import pytest
from worlds import planted


@pytest.fixture(scope="session")
def harvested(tmp_path_factory):
    """The folder of a harvest of planted features; tests only read it."""
    return planted.write_harvest(tmp_path_factory.mktemp("harvest"))
