"""The state of a training run and its one step, the same for one process and for many."""

import math
from typing import NamedTuple

import torch

from cltdb.activations.loader import Batch
from cltdb.errors import NonFiniteError
from cltdb.model.kinds import both_sides
from cltdb.train import schedule
from cltdb.train.chosen_layers import ChosenLayers
from cltdb.train.engine import Engine
from cltdb.train.finetune import ReplacedModel, Share
from cltdb.train.module import Transcoder
from cltdb.train.one_place import OnePlace
from cltdb.train.orthogonality import Sample
from cltdb.train.parallel import Parallel

CALIBRATION_TOKENS = 8192
HELDOUT_TOKENS = 16_384
DEAD_WINDOW_FRAC, MIN_DEAD_WINDOW_TOKENS = 0.02, 20_000
BEST_L0_SLACK = 1.05  # a check can be the best where its l0 is at most this times the target


class StepFacts(NamedTuple):
    """The measurements of one step, over the tokens of all ranks: per layer [n_layers], pooled as numbers."""

    loss: float
    sparsity: float
    preact: float
    aux: float
    orthogonality: float
    kl: float
    grad_norm: float
    learning_rate: float
    mse: torch.Tensor
    l0: torch.Tensor
    fvu: torch.Tensor
    dead_frac: torch.Tensor

    @property
    def pooled_fvu(self):
        return (self.mse.sum() / (self.mse / self.fvu).sum()).item()

    def rows(self, step, layers):
        """Metric rows (step, layer or None for pooled, name, value). layers: the numbers of the layers."""
        pooled = {
            "loss": self.loss,
            "loss_mse": self.mse.sum().item(),
            "loss_sparsity": self.sparsity,
            "loss_preact": self.preact,
            "loss_aux": self.aux,
            **({"loss_orthogonality": self.orthogonality} if self.orthogonality else {}),
            **({"loss_kl": self.kl} if self.kl else {}),
            "l0": self.l0.mean().item(),
            "fvu": self.pooled_fvu,
            "dead_frac": self.dead_frac.mean().item(),
            "lr": self.learning_rate,
            "grad_norm": self.grad_norm,
        }
        per_layer = {"l0": self.l0, "fvu": self.fvu, "loss_mse": self.mse, "dead_frac": self.dead_frac}
        return [(step, None, name, value) for name, value in pooled.items()] + [
            (step, layer, name, value)
            for name, values in per_layer.items()
            for layer, value in zip(layers, values.tolist(), strict=True)
        ]


class TrainingRun:
    """`step` steps are done. What must survive a kill is in `checkpoint.save`; the data position is the step itself, and random
    numbers are drawn for the initial weights alone."""

    def __init__(self, settings, *, source, heldout, seed, device, parallel=None, texts=None, start=None):
        """texts: for settings.kl the `finetune.Texts` to fine-tune on; start: for settings.start the `Dictionary` to go on from."""
        self.model_layers = source.summary["n_layers"]
        self.layers = settings.layers or list(range(self.model_layers))
        if settings.place:
            source, heldout = OnePlace(source, settings.place), OnePlace(heldout, settings.place)
        if settings.layers:
            source, heldout = ChosenLayers(source, settings.layers), ChosenLayers(heldout, settings.layers)
        self.settings, self.source, self.heldout, self.seed, self.device = settings, source, heldout, seed, device
        self.parallel = parallel or Parallel()
        summary = source.summary
        self.n_layers, self.d_model = summary["n_layers"], summary["d_model"]
        self.texts, self.n_fit_steps = texts, max(1, math.ceil(settings.epochs * source.n_rows / settings.batch_tokens))
        self.n_steps = self.n_fit_steps + (settings.kl.steps if settings.kl else 0)
        norm = lambda side: torch.tensor(summary[f"{side}_mean_norm"], dtype=torch.float32)  # noqa: E731
        self.input_scale, self.output_scale = (math.sqrt(self.d_model) / norm(side) for side in ("mlp_input", "mlp_output"))
        generator = torch.Generator().manual_seed(seed)
        module = Transcoder(settings, n_layers=self.n_layers, d_model=self.d_model, generator=generator, parallel=self.parallel)
        self.start_id = start and start.info.get("dict_id", settings.start)
        if start:
            module.take(start, self.layers, input_scale=self.input_scale, output_scale=self.output_scale)
        else:
            n_calibration = min(CALIBRATION_TOKENS, source.n_rows)
            module.calibrate(*(part.cpu() for part in self.scaled(source.batch(0, n_calibration))))
        self.accumulation = settings.deepspeed.gradient_accumulation_steps
        self.engine = Engine(
            module.to(device),
            settings,
            device=device,
            parallel=self.parallel,
            micro_batch_tokens=settings.batch_tokens // (self.parallel.n_data * self.accumulation),
        )
        self.step, self.rows, self.checks, self.best = 0, [], [], None
        default_window = max(MIN_DEAD_WINDOW_TOKENS, DEAD_WINDOW_FRAC * self.n_steps * settings.batch_tokens)
        self.dead_window_tokens = settings.dead_window_tokens or default_window
        mine = self.parallel.features(settings.n_features)
        self.silent_tokens = torch.zeros(self.n_layers, mine.stop - mine.start, dtype=torch.int64, device=device)
        self.lift = torch.zeros(self.silent_tokens.shape, device=device)
        self.coefficient = schedule.first_coefficient(settings, self.n_layers)

    def scaled(self, batch):
        """x, y [token, layer, d_model] in training units on the device, in float32."""
        return (batch.x * self.input_scale[:, None]).to(self.device), (batch.y * self.output_scale[:, None]).to(self.device)

    def batches(self):
        """This rank's parts of the batches that are left."""
        share = dict(rank=self.parallel.data_rank, world_size=self.parallel.n_data)
        if self.step < self.n_fit_steps:
            yield from self.source.batches(self.step, self.n_fit_steps - self.step, self.settings.batch_tokens, **share)
        for step in range(self.step, self.n_steps):
            yield self.texts.batch(step - self.n_fit_steps, self.settings.kl.batch_seqs, **share)

    def stand_still(self):
        """An optimizer step that changes no weight. A ZeRO optimizer makes its states in its first step; only then can they be set."""
        if not self.engine.is_plain:
            batch = self.source.batch(
                0, self.settings.batch_tokens, rank=self.parallel.data_rank, world_size=self.parallel.n_data
            )
            with self.engine.without_overflow():
                self._optimize(*self.scaled(batch), rate=0.0)

    def make_step(self, batch):
        """One optimizer step on this rank's part of the batch; returns its `StepFacts`."""
        through, n_tokens = None, self.settings.batch_tokens
        if self.step >= self.n_fit_steps:
            through, n_tokens = self._replaced(batch)
            batch = Batch(*both_sides(*self.texts.activations(batch, self.layers), self.settings.place))
        x, y = self.scaled(batch)
        rate = schedule.learning_rate(self.settings, step=self.step, n_steps=self.n_fit_steps)
        sums, fired, grad_norm = self._optimize(x, y, rate=rate, through=through)
        return self._finish_step(sums, fired, y, rate=rate, grad_norm=grad_norm, n_tokens=n_tokens)

    def _optimize(self, x, y, *, rate, through=None):
        """(sums of the micro-batches' measurements, which features fired, gradient norm before clipping). through: a `ReplacedModel` for each."""
        x, y = x.to(self.engine.dtype), y.to(self.engine.dtype)
        self.engine.set_learning_rate(rate)
        coefficient = schedule.ramped(self.settings, self.coefficient, step=self.step, n_steps=self.n_fit_steps).to(x.device)
        dead, fired, sums = self.dead(), torch.zeros_like(self.silent_tokens, dtype=torch.bool), 0
        sizes = [part.n_rows for part in through] if through else len(x) // self.accumulation
        state = {"coefficient": coefficient, "dead": dead, "lift": self.lift}
        for number, rows in enumerate(zip(x.split(sizes), y.split(sizes), strict=True)):
            part = through[number] if through else None
            n_tokens, sample = part.share.n_tokens if part else None, self._sample(number)
            measured = self.engine(*rows, through=part, n_tokens=n_tokens, sample=sample, **state)
            self._check_finite(measured)
            self.engine.backward(measured.loss)
            grad_norm = self.engine.step()
            fired |= measured.fired
            sums = sums + torch.cat([torch.stack(measured[:1] + measured[2:7]).detach(), measured.mse, measured.l0]).double()
        return sums, fired, grad_norm

    def _sample(self, number):
        """The decoders that a micro-batch of this step compares, None where there is no penalty. They are a function of seed and step."""
        penalty, module = self.settings.orthogonality, self.engine.module
        if not penalty or not penalty.coefficient:
            return None
        n_targets = [module.n_targets(layer) for layer in range(self.n_layers)]
        draw = self.step * self.accumulation + number
        sizes = {"n_features": self.settings.n_features, "n_targets": n_targets}
        return Sample(penalty, **sizes, seed=[self.seed, draw], parallel=self.parallel, device=self.device)

    def _finish_step(self, sums, fired, y, *, rate, grad_norm, n_tokens):
        """Combines this rank's numbers with those of all ranks, which saw n_tokens, and advances the run's state."""
        means = self.parallel.data_sum(sums) / (self.parallel.n_data * self.accumulation)
        fired = self.parallel.data_sum(fired.to(torch.int32)) > 0
        self.silent_tokens = torch.where(fired, 0, self.silent_tokens + n_tokens)
        self.lift = self.lift + self.settings.revive_rate * self.dead()
        pooled, per_layer = means[:6].tolist(), means[6:].view(2, self.n_layers).cpu()
        self.coefficient = schedule.controlled(
            self.settings, self.coefficient, per_layer[1].float(), step=self.step, n_steps=self.n_fit_steps
        )
        self.step += 1
        dead_frac = self.parallel.gather_shards(self.dead().double().mean(1)).mean(0).cpu()
        return StepFacts(*pooled, grad_norm, rate, per_layer[0], per_layer[1], per_layer[0] / self._sst(y, n_tokens), dead_frac)

    def _replaced(self, tokens):
        """(a `ReplacedModel` of each micro-batch of this rank's tokens [batch, pos], ordinary tokens of all ranks in this step)."""
        n_parts = self.parallel.n_data * self.accumulation
        counts = self.texts.counts(self.step - self.n_fit_steps, self.settings.kl.batch_seqs, n_parts)
        weights = counts / counts.double().mean(0)
        together = counts[:, 0].view(self.parallel.n_data, -1).sum(0).tolist()
        parts = []
        for number, part in enumerate(tokens.chunk(self.accumulation)):
            share = Share(*weights[self.parallel.data_rank * self.accumulation + number].tolist(), together[number])
            scales = (self.input_scale, self.output_scale)
            parts.append(
                ReplacedModel(
                    self.texts.lm,
                    part,
                    self.texts.ordinary(part),
                    self.layers,
                    scales=scales,
                    coefficient=self.settings.kl.coefficient,
                    share=share,
                )
            )
        return parts, int(counts[:, 0].sum())

    @torch.no_grad()
    def check_heldout(self):
        """Measures FVU and l0 on held-out tokens, as metric rows heldout_fvu and heldout_l0, and keeps what is best at the target l0."""
        n_tokens = min(self.settings.batch_tokens, self.heldout.n_rows) // self.parallel.n_data * self.parallel.n_data
        sums = 0
        for number in range(max(1, min(HELDOUT_TOKENS, self.heldout.n_rows) // n_tokens)):
            batch = self.heldout.batch(number, n_tokens, rank=self.parallel.data_rank, world_size=self.parallel.n_data)
            x, y = (part.to(self.engine.dtype) for part in self.scaled(batch))
            measured = self.engine(
                x,
                y,
                coefficient=torch.zeros_like(self.coefficient).to(x.device),
                dead=torch.zeros_like(self.dead()),
                lift=self.lift,
            )
            y = y.double()
            sums = sums + torch.cat(
                [torch.stack([measured.mse, measured.l0, y.square().sum(-1).mean(0)], 1).double(), y.mean(0)], dim=1
            )
        means = (self.parallel.data_sum(sums) / self.parallel.n_data / (number + 1)).cpu()
        sse, l0, sst = means[:, 0], means[:, 1], means[:, 2] - means[:, 3:].square().sum(1)
        facts = {"step": self.step, "fvu": (sse.sum() / sst.sum()).item(), "l0": l0.mean().item()}
        for name, pooled, per_layer in (("fvu", facts["fvu"], sse / sst), ("l0", facts["l0"], l0)):
            self.rows.append((self.step, None, f"heldout_{name}", pooled))
            self.rows += [
                (self.step, layer, f"heldout_{name}", value) for layer, value in zip(self.layers, per_layer.tolist(), strict=True)
            ]
        self.checks.append(facts)
        if self._comparable(facts) and (self.best is None or facts["fvu"] <= self.best["fvu"] or not self._comparable(self.best)):
            self.best = facts

    def _comparable(self, facts):
        """Whether a check can be the best: where it is at the target l0, or the last one where `settings.exports_last`."""
        return facts["step"] == self.step if self.settings.exports_last else facts["l0"] <= BEST_L0_SLACK * self.settings.l0

    def must_stop(self):
        """Whether the held-out FVU has not improved for early_stop_checks checks; never where the last check is the best."""
        patience = self.settings.early_stop_checks
        return (
            patience is not None
            and self.best is not None
            and sum(check["step"] > self.best["step"] for check in self.checks) >= patience
        )

    def _sst(self, y, n_tokens):
        """[n_layers]: mean squared distance of the outputs from their mean, over the n_tokens of all ranks."""
        share = len(y) / n_tokens
        mean = self.parallel.data_sum(y.mean(0) * share)
        return self.parallel.data_sum((y - mean).square().sum(-1).mean(0) * share).double().cpu()

    def dead(self):
        """[n_layers, n_features of this shard]: silent for dead_window_tokens."""
        return self.silent_tokens >= self.dead_window_tokens

    def _check_finite(self, measured):
        total = self.parallel.data_sum(torch.cat([measured.loss.detach()[None], measured.mse]))
        if torch.isfinite(total[0]):
            return
        layers = [self.layers[place] for place in (~torch.isfinite(total[1:])).nonzero().flatten()]
        where = f"layers {', '.join(map(str, layers))}" if layers else "the sparsity terms"
        raise NonFiniteError(
            "train",
            found=f"a loss that is not finite at step {self.step} (batch {self.step}, {where})",
            expected="a finite loss",
            do="lower train.learning_rate; the last checkpoint is kept, and a changed setting starts anew",
        )
