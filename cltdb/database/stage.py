"""Stage `database`: the rows of all artifacts in one DuckDB file. Writes: that file, and `loaded.json`, the keys of what is in it."""

from cltdb.engine.stage import Gathering, Stage
from cltdb.engine.workspace import write_json


def run(job):
    from cltdb.database.artifacts import LOADED_FILE, bring_up_to_date
    from cltdb.database.embeddings import refresh_embeddings

    bring_up_to_date(job.project, [(job.input_keys[name], directory) for name, directory in job.inputs.items()])
    refresh_embeddings(job.project.database)
    write_json(job.directory / LOADED_FILE, job.input_keys)


def _of_artifacts(name):
    """The function `name` of `database.artifacts`, which is imported when it is called: duckdb takes a while."""

    def call(*arguments):
        from cltdb.database import artifacts

        return getattr(artifacts, name)(*arguments)

    return call


STAGE = Stage(
    "database",
    version=1,
    run=run,
    gathers=Gathering(
        missing=_of_artifacts("missing"),
        restore=_of_artifacts("restore"),
        bring_in=_of_artifacts("bring_in"),
        remove=_of_artifacts("remove"),
        publish=_of_artifacts("publish_records"),
        publisher=_of_artifacts("publisher"),
    ),
)
