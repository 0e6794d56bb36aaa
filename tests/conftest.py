import gc
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest

# In the background of a shell processes ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # torch's threads of all workers together: one per core
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each child process compiles what it imports of cltdb, up to a CPU second
sys.dont_write_bytecode = False  # and each worker all tests, nine of them
gc.set_threshold(20_000, 10, 10)  # Python need not look through the objects of torch and its like that often
gc.disable()  # until all tests are found
sys.path.insert(0, str(Path(__file__).parent))

IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 8 * 10**9
"""Four times what the folders of all tests take."""
if IN_MEMORY.is_dir() and min(psutil.disk_usage(IN_MEMORY).free, psutil.virtual_memory().available) > ROOM_BYTES:
    # DuckDB waits for the disk at each commit: 300 times in the 21 tests of test_database_load.py
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))

LONG = (
    "tests/test_pipeline.py",
    "tests/dashboards/test_walk.py",
    "tests/database/test_check.py",
    "tests/database/test_search.py",
    "tests/test_docs.py",
    "tests/dashboards/test_accessibility.py",
    "tests/dashboards/test_runs_browser.py",
    "tests/database/test_merge.py",
    "tests/interchange/test_graph_json.py",
    "tests/dashboards/test_groups_browser.py",
    "tests/database/test_database_queries.py",
    "tests/database/test_derived.py",
    "tests/database/test_database_store.py",
    "tests/dashboards/test_graph_drawing.py",
    "tests/engine/test_runner.py",
    "tests/dashboards/test_browser.py",
    "tests/train/test_parallel.py",
    "tests/database/test_annotated.py",
    "tests/dashboards/test_site.py",
    "tests/database/test_database_load.py",
    "tests/dashboards/test_labels_browser.py",
    "tests/database/test_embeddings.py",
    "tests/attribution/test_attribute_graph.py",
    "tests/match/test_match_stage.py",
    "tests/engine/test_spec_fuzz.py",
    "tests/dashboards/test_sql_page.py",
    "tests/commands/test_failures.py",
    "tests/database/test_export.py",
    "tests/train/test_train.py",
    "tests/dashboards/test_features_browser.py",
    "tests/commands/test_explain_command.py",
)
"""Files of ten CPU seconds and more, which begin first: at the end no process waits long for another."""

WITH_LITELLM = (
    "tests/test_pipeline.py",
    "tests/database/test_embeddings.py",
    "tests/commands/test_failures.py",
    "tests/commands/test_explain_command.py",
    "tests/explain/",
)
"""Files and folders whose tests import litellm and call it a first time, which takes ten CPU seconds: one process runs them all."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "with litellm" if nodeid.startswith(WITH_LITELLM) else super()._split_scope(nodeid)

    return Files(config, log)


def pytest_configure(config):
    if "loadscopereorder" in vars(config.option):  # by the number of tests, which says little of their time
        config.option.loadscopereorder = False
    if "not gpu" in config.option.markexpr or config.option.markexpr.startswith("browser"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # `device: auto` is the CPU, whatever the machine has


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(file) if (file := item.nodeid.split("::")[0]) in LONG else len(LONG))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch
        from worlds.device import INTERPRETED

        if not INTERPRETED and not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def _new_databases(tmp_path_factory):
    """Makes a new database of each schema once, which takes DuckDB 0.1 s; further ones are copies of the file."""
    from cltdb.database import store

    create, folder, made = store._create, tmp_path_factory.mktemp("new_databases"), {}

    def copied(path):
        schema = (*store.migrations().items(), store.views())
        if schema not in made:
            create(new := folder / f"{len(made)}.duckdb")
            made[schema] = new
        aside = shutil.copyfile(made[schema], path.with_name(f".{path.name}.new"))
        store.os.replace(aside, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_create", copied)
        yield


@pytest.fixture(scope="session", autouse=True)
def _loads_are_whole():
    """Nobody waits for a database that a test loads: it is let go of once, which takes DuckDB 20 ms, whatever else the machine does."""
    from cltdb.database import load

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "HOLD_S", 60)
        yield


@pytest.fixture(scope="session", autouse=True)
def _much_is_set_aside():
    """To count the objects that were imported takes 20 ms, and who checks a plan asks twice whether there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "get_freeze_count", lambda: 1)
        yield


@pytest.fixture(autouse=True)
def _log_as_before():
    """What the command line sets up for its log ends with the test."""
    logger = logging.getLogger("cltdb")
    before = logger.level, logger.handlers, logger.propagate, logging.raiseExceptions
    yield
    logger.setLevel(before[0])
    logger.handlers, logger.propagate, logging.raiseExceptions = before[1:]


@pytest.fixture
def unproved(monkeypatch):
    """A database that is rebuilt is not checked, which takes a third of the time: tests of the check, and some with it, do that."""
    monkeypatch.setattr("cltdb.database.rebuild.check", lambda *_, **__: [])


def pytest_collection_finish():
    """What was imported by now stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()
