"""The process that waits for a command with everything imported."""

import os
import sys

import pytest
from command_line import ROOT

from cltdb import standby


@pytest.fixture
def told(monkeypatch):
    """What `standby` returns when its stdin says this and ends."""

    def run(text):
        reading, writing = os.pipe()
        os.write(writing, text)
        os.close(writing)
        monkeypatch.setattr(standby, "OF_WORK", ())
        monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
        return standby.main()

    return run


def test_it_runs_the_command_that_it_is_told(told, capsys):
    assert told(b'["nothing"]\n') == 1 and "nothing" in capsys.readouterr().err


def test_it_ends_where_nobody_is_left_to_tell_it_and_where_nobody_does(told, monkeypatch):
    assert told(b"") == 0
    monkeypatch.setattr(standby, "STANDBY_S", 0)
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
    assert standby.main() == 0
    os.close(writing)


def test_what_it_imports_is_there():
    modules = [name for name in standby.OF_WORK if name.startswith("cltdb")]
    assert all((ROOT / f"{name.replace('.', '/')}.py").exists() for name in modules) and len(modules) > 5
