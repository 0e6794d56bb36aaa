"""Training: batches from the cache, schedules, optimizer steps through DeepSpeed, metric rows, checkpoints, export.

Reads: the activation cache. Writes: `checkpoint.safetensors` (replaced every checkpoint_every_steps, removed at the end), the
dictionary in model units, and `tables/dictionaries`, `tables/metrics`.
"""

import json
import logging
import math
from pathlib import Path

import torch

from cltdb import log
from cltdb.activations.cache import ActivationCache
from cltdb.errors import NonFiniteError
from cltdb.metrics import write_metrics
from cltdb.model.transcoder import TENSORS_FILE
from cltdb.train import engine as engines
from cltdb.train import resume
from cltdb.train.loss import measure
from cltdb.train.module import Transcoder
from cltdb.workspace import write_parquet

logger = logging.getLogger(__name__)
CALIBRATION_TOKENS = 8192
THRESHOLD_TOKENS = 65_536
CONTROLLER_GAIN = 0.03  # a layer's coefficient changes by at most this share per step
CONTROLLER_START = 0.01
CONTROLLER_FRAC = 0.2  # share of the run over which the controller's target falls from init_l0 to l0


def train(settings, *, cache_directory, directory, seed, dict_id, experiment, device="auto"):
    """Trains (or goes on training) a dictionary and exports it into `directory`. settings: `spec.Train`."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    run = TrainingRun(settings, cache=ActivationCache(cache_directory, seed=seed), seed=seed, device=device)
    checkpoint = Path(directory) / resume.CHECKPOINT_FILE
    if checkpoint.exists():
        resume.load(run, checkpoint)
        logger.info("continues at step %d of %d", run.step, run.n_steps)
    with log.progress("train", total=run.n_steps, unit="steps", done=run.step) as bar:
        while run.step < run.n_steps:
            measured = run.make_step()
            bar.advance(1, note=f"fvu {(measured.mse.sum() / measured.sst.sum()).item():.3f} l0 {measured.l0.mean().item():.1f}")
            if run.step % settings.checkpoint_every_steps == 0 and run.step < run.n_steps:
                resume.save(run, checkpoint)
    export(run, directory=Path(directory), dict_id=dict_id, experiment=experiment)
    checkpoint.unlink(missing_ok=True)


class TrainingRun:
    """All state of a run: `step` steps are done; what must survive a kill is in `resume.save`."""

    def __init__(self, settings, *, cache, seed, device):
        self.settings, self.cache, self.device = settings, cache, device
        summary = cache.summary
        self.n_layers, self.d_model = summary["n_layers"], summary["d_model"]
        self.n_steps = max(1, math.ceil(settings.epochs * cache.n_rows / settings.batch_tokens))
        norm = lambda side: torch.tensor(summary[f"{side}_mean_norm"], dtype=torch.float32)  # noqa: E731
        self.input_scale, self.output_scale = (math.sqrt(self.d_model) / norm(side) for side in ("mlp_input", "mlp_output"))
        module = Transcoder(settings, n_layers=self.n_layers, d_model=self.d_model, generator=torch.Generator().manual_seed(seed))
        module.calibrate(*(part.cpu() for part in self._scaled(cache.batch(0, min(CALIBRATION_TOKENS, cache.n_rows)))))
        self.engine = engines.initialize(module.to(device), settings, device=device)
        self.module = self.engine.module
        self.step, self.rows = 0, []
        self.silent_tokens = torch.zeros(self.n_layers, settings.n_features, dtype=torch.int64, device=device)
        self.coefficient = torch.full((self.n_layers,), settings.sparsity.coefficient if settings.sparsity else CONTROLLER_START)

    def _scaled(self, batch):
        """x, y in training units on the device, in float32."""
        return (batch.x * self.input_scale[:, None]).to(self.device), (batch.y * self.output_scale[:, None]).to(self.device)

    def batch(self, step):
        """x, y of one step, in the number type that DeepSpeed trains in."""
        return tuple(
            part.to(self.module.W_enc.dtype) for part in self._scaled(self.cache.batch(step, self.settings.batch_tokens))
        )

    def make_step(self):
        """One optimizer step on the next batch; returns its `Measured`."""
        settings = self.settings
        x, y = self.batch(self.step)
        rate = self.learning_rate()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        measured = measure(self.module, x, y, coefficient=self.ramped_coefficient(), dead=self.dead())
        self._check_finite(measured)
        self.engine.backward(measured.loss)
        recorded = (self.step + 1) % settings.log_every_steps == 0 or self.step + 1 == self.n_steps
        grad_norm = engines.gradient_norm(self.engine) if recorded else None
        self.engine.step()
        self.silent_tokens = torch.where(measured.fired, 0, self.silent_tokens + len(x))
        self._control(measured)
        self.step += 1
        if recorded:
            self._record(measured, rate=rate, grad_norm=grad_norm)
        return measured

    def dead(self):
        """[n_layers, n_features]: silent for dead_window_tokens."""
        return self.silent_tokens >= self.settings.dead_window_tokens

    def learning_rate(self):
        """Linear warm-up, constant, linear decay to zero over the last decay_frac of the run."""
        settings = self.settings
        warm = min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        return settings.learning_rate * warm * min(1.0, (self.n_steps - self.step) / max(1.0, settings.decay_frac * self.n_steps))

    def ramped_coefficient(self):
        """The tanh penalty's coefficients now [n_layers]: ramped when fixed, the controller's otherwise."""
        if self.settings.sparsity is None:
            return self.coefficient.to(self.device)
        return (self.coefficient * min(1.0, self.step / max(1.0, self.settings.ramp_frac * self.n_steps))).to(self.device)

    def target_l0(self):
        """What the controller aims at now: l0, approached geometrically from init_l0."""
        done = min(1.0, self.step / max(1.0, CONTROLLER_FRAC * self.n_steps))
        start = max(self.settings.init_l0, self.settings.l0)
        return start * (self.settings.l0 / start) ** done

    def _control(self, measured):
        """Moves each layer's coefficient towards the target l0: up while more features fire, down while fewer do."""
        if self.settings.sparsity is None and self.settings.activation != "batchtopk":
            excess = (measured.l0.cpu().clamp(min=1e-3) / self.target_l0()).log()
            self.coefficient *= (CONTROLLER_GAIN * excess.clamp(-1, 1)).exp()

    def _check_finite(self, measured):
        if torch.isfinite(measured.loss):
            return
        layers = (~torch.isfinite(measured.mse)).nonzero().flatten().tolist()
        where = f"layers {', '.join(map(str, layers))}" if layers else "the sparsity terms"
        raise NonFiniteError(
            "train",
            found=f"a loss that is not finite at step {self.step} (batch {self.step}, {where})",
            expected="a finite loss",
            do="lower train.learning_rate; the last checkpoint is kept, and a changed setting starts anew",
        )

    def _record(self, measured, *, rate, grad_norm):
        """Metric rows of this step: pooled with layer None, and per layer where it has one."""
        values = {
            "loss": measured.loss,
            "loss_mse": measured.mse.sum(),
            "loss_sparsity": measured.sparsity,
            "loss_preact": measured.preact,
            "loss_aux": measured.aux,
            "l0": measured.l0.mean(),
            "fvu": measured.mse.sum() / measured.sst.sum(),
            "dead_frac": self.dead().float().mean(),
            "lr": rate,
            "grad_norm": grad_norm,
        }
        self.rows += [
            (self.step, None, name, float(value.detach() if torch.is_tensor(value) else value)) for name, value in values.items()
        ]
        for name, per_layer in (
            ("l0", measured.l0),
            ("fvu", measured.fvu),
            ("loss_mse", measured.mse),
            ("dead_frac", self.dead().float().mean(1)),
        ):
            self.rows += [(self.step, layer, name, float(value)) for layer, value in enumerate(per_layer.detach().tolist())]


@torch.no_grad()
def inference_threshold(run, module):
    """[n_layers, n_features]: per layer the value that lets l0 features per token of `module` through, over training tokens;
    BatchTopK only."""
    n_tokens = min(THRESHOLD_TOKENS, run.cache.n_rows)
    step_tokens = min(4096, n_tokens)
    wanted = round(run.settings.l0 * step_tokens)
    kept = [[] for _ in range(run.n_layers)]
    for step in range(n_tokens // step_tokens):
        x, _ = run._scaled(run.cache.batch(step, step_tokens))
        for layer in range(run.n_layers):
            h = module.pre_activations(x, layer).flatten()
            kept[layer].append(
                h.topk(min(2 * wanted, h.numel())).values
            )  # a batch twice as active as the mean is still counted whole
    cuts = []
    for values in kept:
        values = torch.cat(values)
        cuts.append(values.topk(min(len(values), wanted * (n_tokens // step_tokens))).values.min().clamp(min=0))
    return torch.stack(cuts)[:, None].expand(-1, run.settings.n_features).contiguous()


def export(run, *, directory, dict_id, experiment):
    """Writes the dictionary and its database rows."""
    import hashlib

    import pyarrow as pa

    summary, settings = run.cache.summary, run.settings
    info = {
        "dict_id": dict_id,
        "experiment": experiment,
        "model_id": summary["model_id"],
        "revision": summary["revision"],
        "mlp_input": summary["mlp_input"],
        "steps": run.n_steps,
        "train": json.loads(settings.model_dump_json(exclude={"launch"})),
    }
    module = Transcoder(settings, n_layers=run.n_layers, d_model=run.d_model, generator=torch.Generator())
    module.load_state_dict({name: value.float().cpu() for name, value in engines.state(run.engine).items() if "/" not in name})
    threshold = inference_threshold(run, module.to(run.device)).cpu() if settings.activation == "batchtopk" else None
    dictionary = module.cpu().export(
        input_scale=run.input_scale,
        output_scale=run.output_scale,
        threshold=threshold,
        info=info,
    )
    dictionary.save(directory)
    with open(directory / TENSORS_FILE, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    row = {
        "dict_id": dict_id,
        "experiment": experiment,
        "model_id": summary["model_id"],
        "kind": settings.kind,
        "activation": settings.activation,
        "revision": summary["revision"],
        "mlp_input": summary["mlp_input"],
        "d_model": run.d_model,
        "n_layers": run.n_layers,
        "n_features": settings.n_features,
        "path": f"train/{directory.name.removesuffix('.partial')}",
        "sha256": sha256,
    }
    write_parquet(directory / "tables/dictionaries/dictionary.parquet", pa.Table.from_pylist([row]))
    write_metrics(directory / "tables/metrics/train.parquet", dict_id=dict_id, stage="train", rows=run.rows)
