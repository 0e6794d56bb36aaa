import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import PATIENCE_S
from worlds import tiny_experiment as world
from worlds.tables import contents

from cltdb.database import folder, instances, interrupts, line, project, query, store
from cltdb.database.api import Database
from cltdb.database.check import read_all
from cltdb.database.export import export
from cltdb.database.load import load_artifact
from cltdb.database.project import database_section
from cltdb.database.rebuild import rebuild
from cltdb.database.settings import Database as DatabaseSettings
from cltdb.database.workbench import workbench
from cltdb.engine.config import project_section
from cltdb.engine.yaml_text import read_keys
from cltdb.errors import CltdbError

ROOT = Path(__file__).parents[2]


def test_every_table_view_and_column_has_a_comment(database):
    frame = Database(database).query("describe_tables")
    assert frame.filter(frame["comment"].is_null() | (frame["comment"] == "")).is_empty()
    assert {"feature_cards", "named_edges", "contexts"} <= set(frame["table"])


def test_migrations_are_applied_once_and_keep_comments(tmp_path, monkeypatch):
    path = tmp_path / "db.duckdb"
    with store.connect(path, write=True) as connection:
        assert store.apply(connection) == [] and store.applied(connection) == sorted(store.migrations())
    more = {
        **store.migrations(),
        "9999_more.sql": "ALTER TABLE models ADD COLUMN licence VARCHAR; COMMENT ON COLUMN models.licence IS 'Licence.'",
    }
    monkeypatch.setattr(store, "migrations", lambda: more)
    with pytest.raises(CltdbError, match="9999_more"), store.connect(path):
        pass
    with store.connect(path, write=True) as connection:
        assert store.applied(connection)[-1] == "9999_more.sql"
    test_every_table_view_and_column_has_a_comment(path)
    monkeypatch.undo()
    with pytest.raises(CltdbError, match="newer cltdb"), store.connect(path):
        pass


def test_who_asks_a_database_of_its_project_finds_it_brought_up_to_date(database, monkeypatch, caplog):
    """Another's database stays as it is, and so does one that others use."""
    before, explained = database.read_bytes(), Database(database).sql("FROM best_explanations ORDER BY ALL")
    assert explained.height
    later = (
        "ALTER TABLE models ADD COLUMN licence VARCHAR; DELETE FROM best_explanations;"
        "INSERT INTO stale_groups BY NAME SELECT DISTINCT 'best_explanations' AS derived, dict_id, layer, 0 AS next_feature, '' AS mark FROM features"
    )
    every = store.migrations() | {"9999_later.sql": later}
    monkeypatch.setattr(store, "migrations", lambda: every)
    with pytest.raises(store.Outdated, match="without 9999_later.sql; .* ask it once in its project"):
        Database(database).sql("FROM models")
    (database.parent / "cltdb.yaml").write_text("database: {path: cltdb.duckdb}")
    with (
        line.place_in_line(database, write=False, deadline=0),
        pytest.raises(store.Outdated, match="without 9999_later.sql, and .* other processes keep busy; .* then ask again"),
        folder.reading(database, timeout_s=0.1),
    ):
        pass
    with pytest.raises(store.Outdated), store.connect(database):
        pass
    assert database.read_bytes() == before and not caplog.messages
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda _: Database(database).sql("FROM models").columns[-1], range(4))]
    assert answers == ["licence"] * 4 and caplog.messages == [f"an earlier cltdb made {database}: it is brought up to date"]
    assert Database(database).sql("FROM best_explanations ORDER BY ALL").equals(explained)
    with workbench(one=database) as connection:
        assert connection.execute("SELECT max(name) FROM one.schema_migrations").fetchone() == ("9999_later.sql",)


BROUGHT_UP_TO_DATE = """
import os, signal, sys
from cltdb.database import Database, load, store
path, later, where = sys.argv[1:]
every, apply_one = store.migrations() | {"9998_later.sql": later, "9999_last.sql": "CREATE TABLE last_of_all (a INTEGER)"}, store._apply
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.migrations = lambda: every
if where == "before the last migration":
    store._apply = lambda connection, name, *more: kill() if name == "9999_last.sql" else apply_one(connection, name, *more)
elif where == "before anything is made anew":
    load.settle = kill
elif where == "as a writer leaves":
    with store.connect(path, write=True):
        pass
    kill()
elif where == "once it is made anew":
    load.refresh_words = kill
Database(path).sql("FROM models")
"""


@pytest.mark.parametrize(
    "where",
    ["before the last migration", "before anything is made anew", "as a writer leaves", "once it is made anew"],
)
def test_killed_as_it_is_brought_up_to_date_a_database_is_whole_for_the_next_who_asks(database, monkeypatch, where):
    explained = Database(database).sql("FROM best_explanations ORDER BY ALL")
    later = (
        "DELETE FROM best_explanations; INSERT INTO stale_groups BY NAME"
        " SELECT DISTINCT 'best_explanations' AS derived, dict_id, layer, 0 AS next_feature, '' AS mark FROM features"
    )
    (database.parent / "cltdb.yaml").write_text("database: {path: cltdb.duckdb}")
    command = [sys.executable, "-c", BROUGHT_UP_TO_DATE, str(database), later, where]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    every = store.migrations() | {"9998_later.sql": later, "9999_last.sql": "CREATE TABLE last_of_all (a INTEGER)"}
    monkeypatch.setattr(store, "migrations", lambda: every)
    assert store.behind(database).exists()
    assert Database(database).sql("FROM best_explanations ORDER BY ALL").equals(explained) and explained.height
    assert not store.behind(database).exists() and Database(database).sql("FROM stale_groups").is_empty()


def test_a_database_of_the_first_schema_keeps_its_rows_and_gets_the_new_columns(tmp_path):
    import duckdb

    path, first = tmp_path / "db.duckdb", min(store.migrations())
    with duckdb.connect(str(path)) as connection:
        connection.execute(store.migrations()[first])
        connection.execute("INSERT INTO schema_migrations VALUES (?, ?)", [first, store.now()])
        connection.execute("CREATE VIEW feature_cards AS SELECT * FROM features")
        connection.execute("INSERT INTO features (dict_id, layer, feature, density) VALUES ('d', 0, 1, 0.5)")
    with store.connect(path, write=True) as connection:
        assert store.apply(connection) == []
    [card] = Database(path).feature_cards("d").to_dicts()
    assert card["density"] == 0.5 and card["top_embeddings"] is None


def test_a_migration_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "db.duckdb"
    with store.connect(path, write=True):
        pass
    broken = {**store.migrations(), "9999_broken.sql": "CREATE TABLE half (a INTEGER); SELECT nonsense"}
    monkeypatch.setattr(store, "migrations", lambda: broken)
    with pytest.raises(Exception, match="nonsense"), store.connect(path, write=True):
        pass
    monkeypatch.undo()
    assert "half" not in set(Database(path).query("describe_tables")["table"])


def test_killed_while_it_is_made_a_database_is_not_there(tmp_path, monkeypatch):
    """Neither a file that DuckDB does not open, nor one without tables; what the killed process left aside is no hindrance."""
    path = tmp_path / "db.duckdb"
    (tmp_path / ".db.duckdb.new").write_bytes(b"half a header")
    with monkeypatch.context() as killed:
        killed.setattr(store.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), store.connect(path, write=True):
            pass
    assert not path.exists()
    with store.connect(path, write=True) as connection:
        assert store.apply(connection) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["db.duckdb", "db.duckdb.lock", "db.duckdb.turn"]


def test_a_database_that_another_program_has_open_is_said_to_be_so(database):
    held = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", held, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(CltdbError, match=f"another program has open .*PID {other.pid}.*close it there"):
            Database(database).dictionaries()
        other.stdin.close()
    assert Database(database).dictionaries().height


def test_a_missing_or_foreign_file_is_an_error_one_can_mend(tmp_path):
    with pytest.raises(CltdbError, match="cltdb run"), store.connect(tmp_path / "none.duckdb"):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text.duckdb").write_text("no database" * 1000)
    with pytest.raises(CltdbError, match="rebuild"), store.connect(tmp_path / "text.duckdb"):
        pass


@pytest.fixture(scope="module")
def asked(tiny, tmp_path_factory):
    """Path of a copy of the tiny experiment's database, alone in its folder, for questions alone."""
    return shutil.copy(tiny[1], tmp_path_factory.mktemp("asked") / "cltdb.duckdb")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO models (model_id, revision) VALUES ('a', 'b')",
        "UPDATE models SET n_layers = 1",
        "DELETE FROM models",
        "DROP TABLE models",
        "CREATE TABLE x (a INTEGER)",
        "ALTER TABLE models ADD COLUMN x INTEGER",
        "COPY models TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "IMPORT DATABASE '{folder}'",
        "ATTACH '{folder}/other.duckdb' AS other",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM read_parquet('{folder}/*.parquet')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '1GB'",
        "SET threads = 1",
        "SET enable_external_access = true",
        "PRAGMA enable_external_access",
        "RESET threads",
        "SELECT 1; DROP TABLE models",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        "SELECT getenv('HOME')",
        "SELECT * FROM read_blob('{database}')",
        """SELECT * FROM "read_text" /* x */ ('{database}')""",
        "WITH x AS (FROM system.main.GLOB('{database}')) FROM x",
        "SELECT 'é', * FROM query('FROM models')",
    ],
)
def test_queries_cannot_write_or_touch_files(asked, statement):
    Database(asked).sql("FROM models")
    before, files = asked.read_bytes(), set(asked.parent.iterdir())
    with pytest.raises(CltdbError) as caught:
        Database(asked).sql(statement.replace("{folder}", str(asked.parent)).replace("{database}", str(asked)))
    assert "\n" not in str(caught.value)
    assert asked.read_bytes() == before and set(asked.parent.iterdir()) == files


def test_a_reader_needs_no_write_permission(database):
    if os.getuid() == 0:
        command = ["setpriv", "--reuid=65534", "--clear-groups"]
        if subprocess.run([*command, "true"], capture_output=True).returncode:
            pytest.skip("cannot give up root here")
    else:
        command = []
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        _read_without_write_permission(Path(shutil.copy(database, folder)), command)


def _read_without_write_permission(database, command):
    script = f"from cltdb.database.api import open\nprint(open({str(database)!r}).sql('FROM models').rows())"
    for locks_exist in (True, False):
        if not locks_exist:
            for name in ("turn", "lock"):
                Path(f"{database}.{name}").unlink()
        else:
            Database(database).dictionaries()
        database.chmod(0o444)
        database.parent.chmod(0o555)
        done = subprocess.run(
            [*command, sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": "/tmp"},
        )
        database.parent.chmod(0o755)
        if "Permission denied" in done.stderr and "site-packages" in done.stderr:
            pytest.skip("the environment is not readable by others")
        assert "toy" in done.stdout, done.stderr


READER = """
import os, random, sys, time
from cltdb.database.store import connect
while not os.path.exists(sys.argv[2]):
    with connect(sys.argv[1]) as connection:
        print(*connection.execute("SELECT count(*) FROM metrics WHERE dict_id = 'w'").fetchone(), flush=True)
        time.sleep(random.uniform(0.05, 0.15))
"""


def test_a_writer_gets_in_among_four_readers(database, tmp_path, monkeypatch):
    """And they among themselves, after each that was written. There is hardly a moment in which none of them reads."""
    monkeypatch.setattr(line, "COURTESY_S", 0.1)
    command = [sys.executable, "-c", READER, str(database), str(tmp_path / "stop")]
    readers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    try:
        assert {reader.stdout.readline() for reader in readers} == {b"0\n"}
        for step in range(1, 5):
            with store.connect(database, write=True, timeout_s=PATIENCE_S) as connection:
                connection.execute(
                    "INSERT INTO metrics (dict_id, stage, step, name, value) VALUES ('w', 'train', ?, 'loss', 1)", [step]
                )
            for reader in readers:
                while int(reader.stdout.readline()) < step:
                    pass
    finally:
        (tmp_path / "stop").touch()
        for reader in readers:
            reader.communicate(timeout=PATIENCE_S)
    assert [reader.returncode for reader in readers] == [0] * 4 and Database(database).metrics("w").height == 4


@pytest.mark.parametrize(("courtesy_s", "is_let_in"), [(PATIENCE_S, True), (0, False)])
def test_a_writer_that_waits_lets_readers_in_for_a_while(database, monkeypatch, courtesy_s, is_let_in):
    monkeypatch.setattr(line, "COURTESY_S", courtesy_s)
    took, refused, waits = line.took, [], threading.Event()

    def noted(descriptor, kind, path):
        if not (got := took(descriptor, kind, path)):
            refused.append(kind)
            waits.set() if len(refused) == 2 else None  # the second time with the turn, or still without
        return got

    monkeypatch.setattr(line, "took", noted)
    with ThreadPoolExecutor(1) as pool:
        with store.connect(database):
            written = pool.submit(write_nothing, database)
            assert waits.wait(PATIENCE_S)
            if is_let_in:
                with store.connect(database):
                    assert not written.done()
            else:
                with pytest.raises(CltdbError, match="busy"), store.connect(database, timeout_s=0.05):
                    pass
        assert written.result(PATIENCE_S) == []


def write_nothing(path):
    with store.connect(path, write=True):
        return []


def test_threads_read_and_write_in_turn(database):
    errors, written = [], threading.Event()

    def reported(do):
        try:
            do()
        except Exception as error:  # whatever it is, the test reports it
            errors.append(error)
            written.set()

    def write():
        for _ in range(5):
            with store.connect(database, write=True) as connection:
                connection.execute("INSERT INTO metrics (dict_id, stage, step, name, value) VALUES ('w', 'train', 1, 'loss', 1)")
            time.sleep(0.02)
        written.set()

    def read():
        while not written.is_set():
            Database(database).dictionaries()

    threads = [threading.Thread(target=reported, args=(do,)) for do in [write, *[read] * 4]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and Database(database).metrics("w").height == 5


def test_readers_share_an_instance_that_is_kept_and_leaves_the_file_free(database, tmp_path):
    import duckdb

    copy = shutil.copy(database, tmp_path / "copy.duckdb")
    n_models = Database(copy).sql("SELECT count(*) FROM models").item()
    kept = instances._kept[False, None]
    with store.connect(copy) as one, store.connect(copy) as other:
        assert one.execute("FROM models").fetchall() == other.execute("FROM models").fetchall() and kept.n_users == 2
    with duckdb.connect(str(copy)) as foreign:  # another program, which dies before its rows are in the file proper
        foreign.execute("PRAGMA disable_checkpoint_on_shutdown; CREATE TABLE foreign_rows AS FROM range(3)")
    assert Path(f"{copy}.wal").exists() and Database(copy).sql("SELECT count(*) FROM foreign_rows").item() == 3
    assert instances._kept[False, None] is kept and kept.n_users == 0
    child = os.fork()
    if child == 0:  # which has none of the instance's threads
        os._exit(Database(copy).sql("SELECT count(*) FROM models").item() - n_models)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(CltdbError):
        Database(copy).sql("SELECT nope")
    assert (False, None) not in instances._kept
    assert Database(copy).sql("SELECT count(*) FROM models").item() == n_models
    assert Database(database).sql("FROM models").height == n_models and instances._kept[False, None].path == Path(database)


def in_another_process(database, sql):
    """Runs statements on the database with DuckDB alone, in a process of its own."""
    script = f"import duckdb; c = duckdb.connect({str(database)!r}); c.execute({sql!r}); c.close()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_that_stays_attached_is_free_for_others_whose_changes_are_seen(database, tmp_path):
    copy = Path(shutil.copy(database, tmp_path / "copy.duckdb"))

    def seen():
        with store.connect(copy) as connection:
            found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, 'more')").fetchall()
        return {name for (name,) in found}, instances._kept[False, None].file

    with instances.files_kept():
        (nothing, first), (again, same) = seen(), seen()
        assert nothing == again == set() and first is same
        in_another_process(copy, "CREATE TABLE more_1 AS FROM range(3)")
        assert seen()[0] == {"more_1"} and seen()[1] is not first
        in_another_process(copy, "PRAGMA disable_checkpoint_on_shutdown; CREATE TABLE more_2 AS FROM range(3)")
        assert Path(f"{copy}.wal").exists() and seen() == ({"more_1", "more_2"}, None)
        with store.connect(copy, write=True) as connection:  # a thread of this process
            assert instances._kept[False, None].file is None
            connection.execute("CREATE TABLE more_3 AS FROM range(3)")
        assert seen()[0] == {"more_1", "more_2", "more_3"} and seen()[1] is not None
        os.replace(shutil.copy(database, tmp_path / "another.duckdb"), copy)
        assert seen()[0] == set()
        in_another_process(copy, "CREATE TABLE more_4 AS FROM range(3)")
        child = os.fork()
        if child == 0:
            os._exit(seen()[0] != {"more_4"})
        assert os.waitpid(child, 0)[1] == 0 and seen()[0] == {"more_4"}
        with store.connect(copy) as connection:
            with pytest.raises(AssertionError, match="Conflicting lock"):
                in_another_process(copy, "CREATE TABLE more_5 AS FROM range(3)")
            assert connection.execute("FROM more_4").fetchall() == [(0,), (1,), (2,)]
        held = instances._kept[False, None].file
        with store.connect(copy) as connection:  # the lock is taken again, not only by the first
            assert instances._kept[False, None].file is held
            with pytest.raises(AssertionError, match="Conflicting lock"):
                in_another_process(copy, "CREATE TABLE more_5 AS FROM range(3)")
    assert instances._kept[False, None].file is None


def test_a_file_that_stays_attached_is_let_go_of_in_time_and_where_much_was_read(database, monkeypatch):
    monkeypatch.setattr(instances, "IDLE_S", PATIENCE_S)
    with instances.files_kept():
        for threads in (None, 1):
            with store.connect(database, threads=threads):
                pass
        kept = [instances._kept[False, threads] for threads in (None, 1)]
        assert all(one.file is not None for one in kept)
        monkeypatch.setattr(instances, "IDLE_S", 0.2)
        [timer] = instances._timers
        timer.cancel()
        timer.function()
        deadline = time.monotonic() + PATIENCE_S
        while any(one.file is not None for one in kept) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(one.file is not None for one in kept) and not instances._timers
        monkeypatch.setattr(instances, "KEPT_BYTES", 0)
        Database(database).sql("SELECT max(hash(COLUMNS(*))) FROM features")
        assert kept[0].file is None and instances._kept[False, None] is kept[0]


def test_questions_about_few_rows_have_an_instance_with_one_thread(database):
    """Of two in a process, one has the file: who comes while it is attached asks there."""

    def asked(connection):
        return connection.execute("SELECT current_setting('threads'), (SELECT count(*) FROM features)").fetchone()

    with store.connect(database) as connection:
        usual, n_features = asked(connection)
    with store.connect(database, threads=1) as few:
        one = instances._kept[False, 1]
        with store.connect(database) as other:
            assert (
                asked(few) == asked(other) == (1, n_features) and one.n_users == 2 and instances._kept[False, None].n_users == 0
            )
    with store.connect(database) as many, store.connect(database, threads=1) as other:
        assert asked(many) == asked(other) == (usual, n_features) and one.n_users == 0 and instances._kept[False, 1] is one
    with pytest.raises(CltdbError), Database(database).session(threads=1) as session:
        session.sql("SELECT nope")
    assert (False, 1) not in instances._kept and (False, None) in instances._kept


@pytest.mark.parametrize("stage", ["before_header", "before_truncate"])
def test_readers_read_a_file_whose_writer_was_killed_while_it_brought_its_log_into_it(database, stage):
    import duckdb

    killed = duckdb.connect()
    killed.execute(f"SET debug_checkpoint_abort = '{stage}'; ATTACH '{database}' AS db; CREATE TABLE db.more AS FROM range(3)")
    with pytest.raises(duckdb.Error, match="Checkpoint aborted"):
        killed.execute("DETACH db")
    killed.close()
    assert Path(f"{database}.wal").exists() and Database(database).sql("SELECT count(*) FROM more").item() == 3


@pytest.mark.parametrize("write", [True, False])
def test_an_instance_that_was_interrupted_while_it_opened_a_file_lets_go_of_it(database, write):
    class Interrupted:
        def __init__(self, connection):
            self.connection, self.close = connection, connection.close

        def execute(self, sql):
            self.connection.execute(sql)
            raise KeyboardInterrupt

    with store.connect(database, write=write):
        kept = instances._kept[write, None]
    kept.connection = Interrupted(kept.connection)
    with pytest.raises(KeyboardInterrupt), store.connect(database, write=write):
        pass
    for again in (write, not write):
        with store.connect(database, write=again) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM models").fetchone()[0]


def interrupted_in(connection):
    """Asks what does not end, until Ctrl-C comes."""
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    connection.execute("SELECT sum(i) FROM range(100000000000) AS t(i)")


def test_an_interrupt_within_a_query_is_an_interrupt(database, tmp_path, monkeypatch):
    before = contents(database)
    with pytest.raises(KeyboardInterrupt), store.connect(database, write=True) as connection, store.transaction(connection):
        connection.execute("DELETE FROM models")
        interrupted_in(connection)
    assert contents(database) == before
    export(database, tmp_path / "export")
    with pytest.raises(KeyboardInterrupt), workbench(exported=tmp_path / "export") as connection:
        interrupted_in(connection)
    one_thread = {**store.reader_config(database), "threads": 1}  # of several DuckDB may not notice the signal
    monkeypatch.setattr(store, "reader_config", lambda _: one_thread)
    with pytest.raises(KeyboardInterrupt), store.connect(database) as connection:
        interrupted_in(connection)
    folder._instance.cache_clear()
    with pytest.raises(KeyboardInterrupt), folder.reading(tmp_path / "export") as connection:
        interrupted_in(connection)


@pytest.mark.parametrize(
    "said", ["", "seed: 3", "database: {path: some/my_db.duckdb}", "database: {path: 'my db'}", "database: {threads: 2}"]
)
def test_a_plain_path_is_read_as_the_whole_section_is(tmp_path, said):
    (tmp_path / "cltdb.yaml").write_text(said)
    folder, section = database_section(tmp_path)
    _, whole = project_section(tmp_path, "database", DatabaseSettings)
    assert folder == tmp_path and section.search.embeddings is whole.search.embeddings is None
    for name in ("path", "memory_limit", "threads"):
        assert getattr(section, name) == getattr(whole, name)


@pytest.mark.parametrize("said", ["database: {path: 3}", "database: {path: }", "database: cltdb.duckdb", "database: {paht: x}"])
def test_what_is_wrong_with_the_section_is_said(tmp_path, said):
    (tmp_path / "cltdb.yaml").write_text(said)
    with pytest.raises(CltdbError, match="cltdb.yaml:1"):
        database_section(tmp_path)


def test_row_groups_of_small_loads_are_merged_with_each_other_alone(tmp_path, monkeypatch):
    path = tmp_path / "db.duckdb"
    monkeypatch.setattr(instances, "SMALL_ROW_GROUP", 4096)
    for n_rows in (13_000, 13_000, 1000, 1000, 1000, 1000, 1000):
        with store.connect(path, write=True, row_group=122_880 if n_rows > 4096 else None) as connection:
            connection.execute(
                "INSERT INTO metrics (dict_id, stage, step, name, value) SELECT 'd', 'train', range, 'loss', 1 FROM range(?)",
                [n_rows],
            )
    with store.connect(path) as connection:
        sizes = connection.execute(
            "SELECT sum(count)::INTEGER FROM pragma_storage_info('metrics') WHERE column_name = 'step' AND segment_type <> 'VALIDITY'"
            " GROUP BY row_group_id ORDER BY row_group_id"
        ).fetchall()
    (first,), (second,), *small = sizes
    assert first == second == 13_000 and sum(n for (n,) in small) == 5000 and len(small) < 5 and max(small) <= (4096,)


def test_writers_of_databases_share_an_instance_one_after_the_other(database, tmp_path):
    other = Path(shutil.copy(database, tmp_path / "other.duckdb"))
    insert = "INSERT INTO metrics (dict_id, stage, step, name, value) VALUES (?, 'train', 1, 'loss', 1)"
    with store.connect(database, write=True) as connection:
        connection.execute(insert, ["first"])
        kept = instances._kept[True, None]
    with store.connect(other, write=True) as connection:
        connection.execute(insert, ["other"])
        assert instances._kept[True, None] is kept and kept.path == other
        with store.connect(database, write=True) as at_once:  # as another thread may
            at_once.execute(insert, ["second"])
            assert instances._kept[True, None] is not kept
    written = [set(Database(path).sql("FROM metrics WHERE step = 1 AND name = 'loss'")["dict_id"]) for path in (database, other)]
    assert (
        written[0] >= {"first", "second"} and written[1] >= {"other"} and "other" not in written[0] and "second" not in written[1]
    )


def test_waiting_ends_with_an_error(database):
    with (
        store.connect(database, write=True),
        pytest.raises(CltdbError, match="busy"),
        store.connect(database, timeout_s=0.05),
    ):
        pass


def test_a_query_that_takes_too_long_is_ended(database):
    began = time.monotonic()
    with pytest.raises(CltdbError, match="longer than 0.2 s"):
        Database(database).sql("SELECT sum(i) FROM range(100000000000000) AS t(i)", timeout_s=0.2)
    assert time.monotonic() - began < PATIENCE_S
    assert Database(database).sql("SELECT 1 AS one", timeout_s=PATIENCE_S).item() == 1


def test_importing_the_database_is_quick_and_needs_no_torch():
    heavy = "{'torch', 'duckdb', 'polars', 'pyarrow', 'pydantic', 'yaml', 'hashlib', 'socket', 'cltdb.database.api'}"
    script = (
        "import sys, cltdb.__main__, cltdb.database.sql_command; from cltdb.database.project import project_settings as settings;"
        f" settings('cltdb.duckdb'); print(sorted({heavy} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout.strip() == "[]"


PLAIN, NOT_PLAIN = (
    (
        "",
        "workspace: artifacts\n",
        "# where\n\nworkspace: artifacts        # every artifact\ndatabase: {path: cltdb.duckdb}\nmodel: {device: auto}  # cuda\n",
        "database: {path: data/a-b_1.duckdb}",
        "database: {threads: a}",
    ),
    (
        "database:\n  path: a.duckdb\n",
        "database: {path: null}",
        "database: {path: yes}",
        "database: {path: 1.duckdb}",
        "database: {path: a.duckdb, threads: 2}",
        "database: word",
        "database: {path: a}\ndatabase: {path: b}",
        "model: auto\n  on: two lines",
        "name: é\ndatabase: {path: a}",
        "database: {path: a}\r\nmodel: {device: auto}",
        "? database\n: {path: a}",
        "a: &b c",
    ),
)


@pytest.mark.parametrize("text", PLAIN + NOT_PLAIN)
def test_a_plain_project_file_is_read_as_the_parser_reads_it(tmp_path, text):
    path = tmp_path / "cltdb.yaml"
    path.write_bytes(text.encode())
    said = project._plain_section(path)
    assert said == (read_keys(path).values.get("database", {}) if text in PLAIN else None)


ASK = """
import sys
from cltdb import __main__ as command_line
command_line.end_process = lambda: 0
for arguments in (["sql", "--list"], ["search", "France"], ["sql", "SELECT [1, 2] AS list, DATE '2020-01-02' AS day, 1.50::DECIMAL(3, 2) AS cost"],
                  ["sql", "SELECT nope"], ["sql", "SELECT [DATE '2020-01-02'] AS days"]):
    sys.argv = ["cltdb", *arguments, "--from", sys.argv[-1]]
    print("status", command_line.main(), *(name for name in ("_duckdb", "duckdb", "pyarrow") if name in sys.modules), flush=True)
"""


def test_a_command_that_gives_few_rows_imports_duckdb_s_compiled_part_alone(database):
    """Where it needs Arrow, as for a list of days, it imports the rest; where nothing is asked, none of it."""
    done = subprocess.run([sys.executable, "-c", ASK, str(database)], cwd=ROOT, capture_output=True, text=True)
    names, searched, listed, failed, days, _ = re.split(r"^status ", done.stdout, flags=re.MULTILINE)
    assert "feature_card" in names and searched.startswith("0\n") and "\ntiny-clt-0123abcd,0,1," in searched
    assert listed == '0 _duckdb\nlist,day,cost\n"[1, 2]",2020-01-02,1.5\n' and failed == "0 _duckdb\n"
    assert days == '1 _duckdb\ndays\n"[""2020-01-02""]"\n' and done.stdout.endswith("\nstatus 0 _duckdb duckdb pyarrow\n")
    assert 'error: sql: found Binder Error: Referenced column "nope"' in done.stderr


def test_duckdb_is_started_before_its_process_keeps_others_from_the_database(database, monkeypatch):
    started, place_in_line = [], store.place_in_line

    def noted(path, *, write, deadline):
        started.append(instances._kept.get((write, None)) is not None)
        return place_in_line(path, write=write, deadline=deadline)

    monkeypatch.setattr(store, "place_in_line", noted)
    instances.close_instances()
    assert instances._kept == {}
    for write in (False, True):
        with store.connect(database, write=write) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM features").fetchone() == (True,)
    assert started == [True, True]


def test_a_command_that_asks_ends_with_its_whole_answer_and_leaves_nothing(database, tmp_path):
    """Its process ends without freeing what it holds, but for what DuckDB has written to sort."""
    shutil.copy(database, tmp_path / "copy.duckdb")
    (tmp_path / "cltdb.yaml").write_text("database: {path: copy.duckdb, memory_limit: 100MB, threads: 1}\n")
    before = {*tmp_path.iterdir(), tmp_path / "copy.duckdb.turn", tmp_path / "copy.duckdb.lock"}
    statement = "SELECT i, repeat('x', 500) || i FROM range(200000) AS t(i) ORDER BY hash(i) LIMIT 2000 OFFSET 190000"
    command = [sys.executable, "-m", "cltdb", "sql", statement]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 2001)
    assert set(tmp_path.iterdir()) <= before


def test_sigterm_while_duckdb_works_ends_a_command_as_it_does_elsewhere(monkeypatch):
    """DuckDB makes an error of its own of what the handler raises."""
    import duckdb

    monkeypatch.setattr(interrupts, "_ended", threading.Event())
    before = signal.getsignal(signal.SIGTERM)
    interrupts.end_at_sigterm()
    try:
        with (
            duckdb.connect(config={"threads": 1}) as connection,
            pytest.raises(SystemExit, match="143"),
            interrupts.interrupts_raised(),
        ):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            connection.execute("SELECT count(*) FROM range(10000000000) AS a, range(1000) AS b").fetchall()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_errors_that_are_not_the_databases_own_pass_through(database):
    with pytest.raises(FileNotFoundError), query.ask(database, "SELECT 1"):
        open(database.parent / "no such file")


def flipped(path, *places):
    content = bytearray(Path(path).read_bytes())
    for place in places:
        content[place] ^= 1
    Path(path).write_bytes(content)


def cut_to(path, share):
    Path(path).write_bytes(Path(path).read_bytes()[: int(share * os.path.getsize(path))])


DAMAGE = {
    "magic": lambda path: flipped(path, 8),
    "main header": lambda path: flipped(path, 60),
    "first header": lambda path: flipped(path, 4110),
    "second header": lambda path: flipped(path, 8210),
    "a block": lambda path: flipped(path, 12_288 + 1000),
    "every block": lambda path: flipped(path, *range(12_288 + 50, os.path.getsize(path), 20_000)),
    "cut": lambda path: cut_to(path, 0.9),
    "half": lambda path: cut_to(path, 0.4),
    "header only": lambda path: cut_to(path, 4000 / os.path.getsize(path)),
    "empty": lambda path: cut_to(path, 0),
}


@pytest.fixture(scope="module")
def whole(tiny):
    """The content of the database before it is damaged."""
    return contents(tiny[1])


@pytest.fixture(scope="module")
def small(tiny, tmp_path_factory):
    """(artifacts, content of their database) of the model and the dictionary alone."""
    artifacts, path = tiny[0][:2], tmp_path_factory.mktemp("small") / "db.duckdb"
    assert rebuild(path, artifacts=artifacts, **world.RECORDS) == []
    return artifacts, contents(path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_one_line_that_says_rebuild_and_never_other_rows(
    database, whole, artifacts, small, damage, unproved
):
    """However it is read or written; DuckDB's blocks have checksums, so what it still answers is right. What is rebuilt has the rows of `small`, which
    was checked."""
    DAMAGE[damage](database)
    said = []
    for use in (
        lambda: contents(database),
        lambda: read_all(database),
        lambda: load_artifact(database, key="k", directory=artifacts[3][1]),
    ):
        try:
            found = use()
            assert found in (whole, None) or isinstance(found, int)
        except CltdbError as error:
            said.append(str(error))
    assert said and all(str(database) in line and "do this: run `cltdb db rebuild`" in line for line in said)
    rebuild(database, artifacts=small[0], **world.RECORDS)
    assert contents(database) == small[1]


def test_a_damaged_block_that_streams_into_an_answer_is_the_same_line(database):
    DAMAGE["every block"](database)
    for sql in ("SELECT * FROM contexts", "SELECT max(hash(COLUMNS(*))) FROM contexts"):
        with pytest.raises(CltdbError, match="damaged database.*`cltdb db rebuild`"), query.ask(database, sql) as reader:
            reader.read_all()


def test_a_query_may_speak_of_damage(database):
    with (
        pytest.raises(CltdbError, match="^sql: ") as error,
        query.ask(database, "SELECT error('Corrupt database file')") as reader,
    ):
        reader.read_all()
    assert "rebuild" not in str(error.value)


def test_migrations_have_unique_numbers():
    numbers = [int(name[:4]) for name in store.migrations()]
    assert numbers == sorted(set(numbers)) and numbers[0] == 1


def test_a_database_whose_migrations_had_other_numbers_opens_and_is_renumbered(database, tmp_path):
    """As released: two were number 3."""
    with store.connect(database, write=True) as connection:
        for before, now in store.RENAMED.items():
            connection.execute("UPDATE schema_migrations SET name = ? WHERE name = ?", [before, now])
    with store.connect(database) as connection:
        assert store.applied(connection) == sorted(store.migrations()) and set(store.RENAMED) <= set(store._recorded(connection))
    with store.connect(database, write=True) as connection:
        assert store.apply(connection) == [] and store._recorded(connection) == list(store.migrations())


def test_a_database_between_two_migrations_of_old_numbers_gets_the_rest(tmp_path):
    """It has 0003_imported_graphs.sql and lacks 0004_graph_curves.sql, as they were called."""
    path, names = tmp_path / "db.duckdb", list(store.migrations())
    with store._open(path, write=True) as (connection, _):
        for name in names[:4]:
            connection.execute(store.migrations()[name])
            recorded = {now: before for before, now in store.RENAMED.items()}.get(name, name)
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?)", [recorded, store.now()])
    with store.connect(path, write=True) as connection:
        assert store._recorded(connection) == names
    fresh = tmp_path / "fresh.duckdb"
    with store.connect(fresh, write=True):
        pass
    assert Database(path).query("describe_tables").rows() == Database(fresh).query("describe_tables").rows()
