"""What the README shows works as it stands there."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from command_line import ROOT, cltdb

from cltdb.__main__ import build_parser
from cltdb.engine.config import load

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name):
    """The text of the code block after `<!-- name -->`."""
    return re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", README, re.DOTALL).group(1)


@pytest.mark.parametrize("name", ["quickstart", "tests"])
def test_a_set_up_command_is_one_line_from_nothing(name):
    command = block(name)
    assert command.count("\n") == 1 and command.startswith("python3 -m venv .venv && .venv/bin/pip install -q torch==")


def test_its_commands_are_understood():
    commands = [shlex.split(line)[1:] for line in block("next").splitlines()]
    assert {build_parser().parse_args(command).command for command in commands} == {"sql", "attribute", "run", "dash"}


def test_its_spec_is_one(tmp_path):
    (tmp_path / "mine.yaml").write_text(block("spec"))
    assert load(tmp_path / "mine.yaml").experiment.explain.model == "cltdb-rules/v1"


def test_files_it_names_are_there():
    named = re.findall(r"`((?:cltdb|experiments|dashboards|tests)/[\w/.]*)`|\]\(([\w/.]+)\)", README)
    assert len(named) > 5
    assert [name for pair in named for name in pair if name and not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_the_quickstart_and_what_follows_it(tmp_path):
    """Three minutes on two cores: the shipped spec in a folder of its own, then the README's SQL and Python."""
    (tmp_path / "cltdb.yaml").write_text((ROOT / "cltdb.yaml").read_text())
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/quickstart.yaml").write_text((ROOT / "experiments/quickstart.yaml").read_text())
    first = cltdb(tmp_path, "run", "experiments/quickstart.yaml")
    assert first.returncode == 0, first.stderr
    for line in block("next").splitlines():
        command = shlex.split(line)[1:]
        if command[0] != "dash":
            done = cltdb(tmp_path, *command)
            assert done.returncode == 0 and done.stdout.strip(), (command, done.stderr)
    (tmp_path / "example.py").write_text(block("python"))
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
