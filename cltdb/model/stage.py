"""Stage `model`: loads the model once and writes what it is, with its vocabulary.

Writes: `model.json`, which later stages load the model from; tables `models` and `vocabulary`.
"""

from cltdb.engine import revisions
from cltdb.engine.stage import Stage
from cltdb.engine.workspace import write_json, write_parquet
from cltdb.model.settings import Model
from cltdb.model.source import (
    LANGUAGE_MODEL,
    MODEL_FILE,
    is_on_hub,
    language_model,
    model_content,
    model_standing,
    pinned_revision,
)


def run(job):
    import pyarrow as pa

    lm = language_model(job)
    facts = {
        "model_id": job.settings.id,
        "architecture": lm.architecture,
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "vocab_size": lm.vocab_size,
        "max_context": lm.max_context,
        "revision": lm.revision,
    }
    own = {
        "kind": LANGUAGE_MODEL,
        "path": job.settings.id,
        "mlp_input": lm.mlp_input,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "bos_token_id": lm.bos_token_id,
        "fingerprint": lm.fingerprint,
    }
    write_json(job.directory / MODEL_FILE, facts | own)
    strings = lm.token_strings()
    columns = {
        "model_id": [facts["model_id"]] * len(strings),
        "token": pa.array(range(len(strings)), pa.int32()),
        "string": strings,
    }
    write_parquet(job.directory / "tables/models/model.parquet", pa.Table.from_pylist([facts]))
    write_parquet(job.directory / "tables/vocabulary/vocabulary.parquet", pa.table(columns))


def pinned(experiment, project):
    revision = pinned_revision(experiment, project)
    return None if revision == experiment.model.revision else experiment.model.model_copy(update={"revision": revision})


def check(experiment, project):
    if is_on_hub(experiment, project):
        revisions.refuse_unknown(model_standing(experiment, project), experiment.model.id, where="model.id")


STAGE = Stage(
    "model",
    version=2,
    run=run,
    section=Model,
    identity=model_content,
    pinned=pinned,
    check=check,
    tables=("models", "vocabulary"),
)
