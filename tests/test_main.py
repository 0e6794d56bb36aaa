"""Commands that need no finished experiment, and what a command line that makes no sense is told."""

import pytest
from command_line import in_one_form

from cltdb.__main__ import main
from cltdb.config import load


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_no_command_shows_the_help(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "cltdb run experiments/quickstart.yaml" in shown and "doctor" in shown


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["rum"], "'rum'"),
        (["run"], "spec"),
        (["run", "spec.yaml", "--until", "harvets"], "'harvets'"),
        (["sql"], "QUERY"),
        (["sql", "SELECT 1"], "cltdb.duckdb"),
        (["sql", "--query", "gone"], "gone"),
        (["db", "export"], "-o FOLDER"),
    ],
)
def test_a_command_line_that_makes_no_sense(arguments, word, capsys):
    assert main(arguments) == 1
    assert word in in_one_form(capsys.readouterr().err)


@pytest.mark.parametrize("template", ["quickstart", "gpt2", "llama", "gemma", "qwen"])
def test_init_writes_a_spec_that_loads_and_never_overwrites(template, tmp_path, capsys):
    assert main(["init", "mine", "--template", template]) == 0
    assert "cltdb plan experiments/mine.yaml" in capsys.readouterr().out
    spec = tmp_path / "experiments/mine.yaml"
    assert load(spec).experiment.name == "mine" and load(spec).project.root == tmp_path
    before = spec.read_bytes()
    assert main(["init", "mine"]) == 1
    assert "mine.yaml" in in_one_form(capsys.readouterr().err) and spec.read_bytes() == before


def test_doctor_looks_at_everything_a_run_needs(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert all(f"ok   {name}" in shown for name in ("torch", "deepspeed", "duckdb", "disk", "toy model"))


def test_status_of_nothing_says_how_to_start(capsys):
    assert main(["status"]) == 0
    assert "cltdb run experiments/quickstart.yaml" in capsys.readouterr().out
