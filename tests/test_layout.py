"""Imports point upstream, the numeric core needs torch alone, everything that ships is packaged."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["model", "activations", "train", "evaluate", "harvest", "explain", "attribute"]


def imports(path):
    """Names of modules a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("stage", ORDER)
def test_a_stage_imports_no_later_one(stage):
    later = ORDER[ORDER.index(stage) + 1 :] + ["database", "runner", "stages", "__main__"]
    for path in (ROOT / "cltdb" / stage).rglob("*.py"):
        wrong = [
            name
            for name in imports(path)
            if any(name == f"cltdb.{other}" or name.startswith(f"cltdb.{other}.") for other in later)
        ]
        assert not wrong, f"{path}: {wrong}"


def test_the_database_needs_no_torch():
    for path in (ROOT / "cltdb/database").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "torch"], path


def test_the_numeric_core_imports_with_torch_alone():
    heavy = {"deepspeed", "duckdb", "dash", "litellm", "transformers", "datasets", "polars", "pyarrow"}
    core = ["model.transcoder", "model.sparse", "model.nonlinearity", "model.language_model", "train.loss", "train.module"]
    core += ["attribute.edges", "attribute.influence", "attribute.graph", "attribute.intervene"]
    imports = "\n".join(f"import cltdb.{module}; print('{module}', sorted({heavy} & set(sys.modules)))" for module in core)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{imports}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines() == [f"{module} []" for module in core], done.stdout + done.stderr


def test_every_folder_of_code_and_data_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "cltdb").rglob("*.py")}
    assert folders <= set(settings["packages"])
    data = {path.suffix for path in (ROOT / "cltdb/database").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == {".sql"}


def test_no_file_can_run_code_when_loaded():
    for path in [*(ROOT / "cltdb").rglob("*.py"), *(ROOT / "dashboards").rglob("*.py")]:
        text = path.read_text()
        assert not any(word in text for word in ("pickle.", "torch.load(", "yaml.load(", "yaml.unsafe")), path
        assert path.name == "yaml_text.py" or "yaml" not in imports(path), path
