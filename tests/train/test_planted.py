"""A planted dictionary: with the penalty training finds more of the true directions, with fewer duplicates; weight decay does not do it.

64 orthonormal directions in 128 dimensions, in pairs of which both fire in 80 % of the cases, are learned by an SAE of 128 features. Without the
penalty some features stand for a pair, others for one of it twice.
"""

from statistics import fmean
from typing import NamedTuple

import polars as pl
import pytest
import torch
from train.test_train import metrics
from worlds.batches import MemorySource

from cltdb.model.transcoder import load_dictionary
from cltdb.train.loop import train
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Train

N_TRUE, N_FEATURES, WIDTH, N_TOKENS, N_HELDOUT = 64, 128, 128, 20_000, 2_000
PER_TOKEN, TOGETHER, NOISE = 3.5, 0.8, 0.01
SEEDS = (0, 1, 2)
SETTINGS = dict(
    kind="sae",
    n_features=N_FEATURES,
    l0=4,
    batch_tokens=500,
    epochs=20,
    init_l0=20,
    dead_window_tokens=5_000,
    checkpoint_every_steps=10_000,
)
PENALTY, PLACEBO = {"orthogonality": {"coefficient": 10.0}}, {"weight_decay": 0.2}


class Found(NamedTuple):
    """fvu: held-out. mmcs: mean over the true directions of the largest |cosine| with a decoder; duplicates: pairs of decoders with a |cosine|
    above 0.9; norm: mean norm of the decoders."""

    fvu: float
    mmcs: float
    duplicates: int
    norm: float


def planted(seed):
    """(true directions [N_TRUE, WIDTH], tokens [token, 1, WIDTH])."""
    generator = torch.Generator().manual_seed(seed)
    n_tokens, n_pairs = N_TOKENS + N_HELDOUT, N_TRUE // 2
    true = torch.linalg.qr(torch.randn(WIDTH, N_TRUE, generator=generator))[0].T
    uniform = lambda *shape: torch.rand(n_tokens, *shape, generator=generator)  # noqa: E731
    pair = uniform(n_pairs) < PER_TOKEN / (n_pairs * (1 + TOGETHER))
    both, first = uniform(n_pairs) < TOGETHER, uniform(n_pairs) < 0.5
    fires = torch.stack([pair & (both | first), pair & (both | ~first)], dim=-1).flatten(1)
    x = (fires * (uniform(N_TRUE) + 0.5)) @ true
    return true, (x + NOISE * torch.randn(x.shape, generator=generator))[:, None]


def learned(directory, seed, **settings):
    """`Found` of a training on planted directions."""
    true, x = planted(seed)
    source, heldout = (MemorySource(part, part) for part in (x[:N_TOKENS], x[N_TOKENS:]))
    run = TrainingRun(Train(**SETTINGS, **settings), source=source, heldout=heldout, seed=seed, device="cpu")
    train(run, directory=directory, dict_id="d", experiment="e")
    dictionary, rows = load_dictionary(directory), metrics(directory)
    fvu = rows.filter(pl.col("layer").is_null(), name="heldout_fvu", step=dictionary.info["steps"])["value"].item()
    decoders = dictionary.W_dec[0][:, 0]
    unit = torch.nn.functional.normalize(decoders, dim=1)
    overlaps = (unit @ unit.T).abs()[*torch.triu_indices(N_FEATURES, N_FEATURES, 1)]
    mmcs = (true @ unit.T).abs().max(1).values.mean().item()
    return Found(fvu, mmcs, int((overlaps > 0.9).sum()), decoders.norm(dim=1).mean().item())


@pytest.mark.slow
def test_the_penalty_recovers_more_of_the_truth_with_fewer_duplicates_and_weight_decay_does_not(tmp_path):
    arms = {"without": {}, "penalty": PENALTY, "placebo": PLACEBO}
    found = {name: [learned(tmp_path / f"{name}{n}", n, **settings) for n in SEEDS] for name, settings in arms.items()}
    mean = {name: Found(*map(fmean, zip(*of_seeds, strict=True))) for name, of_seeds in found.items()}
    gains = {name: [one.mmcs - other.mmcs for one, other in zip(found[name], found["without"], strict=True)] for name in arms}
    assert all(one.fvu < 1.05 * other.fvu for one, other in zip(found["penalty"], found["without"], strict=True)), found
    assert min(gains["penalty"]) > 0 and fmean(gains["penalty"]) > 0.01, found
    assert mean["penalty"].duplicates < 0.6 * mean["without"].duplicates, found
    # The placebo takes more from the norms than the penalty, which leaves them to grow, and does little to the directions.
    assert mean["placebo"].norm < 0.96 * mean["without"].norm < 0.96 * mean["penalty"].norm, found
    assert fmean(gains["placebo"]) < 0.5 * fmean(gains["penalty"]), found
    assert mean["placebo"].duplicates > 0.9 * mean["without"].duplicates, found
