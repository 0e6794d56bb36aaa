"""The metrics of a training run on Weights & Biases as well. Source: wandb 0.31, `wandb.init` and `Run.log`."""

from itertools import groupby

from cltdb.errors import CltdbError


class Tracker:
    """A run of `project` with the dictionary's id; a resumed training continues it. WANDB_MODE and wandb's other variables apply."""

    def __init__(self, project, *, dict_id, config):
        try:
            import wandb
        except ImportError as error:
            raise CltdbError(
                "train.wandb",
                found=f"project {project!r} without the package wandb",
                expected="wandb",
                do="pip install 'cltdb[wandb]', or leave it out",
            ) from error
        quiet = wandb.Settings(silent=True, console="off")
        try:
            self.run = wandb.init(project=project, id=dict_id, name=dict_id, resume="allow", config=config, settings=quiet)
        except wandb.errors.Error as error:
            raise CltdbError(
                "train.wandb",
                found=str(error).split("\n")[0],
                expected=f"access to the project {project!r}",
                do="set WANDB_API_KEY, or WANDB_MODE=offline to keep the metrics in ./wandb",
            ) from error

    def log(self, rows):
        """rows (step, layer or None for pooled, name, value), ordered by step."""
        for step, values in groupby(rows, key=lambda row: row[0]):
            self.run.log(
                {name if layer is None else f"layer {layer}/{name}": value for _, layer, name, value in values}, step=step
            )

    def finish(self):
        self.run.finish()
