"""The commands of the README from nothing, and what follows the quickstart, in README and docs, on what it made."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys

import pytest
from benchmarks.search import ways
from command_line import ROOT, cltdb
from golden.summary import machine
from pages import commands_in, snippets
from test_golden import GOLDEN
from worlds import questions

from cltdb.__main__ import main
from cltdb.database import Database

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name):
    """The text of the code block after `<!-- name -->`."""
    return re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", README, re.DOTALL).group(1)


@pytest.mark.parametrize("name", ["quickstart", "tests"])
def test_a_set_up_command_is_one_line_from_nothing(name):
    command = block(name)
    assert command.count("\n") == 1 and command.startswith("python3 -m venv .venv && .venv/bin/pip install -q torch==")


def test_the_benchmark_of_search_knows_the_query():
    """Where it turns neighbours in meaning off."""
    assert len(ways(None)) == 5


@pytest.mark.slow
def test_the_quickstart_and_what_follows_it(tmp_path):
    """Three minutes on two cores: the shipped spec in a folder of its own, then what README and docs ask of it."""
    (tmp_path / "cltdb.yaml").write_text((ROOT / "cltdb.yaml").read_text())
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/quickstart.yaml").write_text((ROOT / "experiments/quickstart.yaml").read_text())
    first = cltdb(tmp_path, "run", "experiments/quickstart.yaml")
    assert first.returncode == 0, first.stderr
    ask, attribute, intervene, _ = (shlex.split(line)[1:] for line in block("next").splitlines())
    assert cltdb(tmp_path, *ask).stdout.count("\n") > 1
    printed = cltdb(tmp_path, *attribute).stdout
    path = re.search(r"Spain@4 → (\d+:\d+)@4 → Madrid@5", printed)
    if machine() == GOLDEN["machine"]:
        (shown, *_) = (text for page, text in snippets("text") if page == "docs/graphs.md")
        assert set(shown.splitlines()) <= {*printed.splitlines(), "     …"}
    changed = [re.sub(r"^\d+:\d+(?=@)", path[1], word) for word in intervene]  # on another kind of machine another number
    answers = re.findall(r"^with(?:out)?: '(\w+)'$", cltdb(tmp_path, *changed).stdout, re.MULTILINE)
    assert answers[0] == "Madrid" != answers[1]
    database, asked = Database(tmp_path / "cltdb.duckdb"), questions.CHOSEN_BY | questions.JUDGED_BY
    found = questions.answered(
        lambda text: database.search(text).select("layer", "feature").rows(), questions.strongest_windows(database), asked
    )
    missed = [text for text, right in found.items() if not any(right)]
    assert len(missed) <= 2, missed  # of twenty
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()):
        for page, text in snippets("sh"):
            for program, *words in commands_in(text):
                if (
                    program == "cltdb" and words[0] == "sql" and not {"-o", "--from"} & set(words)
                ):  # what files it writes or reads has tests of its own
                    assert main(words) == 0, (page, words)
    for number, (_, text) in enumerate(snippets("python")):
        (tmp_path / f"example{number}.py").write_text(text)
        subprocess.run(
            [sys.executable, f"example{number}.py"], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
