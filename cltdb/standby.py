"""`python -m cltdb.standby`: a process that has imported what work with a model needs, and waits to be told which command to run.

Of the seven CPU seconds of `cltdb intervene` on the quickstart, five are spent so. The arguments of `cltdb` come from stdin as one line of JSON. The
process ends where stdin ends, and when nobody wants it for STANDBY_S seconds.
"""

import json
import os
import select
import sys
from importlib import import_module

from cltdb.memory import without_garbage

STANDBY_S = 900
OF_WORK = (
    "cltdb.__main__", "cltdb.attribution.intervene", "cltdb.attribution.stage", "cltdb.attribution.run", "cltdb.attribution.tables",
    "cltdb.database.api", "cltdb.database.artifacts", "cltdb.database.stored_intervention", "cltdb.engine.run", "cltdb.model.source", "cltdb.model.loading",
    "cltdb.spec", "duckdb", "pandas", "polars", "pyarrow.parquet", "transformers.models.auto.modeling_auto",
    "transformers.models.gpt2.modeling_gpt2",  # which imports what all models share
)  # fmt: skip


def main():
    """Runs the command that stdin names; returns its exit status."""
    with without_garbage():
        for name in OF_WORK:
            import_module(name)
    import_module("cltdb.database.tables").arrow_schema(
        "interventions"
    )  # which reads the schema, for as long as an intervention takes
    if not select.select([sys.stdin], [], [], STANDBY_S)[0] or not (line := sys.stdin.readline()):
        return 0
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    return import_module("cltdb.__main__").main(json.loads(line))


if __name__ == "__main__":
    sys.exit(main())
