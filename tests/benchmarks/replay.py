"""A model whose activations were computed before: stands in for it where only the MLPs' inputs and outputs are wanted."""

import time

import numpy as np
import torch

from cltdb.activations.shards import SIDES
from cltdb.model.language_model import Captured

BATCH_SEQS = 16


class Replay:
    """lm on `sequences`, kept in memory or, where a directory is given, in files there. `seconds`: what the model took."""

    def __init__(self, lm, sequences, *, directory=None):
        for name in ("model_id", "revision", "mlp_input", "input_hook", "dtype", "n_layers", "d_model"):
            setattr(self, name, getattr(lm, name))
        self.place = {tokens.tobytes(): place for place, tokens in enumerate(sequences.tokens)}
        shape, start = (*sequences.tokens.shape, lm.n_layers, lm.d_model), time.perf_counter()
        self.sides = {side: _empty(shape, directory and directory / f"{side}.npy") for side in SIDES}
        for first in range(0, len(sequences), BATCH_SEQS):
            captured = lm.run(_tokens(sequences, first), with_logits=False)
            for side, values in self.sides.items():
                values[first : first + BATCH_SEQS] = getattr(captured, side)
        self.seconds = time.perf_counter() - start

    def run(self, tokens, *, with_logits=False):
        assert not with_logits, "logits were not kept"
        places = [self.place[row.tobytes()] for row in tokens.numpy().astype(np.int32)]
        return Captured(*(torch.from_numpy(self.sides[side][places]) for side in SIDES), None)

    def side(self, name):
        """[token, n_layers, d_model] of all sequences, position 0 left out."""
        return torch.from_numpy(self.sides[name][:, 1:]).flatten(0, 1)


def _tokens(sequences, first):
    return torch.from_numpy(sequences.tokens[first : first + BATCH_SEQS]).long()


def _empty(shape, path):
    return np.lib.format.open_memmap(path, "w+", np.float32, shape) if path else np.empty(shape, np.float32)
