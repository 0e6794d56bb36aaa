"""Training from the first step, or the last checkpoint, to the exported dictionary.

Reads: a source of batches, cached or streamed, and its held-out part. Writes: `checkpoints/<step>` (removed at the end), pieces of
`tables/metrics`, one per checkpoint, and the dictionary in model units with its row of `tables/dictionaries`.
"""

import json
import logging
import shutil
from pathlib import Path

from cltdb import log
from cltdb.metrics import write_metrics
from cltdb.train import checkpoint
from cltdb.train.export import export_run
from cltdb.train.schedule import has_controller
from cltdb.train.tracking import Tracker

logger = logging.getLogger(__name__)
L0_TOLERANCE = 0.1  # share of the target by which a held-out l0 may be off before a warning


def train(run, *, directory, dict_id, experiment, publish=None):
    """Takes a `TrainingRun`'s steps from its last checkpoint in `directory` on, and exports the dictionary into it; a run of several
    processes on every rank at once.

    experiment: the name of the experiment that makes the dictionary. publish(directory): called whenever a new piece of metrics is there.
    """
    directory, settings = Path(directory), run.settings
    done = checkpoint.steps(directory)
    if done:
        checkpoint.load(run, directory, done[-1])
        logger.info("continues at step %d of %d", run.step, run.n_steps)
    writer = _Metrics(run, directory=directory, dict_id=dict_id, publish=publish)
    writer.write_pending()
    with log.progress("train", total=run.n_steps, unit="steps", done=run.step) as bar:
        for batch in run.batches():
            facts = run.make_step(batch)
            last = run.step == run.n_steps
            if run.step % settings.log_every_steps == 0 or last:
                run.rows += facts.rows(run.step, run.layers)
            bar.advance(1, note=f"fvu {facts.pooled_fvu:.3f} l0 {facts.l0.mean().item():.1f}")
            checked = run.step % settings.heldout_every_steps == 0 or last
            if checked:
                run.check_heldout()
            if last or (checked and run.must_stop()):
                break
            if checked or run.step % settings.checkpoint_every_steps == 0:
                _save(run, directory)
                writer.write_pending()
    writer.write_pending()
    writer.finish()
    step, tensors = _best_tensors(run, directory)
    if run.parallel.rank == 0:
        _warn_of_l0(run, step)
        export_run(run, tensors, step=step, directory=directory, dict_id=dict_id, experiment=experiment)
        shutil.rmtree(directory / checkpoint.FOLDER, ignore_errors=True)


def _save(run, directory):
    """Saves a checkpoint, and removes older ones except the last few and the best."""
    checkpoint.save(run, directory)
    if run.parallel.rank == 0:
        recent = checkpoint.steps(directory)[-run.settings.keep_checkpoints :]
        checkpoint.keep(directory, {*recent, *([run.best["step"]] if run.best else [])})


def _warn_of_l0(run, step):
    """Warns of layers in which the state after `step` misses the l0 that the controller steers towards."""
    settings, found = run.settings, next(check["l0"] for check in run.checks if check["step"] == step)
    if has_controller(settings) and abs(found / settings.l0 - 1) > L0_TOLERANCE:
        logger.warning(
            "train: %.1f active features per layer and held-out token, l0 asks for %g: the controller of %s needs more steps (train.epochs, "
            "activations.train_tokens) or a train.init_l0 nearer to it; batchtopk needs neither",
            found,
            settings.l0,
            settings.activation,
        )


def _best_tensors(run, directory):
    """(step, {name: whole float32 tensor}) of the best held-out check, on rank 0. The lift of silent features is part of their
    biases."""
    tensors = {name: parts["value"].float().cpu() for name, parts in run.engine.tensors(moments=False) if parts}
    step, lift = run.step, run.parallel.collect_features(run.lift.T).cpu()
    if run.parallel.rank == 0 and run.best is not None and run.best["step"] != step:
        step = run.best["step"]
        logger.info("exports step %d, the best on held-out tokens, rather than the last, %d", step, run.step)
        folder = directory / checkpoint.FOLDER / f"{step:08d}"
        tensors = {name: checkpoint.read_tensors(folder, name)["value"] for name in tensors}
        lift = checkpoint.read_tensors(folder, "features")["lift"]
    for layer in range(run.n_layers if run.parallel.rank == 0 else 0):
        tensors[f"layers.{layer}.b_enc"] = tensors[f"layers.{layer}.b_enc"] + lift[:, layer]
    return step, tensors


class _Metrics:
    """Writes the run's metric rows in pieces named by their last step; a piece, once there, never changes."""

    def __init__(self, run, *, directory, dict_id, publish):
        self.run, self.directory, self.dict_id, self.publish = run, directory / "tables/metrics", dict_id, publish
        self.tracker, project = None, run.settings.wandb
        if project and run.parallel.rank == 0:
            self.tracker = Tracker(project, dict_id=dict_id, config=json.loads(run.settings.model_dump_json()))

    def write_pending(self):
        """Writes the rows since the last piece. All of them belong to a checkpoint that is saved already, or to the end of the run."""
        run = self.run
        written = max((int(path.stem.removeprefix("train-")) for path in self.directory.glob("train-*.parquet")), default=0)
        rows, run.rows = [row for row in run.rows if row[0] > written], []
        if run.parallel.rank or not rows:
            return
        write_metrics(self.directory / f"train-{run.step:08d}.parquet", dict_id=self.dict_id, stage="train", rows=rows)
        if self.publish:
            self.publish(self.directory.parents[1])
        if self.tracker:
            self.tracker.log(rows)

    def finish(self):
        if self.tracker:
            self.tracker.finish()
