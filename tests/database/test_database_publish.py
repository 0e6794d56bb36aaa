"""Metrics of a training that goes on: visible, never in the way, neither double nor lost whatever happens between."""

import logging
import os

import pytest
from command_line import PATIENCE_S
from worlds import tables
from worlds import tiny_experiment as world
from worlds.tables import contents

from cltdb.database.api import Database
from cltdb.database.check import check
from cltdb.database.load import load_artifact
from cltdb.database.publish import Publisher, publish_unfinished
from cltdb.database.rebuild import rebuild
from cltdb.database.store import exclusive
from cltdb.engine.workspace import Workspace, write_json, write_parquet

KEY, DICT = "cafe0123", "tiny-clt-cafe0123"


def piece(first, last, *, every=1):
    values = [(step, 1 / (1 + step)) for step in range(first, last + 1, every)]
    return tables.frame(tables.rows("step value", values, dict_id=DICT, stage="train", layer=None, name="loss"))


class Training:
    """Writes pieces as training does, and finishes."""

    def __init__(self, folder):
        self.workspace = Workspace(folder / "artifacts")
        self.directory = self.workspace.partial("train", KEY)
        self.database = folder / "cltdb.duckdb"

    def publisher(self):
        return Publisher(self.database, key=KEY, workspace=self.workspace.root)

    def write(self, first, last, **options):
        write_parquet(self.directory / f"tables/metrics/train-{last:08d}.parquet", piece(first, last, **options))
        return self.directory

    def finish(self):
        for name, rows in world.train_tables(DICT).items():
            if name != "metrics":
                write_parquet(self.directory / "tables" / name / "part.parquet", tables.frame(rows))
        self.workspace.finish_artifact("train", KEY, {"started_at": "2026-01-01T00:00:00+00:00"})
        load_artifact(self.database, key=KEY, directory=self.workspace.artifact("train", KEY))

    def steps(self):
        return Database(self.database).sql("SELECT step FROM metrics ORDER BY ALL")["step"].to_list()

    def same_as_rebuilt(self):
        before = contents(self.database)
        rebuild(
            self.database,
            artifacts=[(key, directory) for _, key, directory in self.workspace.artifacts()],
            unfinished=self.workspace.unfinished("train"),
            experiments=[],
            stage_runs=[],
        )
        return contents(self.database) == before


@pytest.fixture
def training(tmp_path):
    """A crowded machine takes longer than a training lets itself be kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cltdb.database.publish.BUDGET_S", PATIENCE_S)
        yield Training(tmp_path)


def test_pieces_are_visible_at_once_and_the_finished_database_equals_a_rebuilt_one(training):
    publish = training.publisher()
    for first, last in ((1, 3), (4, 6)):
        publish(training.write(first, last))
        assert training.steps() == list(range(1, last + 1))
        assert training.same_as_rebuilt()
    assert [p for p in check(training.database) if "models" not in p] == []
    training.write(7, 8)
    training.finish()
    assert training.steps() == list(range(1, 9)) and training.same_as_rebuilt()
    assert contents(training.database)["loaded_artifacts"] == [f"{{'artifact_key': {KEY}}}"]


def test_a_dictionary_is_not_visible_before_it_is_finished(training):
    write_parquet(
        training.write(1, 2) / "tables/dictionaries/part.parquet", tables.frame(world.train_tables(DICT)["dictionaries"])
    )
    training.publisher()(training.directory)
    assert training.steps() == [1, 2] and Database(training.database).dictionaries().is_empty()


def test_an_attempt_that_starts_anew_replaces_what_an_earlier_one_published(training):
    training.publisher()(training.write(1, 6, every=2))
    os.remove(training.directory / "tables/metrics/train-00000006.parquet")  # and with it the rest of the artifact
    training.publisher()(training.write(1, 3))
    assert training.steps() == [1, 2, 3]
    training.write(4, 6)  # as long as the earlier attempt's piece, but never published
    training.finish()
    assert training.steps() == [1, 2, 3, 4, 5, 6] and training.same_as_rebuilt()


def test_a_kill_between_piece_and_publication_is_made_up_for(training):
    training.publisher()(training.write(1, 3))
    training.write(4, 6)
    publish_unfinished(training.database, training.workspace)
    assert training.steps() == [1, 2, 3, 4, 5, 6]
    training.publisher()(training.directory)
    assert training.steps() == [1, 2, 3, 4, 5, 6] and training.same_as_rebuilt()


def test_a_kill_while_the_finished_artifact_is_loaded_is_made_up_for(training, monkeypatch):
    training.publisher()(training.write(1, 3))
    training.write(4, 6)
    from cltdb.database import load

    real = load.load_chunk

    def dies(connection, chunk, **options):
        if chunk.pieces[0].part.name == "metrics/train-00000006":
            raise KeyboardInterrupt
        return real(connection, chunk, **options)

    monkeypatch.setattr(load, "load_chunk", dies)
    monkeypatch.setattr("cltdb.database.parts.CHUNK_BYTES", 1)  # each piece by itself
    with pytest.raises(KeyboardInterrupt):
        training.finish()
    monkeypatch.undo()
    load_artifact(training.database, key=KEY, directory=training.workspace.artifact("train", KEY))
    assert training.steps() == [1, 2, 3, 4, 5, 6] and training.same_as_rebuilt()


def test_a_locked_database_delays_publication_and_says_so_once(training, caplog):
    publish = training.publisher()
    publish(training.write(1, 2))
    with exclusive(training.database), caplog.at_level(logging.WARNING, "cltdb"):
        for first in (3, 5):
            publish(training.write(first, first + 1))
    assert [record.message[:20] for record in caplog.records] == ["training goes on; it"]
    publish(training.directory)
    assert training.steps() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("what", ["text", "folder", "no room"])
def test_a_database_that_cannot_be_written_never_stops_training(training, what, caplog, monkeypatch):
    if what == "text":
        training.database.write_text("no database" * 1000)
    elif what == "folder":
        training.database = training.workspace.root / "a file" / "cltdb.duckdb"
        training.workspace.root.mkdir()
        (training.workspace.root / "a file").write_text("")
    else:
        monkeypatch.setattr("cltdb.database.store._open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    publish = training.publisher()
    with caplog.at_level(logging.WARNING, "cltdb"):
        publish(training.write(1, 2))
        publish(training.write(3, 4))
    assert len(caplog.records) == 1 and "training goes on" in caplog.text


def test_publishing_stops_when_its_time_is_up_and_goes_on_later(training, monkeypatch):
    for last in (1, 2, 3):
        training.write(last, last)
    publish = training.publisher()
    monkeypatch.setattr("cltdb.database.publish.BUDGET_S", 0.0)
    publish(training.directory)
    assert training.steps() == []
    monkeypatch.undo()
    publish(training.directory)
    assert training.steps() == [1, 2, 3]


def test_run_records_are_published_with_the_first_piece(training):
    training.workspace.save_experiment("tiny", "h", {"experiment": "tiny", "spec_hash": "h", "spec_yaml": "", "sweep": None})
    record = {
        **dict.fromkeys(("seconds", "host", "device", "error")), "run_id": "r", "experiment": "tiny", "spec_hash": "h", "stage": "train",
        "key": KEY, "status": "running", "started_at": "2026-01-01T00:00:00+00:00", "versions": {},
    }  # fmt: skip
    write_json(training.workspace.run_record_path("r"), record)
    training.publisher()(training.write(1, 2))
    [row] = Database(training.database).query("page_in_training").to_dicts()
    assert (row["dict_id"], row["experiment"], row["status"], row["step"]) == (DICT, "tiny", "running", 2)
