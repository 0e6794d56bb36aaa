"""Commands that need no finished experiment, and what a command line that makes no sense is told."""

import argparse
import importlib
import logging
import os
import socket
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import ROOT, in_one_form
from worlds import dictionaries

import cltdb
from cltdb.__main__ import build_parser, main
from cltdb.commands import COMMANDS
from cltdb.commands.common import run_into_database
from cltdb.engine import run, yaml_text
from cltdb.engine.section import docstring
from cltdb.spec import Experiment, load
from cltdb.stages import STAGES


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_no_command_shows_the_help(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "cltdb run experiments/quickstart.yaml" in shown and "doctor" in shown


def test_a_path_that_cannot_be_is_named(capsys):
    dictionaries.random(dtype=torch.float32).save("mine")
    assert main(["export", "circuit-tracer", "mine", "-o", "mine/dictionary.json/there"]) == 1
    error = capsys.readouterr().err
    assert in_one_form(error) and "dictionary.json/there: found Not a directory" in error


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["rum"], "'rum'"),
        (["run"], "no SPEC"),
        (["run", "spec.yaml", "--until", "harvets"], "'harvets'"),
        (["sql"], "neither of QUERY and --query"),
        (["sql", "SELECT 1"], "cltdb.duckdb"),
        (["sql", "--query", "gone"], "gone"),
        (["db", "export"], "no -o"),
    ],
)
def test_a_command_line_that_makes_no_sense(arguments, word, capsys):
    assert main(arguments) == 1
    assert word in in_one_form(capsys.readouterr().err)


HEAVY = "pydantic yaml numpy torch pyarrow polars duckdb transformers datasets deepspeed litellm dash"
SHOW_HELP = """
import sys
from cltdb.__main__ import build_parser, main
build_parser()
for command in ([], ["sql", "--help"], ["export", "graph-json", "--help"]):
    main(command)
print("HEAVY", *(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_a_help_needs_no_heavy_module():
    """So `cltdb --help` takes a tenth of a second. Only the help of `run` reads the table of stages, for their names."""
    command = [sys.executable, "-c", SHOW_HELP, *HEAVY.split()]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.splitlines()[-1] == "HEAVY", done.stdout + done.stderr


def test_idle_threads_of_torch_sleep_unless_their_user_says_otherwise(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def parsers(parser):
    """A parser and all that stand beneath it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from (found for sub in action.choices.values() for found in parsers(sub))


def test_every_command_has_a_help_with_an_example():
    every = list(parsers(build_parser()))
    assert len(every) > 25
    for parser in every:
        shown = parser.format_help()
        assert "\nexample" in shown and f"  {parser.prog}" in shown, parser.prog
        assert all(action.help for action in parser._actions if not isinstance(action, argparse._SubParsersAction)), parser.prog


def test_the_stages_that_run_knows_are_those_of_the_table(capsys):
    assert main(["run", "--help"]) == 0
    assert ", ".join(STAGES) in " ".join(capsys.readouterr().out.split())
    assert all(build_parser().parse_args(["run", "spec.yaml", "--until", stage]).until == stage for stage in STAGES)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["export", "graph-json", "a-graph", "-o", "out"], "--packed"),
        (["export", "circuit-tracer", "a-dictionary", "-o", "out"], "--hook-normalized"),
        (["export", "feature-json", "a-dictionary", "-o", "out"], "--node-threshold"),
        (["import", "graph-json", "a.json"], "--model"),
        (["import", "saelens", "theirs", "-o", "out"], "--dictionary"),
        (["db", "rebuild"], "--artifacts"),
    ],
)
def test_an_option_of_another_format_or_action_is_refused_and_not_in_the_help(arguments, option, capsys):
    command = f"cltdb {arguments[0]} {arguments[1]}"
    assert main([*arguments, option, "x"]) == 1
    error = in_one_form(capsys.readouterr().err)
    assert error.startswith(f"error: {command}: found unrecognized arguments: {option}") and f"see {command} --help" in error
    assert main([*arguments[:2], "--help"]) == 0
    assert option not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["--debug db check", "db --debug check", "db check --debug"])
def test_debug_may_stand_anywhere(arguments):
    parsed = build_parser().parse_args(arguments.split())
    assert parsed.debug and parsed.command == "db" and not build_parser().parse_args(["db", "check"]).debug


def is_comment(line):
    return line.strip().startswith("#")


@pytest.mark.parametrize(
    ("section", "where"),
    [
        ("attribute: {prompts: {file: gone.jsonl}}", "attribute.prompts.file (GONE): found no such file"),
        ("groups: {prompts: {file: gone.jsonl}}", "groups.prompts.file (GONE): found no such file"),
        ("evaluate: {isolation: {facts: {file: gone.jsonl}}}", "evaluate.isolation.facts.file (GONE): found no such file"),
        ("evaluate: {text: [{files: [gone.jsonl]}]}", "evaluate.text.files: found no file that matches gone.jsonl"),
        ("harvest: {text: [{files: [gone.jsonl]}]}", "harvest.text.files: found no file that matches gone.jsonl"),
        (
            "explain: {labels: [{name: theirs, path: gone.jsonl, format: neuronpedia}]}",
            "explain.labels theirs path: found no file or folder gone.jsonl",
        ),
    ],
)
def test_a_plan_and_a_run_name_a_file_that_is_not_there_before_anything_is_made(section, where, tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(
        f"name: small\nmodel: {{id: toyworld}}\nactivations: {{text: [{{toyworld: true}}]}}\n{section}\n"
    )
    for command in ("plan", "run"):
        assert main([command, "small.yaml"]) == 1
        assert where.replace("GONE", str(tmp_path / "gone.jsonl")) in in_one_form(capsys.readouterr().err)
    assert not list(tmp_path.glob("artifacts/model/*"))


@pytest.mark.parametrize("template", ["quickstart", "gpt2", "llama", "gemma", "qwen"])
def test_init_writes_a_spec_that_loads_and_never_overwrites(template, tmp_path, capsys):
    assert main(["init", "mine", "--template", template]) == 0
    assert "cltdb plan experiments/mine.yaml" in capsys.readouterr().out
    spec = tmp_path / "experiments/mine.yaml"
    assert load(spec).experiment.name == "mine" and load(spec).project.root == tmp_path
    lines, written, said = spec.read_text().splitlines(), yaml_text.read_file(spec), set()
    for path, line in written.lines.items():
        place = tuple(part for part in path if isinstance(part, str))
        if path and isinstance(path[-1], str) and place not in said:
            comment = [text.strip(" #") for text in takewhile(is_comment, reversed(lines[: line - 1]))]
            assert " ".join(reversed(comment)).endswith(docstring(path, Experiment)), path
            said.add(place)
    assert len(said) > 20
    plain = ROOT / f"experiments/{template}.yaml"
    assert written.values == {**yaml_text.read_file(plain).values, "name": "mine"}
    assert lines[0] == plain.read_text().splitlines()[0]
    before = spec.read_bytes()
    assert main(["init", "mine"]) == 1
    assert "mine.yaml" in in_one_form(capsys.readouterr().err) and spec.read_bytes() == before


def test_doctor_looks_at_everything_a_run_needs(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert all(f"ok   {name}" in shown for name in ("torch", "deepspeed", "duckdb", "disk", "toy model"))


def test_dash_on_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["dash", "--port", str(other.getsockname()[1])]) == 1
    assert "Address already in use" in in_one_form(capsys.readouterr().err)


@pytest.mark.parametrize("first", [(), ("attribute", "intervene")])
def test_the_public_names_stay_what_they_are(monkeypatch, first):
    """Whatever was asked for first, each public name is the function or class it should be."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cltdb"]:
        monkeypatch.delitem(sys.modules, name)
    new = importlib.import_module("cltdb")
    assert new is not cltdb and all(callable(getattr(new, name)) for name in first)
    importlib.import_module("cltdb.attribution.run")
    assert set(new.__all__) <= set(dir(new)) and all(callable(getattr(new, name)) for name in new.__all__[1:])
    for name in [name for name in sys.modules if name.partition(".")[0] == "cltdb"]:
        del sys.modules[name]


def test_a_graph_made_by_a_command_comes_with_the_vocabulary_that_spells_its_tokens(monkeypatch):
    made = {name: Path("artifacts", name, f"{name}-key") for name in ("model", "train", "attribute")}
    results = [run.StageResult(name, "run", 1.0, directory) for name, directory in made.items()]
    monkeypatch.setattr(run, "run", lambda *args, **options: results)
    monkeypatch.setattr("cltdb.engine.plan.plan", lambda loaded: [])
    brought = []
    monkeypatch.setattr("cltdb.database.artifacts.bring_in", lambda project, *artifacts: brought.extend(artifacts))
    monkeypatch.setattr("cltdb.database.artifacts.publish_records", lambda project: None)
    loaded = SimpleNamespace(project=None, experiment=SimpleNamespace(needed=lambda stage: set()))
    assert run_into_database(loaded, "attribute") == made["attribute"]
    assert brought == [("model-key", made["model"]), ("attribute-key", made["attribute"])]


def test_attribute_can_be_called_by_its_public_name():
    lm = cltdb.load_model("toyworld", device="cpu")
    dictionary = dictionaries.random(n_layers=lm.n_layers, d_model=lm.d_model, dtype=torch.float32)
    graphs = [cltdb.attribute(lm, dictionary, "The capital of France is") for _ in range(2)]
    assert graphs[0].nodes.equals(graphs[1].nodes) and len(graphs[0].edges)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_command_says_on_a_terminal_which_stages_it_makes_first(is_terminal, monkeypatch):
    """Elsewhere the first line on stderr is the error."""
    monkeypatch.delenv("CLTDB_BARS", raising=False)
    said = []
    status = COMMANDS["status"]._replace(
        function=lambda _: said.append(logging.getLogger("cltdb.engine.run").isEnabledFor(logging.INFO))
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr("cltdb.commands.status.COMMAND", status)
    assert main(["status"]) == 0 and said == [is_terminal]


def test_status_of_nothing_says_how_to_start(capsys):
    assert main(["status"]) == 0
    assert "cltdb run SPEC" in capsys.readouterr().out
