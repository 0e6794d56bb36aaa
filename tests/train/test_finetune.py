"""Fine-tuning through the replaced model, against the obvious dense computation."""

import numpy as np
import pytest
import torch
from activations.test_cache import random_sequences
from pydantic import ValidationError
from torch.nn import functional as F
from train.test_train import SETTINGS, metrics
from worlds import models

from cltdb.activations.cache import write_cache
from cltdb.activations.loader import open_source
from cltdb.evaluate.replacement import Agreement, Original, replacer
from cltdb.model.transcoder import load_dictionary
from cltdb.train import checkpoint
from cltdb.train.finetune import ReplacedModel, Share, Texts
from cltdb.train.loop import train
from cltdb.train.module import Transcoder
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Train

KL = {"steps": 30, "batch_seqs": 8, "coefficient": 300.0, "learning_rate": 1e-2}


def packed(n_seqs, seed=0):
    """Random sequences with BOS where documents begin in them: the parts of a batch have different numbers of ordinary tokens."""
    sequences = random_sequences(n_seqs, seed=seed)
    sequences.tokens[::2, 4] = sequences.tokens[::3, 1] = sequences.tokens[1, 5:] = 0
    return sequences.without((0,))


def dense_output(module, activations, layer, x):
    """MLP output [token, d_model] of a layer in training units."""
    output = module.b_dec[layer] + (x @ module.W_skip[layer] if module.settings.skip else 0)
    for source, a in enumerate(activations):
        if layer - source < module.n_targets(source):
            output = output + a @ module.layers[source].W_dec[:, layer - source]
    return output


@pytest.mark.parametrize(
    "settings", [{"activation": "relu"}, {"activation": "topk", "skip": True}, {"activation": "relu", "kind": "plt"}, {}]
)
def test_divergence_and_its_gradients_are_those_of_a_dense_replacement(settings):
    lm = models.language_model()
    lm.hf.double()
    module = Transcoder(
        Train(n_features=20, l0=4, **settings), n_layers=2, d_model=lm.d_model, generator=torch.Generator().manual_seed(0)
    ).double()
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    tokens = torch.from_numpy(packed(3).tokens).long()
    ordinary = tokens != 0
    scales = torch.tensor([[1.5, 0.5], [2.0, 3.0]], dtype=torch.float64)
    lift = torch.rand(2, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    activations, kind = [], settings.get("activation", "batchtopk")

    def replace(layer, x, y):
        x = (x * scales[0, layer]).flatten(0, 1)
        h = F.relu(x @ module.layers[layer].W_enc.T + module.layers[layer].b_enc + lift[layer])
        if kind == "topk":
            h = h * (h >= h.topk(4, dim=-1).values[:, -1:])
        if kind == "batchtopk":  # over the ordinary tokens alone
            among = h[ordinary.flatten()].flatten()
            h = h * (h >= among.topk(round(4 * int(ordinary.sum()))).values[-1])
        activations.append(h)
        output = dense_output(module, activations, layer, x) / scales[1, layer]
        return torch.stack(
            [
                torch.stack([new if token else old for token, new, old in zip(*sequence, strict=True)])
                for sequence in zip(tokens, output.view_as(y), y, strict=True)
            ]
        )

    with lm.replaced_mlps(replace):
        replaced = lm.hf(input_ids=tokens).logits.softmax(-1)[:, :-1][ordinary[:, :-1]]
    original = lm.logits(tokens).softmax(-1)[:, :-1][ordinary[:, :-1]]
    assert len(original) == 3 * 6 - 5
    expected = (original * (original.log() - replaced.log())).sum(-1).mean()
    gradients = torch.autograd.grad(expected, list(module.parameters()))
    model = ReplacedModel(lm, tokens, ordinary, [0, 1], scales=scales, coefficient=1.0)
    kl = model.divergence(module, lift=lift)
    assert kl.item() == pytest.approx(expected.item(), rel=1e-5, abs=3e-7)  # of log-probabilities in float32, at rounding of 5e-7
    for (name, parameter), gradient in zip(module.named_parameters(), gradients, strict=True):
        found = torch.autograd.grad(kl, parameter, retain_graph=True)[0]
        assert torch.allclose(found, gradient, rtol=1e-3, atol=1e-6 * gradient.abs().max().item()), name
    assert not any(hasattr(p, "grad") and p.grad is not None for p in lm.hf.parameters())


def test_the_mean_over_parts_of_a_batch_is_that_of_the_whole_however_many_ordinary_tokens_each_has(world):
    texts, scales = world["texts"], torch.tensor([[1.5, 0.5], [2.0, 3.0]])
    settings = Train(n_features=20, l0=4, activation="jumprelu")
    module = Transcoder(settings, n_layers=2, d_model=16, generator=torch.Generator().manual_seed(0))
    lift, state = torch.full((2, 20), 0.5), {"coefficient": torch.ones(2), "dead": torch.zeros(2, 20, dtype=torch.bool)}

    def measured(tokens, share):
        x, y = (side * scale[:, None] for side, scale in zip(texts.activations(tokens, [0, 1]), scales, strict=True))
        through = ReplacedModel(texts.lm, tokens, texts.ordinary(tokens), [0, 1], scales=scales, coefficient=2.0, share=share)
        return module(x, y, through=through, lift=lift, **state)

    tokens, counts = texts.batch(0, 8), texts.counts(0, 8, 4)
    assert counts[:, 0].tolist() == [int((part != 0).sum()) for part in tokens.chunk(4)] and len(set(counts[:, 0].tolist())) > 1
    weights = counts / counts.double().mean(0)
    parts = [measured(part, Share(*weight)) for part, weight in zip(tokens.chunk(4), weights.tolist(), strict=True)]
    whole = measured(tokens, Share())
    for name in ("loss", "mse", "sparsity", "preact", "kl", "l0"):
        mean = sum(getattr(part, name) for part in parts) / 4
        assert torch.allclose(mean, getattr(whole, name), rtol=1e-4), name
    assert whole.sparsity > 0 and whole.kl > 0 and whole.l0.sum() > 0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    lm, sequences = models.language_model(), packed(40)
    for block in lm.blocks:  # whose MLPs matter to what it predicts
        block.mlp.c_proj.weight.mul_(30)
    directory = tmp_path_factory.mktemp("cache")
    parts = {"train": sequences.part(0, 32), "heldout": sequences.part(32, 40)}
    write_cache(models.activations(shard_tokens=128, batch_seqs=4), lm, parts, directory=directory)
    sources = {name: open_source(directory, part=name, seed=0) for name in parts}
    return {"source": sources["train"], "heldout": sources["heldout"], "texts": Texts(lm, parts["train"], seed=0)}


def fine_tuned(world, directory, **settings):
    settings = Train(**{**SETTINGS, "kl": KL, **settings})
    train(TrainingRun(settings, **world, seed=0, device="cpu"), directory=directory, dict_id="d", experiment="e")
    return load_dictionary(directory)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layers": [1]},
        pytest.param({"deepspeed": {"gradient_accumulation_steps": 2}}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": {"zero_optimization": {"stage": 3}}}, marks=pytest.mark.slow),
    ],
)
def test_fine_tuning_lowers_the_divergence(world, tmp_path, settings):
    d, without = fine_tuned(world, tmp_path / "with", **settings), fine_tuned(world, tmp_path / "without", kl=None, **settings)
    assert mean_divergence(d, world) < 0.8 * mean_divergence(without, world)
    rows, n_fit = metrics(tmp_path / "with"), d.info["steps"] - KL["steps"]
    fitted = rows.filter((rows["step"] <= n_fit) & ~rows["name"].str.starts_with("heldout"))
    steps = rows.filter(rows["name"] == "loss_kl")["step"]
    assert len(steps) >= KL["steps"] // SETTINGS["log_every_steps"] and steps.min() > n_fit
    before = metrics(tmp_path / "without")
    before = before.filter((before["step"] <= n_fit) & ~before["name"].str.starts_with("heldout"))
    assert fitted.filter(fitted["step"] % 2 == 0).equals(before.filter(before["step"] % 2 == 0))
    rates = rows.filter(rows["name"] == "lr")
    assert rates.filter(rates["step"] > n_fit)["value"].max() <= KL["learning_rate"]


def mean_divergence(dictionary, world):
    lm, sums = world["texts"].lm, Agreement()
    tokens = torch.from_numpy(world["texts"].sequences.tokens).long()
    with torch.no_grad(), lm.replaced_mlps(replacer(lm, dictionary, tokens != 0, dictionary.layers)):
        replaced = lm.logits(tokens)
    sums.add(Original(tokens, tokens != 0, lm.logits(tokens)), {"replacement": replaced, "zero": replaced})
    return sums.sums["kl_nats"] / sums.n


def test_a_resumed_fine_tuning_repeats_the_uninterrupted_one_bit_for_bit(world, tmp_path):
    whole = fine_tuned(world, tmp_path / "whole")
    run = TrainingRun(Train(**{**SETTINGS, "kl": KL}), **world, seed=0, device="cpu")
    for batch in run.batches():
        facts = run.make_step(batch)
        if run.step % SETTINGS["log_every_steps"] == 0:
            run.rows += facts.rows(run.step, run.layers)
        if run.step % SETTINGS["heldout_every_steps"] == 0:
            run.check_heldout()
        if run.step == run.n_fit_steps + 5:
            break
    checkpoint.save(run, tmp_path / "again")
    again = fine_tuned(world, tmp_path / "again")
    assert torch.equal(whole.W_enc, again.W_enc) and all(map(torch.equal, whole.W_dec, again.W_dec))
    assert metrics(tmp_path / "whole").equals(metrics(tmp_path / "again"))


def test_texts_are_read_once_per_epoch_and_shared_by_the_ranks(world):
    texts, n = world["texts"], len(world["texts"].sequences)
    epoch = torch.cat([texts.batch(step, 4) for step in range(n // 4)])
    assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, texts.sequences.tokens.tolist()))
    assert not np.array_equal(epoch.numpy(), texts.sequences.tokens)
    halves = torch.cat([texts.batch(3, 4, rank=rank, world_size=2) for rank in range(2)])
    assert torch.equal(halves, texts.batch(3, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"launch": {"processes": 2, "feature_parallel": 2}}, "expected 1 with train.kl"),
        ({"launch": {"processes": 3}, "batch_tokens": 36}, "expected sequences that the 3 parts"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Train(**{**SETTINGS, "kl": KL, **settings})
