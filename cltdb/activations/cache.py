"""Writes the activation cache: shards of MLP inputs and outputs by any number of processes, resumed shard by shard.

Reads: token sequences and the model. Writes into a folder (`storage`): `<part>-<number>.arrow` with its index (`shards`),
`codec.safetensors` (static scales), and at the end `cache.json`: counts, checksums, norm statistics and the measured signal-to-noise
ratio of the codec. Without a disk cache (`mode: stream`) `cache.json` alone, with the statistics of a sample.
"""

import hashlib
import json
import logging

import numpy as np
import torch

from cltdb import log
from cltdb.activations import codec as codecs
from cltdb.activations.loader import SCALES_FILE, SUMMARY_FILE
from cltdb.activations.ordinary import token_counts
from cltdb.activations.shards import (
    FORMAT_VERSION,
    SIDES,
    STATISTICS,
    Recipe,
    finished_index,
    forward,
    identity,
    index_name,
    read_index,
    tokens_digest,
    write_shard,
)
from cltdb.activations.sizes import bytes_per_token  # noqa: F401
from cltdb.activations.storage import Folder
from cltdb.engine.stage import ALONE
from cltdb.errors import DataError

logger = logging.getLogger(__name__)
CALIBRATION_SEQS = 64
STREAM_SAMPLE_SEQS = 256
BLOCK_TOKENS = 256  # at least, in whole sequences: what is read, checked and shuffled as one


def write_cache(settings, lm, parts, *, directory, share=ALONE):
    """Writes the missing ones of this process's shards of parts {name: Sequences}; True once the cache is complete.

    settings: section `Activations`, of which codec, compression, shard_tokens and batch_seqs count. Of share.world_size processes, which
    may run at once or one after another, process `rank` writes shards rank, rank + world_size, …; the one that finds all shards there
    writes `cache.json`. Finished shards are kept. The bytes are the same whatever the number of processes, as long as each runs with as
    many threads.
    """
    folder = Folder(directory)
    scales, digest = _static_scales(lm, next(iter(parts.values())), folder=folder, batch_seqs=settings.batch_seqs)
    context = next(iter(parts.values())).tokens.shape[1]
    shard_seqs, block_seqs = shard_sizes(context, settings.shard_tokens)
    recipe = Recipe(settings.codec, settings.compression, scales, digest, block_seqs, settings.batch_seqs)
    shards = list(_shards(parts, shard_seqs))
    mine = shards[share.rank :: share.world_size]
    with log.progress("activations", total=sum(chunk.tokens.size for *_, chunk in mine), unit="tokens") as bar:
        for _, name, first_sequence, chunk in mine:
            expected = identity(lm, chunk, recipe, first_sequence=first_sequence)
            if finished_index(folder, name, expected) is None:
                write_shard(lm, chunk, folder, name, recipe=recipe, first_sequence=first_sequence)
            bar.advance(chunk.tokens.size)
    present = set(folder.names())
    if not all({name, index_name(name)} <= present for _, name, *_ in shards):
        return False
    described = [(part, _checked_index(lm, folder, recipe, name, first, chunk)) for part, name, first, chunk in shards]
    folder.remove_leftovers(SCALES_FILE)
    counted = _excluded(parts)
    _write_summary(folder, _summary(lm, described, recipe, context=context, folder=folder) | counted)
    return True


def shard_sizes(context, shard_tokens):
    """(sequences per shard, sequences per block): a shard is a whole number of blocks, but for the last one of a part."""
    shard_seqs = max(1, shard_tokens // context)
    block_seqs = min(max(1, BLOCK_TOKENS // context), shard_seqs)
    return shard_seqs - shard_seqs % block_seqs, block_seqs


def _shards(parts, shard_seqs):
    """(part, file name, first sequence, Sequences) of every shard, in order."""
    offset = 0
    for part, sequences in parts.items():
        for number, start in enumerate(range(0, len(sequences), shard_seqs)):
            yield part, f"{part}-{number:05d}.arrow", offset + start, sequences.part(start, start + shard_seqs)
        offset += len(sequences)


def _checked_index(lm, folder, recipe, name, first_sequence, chunk):
    """The index of a shard that this process or another wrote."""
    index = read_index(folder, name)
    expected = identity(lm, chunk, recipe, first_sequence=first_sequence)
    if any(index.get(key) != value for key, value in expected.items()):
        finished_index(folder, name, expected)  # says what differs
    return index


def _static_scales(lm, sequences, *, folder, batch_seqs):
    """{side: [n_layers, d_model]} of the static scale, from the first sequences, and the hash of their file; read back where another
    process or an earlier run wrote it, so that all shards share one."""
    from safetensors.torch import load, save

    if not folder.has(SCALES_FILE):
        sample, context = sequences.part(0, CALIBRATION_SEQS), sequences.tokens.shape[1]
        ordinary, magnitudes = torch.from_numpy(sample.ordinary), {side: 0 for side in SIDES}
        for start, sides in forward(lm, sample, batch_seqs, where=SCALES_FILE):
            for side, x in sides.items():
                for number, sequence in enumerate(x.split(context), start):
                    magnitudes[side] += sequence[ordinary[number]].abs().sum(0, dtype=torch.float64)
        n_tokens = max(1, int(ordinary.sum()))  # scales are 1 where there is none in the sample
        data = save({side: codecs.mean_magnitude(magnitudes[side], n_tokens) for side in SIDES})
        folder.write_first(SCALES_FILE, data)
    data = folder.read(SCALES_FILE)
    scales = load(data)
    shapes = {side: tuple(scale.shape) for side, scale in scales.items()}
    if shapes != {side: (lm.n_layers, lm.d_model) for side in SIDES}:
        raise DataError(
            folder.place_of(SCALES_FILE),
            found=f"scales of another model ({shapes})",
            expected=f"{' and '.join(SIDES)} of {lm.n_layers} layers and d_model {lm.d_model}",
            do="remove it and the shards beside it, or run with --force activations",
        )
    return scales, hashlib.sha256(data).hexdigest()


def _summary(lm, described, recipe, *, context, folder):
    """What a reader needs to know of the whole cache."""
    trained = [index for part, index in described if part == "train"]
    total = lambda name: np.sum([index[name] for index in trained], axis=0)  # noqa: E731
    summary = _about(lm, mode="cache", context=context, block_seqs=recipe.block_seqs) | {
        "codec": recipe.codec,
        "compression": recipe.compression,
        "scales_sha256": recipe.scales_sha256,
        "shards": [
            {name: index[name] for name in ("file", "bytes", "sha256", "rows", "trainable_rows", "block_rows")}
            | {"part": part, "index_sha256": hashlib.sha256(folder.read(index_name(index["file"]))).hexdigest()}
            for part, index in described
        ],
    }
    for side in SIDES:
        norm, signal, noise = (total(f"{side}_{name}") for name in STATISTICS)
        summary[f"{side}_mean_norm"] = (norm / total("trainable_rows")).tolist()
        decibels = 10 * (np.log10(np.maximum(signal, 1e-300)) - np.log10(np.maximum(noise, 1e-300)))
        summary[f"{side}_snr_db"] = np.minimum(decibels, 300).tolist()
    return summary


def _about(lm, *, mode, context, block_seqs):
    return {
        "format_version": FORMAT_VERSION,
        "mode": mode,
        "model_id": lm.model_id,
        "revision": lm.revision,
        "mlp_input": lm.mlp_input,
        "input_hook": lm.input_hook,
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "context": context,
        "block_seqs": block_seqs,
    }


def describe_stream(lm, parts, *, directory, batch_seqs):
    """Writes the `cache.json` of parts {name: Sequences} that are not cached: norms of a sample, spread evenly over those sequences of part
    train that have ordinary tokens."""
    context, with_some = parts["train"].tokens.shape[1], np.flatnonzero(parts["train"].ordinary.any(1))
    places = np.linspace(0, len(with_some) - 1, min(len(with_some), STREAM_SAMPLE_SEQS)).astype(int)
    sample = parts["train"].take(with_some[np.unique(places)])
    norms, ordinary = {side: 0 for side in SIDES}, torch.from_numpy(sample.ordinary.ravel())
    with log.progress("activations", total=len(sample), unit="sequences") as bar:
        for start, sides in forward(lm, sample, batch_seqs, where="sample"):
            for side, x in sides.items():
                norms[side] += x[ordinary[start * context :][: len(x)]].norm(dim=-1).double().sum(0)
            bar.advance(len(sides[SIDES[0]]) // context)
    summary = _about(lm, mode="stream", context=context, block_seqs=max(1, BLOCK_TOKENS // context)) | {
        "batch_seqs": batch_seqs,
        "sampled_seqs": len(sample),
        "parts": {
            part: {"n_seqs": len(sequences), "tokens_sha256": tokens_digest(sequences)} for part, sequences in parts.items()
        },
    }
    for side in SIDES:
        summary[f"{side}_mean_norm"] = (norms[side] / ordinary.sum()).tolist()
    _write_summary(Folder(directory), summary | _excluded(parts))


def _excluded(parts):
    """What a summary says of the tokens that are not trained on: their ids, and what of each part is ordinary."""
    return {
        "excluded_tokens": list(next(iter(parts.values())).excluded),
        "token_counts": {part: token_counts(sequences) for part, sequences in parts.items()},
    }


def refer_to(place, *, directory):
    """Writes the `cache.json` of an artifact whose shards are in another folder, `place`."""
    summary = json.loads(Folder(place).read(SUMMARY_FILE))
    _write_summary(Folder(directory), summary | {"location": str(place)})


def _write_summary(folder, summary):
    folder.write(SUMMARY_FILE, (json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
