"""The stages in order. Each is a folder with its settings (`settings.py`), its entry (`stage.py`) and its work.

A new stage is such a folder and a line here, where it belongs among the others: it may read what stands above it.
"""

from cltdb.activations.stage import STAGE as ACTIVATIONS
from cltdb.attribution.stage import STAGE as ATTRIBUTE
from cltdb.database.stage import STAGE as DATABASE
from cltdb.evaluate.stage import STAGE as EVALUATE
from cltdb.explain.stage import STAGE as EXPLAIN
from cltdb.groups.stage import STAGE as GROUPS
from cltdb.harvest.stage import STAGE as HARVEST
from cltdb.match.stage import STAGE as MATCH
from cltdb.model.stage import STAGE as MODEL
from cltdb.train.stage import STAGE as TRAIN

STAGES = {
    stage.name: stage for stage in (MODEL, ACTIVATIONS, TRAIN, EVALUATE, HARVEST, EXPLAIN, ATTRIBUTE, GROUPS, MATCH, DATABASE)
}
