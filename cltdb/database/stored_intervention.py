"""Stores one intervention: as files in the workspace, so that a rebuilt database has it again, and in the database."""

from datetime import UTC, datetime

from cltdb.database.artifacts import bring_in
from cltdb.database.tables import arrow_schema
from cltdb.engine.workspace import INTERVENTIONS, Workspace, digest

VERSION = 3
"""Of what is stored of an intervention; 1 had neither probabilities nor texts, 2 not what was given."""


def store_intervention(project, outcome, *, name, dict_id, model_id, prompt, graph_id=None):
    """Brings an `Outcome` into the workspace and database of a project; returns its intervention_id: `name` and a hash of it and of what
    was done."""
    import pyarrow as pa

    assert all(hasattr(one, "feature") for one in outcome.settings), "added directions have no rows"
    settings = [one._asdict() for one in outcome.settings]
    predicted = any(frame["predicted"].count() > 0 for frame in (outcome.logits, outcome.features))
    done = [outcome.tokens, settings, outcome.mode, outcome.until_layer, graph_id, predicted]
    more = [outcome.constant_positions] if outcome.constant_positions > 1 else []
    without, changed = outcome.continuations or (None, None)
    more += [VERSION, without, changed, outcome.given]
    key = digest([name, dict_id, model_id, *done, *more])
    intervention_id = f"{name}-{key[:8]}"
    row = {
        "intervention_id": intervention_id,
        "graph_id": graph_id,
        "dict_id": dict_id,
        "model_id": model_id,
        "prompt": prompt,
        "tokens": list(outcome.tokens),
        "mode": outcome.mode,
        "until_layer": outcome.until_layer,
        "settings": settings,
        "given": list(outcome.given),
        "text_without": without,
        "text_with": changed,
        "created_at": datetime.now(UTC).replace(tzinfo=None),
    }
    effects = [{"intervention_id": intervention_id, **effect} for effect in _effects(outcome)]
    rows = {"interventions": [row], "intervention_effects": effects}
    frames = {table: pa.Table.from_pylist(rows[table], schema=arrow_schema(table)) for table in rows}
    directory = Workspace(project.workspace).store(INTERVENTIONS, key, frames, part=intervention_id, about={"version": VERSION})
    bring_in(project, (key, directory))
    return intervention_id


def _effects(outcome):
    last = len(outcome.tokens) - 1
    for row in outcome.logits.drop("string").iter_rows(named=True):
        yield {"kind": "logit", "position": last, **row}
    for row in outcome.features.iter_rows(named=True):
        yield {"kind": "feature", **row}
