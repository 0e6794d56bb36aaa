"""The harvest of a baseline dictionary: a unit of the workspace, which all artifacts that compare with the same baseline share."""

from dataclasses import replace
from typing import NamedTuple

from cltdb.activations.reading import reading_identity
from cltdb.engine.units import HARVESTS
from cltdb.engine.workspace import digest
from cltdb.explain.baselines import BASELINE_DICTIONARIES
from cltdb.explain.baselines.sample import SampledText
from cltdb.explain.baselines.wanted import Wanted
from cltdb.explain.keys import base_of
from cltdb.explain.subjects import Subjects
from cltdb.harvest import stage as harvest_stage
from cltdb.harvest.contexts import read_table
from cltdb.harvest.harvest import harvest
from cltdb.model.source import language_model
from cltdb.train.trained import sae_reads

VERSION = 1
MORE = 2
"""Of the features of a layer that are compared on average, how many times as many are harvested: so that there is one of each density."""


class Baseline(NamedTuple):
    """subjects: the `Subjects` of its harvest, in which feature n of a layer is its unit units[layer][n]."""

    name: str
    subjects: Subjects
    units: list


def baseline(job, kind, vocabulary):
    """The `Baseline` of a kind of BASELINE_DICTIONARIES for a job of stage explain; harvested where it is not there."""
    features = read_table(job.inputs["harvest"], "features")
    n_units = -(-MORE * job.settings.baseline_features // features["layer"].n_unique())
    wanted = Wanted.of(features, n_units, sae_reads(job.inputs["train"]))
    settings = job.experiment.harvest.model_copy(update={"feature_edges": 0, "head_edges": 0, "coactivation_tokens": 1})
    own = BASELINE_DICTIONARIES[kind].identity(wanted, job.seed(kind))
    text = reading_identity(job.experiment, job.project, "harvest")
    versions = VERSION, harvest_stage.STAGE.version
    key = digest([kind, own, text, settings.result_settings(), job.input_keys["model"], versions])
    record, folder = job.units.folder(HARVESTS, key) or _harvested(job, kind, key, wanted, settings)
    base = base_of(key, job.experiment.seed)
    subjects = Subjects(folder, vocabulary=vocabulary, seed=job.seed("explain"), base=base)
    return Baseline(f"baseline:{kind}", subjects, record["features"])


def _harvested(job, kind, key, wanted, settings):
    """(record, folder) of the unit, made by the code of stage harvest, on the text and with the seed of that stage."""
    lm = language_model(job)
    sequences = harvest_stage.text_read(replace(job, stage=harvest_stage.STAGE), lm, note=False).changed(by_label=False)
    text = SampledText(lm, sequences, batch_seqs=settings.batch_seqs)
    made = BASELINE_DICTIONARIES[kind].make(lm, wanted, text, seed=job.seed(kind))

    def write(folder):
        harvest(settings, lm, made.dictionary, sequences, directory=folder, dict_id=f"baseline:{kind}", seed=job.seed("harvest"))
        for path in folder.glob("*.json"):  # in the folder of a unit only its record is one
            path.unlink()

    return job.units.put_folder(HARVESTS, key, {"features": made.units.tolist()}, write)
