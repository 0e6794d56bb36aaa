"""The database and the artifacts of a workspace: what of them it lacks, what is taken out of it, and how it is made anew."""

import logging
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from cltdb.annotations.log import all_events
from cltdb.database import load, publish
from cltdb.database.annotated import save_events
from cltdb.database.embeddings import n_missing
from cltdb.database.outdated import connect_to_ask
from cltdb.database.problem import Problem
from cltdb.database.rebuild import is_sound, rebuild
from cltdb.engine import integrity
from cltdb.engine.workspace import IMPORTS, INTERVENTIONS, MATCHES, Workspace, read_json
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
NAME = "database"
"""The stage whose artifacts say what was loaded."""
LOADED_FILE = "loaded.json"
BY_HAND = (IMPORTS, INTERVENTIONS, MATCHES)
"""Artifacts that no stage has made but a user's command."""
SPEC, LINK = itemgetter("experiment", "spec_hash"), itemgetter("experiment", "spec_hash", "stage", "key")
"""Of a run: its spec, and which artifact that used."""
MAKING = itemgetter("stage", "key", "started_at")
"""Of a run: which artifact it made, and when it began."""


def missing(project, inputs):
    """Why the database lacks something of these artifacts, {stage: (key, directory)}, or ""."""
    if not project.database.exists():
        return "the database file is gone"
    absent, is_stale = load.lacks(project.database, list(inputs.values()))
    if absent:
        return f"not in the database: {len(absent)} artifacts"
    if is_stale:
        return "tables that are made from others are not up to date"
    n_texts = n_missing(project.database)
    return f"{n_texts:,} texts of explanations are not embedded" if n_texts else ""


def restore(project, *, besides=()):
    """Makes a database that is gone anew, with all that was in it: also what other experiments, imports and interventions brought.
    besides: keys of artifacts that were made just now and do not tell that there was a database."""
    known = {stage for stage, key, _ in Workspace(project.workspace).artifacts() if key not in besides}
    if known & {NAME, *BY_HAND} and not project.database.exists():
        logger.info("%s is gone: it is made anew from the artifacts", project.database)
        for error in rebuild_database(project):
            logger.warning("not in the database: %s", error)


def bring_in(project, *artifacts):
    """Loads single artifacts, (key, directory) pairs, into the database, which is restored first where it is gone."""
    restore(project, besides=[key for key, _ in artifacts])
    bring_up_to_date(project, artifacts)


def bring_up_to_date(project, artifacts):
    """Loads what the database lacks of artifacts, (key, directory) pairs. The rows of one that was made again since are taken out first."""
    for key in load.made_again(project.database, artifacts):
        remove(project, key)
    load.load_artifacts(project.database, artifacts)
    save_annotations(project)


def save_annotations(project):
    """Brings what users made in the browser into the database, where there is one; returns whether there was anything to write."""
    if not project.database.exists():
        return False
    events, faults = all_events(project.workspace)
    for fault in faults:
        logger.warning("%s", fault)
    return save_events(project.database, events)


def asked_alone(directory, query):
    """What a named query answers to the rows of one artifact, whatever the database holds."""
    from cltdb.database import api

    with TemporaryDirectory() as folder:
        path = Path(folder) / "alone.duckdb"
        load.load_artifacts(path, [(directory.name, directory)])
        return api.open(path).query(query)


def remove(project, key):
    """Takes an artifact's rows out of the database (key None: of none), and brings in those that it lacks of all others. Returns whether it had any."""
    had_rows = False
    if project.database.exists():
        if key is not None:
            had_rows = key in load.known_artifacts(project.database)
            load.unload_artifact(project.database, key=key)
        artifacts = Workspace(project.workspace).artifacts()
        load.load_missing(project.database, [(other, place) for _, other, place in artifacts if other != key])
        save_annotations(project)
    return had_rows


def publish_records(project):
    """Brings experiments, run records, the metrics of unfinished trainings and what users made into the database, where there is one."""
    if project.database.exists():
        workspace = Workspace(project.workspace)
        publish.publish_records(project.database, workspace)
        publish.publish_unfinished(project.database, workspace)
        save_annotations(project)


def publisher(project, key):
    """What makes the metrics of an unfinished artifact visible in the database; called with its directory."""
    return publish.Publisher(project.database, key=key, workspace=project.workspace)


def rebuild_database(project):
    """Makes the database anew: every finished artifact, imports and interventions too, metrics of unfinished trainings, records.
    Returns the errors of damaged and lost artifacts, which it then lacks, and of what is wrong with it; the first is raised where there is a
    database that is whole."""
    workspace = Workspace(project.workspace)
    whole, damaged = _whole_artifacts(workspace)
    damaged += lost_artifacts(project)
    if damaged and is_sound(project.database):
        raise damaged[0]
    problems = rebuild(
        project.database,
        artifacts=whole,
        unfinished=workspace.unfinished("train"),
        experiments=workspace.experiment_records(),
        stage_runs=workspace.run_records(),
        events=all_events(workspace.root)[0],
    )
    return damaged + [
        CltdbError(str(project.database), found=line, expected="no problem", do="see `cltdb db check --full`")
        for line in problems
    ]


def _whole_artifacts(workspace):
    """((key, directory) of the finished artifacts that a database holds, errors of those whose rows are damaged)."""
    from cltdb.database.parts import artifact_parts

    whole, damaged = [], []
    for stage, key, directory in workspace.artifacts():
        if stage != NAME:
            try:
                integrity.require_whole(directory)
                for part in artifact_parts(directory):
                    integrity.checked(part.path)
                whole.append((key, directory))
            except CltdbError as error:
                damaged.append(error)
    return whole, damaged


def lost_artifacts(project):
    """The errors of artifacts that are gone from the workspace, while it has the record of their run and the database their rows."""
    workspace = Workspace(project.workspace)
    try:
        known = load.known_artifacts(project.database)
    except CltdbError:  # none, one that is damaged, or of an earlier cltdb
        return []
    runs = {(run["stage"], run["key"]) for run in workspace.whole_records()["stage_runs"] if run["key"] in known}
    places = [
        workspace.artifact(*run)
        for run in sorted(runs)
        if not workspace.is_finished(*run) and not workspace.partial(*run).is_dir()
    ]
    return [
        CltdbError(
            f"{place} (stage {place.parent.name})",
            found="no finished artifact there, while the database has its rows",
            expected="the artifact that they are from",
            do="restore it, or run its spec again, which makes it anew. Move the database away for one without these rows",
        )
        for place in places
    ]


def lost_records(project):
    """Problems of what the database has and the workspace has no whole record of: runs of its own, their experiments, and folders of what no run
    has made, such as imports (unless the database has runs of other machines, which may have brought them). Its own is a run that made one of
    its artifacts, as the manifest says; and one that alone tells, on a machine of its records, what an experiment of it used.
    """
    from cltdb.database.parts import timestamp

    workspace = Workspace(project.workspace)
    records, artifacts, made = workspace.whole_records(), workspace.artifacts(), set()
    for stage, key, directory in artifacts:
        with suppress(CltdbError):
            made.add((stage, key, timestamp(integrity.read_manifest(directory).get("started_at"))))
    with connect_to_ask(project.database) as connection:
        found = connection.execute("SELECT * FROM stage_runs ORDER BY run_id")
        runs = [dict(zip([column[0] for column in found.description], row, strict=True)) for row in found.fetchall()]
        loaded = [key for (key,) in connection.execute("SELECT artifact_key FROM loaded_artifacts ORDER BY ALL").fetchall()]
    known = {key for _, key, _ in artifacts} | {run["key"] for run in records["stage_runs"]}
    kept = {run["run_id"] for run in records["stage_runs"]}
    links, hosts = set(map(LINK, records["stage_runs"])), {run.get("host") for run in records["stage_runs"]}
    specs = set(map(SPEC, records["experiments"]))

    def is_own(run):
        alone_tells = SPEC(run) in specs and LINK(run) not in links
        return run["run_id"] in kept or MAKING(run) in made or alone_tells and run["host"] in hosts

    own = [run for run in runs if is_own(run)]
    lost = {
        "stage_runs": [{"run_id": run["run_id"]} for run in own if run["run_id"] not in kept],
        "experiments": [
            {"experiment": name, "spec_hash": spec} for name, spec in dict.fromkeys(map(SPEC, own)) if (name, spec) not in specs
        ],
        "loaded_artifacts": [
            {"artifact_key": key} for key in loaded if key not in known and kept.issuperset(run["run_id"] for run in runs)
        ],
    }
    return [
        Problem(table, len(rows), rows[0], f"files of each in {workspace.root}, without which a database made anew lacks it")
        for table, rows in lost.items()
        if rows
    ]


def loadable_artifacts(project):
    """(key, directory) of the finished artifacts that ought to be in the database: those it knows, inputs of its finished stages, imports,
    interventions."""
    artifacts = Workspace(project.workspace).artifacts()
    loaded = {key for stage, _, place in artifacts if stage == NAME for key in _loaded_keys(place)}
    loaded |= load.known_artifacts(project.database)
    return [(key, place) for stage, key, place in artifacts if key in loaded or stage in BY_HAND]


def _loaded_keys(directory):
    path = directory / LOADED_FILE
    return read_json(integrity.checked(path)).values() if path.is_file() else ()
