"""Batches from memory, with the interface of `cltdb.activations.loader`'s sources."""

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """x, y [token, layer, d_model]."""

    x: torch.Tensor
    y: torch.Tensor


class MemorySource:
    """Rows x, y [row, layer, d_model] in their own order, over and over."""

    def __init__(self, x, y):
        self.x, self.y, self.n_rows = x, y, len(x)
        norm = lambda tensor: tensor.norm(dim=-1).mean(0).tolist()  # noqa: E731
        self.summary = {
            "n_layers": x.shape[1],
            "d_model": x.shape[2],
            "mlp_input_mean_norm": norm(x),
            "mlp_output_mean_norm": norm(y),
            "model_id": "random",
            "revision": "none",
            "mlp_input": "normed",
            "input_hook": "mlp.hook_in",
        }

    def batch(self, step, batch_tokens, *, rank=0, world_size=1):
        mine = batch_tokens // world_size
        rows = (step * batch_tokens + rank * mine + torch.arange(mine)) % self.n_rows
        return Batch(self.x[rows], self.y[rows])

    def batches(self, first_step, n_steps, batch_tokens, *, rank=0, world_size=1):
        for step in range(first_step, first_step + n_steps):
            yield self.batch(step, batch_tokens, rank=rank, world_size=world_size)


def random_source(n_rows, n_layers, d_model, *, seed=0):
    """A random smooth map from inputs to outputs, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, n_layers, d_model, generator=generator)
    maps = torch.randn(n_layers, d_model, d_model, generator=generator) / d_model**0.5
    return MemorySource(x, torch.einsum("tld,lde->tle", x, maps).relu())
