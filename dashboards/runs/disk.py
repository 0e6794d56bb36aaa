"""What artifacts take on the disk, by their manifests: nothing is walked through but what is unfinished."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import flask

from cltdb.engine import integrity
from cltdb.engine.workspace import Workspace
from cltdb.errors import CltdbError
from dashboards.data import DATABASE
from dashboards.runs.underway import WORKSPACE

OTHERS = ("units", "runs", "experiments", "jobs", "annotations")
"""Folders of a workspace beside those of artifacts."""


class Usage(NamedTuple):
    """Bytes of each artifact by (stage, key), unfinished ones too, and of everything else in the workspace; what is free on its disk."""

    artifacts: dict
    others: dict
    free: int

    @property
    def total(self):
        """Bytes of the workspace."""
        return sum(self.artifacts.values()) + sum(self.others.values())


def here():
    """The `Usage` of the workspace of the app that answers; None where it knows of none."""
    root = flask.current_app.config.get(WORKSPACE)
    return usage(root, flask.current_app.config[DATABASE]) if root else None


def sizes(runs):
    """{(stage, key): bytes} of the finished artifacts of some runs, rows with `stage` and `key`; None where the app knows of no workspace."""
    root = flask.current_app.config.get(WORKSPACE)
    if not root:
        return None
    paths = {(row["stage"], row["key"]): Path(root) / row["stage"] / row["key"] for row in runs}
    return {artifact: _finished(path) for artifact, path in paths.items() if path.is_dir()}


def usage(root, database):
    """The `Usage` of a workspace and of the database that it fills."""
    root, workspace = Path(root), Workspace(root)
    finished = {(stage, key): _finished(path) for stage, key, path in workspace.folders() if stage not in OTHERS}
    unfinished = {(path.parent.name, path.stem): _walked(path) for path in root.glob("*/*.partial")}
    others = {name: _walked(root / name) for name in OTHERS if (root / name).is_dir()}
    if Path(database).is_file():
        others["database"] = Path(database).stat().st_size
    return Usage({**finished, **unfinished}, others, shutil.disk_usage(root).free if root.is_dir() else 0)


def _finished(path):
    try:
        files = integrity.read_manifest(path).get("files")
    except CltdbError:
        files = None
    return _walked(path) if files is None else sum(file["bytes"] for file in files.values())


def _walked(path):
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # it was removed meanwhile
                continue
    return total
