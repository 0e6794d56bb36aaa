"""The quickstart as it was: the keys of its stages and its tables in figures (tests/golden/quickstart.json).

A change that is to leave results alone leaves these alone. Where a stage's version rises, its key and those of the stages after it are
written anew, and the commit says why.
"""

import json
from pathlib import Path

import pytest
from command_line import ROOT, cltdb
from compare_databases import differences
from golden.summary import figures, machine, summary

from cltdb.engine.plan import plan
from cltdb.spec import load

GOLDEN = json.loads((Path(__file__).parent / "golden/quickstart.json").read_text())


def test_the_keys_of_the_quickstart_are_those_of_before():
    planned = plan(load(ROOT / "experiments/quickstart.yaml"))
    assert {item.stage: item.key for item in planned} == GOLDEN["keys"]


def rounded(tables, digits):
    """Numbers to so many digits, which sums of several threads share."""
    one = lambda value: float(f"{value or 0:.{digits}g}")  # noqa: E731
    return {
        table: {
            name: [one(value) for value in values] if isinstance(values, list) else values for name, values in columns.items()
        }
        for table, columns in tables.items()
    }


@pytest.mark.slow
def test_the_quickstart_gives_the_numbers_of_before(tmp_path):
    """On a machine of the processor of the golden figures all of them, to nine digits; elsewhere, where training takes another path in the last
    bits, what does not depend on it: the tables and their columns, text, model and feature counts."""
    (tmp_path / "cltdb.yaml").write_text((ROOT / "cltdb.yaml").read_text())
    (tmp_path / "quickstart.yaml").write_text((ROOT / "experiments/quickstart.yaml").read_text())
    done = cltdb(tmp_path, "run", "quickstart.yaml")
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path / "cltdb.duckdb")
    if machine() == GOLDEN["machine"]:
        assert rounded(found, 9) == rounded(GOLDEN["tables"], 9)
        assert figures(tmp_path / "cltdb.duckdb") == GOLDEN["figures"]
    assert {table: sorted(columns) for table, columns in found.items()} == {
        table: sorted(columns) for table, columns in GOLDEN["tables"].items()
    }
    for table in ("models", "vocabulary", "dictionaries"):
        assert found[table]["rows"] == GOLDEN["tables"][table]["rows"]
    assert found["features"]["rows"] == GOLDEN["tables"]["features"]["rows"]
    (tmp_path / "cltdb.duckdb").rename(tmp_path / "before.duckdb")
    assert cltdb(tmp_path, "db", "rebuild").returncode == 0
    assert differences(tmp_path / "before.duckdb", tmp_path / "cltdb.duckdb") == []
