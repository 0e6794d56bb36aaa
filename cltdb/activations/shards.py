"""One shard: an Arrow IPC file with one row per token, beside it `<shard>.index.json` with checksums of all its byte ranges.

Columns: document, sequence, position, token, label; mlp_input, mlp_output and their scales (`codec.layout`). Each record batch is a
block of whole sequences that can be read, checked and decoded alone. What a shard is (model, codec, tokens, …) and what it
contributes to the statistics is in its schema metadata. The index is written after the shard: a shard without one is not finished.
The ranges cover every byte: what stands before the first block, the blocks, what stands after them.
"""

import hashlib
import json
import zlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from cltdb.activations import codec as codecs
from cltdb.errors import DataError

SIDES = ("mlp_input", "mlp_output")
FORMAT_VERSION = 3
CHUNK_TOKENS = 256
MAGIC_BYTES = 8  # at the front of an Arrow IPC file
STATISTICS = ("norm", "signal", "noise")
AGAIN = "remove this file and run again: only it is written anew"


class Recipe(NamedTuple):
    """How every shard of a cache is made. scales: {side: [n_layers, d_model]}; block_seqs: sequences per record batch."""

    codec: str
    compression: str
    scales: dict
    scales_sha256: str
    block_seqs: int
    batch_seqs: int


def index_name(name):
    return f"{name}.index.json"


def identity(lm, sequences, recipe, *, first_sequence):
    """What must agree for a shard found on disk to be the one that would be written."""
    n_seqs, context = sequences.tokens.shape
    return {
        "format_version": FORMAT_VERSION,
        "model_id": lm.model_id,
        "revision": lm.revision,
        "mlp_input": lm.mlp_input,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "codec": recipe.codec,
        "compression": recipe.compression,
        "scales_sha256": recipe.scales_sha256,
        "context": context,
        "block_seqs": recipe.block_seqs,
        "first_sequence": first_sequence,
        "rows": n_seqs * context,
        "trainable_rows": int(sequences.ordinary.sum()),
        "block_rows": block_rows(sequences, recipe.block_seqs).tolist(),
        "excluded_tokens": list(sequences.excluded),
        "tokens_sha256": tokens_digest(sequences),
    }


def block_rows(sequences, block_seqs):
    """How many ordinary tokens each block of block_seqs sequences has [n_blocks]."""
    return np.add.reduceat(sequences.ordinary.sum(1), np.arange(0, len(sequences), block_seqs))


def tokens_digest(sequences):
    """A hash of the tokens, documents and labels of sequences."""
    digest = hashlib.sha256(json.dumps(sequences.label_names).encode())
    for column in (sequences.tokens, sequences.documents, sequences.labels):
        digest.update(np.ascontiguousarray(column))
    return digest.hexdigest()


def forward(lm, sequences, batch_seqs, *, where):
    """(first sequence, {side: [token, n_layers, d_model] float32 on the CPU}) of batches of sequences; values that are not finite
    are an error."""
    for start in range(0, len(sequences), batch_seqs):
        captured = lm.run(torch.from_numpy(sequences.tokens[start : start + batch_seqs]).long(), with_logits=False)
        sides = {side: getattr(captured, side).flatten(0, 1).float().cpu() for side in SIDES}
        for side, x in sides.items():
            if not all(torch.isfinite(rows).all() for rows in x.split(CHUNK_TOKENS)):
                raise DataError(
                    f"activations {where}",
                    found=f"values that are not finite in {side}",
                    expected="finite activations",
                    do="use model.dtype float32 or bfloat16",
                )
        yield start, sides


def write_shard(lm, sequences, folder, name, *, recipe, first_sequence):
    """Writes a shard and then its index. All tokens are there, statistics are of the ordinary ones."""
    n_seqs, context = sequences.tokens.shape
    ordinary = torch.from_numpy(sequences.ordinary.ravel())
    about = identity(lm, sequences, recipe, first_sequence=first_sequence)
    columns = {
        side + suffix: np.empty((n_seqs * context, width), dtype)
        for side in SIDES
        for suffix, (width, dtype) in codecs.layout(recipe.codec, n_layers=lm.n_layers, d_model=lm.d_model).items()
    }
    sums = {f"{side}_{name}": np.zeros(lm.n_layers) for side in SIDES for name in STATISTICS}
    for start, sides in forward(lm, sequences, recipe.batch_seqs, where=name):
        for first in range(0, len(sides[SIDES[0]]), recipe.block_seqs * context):  # by blocks, which stay in the cache
            rows = slice(first, first + recipe.block_seqs * context)
            counted = ordinary[start * context :][: len(sides[SIDES[0]])][rows]
            for side, x in sides.items():
                stored = codecs.encode(x[rows], recipe.codec, recipe.scales[side])
                for suffix, values in stored.items():
                    columns[side + suffix][start * context + first :][: len(values)] = values
                for statistic, value in _contribution(x[rows], stored, recipe, side, ordinary=counted).items():
                    sums[f"{side}_{statistic}"] += value
    about |= {name: value.tolist() for name, value in sums.items()}
    schema_metadata = {"cltdb": json.dumps(about)}
    for file in (name, index_name(name)):
        folder.remove_leftovers(file)
    with folder.writing(name) as aside:
        _write_blocks(aside, _blocks(sequences, columns, recipe.block_seqs, first_sequence), schema_metadata, recipe.compression)
        index = {"file": name, **_ranges(aside), **about}
    folder.write(index_name(name), (json.dumps(index) + "\n").encode())


def _contribution(x, stored, recipe, side, *, ordinary):
    """{statistic: [n_layers]} of a batch: sums over its ordinary tokens, a mask, of the norm, its square, and the squared error of the
    codec."""
    decoded = np.empty(x.shape, np.float32)
    codecs.decode(stored, recipe.codec, recipe.scales[side].numpy(), decoded)
    squares = {"signal": x.square().sum(-1), "noise": (x - torch.from_numpy(decoded)).square().sum(-1)}
    squares["norm"] = squares["signal"].sqrt()
    return {statistic: value[ordinary].double().sum(0).numpy() for statistic, value in squares.items()}


def _blocks(sequences, columns, block_seqs, first_sequence):
    """Record batches of block_seqs sequences."""
    context = sequences.tokens.shape[1]
    for start in range(0, len(sequences), block_seqs):
        part = sequences.part(start, start + block_seqs)
        rows = slice(start * context, (start + len(part)) * context)
        values = {name: _fixed_size(column[rows]) for name, column in columns.items()}
        yield pa.record_batch({**_token_columns(part, first_sequence + start), **values})


def _token_columns(sequences, first_sequence):
    n_seqs, context = sequences.tokens.shape
    labels = sequences.labels.ravel()
    return {
        "document": pa.array(sequences.documents.ravel()),
        "sequence": pa.array(np.repeat(np.arange(first_sequence, first_sequence + n_seqs), context)),
        "position": pa.array(np.tile(np.arange(context, dtype=np.int32), n_seqs)),
        "token": pa.array(sequences.tokens.ravel()),
        "label": pa.DictionaryArray.from_arrays(pa.array(labels, mask=labels < 0), pa.array(sequences.label_names, pa.string())),
    }


def _fixed_size(values):
    """[row, width] array to a fixed-size list column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _write_blocks(path, blocks, metadata, compression):
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression, use_threads=False)
    first = next(blocks)
    schema = first.schema.with_metadata(metadata)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema, options=options) as writer:
        writer.write_batch(first.replace_schema_metadata(metadata))
        for block in blocks:
            writer.write_batch(block.replace_schema_metadata(metadata))


def _ranges(path):
    """Size, sha256 and, per byte range of a whole file, its end and CRC-32."""
    ends = [0]
    with pa.memory_map(str(path)) as file:
        file.seek(MAGIC_BYTES)
        while (message := _next_message(file)) is not None:
            if message.type == "record batch":
                ends.append(file.tell())
            else:
                ends[0] = file.tell()
        ends.append(file.size())
        digest, checksums = hashlib.sha256(), []
        for start, end in zip([0, *ends], ends, strict=False):
            data = file.read_at(end - start, start)
            digest.update(data)
            checksums.append(zlib.crc32(data))
    return {"bytes": ends[-1], "sha256": digest.hexdigest(), "ends": ends, "crc32": checksums}


def _next_message(file):
    try:
        return pa.ipc.read_message(file)
    except EOFError:
        return None


def finished_index(folder, name, expected):
    """The index of a shard that an earlier run finished, or None; a shard that is damaged or is not the expected one is an error.
    expected: its `identity`."""
    if not (folder.has(name) and folder.has(index_name(name))):
        return None
    index = read_index(folder, name)
    different = [key for key, value in expected.items() if index.get(key) != value]
    if different:
        raise DataError(
            folder.place_of(name),
            found=f"a shard of another cache ({', '.join(f'{key} {_short(index.get(key))}' for key in different)})",
            expected=", ".join(f"{key} {_short(expected[key])}" for key in different),
            do=f"remove it and {index_name(name)}, or run with --force activations",
        )
    with open_shard(folder, index) as file:
        for number in range(len(index["ends"])):
            read_range(folder, index, number, file=file)
    return index


def _short(value):
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def read_index(folder, name, *, sha256=None):
    """The index of a shard; sha256: what its bytes must hash to."""
    place = folder.place_of(index_name(name))
    try:
        data = folder.read(index_name(name))
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("a file with another checksum")
        return json.loads(data)
    except FileNotFoundError:
        raise DataError(place, found="no such file", expected="the index of every shard", do=_restore(sha256)) from None
    except ValueError as error:
        raise DataError(place, found=str(error), expected="the index as cltdb wrote it", do=_restore(sha256)) from error


def _restore(finished):
    return "restore the file, or run again with --force activations" if finished else AGAIN


def read_range(folder, index, number, *, file, finished=False):
    """Bytes of range `number` of a shard, checked. finished: the whole cache is, so its shards are not written anew by themselves."""
    start, end = (0, *index["ends"])[number], index["ends"][number]
    try:
        data = file.read_at(end - start, start)
    except OSError as error:
        raise DataError(
            folder.place_of(index["file"]),
            found=f"bytes {start:,} to {end:,} that cannot be read ({error})",
            expected="a readable file",
            do="check the disk, the network and the access rights, and run again",
        ) from error
    if len(data) != end - start or zlib.crc32(data) != index["crc32"][number]:
        raise DataError(
            folder.place_of(index["file"]),
            found=f"{file.size():,} bytes with another checksum (in bytes {start:,} to {end:,})",
            expected=f"{index['bytes']:,} bytes with sha256 {index['sha256'][:12]}…",
            do=_restore(finished),
        )
    return data


def open_shard(folder, index, *, finished=False):
    """A shard opened to read, its size checked."""
    place = folder.place_of(index["file"])
    try:
        file = folder.open(index["file"])
    except FileNotFoundError:
        raise DataError(
            place, found="no such shard", expected="every shard the cache was finished with", do=_restore(finished)
        ) from None
    if file.size() != index["bytes"]:
        with file:
            raise DataError(
                place,
                found=f"{file.size():,} bytes with another checksum",
                expected=f"{index['bytes']:,} bytes with sha256 {index['sha256'][:12]}…",
                do=_restore(finished),
            )
    return file


def read_blocks(folder, index, blocks):
    """(block, token ids, {column: array [token, width]}) for record batches of a finished cache's shard, every byte checked before it is
    read."""
    n_blocks = len(index["ends"]) - 2
    with open_shard(folder, index, finished=True) as file:
        read_range(folder, index, n_blocks + 1, file=file, finished=True)
        head = read_range(folder, index, 0, file=file, finished=True)[MAGIC_BYTES:]
        for block in blocks:
            data = read_range(folder, index, int(block) + 1, file=file, finished=True)
            options = pa.ipc.IpcReadOptions(use_threads=False)
            batch = pa.ipc.open_stream(pa.BufferReader(head + data), options=options).read_next_batch()
            yield (
                block,
                batch.column("token").to_numpy(),
                {
                    name: batch.column(name).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
                    for name in batch.schema.names
                    if name.startswith("mlp_")
                },
            )
