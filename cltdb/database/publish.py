"""What a running experiment shows in the database: its run records, and the metrics of a training that goes on.

Training writes its metrics piece by piece to `<unfinished artifact>/tables/metrics/*.parquet` and changes no piece afterwards. A
`Publisher` loads them while training goes on. What it cannot load is loaded by its next call, at the end of the run or by the stage
`database`. Rows of an unfinished artifact are provisional: those of the finished artifact replace them all (load.py), so that no row is
there twice or lost.
"""

import logging

from cltdb.database.load import forget_provisional, load_artifact, save_records
from cltdb.engine.workspace import Workspace
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
WAIT_S = 0.2
"""Training waits at most this long for others to let go of the database."""
BUDGET_S = 1.0
"""After publishing this long, what is left is for the next call."""
PUBLISHED = "metrics"


class Publisher:
    """Makes a training's metrics visible while it runs; called with its directory, by one process, after each new piece.

    Training never fails because of the database: what keeps it from publishing is logged once.
    """

    def __init__(self, database, *, key, workspace):
        self.database, self.key, self.workspace = database, key, workspace
        self._begun = self._has_warned = False

    def __call__(self, directory):
        import duckdb

        try:
            if not self._begun:
                self._begin()
            load_artifact(self.database, key=self.key, directory=directory, table=PUBLISHED, wait_s=WAIT_S, budget_s=BUDGET_S)
        except (CltdbError, OSError, duckdb.Error) as error:
            if not self._has_warned:
                logger.warning("training goes on; its metrics are not in the database yet: %s", " ".join(str(error).split()))
            self._has_warned = True

    def _begin(self):
        """Takes out what an earlier attempt at this training had published, and shows that the stage runs."""
        forget_provisional(self.database, key=self.key, wait_s=WAIT_S)
        publish_records(self.database, Workspace(self.workspace), wait_s=WAIT_S)
        self._begun = True


def publish_records(database, workspace, *, wait_s=None):
    """Brings experiments and run records into the database."""
    save_records(database, experiments=workspace.experiment_records(), stage_runs=workspace.run_records(), wait_s=wait_s)


def publish_unfinished(database, workspace):
    """Brings the metrics of trainings that ended before they were finished into the database, as far as they can be read."""
    for key, directory in workspace.unfinished("train"):
        try:
            load_artifact(database, key=key, directory=directory, table=PUBLISHED)
        except CltdbError as error:
            logger.warning("the metrics of an unfinished training are not in the database: %s", error)
