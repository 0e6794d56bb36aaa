"""Projects on disk: cltdb.yaml, specs, texts, and a random model where a spec names one."""

import json
import re

from worlds import models


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


def documents(n):
    return [f"This is document {number} of many, and {number * number} is its square." for number in range(n)]


def write_texts(path, texts):
    """A file of documents, in the form that its name ends with: a line of JSON each, or paragraphs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}) for text in texts] if path.suffix == ".jsonl" else texts
    path.write_text(("\n" if path.suffix == ".jsonl" else "\n\n").join(lines))
    return path
