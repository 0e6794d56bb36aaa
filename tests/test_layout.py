"""The numeric core needs torch alone, light commands none, everything that ships is packaged, no file can run code when loaded."""

import os
import re
import subprocess
import sys
from pathlib import Path

from test_rooms import light_modules
from worlds import dictionaries, models, projects

from cltdb.activations.sizes import known_sizes, model_sizes
from cltdb.database import store
from cltdb.model.loading import local_sizes

ROOT = Path(__file__).parent.parent


def test_the_numeric_core_imports_with_torch_alone():
    heavy = {"deepspeed", "duckdb", "dash", "litellm", "transformers", "datasets", "polars", "pyarrow"}
    core = [
        "model.transcoder",
        "model.sparse",
        "model.nonlinearity",
        "model.attention",
        "model.loading",
        "model.fit",
        "train.loss",
        "train.module",
    ]
    core += ["replacement.edges", "graphs.stored_graph", "attribution.graph", "attribution.intervene"]
    imports = "\n".join(f"import cltdb.{module}; print('{module}', sorted({heavy} & set(sys.modules)))" for module in core)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{imports}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines() == [f"{module} []" for module in core], done.stdout + done.stderr


def test_no_file_of_graphs_imports_torch():
    """Nor in a function: the browser draws graphs."""
    for path in (ROOT / "cltdb/graphs").glob("*.py"):
        assert not re.search(r"^\s*(import|from) torch", path.read_text(), re.MULTILINE), path


def test_every_folder_of_code_and_data_is_packaged():
    """setup.py takes the packages that setuptools finds, which have an `__init__.py`."""
    for path in [*(ROOT / "cltdb").rglob("*.py"), *(ROOT / "dashboards").rglob("*.py")]:
        assert (path.parent / "__init__.py").is_file(), path.parent
    data = {
        path.suffix
        for path in (ROOT / "cltdb/database").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert data == {".sql", ".txt"}


def test_no_file_can_run_code_when_loaded():
    for path in [*(ROOT / "cltdb").rglob("*.py"), *(ROOT / "dashboards").rglob("*.py")]:
        text = path.read_text()
        assert not any(word in text for word in ("pickle.", "torch.load(", "yaml.load(", "yaml.unsafe")), path
        assert path.name == "yaml_text.py" or not any(word in text for word in ("import yaml", "from yaml")), path


WITHOUT_TORCH = """
import sys
from cltdb import stages
from cltdb.engine import revisions
revisions.standing("model", "a/b", "main", where="here")
print("revisions", sorted({"torch", "transformers", "datasets", "sqlite3"} & set(sys.modules)))

import importlib
modules, specs = sys.argv[1].split(), sys.argv[2:]
print("light rooms", [name for name in modules if importlib.import_module(name) and "torch" in sys.modules])

import contextlib, io, json
from pathlib import Path
from cltdb.engine.plan import plan
from cltdb.__main__ import main
from cltdb.spec import load
from cltdb.engine.workspace import Workspace
import cltdb.database.stored_intervention

def heavy(what):
    found = sorted({"torch", "transformers", "deepspeed", "litellm", "datasets"} & set(sys.modules))
    print(what, found, flush=True)

def quiet(*command):
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(list(command)) == 0, command

from dashboards.app import create_app
create_app(Path("cltdb.duckdb"))
heavy("dash")
quiet("sql", "SELECT count(*) FROM features")
quiet("sql", "--query", "frontier", "-p", "sweep=none")
quiet("search", "word")
heavy("sql")
for spec in specs:
    quiet("plan", spec)
    quiet("plan", spec, "--json")
    workspace, loaded = Workspace("artifacts"), load(spec)
    for item in plan(loaded):
        if item.stage in ("model", "activations", "train") and item.key:
            workspace.partial(item.stage, item.key).mkdir(parents=True)
            workspace.finish_artifact(item.stage, item.key, {"experiment": loaded.experiment.name})
    assert "cached" in [item.action for item in plan(loaded)][:3]
    quiet("plan", spec)
    quiet("status", spec)
    heavy(spec)
"""


def test_light_rooms_and_asking_the_hub_and_sql_dash_and_plan_need_no_torch(tmp_path):
    """Plans of a local model, the toy model and a published dictionary, with nothing and with something cached."""
    models.saved(tmp_path / "model")
    dictionaries.random(info={"model_id": "model"}).save(tmp_path / "published")
    projects.write_texts(tmp_path / "text.txt", ["some words " * 100])
    rest = "activations: {text: [{files: [text.txt]}], context: 16, train_tokens: 64, heldout_tokens: 32}\n"
    rest += "explain: {model: cltdb-rules/v1}\nattribute: {prompts: [{text: some words}]}\n"
    trained, published = "{n_features: 16, l0: 4, batch_tokens: 16}", "{from: {format: cltdb, path: published}}"
    kinds = {"local": ("model", trained), "toy": ("toyworld", trained), "published": ("model", published)}
    specs = [f"name: {name}\nmodel: {{id: {model}}}\n{rest}train: {train}\n" for name, (model, train) in kinds.items()]
    projects.new(tmp_path, *specs)
    with store.connect(tmp_path / "cltdb.duckdb", write=True):
        pass
    specs = ["local.yaml", "toy.yaml", "published.yaml"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, " ".join(light_modules()), *specs],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said = ("revisions", "light rooms", "dash", "sql", *specs)
    assert done.stdout.splitlines() == [f"{what} []" for what in said], done.stdout + done.stderr


def test_the_sizes_a_plan_reads_are_those_that_transformers_reads(tmp_path):
    for architecture in models.ARCHITECTURES:
        models.saved(tmp_path / architecture, architecture)
        assert model_sizes(tmp_path / architecture) == local_sizes(tmp_path / architecture) == (2, 16)
    assert known_sizes("toyworld") == local_sizes("toyworld") and known_sizes("nobody/nothing") is None
    (tmp_path / "gpt2/config.json").write_text('{"model_type": "gpt2"}')
    assert model_sizes(tmp_path / "gpt2") is None and known_sizes(str(tmp_path / "gpt2")) == (12, 768)  # transformers' defaults


def test_no_path_of_a_parquet_file_is_a_glob():
    """polars and DuckDB take brackets in a path for a pattern unless they are told otherwise (`workspace.read_parquet`)."""
    for path in [*(ROOT / "cltdb").rglob("*.py"), *(ROOT / "dashboards").rglob("*.py")]:
        if path.name != "workspace.py":
            assert not any(word in path.read_text() for word in ("pl.read_parquet", "pl.scan_parquet")), path
