"""A project of any size with the artifacts that its stages would have written, and its database, loaded as `cltdb run` loads it.

One experiment has a dictionary that was harvested, explained and used for graphs and groups; the points of a sweep have trained and evaluated
ones. Tables, parts, manifests and records of runs are as the stages write them. What only stages read (weights, pool windows) is left out. At
the default size: 1,000,000 features in 20 layers, about 19.6 million windows of 64 tokens in a text of 4 million, 17.1 million feature edges
and 2 million through attention heads, 4 million from tokens and positions, 10 million neighbours, profiles of 4 labels, 440,000 explained
features and 1.3 million requests for them, 200 graphs with 4 million edges and 20,000 paths, a vocabulary of 50,000. Smaller ones keep these
proportions; the text shrinks with the cube root, so that rare features still find places in it. Features fire on a few tokens each and promote
tokens of the same topic, which is also what their explanations name. The same arguments make the same rows, in any number of processes.

Rows of table token_features per live feature, of ten windows in band top each (2026-11-27), real ones beside those made here:

                                             fires_on  follows, of so many features
    synthetic                                     3.3       3.4  0.88
    mixed-gpt2, 6 x 1,024 features, trained       2.1       1.2  0.68     (of twenty windows 2.9, and 0.84 of 0.53)
    mixed-gpt2, 6 x 3,072, not trained: 7.9 and 0.3 of 0.23 (of twenty windows)
    the toy world, quickstart: 2.1 and 3.6 of 0.97 (of twenty windows)

So there are more than of real text, as many as of text that repeats itself: a goal that is reached here is reached there. Real ones are less evenly
spread: of natural text's rows of role follows ten tokens (comma, full stop, line break) have 72 %, here 7 %. promotes: 10 everywhere.

    python tests/benchmarks/synthetic_database.py FOLDER
    python tests/benchmarks/synthetic_database.py FOLDER --features 100000 --processes 2
"""

import argparse
import hashlib
import json
import multiprocessing
import platform
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks import synthetic_graphs, synthetic_groups, synthetic_harvest, synthetic_text, synthetic_weights, synthetic_words
from benchmarks.measured import cpu_s
from benchmarks.synthetic_results import evaluation, explain_tables, requests, training_curves

from cltdb.annotations.log import Log
from cltdb.annotations.operations import FEATURES
from cltdb.database.publish import publish_records
from cltdb.database.tables import arrow_schema
from cltdb.engine.records import versions
from cltdb.engine.stage import Job
from cltdb.engine.workspace import Workspace, digest, write_json, write_parquet
from cltdb.spec import find_project
from cltdb.stages import STAGES

VERSION = 6  # raised when other rows are made
PART_FEATURES = 8192  # as in cltdb.explain.explain
MODEL_ID, D_MODEL, MAX_CONTEXT = "synthetic/model", 768, 1024
N_ANNOTATED = 200
MADE = datetime(2026, 11, 1, tzinfo=UTC)
SETTINGS = "workspace: artifacts\ndatabase: {path: cltdb.duckdb}\n"
SPEC = """\
name: {name}
model: {{id: {model}}}
activations: {{text: [{{files: text.jsonl}}], context: {context}}}
train: {{kind: clt, activation: jumprelu, n_features: {n_features}}}
"""


@dataclass(frozen=True)
class Sizes:
    """Of an experiment. n_features: per layer; graph_features, graph_edges: per graph; explained_share: of all features, the densest."""

    n_layers: int = 20
    n_features: int = 50_000
    n_tokens: int = 4_000_000
    context: int = 256
    window: int = 64
    top: int = 10
    n_quantiles: int = 5
    per_quantile: int = 2
    dead_share: float = 0.02
    edges_per_feature: float = 17.1
    explained_share: float = 0.44
    baselines_every: int = 100
    n_graphs: int = 200
    graph_features: int = 500
    graph_edges: int = 20_000
    n_vocabulary: int = 50_000
    n_swept: int = 6

    @classmethod
    def of(cls, n_features, **changes):
        """The sizes for this many features in all layers."""
        share, n_layers = n_features / 1_000_000, 20 if n_features >= 2000 else 4
        smaller = {
            "n_layers": n_layers,
            "n_features": n_features // n_layers,
            "n_tokens": int(4_000_000 * share ** (1 / 3)),
            "n_graphs": max(2, round(200 * share)),
            "n_vocabulary": 50_000 if n_features >= 20_000 else 2000,
            "n_swept": 6 if n_features >= 2000 else 1,
            "graph_features": min(500, n_features // 8),
            "graph_edges": min(20_000, 4 * n_features),
        }
        return cls(**smaller | changes)


def make(folder, sizes, *, name="synthetic", seed=0, processes=1):
    """Writes the artifacts and records of an experiment and of a sweep into the project `folder`, which is made where it is not there; returns
    the keys of the artifacts, {stage: key} per experiment. What is finished there already stays."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "cltdb.yaml").exists():
        (folder / "cltdb.yaml").write_text(SETTINGS)
    workspace = Workspace(this_project(folder).workspace)
    points = [
        Experiment(workspace, sizes, f"{name}-sweep-{number}", seed, sweep=(f"{name}-sweep", {"train.l0": 8 * 2**number}))
        for number in range(sizes.n_swept)
    ]
    return [*(point.trained() for point in points), Experiment(workspace, sizes, name, seed).explained(processes)]


def this_project(folder):
    """The project in `folder`."""
    return find_project(folder)


def load(folder, keys):
    """Loads the artifacts of experiments, {stage: key} each, as their stage database does."""
    project = this_project(folder)
    workspace, stage = Workspace(project.workspace), STAGES["database"]
    publish_records(project.database, workspace)
    for of_experiment in keys:
        _load(project, workspace, stage, of_experiment)


def _load(project, workspace, stage, keys):
    key = digest(keys)
    directory = workspace.partial(stage.name, key)
    directory.mkdir(parents=True, exist_ok=True)
    inputs = {name: workspace.artifact(name, of_stage) for name, of_stage in keys.items()}
    stage.run(Job(stage, None, project, key, directory, inputs, keys))
    workspace.finish_artifact(stage.name, key, {"version": stage.version, "started_at": MADE.isoformat()})


class Experiment:
    """The artifacts of one experiment in a workspace."""

    def __init__(self, workspace, sizes, name, seed, sweep=(None, None)):
        self.workspace, self.sizes, self.name, self.keys = workspace, sizes, name, {}
        self.seed = int(digest([name, seed]), 16) % 2**31
        self.vocabulary = vocabulary(sizes.n_vocabulary)
        spec = SPEC.format(name=name, model=MODEL_ID, context=sizes.context, n_features=sizes.n_features)
        self.spec_hash = hashlib.sha256(spec.encode()).hexdigest()[:16]
        swept = {"sweep": sweep[0], "swept": sweep[1]}
        record = {"experiment": name, "spec_hash": self.spec_hash, "spec_yaml": spec, "created_at": MADE.isoformat()}
        workspace.save_experiment(name, self.spec_hash, record | swept)
        self.sweep_scale = 1 if sweep[1] is None else sweep[1]["train.l0"] / 32

    @property
    def dict_id(self):
        return f"{self.name}-clt-{self.keys['train'][:8]}"

    def trained(self):
        """Stages model, train and evaluate; returns the keys of all artifacts so far."""
        with self._artifact("model", digest(["model", self.sizes.n_vocabulary])) as write:
            words = {"model_id": MODEL_ID, "token": np.arange(len(self.vocabulary)), "string": self.vocabulary.strings}
            write("vocabulary", "vocabulary", words)
            write("models", "model", self._model())
        with self._artifact("train") as write:
            write("dictionaries", "dictionary", self._dictionary())
            curves = training_curves(self.sizes, self.sweep_scale, self._rng("train"))
            for steps in np.array_split(curves["step"].unique().sort().to_numpy(), 5):
                part = curves.filter(pl.col("step").is_between(steps[0], steps[-1]))
                write("metrics", f"train-{steps[-1]:08d}", {"stage": "train", **part.to_dict()})
        with self._artifact("evaluate") as write:
            rows = evaluation(self.sizes, self.sweep_scale, self._rng("evaluate"))
            write("metrics", "evaluate", {"stage": "evaluate", **rows.to_dict()})
        return self.keys

    def explained(self, processes=1):
        """All stages; returns the keys of all artifacts."""
        self.trained()
        others = {stage: self._key(stage) for stage in ("harvest", "explain", "attribute", "groups")}
        if all(self.workspace.is_finished(*one) for one in others.items()):
            return self.keys | others
        sizes = self.sizes
        text = synthetic_text.random_text(self.vocabulary, sizes.n_tokens, context=sizes.context, seed=self.seed)
        shape = {"n_layers": sizes.n_layers, "n_features": sizes.n_features, "dead_share": sizes.dead_share}
        traits = synthetic_harvest.random_traits(self.vocabulary, text, **shape, seed=self.seed)
        with self._artifact("harvest") as write:
            write.json("counts.json", {"tokens": text.tokens.size, "ordinary": text.n_ordinary, "excluded": {}})
            with in_processes(processes, _set_world, (self.vocabulary, text, traits)) as map_all:
                layer = partial(write_layer, write=write, sizes=sizes, seed=self.seed)
                used = np.logical_or.reduce(list(map_all(layer, range(sizes.n_layers))))
            write("pullback_overlaps", "overlaps", synthetic_weights.overlaps(traits, seed=self.seed))
            write("harvested_text", "sequences", synthetic_harvest.texts_with_windows(text, np.flatnonzero(used)))
        with self._artifact("explain") as write:
            self._explain(write, traits)
        with self._artifact("attribute") as write:
            rng = self._rng("attribute")
            for number in range(sizes.n_graphs):
                prompt_id = f"{self.name}-prompt-{number:04d}"
                facts = {
                    "dict_id": self.dict_id,
                    "model_id": MODEL_ID,
                    "prompt_id": prompt_id,
                    "prompt": f"a passage of {prompt_id}",
                }
                graph_id = f"{prompt_id}-{digest(prompt_id)[:8]}"
                of_graph = {"n_features": sizes.graph_features, "n_edges": sizes.graph_edges, "rng": rng}
                tables = synthetic_graphs.graph_tables(graph_id, facts, text=text, traits=traits, **of_graph)
                for table, columns in tables.items():
                    if columns:
                        write(table, graph_id, columns)
        with self._artifact("groups") as write:
            write.same["groups_id"] = f"{self.name}-groups-{self.keys['groups'][:8]}"
            for table, columns in synthetic_groups.tables(self.vocabulary, traits, self._rng("groups")).items():
                write(table, "groups", columns)
        self._annotate(traits)
        return self.keys

    def _annotate(self, traits):
        """Labels, notes and a list that a user made of features."""
        rng, log = self._rng("database"), Log(self.workspace.root, FEATURES, self.dict_id)
        layers, per_layer = traits.count.shape
        chosen = np.stack([rng.integers(0, layers, N_ANNOTATED), rng.integers(0, per_layer, N_ANNOTATED)], axis=1).tolist()
        words = list(synthetic_words.TOPICS)
        made = [{"op": "list-create", "id": "list", "list": "list", "name": "a list", "features": chosen}]
        for number, (layer, feature) in enumerate(chosen):
            op, about = ("label", "note")[number % 2], {"layer": layer, "feature": feature}
            made.append({"op": op, "id": f"{op}-{number}", "text": f"{words[number % len(words)]}, it seems", **about})
        log.append(made, author="somebody")

    def _explain(self, write, traits):
        """Parts of PART_FEATURES features each, the densest first."""
        rng, sizes = self._rng("explain"), self.sizes
        n = round(sizes.explained_share * traits.count.size)
        chosen = np.argsort(-traits.count.ravel(), kind="stable")[:n]
        token, topic = traits.tokens[..., 0].ravel()[chosen], traits.topic.ravel()[chosen]
        text = synthetic_words.explanations(self.vocabulary, token, topic, rng)
        layer, feature = np.divmod(chosen, sizes.n_features)
        explained, scores = explain_tables(layer, feature, text, every=sizes.baselines_every, rng=rng)
        for table, frame in (("explanations", explained), ("scores", scores), ("requests", requests(explained, scores, rng))):
            frame = frame.with_columns(part=pl.col("row") // PART_FEATURES)
            frame = frame.sort(
                "part", *(name for name in ("layer", "feature", "explainer") if name in frame), maintain_order=True
            )
            for (number,), rows in frame.drop("row").group_by("part", maintain_order=True):
                write(table, f"{number:05d}", rows.drop("part").to_dict())

    def _model(self):
        row = {
            "model_id": MODEL_ID,
            "revision": "main",
            "architecture": "gpt2",
            "n_layers": self.sizes.n_layers,
            "d_model": D_MODEL,
        }
        row |= {"vocab_size": len(self.vocabulary), "max_context": MAX_CONTEXT}
        return {name: [value] for name, value in row.items()}

    def _dictionary(self):
        sizes = self.sizes
        row = {"dict_id": self.dict_id, "experiment": self.name, "model_id": MODEL_ID, "revision": "main", "mlp_input": "normed"}
        row |= {"kind": "clt", "activation": "jumprelu", "n_layers": sizes.n_layers, "n_features": sizes.n_features}
        row |= {"d_model": D_MODEL, "path": f"train/{self.keys['train']}", "sha256": digest(self.name) * 4}
        return {name: [value] for name, value in row.items()}

    def _key(self, stage):
        return digest([stage, VERSION, self.name, self.seed, vars(self.sizes)])

    def _rng(self, stage):
        return np.random.default_rng([self.seed, 10 + list(STAGES).index(stage)])

    @contextmanager
    def _artifact(self, stage, key=None):
        """Within the block a `Writer` of this stage's parts; afterwards the artifact is finished. One that was finished before is written
        elsewhere and dropped, so that random numbers stay the same."""
        self.keys[stage] = key = key or self._key(stage)
        number = list(STAGES).index(stage)
        started = (MADE + timedelta(hours=number)).isoformat(timespec="milliseconds")
        facts = {
            "stage": stage,
            "key": key,
            "started_at": started,
            "host": platform.node(),
            "device": "cpu",
            "versions": versions(),
        }
        same = {"dict_id": self.dict_id} if "train" in self.keys else {}
        if self.workspace.is_finished(stage, key):
            yield Writer(None, same)
            return
        directory = self.workspace.partial(stage, key)
        directory.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        yield Writer(directory, same)
        about = {"version": STAGES[stage].version, "key_parts": {}, "experiment": self.name, "seed": 0}
        self.workspace.finish_artifact(stage, key, facts | about)
        run_id = f"{self.name}-{stage}-{key[:8]}-{''.join(filter(str.isdigit, started))}-{number:04d}"
        ended = {"status": "done", "seconds": time.perf_counter() - began, "error": None, "key_parts": {}, "work": None}
        ours = {"run_id": run_id, "experiment": self.name, "spec_hash": self.spec_hash}
        self.workspace.save_run(ours | facts | ended | {"pid": 0, "boot_id": ""})


class Writer:
    """Writes parts of an artifact; `same`: columns of one value, where the table has them. Without a directory nothing is written."""

    def __init__(self, directory, same):
        self.directory, self.same = directory, same

    def __call__(self, table, part, columns):
        if self.directory is None:
            return
        n = max(len(values) for values in columns.values() if not isinstance(values, str))
        schema = arrow_schema(table)
        columns = {name: value for name, value in self.same.items() if name in schema.names} | columns
        assert columns.keys() <= set(schema.names), f"{table} has no {sorted(columns.keys() - set(schema.names))}"
        arrays = {field.name: _array(columns[field.name], field.type, n) for field in schema if field.name in columns}
        write_parquet(self.directory / "tables" / table / f"{part}.parquet", pa.table(arrays))

    def json(self, name, value):
        if self.directory is not None:
            write_json(self.directory / name, value)


def _array(values, kind, n):
    if isinstance(values, str):
        return pa.array([values] * n, kind)
    if isinstance(values, pl.Series):
        return values.to_arrow().cast(kind)
    if isinstance(values, list):
        return pa.array(values, kind)
    return (values if isinstance(values, pa.Array) else pa.array(values)).cast(kind)


def vocabulary_of(folder):
    """How many tokens the model of a project has, which its further experiments share."""
    (part,) = Path(folder).glob("artifacts/model/*/tables/vocabulary/*.parquet")
    return pq.read_metadata(part).num_rows


@cache
def vocabulary(n):
    """The vocabulary of the one model that all experiments have."""
    return synthetic_words.vocabulary(n, seed=0)


# Harvest, a layer at a time


_world = None


def _set_world(*world):
    global _world
    _world = world


def write_layer(layer, *, write, sizes, seed):
    """Writes the parts of a layer; returns which sequences have a window [n_seqs]."""
    words, text, traits = _world
    used = np.zeros(len(text.tokens), dtype=bool)
    if write.directory is not None:
        part = f"layer-{layer:02d}"
        windows, *counts = synthetic_harvest.windows(text, traits, layer, sizes=sizes, seed=seed)
        used[windows["sequence"]] = True
        write("windows", part, windows)
        of_windows = dict(zip(("n_windows", "n_documents"), counts, strict=True))
        features = synthetic_harvest.features(words, text, traits, layer, **of_windows, seed=seed)
        profiles, of_labels = synthetic_weights.labels(text, traits, features["mean_activation"], layer, seed=seed)
        lens = synthetic_weights.lens(words, layer, sizes.n_features, seed=seed)
        write("features", part, features | of_labels | {"lens_logits": lens})
        write("feature_labels", part, profiles)
        edges = synthetic_harvest.feature_edges(traits, layer, per_feature=sizes.edges_per_feature, seed=seed)
        write("feature_edges", part, synthetic_weights.with_head_edges(edges, traits, layer, seed=seed))
        write("input_edges", part, synthetic_weights.inputs(words, layer, sizes.n_features, max_context=MAX_CONTEXT, seed=seed))
        write("feature_neighbours", part, synthetic_harvest.neighbours(traits, layer, seed=seed))
    return used


@contextmanager
def in_processes(n, set_world, world):
    """A `map` over n processes that share `world`; for one, the built-in."""
    if n == 1:
        set_world(*world)
        yield map
        return
    fresh = multiprocessing.get_context("spawn")  # a fork would lack the threads of polars
    with ProcessPoolExecutor(n, mp_context=fresh, initializer=set_world, initargs=world) as pool:
        yield pool.map


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, default=1_000_000, help="in all layers together (default 1,000,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no-load", action="store_true", help="write the artifacts alone")
    options = parser.parse_args()
    sizes = Sizes.of(options.features)
    before = cpu_s()
    keys = make(options.folder, sizes, seed=options.seed, processes=options.processes)
    say("artifacts", options.folder / "artifacts", cpu=cpu_s() - before)
    if not options.no_load:
        before = cpu_s()
        load(options.folder, keys)
        say("database", options.folder / "cltdb.duckdb", cpu=cpu_s() - before)


def say(what, path, *, cpu):
    """One line: CPU seconds that it took, peak memory of this process and its children so far, bytes on disk."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    print(json.dumps({"made": what, "cpu_s": round(cpu, 1), "peak_mb": round(peak), "mb": round(size / 1e6, 1)}), flush=True)


if __name__ == "__main__":
    main()
