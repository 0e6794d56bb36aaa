"""The commands of README and docs, run in a project in which a small `experiments/quickstart.yaml` has run.

Ids on the pages are those of the quickstart as it ships. Here they become those of the project, what is written becomes a new file, and
what is imported is exported before.
"""

import contextlib
import io
import re
import shutil
from pathlib import Path

import torch
from worlds import dictionaries, projects

import cltdb
from cltdb.__main__ import main
from cltdb.database.store import connect

SPEC = """
name: {name}
model: {{id: toyworld}}
activations: {{text: [{{toyworld: true}}], context: 32, train_tokens: 2000, heldout_tokens: 512}}
train: {{from: {{format: cltdb, path: dictionary}}}}
harvest: {{tokens: 2000}}
explain: {{features: {{limit: 4}}}}
attribute: {{prompts: [{{id: capital-of-france, text: The capital of France is}}], ablations: 1}}
"""
SIZES = {"n_layers": 4, "d_model": 128, "dtype": torch.float32, "least_threshold": 2.6}
DICT, GRAPH = re.compile(r"[\w-]+-(?:clt|plt)-[0-9a-f]{8}"), re.compile(r"\b(?:capital-of-france|france|spain)-[0-9a-f]{8}")
SUPERNODE = """
INSERT INTO supernodes BY NAME
SELECT 'by-hand' AS supernode_id, graph_id, $name AS name, [node_id] AS node_ids FROM nodes WHERE graph_id = $graph_id AND kind = 'feature' LIMIT 1
"""
FOR_FORMAT = {"saelens": "plt", "clt-forge": "hooked"}
"""Folders of dictionaries for formats that do not take every one."""
ELSEWHERE = {
    "dash": "tests/dashboards/ asks its pages, test_browser.py in a browser",
    "import circuit-tracer hf://": "a download needs the network",
    "run experiments/clt-vs-plt.yaml": "trains; planned here, in one point run by tests/engine/test_run_sweep.py",
}
"""How commands begin that are not run here, and where what they do is tested."""


def project(folder):
    """Fills `folder`; returns ({what stands on the pages: what it is here})."""
    dictionaries.random(n_features=72, **SIZES).save(folder / "dictionary")
    dictionaries.random(n_features=8, kind="plt", **SIZES).save(folder / FOR_FORMAT["saelens"])
    hooked = {"mlp_input": "normed", "input_hook": "ln2.hook_normalized"}
    dictionaries.random(n_features=8, info=hooked, **SIZES).save(folder / FOR_FORMAT["clt-forge"])
    projects.new(folder)
    for name in ("quickstart", "mine"):
        (folder / f"experiments/{name}.yaml").write_text(SPEC.format(name=name))
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(["run", "experiments/quickstart.yaml"]) == 0
    db = cltdb.open(folder / "cltdb.duckdb")
    scored = db.sql("SELECT layer || ':' || feature AS place FROM scores ORDER BY ALL LIMIT 1")["place"][0]
    return {"dict_id": db.dictionaries()["dict_id"][0], "graph_id": db.graphs()["graph_id"][0], "scored": scored}


def run(words, ids):
    """(exit status, stdout) of the words of a command, in the folder of the project."""
    words = adapted(words, ids)
    with contextlib.redirect_stdout(io.StringIO()) as printed, _supernode(words, ids["graph_id"]):
        return main(words), printed.getvalue()


@contextlib.contextmanager
def _supernode(words, graph_id):
    """Within the block the graph has the supernode that is named: features of a random dictionary are alike in nothing."""
    if "--supernode" not in words:
        yield
        return
    name = words[words.index("--supernode") + 1].partition("=")[0]
    with connect("cltdb.duckdb", write=True) as connection:
        connection.execute(SUPERNODE, {"graph_id": graph_id, "name": name})
    yield
    with connect("cltdb.duckdb", write=True) as connection:
        connection.execute("DELETE FROM supernodes WHERE supernode_id = 'by-hand'")


def adapted(words, ids):
    """The words as they are run here."""
    dict_id = next((FOR_FORMAT[word] for word in words if word in FOR_FORMAT), ids["dict_id"])
    words = [GRAPH.sub(ids["graph_id"], DICT.sub(dict_id, word)).replace("path/to/model", "toyworld") for word in words]
    if "-o" in words:
        target = Path(words[words.index("-o") + 1])
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
    if words[0] == "judged":
        words[words.index("--feature") + 1] = ids["scored"]
    if words[:2] == ["run", "experiments/clt-vs-plt.yaml"]:
        words = ["plan", *words[1:]]
    for place in (
        words[words.index("--from") + 1 :][:1] if "--from" in words else words[2:-2] if words[:2] == ["db", "merge"] else ()
    ):
        _offer_database(Path(place))
    if words[0] == "import":
        _offer(*words[1:3], dict_id, ids["graph_id"])
    return words


def _offer_database(place):
    """Puts a copy of the database where one is asked or merged, as a file or an exported folder."""
    if place.suffix == ".duckdb" and not place.exists():
        shutil.copy("cltdb.duckdb", place)
    elif not place.exists():
        assert main(["db", "export", "-o", str(place)]) == 0


def _offer(kind, path, dict_id, graph_id):
    """Writes what is imported."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()):
        if kind == "graph-json":
            assert main(["export", kind, graph_id, "-o", "offered"]) == 0
            shutil.move(next(Path("offered").rglob(f"{graph_id}*.json")), path)
            shutil.rmtree("offered")
        else:
            assert main(["export", kind, dict_id, "-o", path]) == 0
