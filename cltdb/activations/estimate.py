"""What a cache would take, and from a short measurement whether running the model again would be cheaper than reading it back.

Writes one shard of a few sequences of random tokens into a temporary folder beside the workspace, lets the system forget its pages,
and times the model against reading, checking and decoding that shard.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cltdb.activations.sizes import bytes_per_token, known_sizes
from cltdb.activations.storage import Folder
from cltdb.errors import CltdbError

MEASURED_SEQS = 4
MEASURED_TOKENS = 2048  # at most
LARGEST_MODEL_BYTES = 200e6


class Estimate(NamedTuple):
    """cache_bytes: at most, before compression. recompute_s, read_s: of one token; None where nothing was measured, `measured` says
    what was or why not."""

    mode: str
    codec: str
    compression: str
    cache_bytes: int
    recompute_s: float | None
    read_s: float | None
    measured: str

    @property
    def text(self):
        """One clause for a plan."""
        size = f"{'up to ' if self.compression != 'none' else ''}{self.cache_bytes / 1e6:,.0f} MB"
        words = f"a cache of {size}" if self.mode == "cache" else f"no cache, which would take {size}"
        if self.recompute_s is None:
            return f"{words} ({self.measured})"
        ratio = self.recompute_s / self.read_s
        verdict = f"reading back is {ratio:.1f} times cheaper" if ratio >= 1 else f"recomputing is {1 / ratio:.1f} times cheaper"
        return (
            f"{words}; a token takes {self.recompute_s * 1e6:,.0f} µs to recompute, {self.read_s * 1e6:,.0f} µs to read back"
            f" ({self.measured}): {verdict}"
        )

    def keys(self):
        """Further keys of `cltdb plan --json`."""
        return {f"activations_{name}": getattr(self, name) for name in ("cache_bytes", "recompute_s", "read_s", "measured")}


def estimate(section, model, *, source, folder, measure=True):
    """The `Estimate` of a spec's section `activations`, or None where the model's sizes are not on this machine.

    model: section `model`; source: its id as `load_model` takes it; folder: an existing one on the disk that would hold the cache; measure: load
    the model and time it, which takes seconds.
    """
    sizes = known_sizes(source)
    if sizes is None:
        return None
    cache_bytes = (section.train_tokens + section.heldout_tokens) * bytes_per_token(*sizes, section.codec)
    recompute_s = read_s = None
    weights = _weight_bytes(source)
    if not measure:
        measured = "--measure tells whether recomputing would be cheaper"
    elif weights > LARGEST_MODEL_BYTES:
        measured = f"not measured: the model has {weights / 1e6:,.0f} MB"
    else:
        from cltdb.model.loading import load_model

        try:
            lm = load_model(source, dtype=model.dtype, device=model.device, mlp_input=model.mlp_input, model_id=model.id)
            sequences = _random_sequences(lm, min(section.context, lm.max_context))
            recompute_s = _recompute_seconds(lm, sequences) / sequences.tokens.size
            read_s = _read_seconds(lm, sequences, section, folder) / sequences.tokens.size
            measured = f"measured on {sequences.tokens.size:,} random tokens"
        except CltdbError as error:  # the run says what to do about it; a plan can do without
            measured = f"not measured: {error.found}"
    return Estimate(section.mode, section.codec, section.compression, cache_bytes, recompute_s, read_s, measured)


def _weight_bytes(source):
    """Of a local model."""
    if source == "toyworld":
        from cltdb.toyworld import MODEL_DIR

        source = MODEL_DIR
    return sum(path.stat().st_size for path in Path(source).glob("*.safetensors"))


def _random_sequences(lm, context):
    from cltdb.activations.tokens import Sequences

    n_seqs = max(1, min(MEASURED_SEQS, MEASURED_TOKENS // context))
    tokens = np.random.default_rng(0).integers(0, lm.vocab_size, (n_seqs, context), dtype=np.int32)
    return Sequences(tokens, np.zeros((n_seqs, context), np.int64), np.full((n_seqs, context), -1, np.int16), [])


def _recompute_seconds(lm, sequences):
    """Of the second of two runs: the first one also warms up."""
    from cltdb.activations import shards

    for _ in range(2):
        start = time.perf_counter()
        for _, sides in shards.forward(lm, sequences, len(sequences), where="measurement"):
            del sides
    return time.perf_counter() - start


def _read_seconds(lm, sequences, section, folder):
    """Of reading, checking and decoding a shard of the sequences."""
    import torch

    from cltdb.activations import codec as codecs
    from cltdb.activations import shards

    scales = {side: torch.ones(lm.n_layers, lm.d_model) for side in shards.SIDES}
    recipe = shards.Recipe(section.codec, section.compression, scales, "", len(sequences), len(sequences))
    with tempfile.TemporaryDirectory(prefix=".cltdb-plan-", dir=folder) as scratch:
        place = Folder(scratch)
        shards.write_shard(lm, sequences, place, "sample.arrow", recipe=recipe, first_sequence=0)
        _forget_pages(Path(scratch) / "sample.arrow")
        out = np.empty((sequences.tokens.size, lm.n_layers, lm.d_model), np.float32)
        start = time.perf_counter()
        for _, _, columns in shards.read_blocks(place, shards.read_index(place, "sample.arrow"), [0]):
            for side in shards.SIDES:
                stored = {name.removeprefix(side): values for name, values in columns.items() if name.startswith(side)}
                codecs.decode(stored, section.codec, scales[side].numpy(), out)
        return time.perf_counter() - start


def _forget_pages(path):
    """Asks the system to read the file from the disk next time, where it knows how to."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
