"""Projects on disk: cltdb.yaml, specs, texts, and a random model where a spec names one."""

import json
import re

import torch

from cltdb.engine.run import run
from cltdb.interchange import save_published
from cltdb.spec import load
from worlds import dictionaries, models

WITH_DICTIONARY = """
name: small
model: {id: toyworld}
activations: {text: [{toyworld: true}], context: 32}
train: {from: {format: cltdb, path: dictionary}}
"""
PUBLISHED = """
name: published
model: {id: model}
activations: {text: [{files: [text.jsonl]}], context: 16, train_tokens: 2000, heldout_tokens: 400}
train: {from: {format: circuit-tracer, path: theirs}}
harvest: {tokens: 2000, window: 8, pool_windows: 100}
attribute: {prompts: [{id: hello, text: hello}], check_edges: 20}
"""


def new(folder, *specs, settings="workspace: artifacts\n"):
    """`folder` as a project with these settings; each spec under the name that it gives itself (`name: tiny` is tiny.yaml)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cltdb.yaml").write_text(settings)
    for spec in specs:
        (folder / f"{re.search(r'^name: (.+)$', spec, re.M)[1]}.yaml").write_text(spec)
    return folder


def with_model(folder, *specs, n_documents=200, **sizes):
    """A project with a random model of these sizes in `model`, and the same short documents in text.jsonl and text.txt."""
    new(folder, *specs)
    models.saved(folder / "model", **sizes)
    for name in ("text.jsonl", "text.txt"):
        write_texts(folder / name, documents(n_documents))
    return folder


def with_dictionary(folder, sections, *, n_features=12, silent=()):
    """A project of the toy model whose spec `small`, with these further sections, begins at a random dictionary in `dictionary`.

    silent: (layer, feature) of those that never fire.
    """
    dictionary = dictionaries.random(activation="topk", k=2, n_layers=4, n_features=n_features, d_model=128)
    for feature in silent:
        dictionary.b_enc[feature] = -1e6
    dictionary.save(folder / "dictionary")
    return new(folder, WITH_DICTIONARY + sections)


def with_published(folder):
    """A finished project of a random model whose spec `published` begins at a circuit-tracer dictionary in `theirs`."""
    with_model(folder, PUBLISHED, n_documents=150)
    dictionary = dictionaries.random(dtype=torch.float32, info={"model_id": "their-name", "mlp_input": "normed"})
    dictionary.b_enc -= 0.8
    save_published(dictionary, "circuit-tracer", folder / "theirs")
    run(load(folder / "published.yaml"))
    return folder


def documents(n):
    return [f"This is document {number} of many, and {number * number} is its square." for number in range(n)]


def write_texts(path, texts):
    """A file of documents, in the form that its name ends with: a line of JSON each, or paragraphs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}) for text in texts] if path.suffix == ".jsonl" else texts
    path.write_text(("\n" if path.suffix == ".jsonl" else "\n\n").join(lines))
    return path
