"""The experiment, composed of the sections of the stages, and the project it belongs to.

Each section stands in `cltdb/<stage>/settings.py` with the unit and default of every key (docs/spec.md lists them all). `load` reads
cltdb.yaml and a spec, lays one over the other and validates. Parsing is pure: nothing is opened but these files, nothing computed.
"""

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cltdb.database.settings import Database
from cltdb.engine import config
from cltdb.engine.experiment import Experiment as _Experiment
from cltdb.engine.experiment import composed
from cltdb.engine.section import Place, Section
from cltdb.errors import CltdbError
from cltdb.stages import STAGES


class Project(NamedTuple):
    """Where things are: the folder of cltdb.yaml, the workspace, the database file."""

    root: Path
    workspace: Path
    database: Path


class ProjectPaths(Section):
    """Where things are: what cltdb.yaml says beside defaults for every experiment."""

    workspace: Place = "artifacts"
    """The folder of every artifact, relative to cltdb.yaml."""
    database: Database = Database()
    """Where the database is, and what those who ask it may take."""

    def at(self, root):
        """The `Project` whose cltdb.yaml is in the folder `root`."""
        workspace = root / self.workspace
        there = next(path for path in (workspace, *workspace.parents) if os.path.exists(path))
        if not there.is_dir():
            raise CltdbError(
                f"{root / 'cltdb.yaml'}, workspace",
                found=f"{there}, which is a file",
                expected="a folder, which need not be there yet",
                do="name another one, or move the file",
            )
        return Project(root, workspace, root / self.database.path)


class Base(_Experiment):
    elsewhere = {"workspace": "write it in cltdb.yaml", "database": "write it in cltdb.yaml"}

    @property
    def device(self):
        """The device that everything is computed on, as the spec names it."""
        return self.model.device


Experiment = composed(STAGES, Base)


class ProjectFile(ProjectPaths, Experiment):
    """All keys of cltdb.yaml."""

    elsewhere = {}


SCHEMA = config.Schema(Experiment, ProjectFile, ProjectPaths)
load, load_points = partial(config.load, schema=SCHEMA), partial(config.load_points, schema=SCHEMA)
load_recorded = partial(config.load_recorded, schema=SCHEMA)
find_project = partial(config.find_project, schema=SCHEMA)
