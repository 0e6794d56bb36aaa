"""What a new stage takes: a folder, an entry in the table of stages, and where it has them a migration, queries and a page.

`tests/example_stages/` holds two: `letters`, with a section, a table, a metric, a query, a line at a run's end and a page, and `rescaled`,
which stands for stage model. They are laid over a copy of the sources; of the files that are there only the table of stages changes.
"""

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq
import pytest
from command_line import ROOT
from worlds import projects
from worlds.shared import made_once

from cltdb.engine.plan import plan
from cltdb.spec import load

EXAMPLE = ROOT / "tests/example_stages"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the sources with the stages of the example among the others."""
    folder = tmp_path_factory.mktemp("sources")
    for package in ("cltdb", "dashboards"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.pyc.*"))  # that are being written
    for path in EXAMPLE.rglob("*"):
        if path.is_file() and path.suffix in (".py", ".sql"):
            new = folder / path.relative_to(EXAMPLE)
            if new.parent.name == "schema":
                last = max(int(other.name[:4]) for other in new.parent.glob("[0-9]*.sql"))
                new = new.with_name(f"{last + 1:04d}_{path.name}")
            assert not new.exists(), f"{new}: the example may only add files"
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, new)
    table = folder / "cltdb/stages.py"
    text = table.read_text()
    imports = "from cltdb.letters.stage import STAGE as LETTERS\nfrom cltdb.rescaled.stage import STAGE as RESCALED\n\n\nSTAGES"
    text = (
        text.replace("\n\nSTAGES", f"\n{imports}", 1)
        .replace("MODEL, ", "MODEL, RESCALED, ", 1)
        .replace("DATABASE)", "LETTERS, DATABASE)", 1)
    )
    table.write_text(text)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project that this cltdb, without the example's stages, has run."""
    made = made_once(tmp_path_factory, "published [1]", projects.with_published)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("projects") / "project"))


SHOW = """
import sys
from pathlib import Path
from dashboards.app import create_app

app = create_app(Path("cltdb.duckdb"))
[page] = [page for page in __import__("dash").page_registry.values() if page["name"] == sys.argv[1]]
with app.server.app_context():
    print(page["path"], page["layout"]())
"""


class Done(NamedTuple):
    """What became of a command."""

    status: int
    out: str
    err: str


@contextmanager
def imported_from(sources, modules):
    """In the block, cltdb is that of `sources`; `modules`: {name: module}, those of it that were imported by now."""

    def taken_out():
        return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "cltdb"}

    own = taken_out()
    sys.modules.update(modules)
    sys.path.insert(0, str(sources))
    try:
        yield
    finally:
        sys.path.remove(str(sources))
        modules.update(taken_out())
        sys.modules.update(own)


@pytest.fixture(scope="module")
def command(sources, project):
    """Runs a command of the example's cltdb in the project. In this process, which has imported torch: another would take ten CPU seconds to."""
    modules = {}

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with chdir(project), redirect_stdout(out), redirect_stderr(err), imported_from(sources, modules):
            main = importlib.import_module("cltdb.__main__")
            assert Path(main.__file__).is_relative_to(sources)
            status = main.main([*arguments])
        return Done(status, out.getvalue(), err.getvalue())

    yield run
    modules["cltdb.database.instances"].close_instances()


def planned(command, *settings):
    done = command("plan", "published.yaml", "--json", *(word for each in settings for word in ("--set", each)))
    assert done.status == 0, done.err
    return {item["stage"]: item for item in json.loads(done.out)}


def test_a_spec_without_their_sections_plans_and_runs_as_before(command, project):
    before, found = {item.stage: item.key or None for item in plan(load(project / "published.yaml"))}, planned(command)
    assert {name: item["key"] for name, item in found.items()} == before and list(found) == list(before)
    assert {item["action"] for item in found.values()} == {"cached"}


def test_a_new_stage_has_its_section_table_metric_query_line_and_page(command, project):
    done = command("run", "published.yaml", "--set", "letters={top: 3}")
    assert done.status == 0, done.err
    rows = command("sql", "--query", "frequent_letters", "-p", "model_id=model", "--format", "json")
    letters = json.loads(rows.out)
    assert len(letters) == 3 and letters == sorted(letters, key=lambda row: (-row["tokens"], row["letter"]))
    assert f"most tokens begin with '{letters[0]['letter']}'" in done.out
    with duckdb.connect(str(project / "cltdb.duckdb"), read_only=True) as database:
        [n_tokens] = database.execute("SELECT count(*) FROM vocabulary").fetchone()
        [[share]] = database.execute("SELECT value FROM metrics WHERE stage = 'letters' AND name = 'letter_share'").fetchall()
        comment = "SELECT comment FROM duckdb_columns() WHERE table_name = 'letter_counts' AND column_name = 'tokens'"
        assert database.execute(comment).fetchall() == [("Tokens of the vocabulary that begin with it.",)]
    assert share == pytest.approx(sum(row["tokens"] for row in letters) / n_tokens)
    again = planned(command, "letters={top: 3}")
    assert {item["action"] for item in again.values()} == {"cached"} and list(again)[-2:] == ["letters", "database"]
    wrong = command("plan", "published.yaml", "--set", "letters={topp: 3}")
    assert wrong.status == 1 and "letters.topp" in wrong.err and "write 'top'" in wrong.err
    for option in ("--only", "--force"):
        without = command("run", "published.yaml", option, "letters")
        assert without.status == 1 and f"{option}: found letters, of which published has no section" in without.err


def test_a_finished_stage_is_continued_when_its_budget_is_raised(command, project):
    """From its units, and its new rows replace the old ones; also where the database comes later."""

    def settings(max_tokens):
        return "letters={top: 1000" + (f", max_tokens: {max_tokens}" if max_tokens else "") + "}"

    def counted():
        rows = command("sql", "SELECT letter, tokens FROM letter_counts ORDER BY letter", "--format", "json").out
        return {row["letter"]: row["tokens"] for row in json.loads(rows)}

    def expected(n):
        [table] = [project / "artifacts/model" / key / "tables/vocabulary" for key in [planned(command)["model"]["key"]]]
        strings = [string for path in sorted(table.glob("*.parquet")) for string in pq.read_table(path)["string"].to_pylist()]
        return Counter(string.strip()[:1].lower() for string in strings[:n] if string.strip()[:1].isalpha())

    def ran(max_tokens, *options):
        done = command("run", "published.yaml", "--set", settings(max_tokens), *options)
        assert done.status == 0, done.err

    ran(60)
    assert counted() == expected(60)
    [letters, database] = list(planned(command, settings(130)).values())[-2:]
    assert letters["reason"] == "was ended by max_tokens 60, now 130"
    assert letters["action"] == database["action"] == "run"
    assert {item["action"] for item in planned(command, settings(40)).values()} == {"cached"}
    ran(130)
    assert counted() == expected(130) != expected(60)
    with duckdb.connect(str(project / "cltdb.duckdb"), read_only=True) as database:
        assert database.execute("SELECT count(*) FROM metrics WHERE artifact_key = ?", [letters["key"]]).fetchone() == (1,)
    ran(None, "--only", "letters")
    assert counted() == expected(130)
    assert planned(command, settings(None))["database"]["reason"] == "not in the database: 1 artifacts"
    ran(None)
    assert counted() == expected(None) and command("db", "check").status == 0
    assert {item["action"] for item in planned(command, settings(None)).values()} == {"cached"}


def test_its_page_is_in_the_navigation(sources, project):
    words, environment = [sys.executable, "-c", SHOW, "Letters"], {**os.environ, "PYTHONPATH": str(sources)}
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("/letters ") and "Li(" in done.stdout, done.stderr


def test_a_stage_that_stands_for_the_model_changes_it_for_all_later_ones(command, project):
    """The logits doubled: cross-entropy changes, what MLPs write and which token is likeliest do not; keys of all readers change."""
    plain, changed = planned(command), planned(command, "rescaled={factor: 2.0}")
    assert list(changed)[:2] == ["model", "rescaled"] and changed["model"] == plain["model"]
    assert not {item["key"] for item in plain.values()} & {changed[name]["key"] for name in changed if name != "model"} - {None}
    done = command("run", "published.yaml", "--set", "rescaled={factor: 2.0}", "--until", "evaluate")
    assert done.status == 0, done.err
    metrics = {}
    for name, stages in (("plain", plain), ("changed", changed)):
        folder = project / "artifacts/evaluate" / stages["evaluate"]["key"]
        rows = [row for path in folder.glob("tables/metrics/*.parquet") for row in pq.read_table(path).to_pylist()]
        metrics[name] = {row["name"]: row["value"] for row in rows if row["layer"] is None}
    assert metrics["changed"]["fvu"] == pytest.approx(metrics["plain"]["fvu"], rel=1e-5)
    assert metrics["changed"]["top1_agreement"] == pytest.approx(metrics["plain"]["top1_agreement"])
    assert abs(metrics["changed"]["ce_original"] / metrics["plain"]["ce_original"] - 1) > 1e-3
