"""Shards of MLP inputs and outputs as Arrow IPC, one row per token, and the loader that draws training batches from them.

Reads: token sequences and the model. Writes: `<part>-<number>.arrow`, `codec.safetensors` (static scales), and at the end
`cache.json` with counts, checksums, norm statistics and the measured signal-to-noise ratio of the codec.
Columns: document, sequence, position, token, label; mlp_input, mlp_output (n_layers * d_model stored values); for int8 also
mlp_input_scale, mlp_output_scale (n_layers). What a shard contributes to the statistics is in its schema metadata.
"""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from cltdb import log
from cltdb.activations import codec as codecs
from cltdb.errors import DataError
from cltdb.workspace import read_json, write_json, write_safetensors, writing

SIDES = ("mlp_input", "mlp_output")
CALIBRATION_SEQS = 64
FORMAT_VERSION = 1


def bytes_per_token(n_layers, d_model, codec):
    """Size of one row before compression."""
    width = {"float32": 4 * d_model, "bfloat16": 2 * d_model, "int8": d_model + 4}[codec]
    return 2 * n_layers * width + 26


def write_cache(lm, parts, *, directory, codec, compression, shard_tokens, batch_seqs):
    """Writes every missing shard of parts {name: Sequences} and then `cache.json`; finished shards are kept."""
    directory = Path(directory)
    scales = _static_scales(lm, next(iter(parts.values())), directory=directory, batch_seqs=batch_seqs)
    shards, offset = [], 0
    total = sum(sequences.tokens.size for sequences in parts.values())
    with log.progress("activations", total=total, unit="tokens") as bar:
        for part, sequences in parts.items():
            per_shard = max(1, shard_tokens // sequences.tokens.shape[1]) if len(sequences) else 1
            for number, start in enumerate(range(0, len(sequences), per_shard)):
                path = directory / f"{part}-{number:05d}.arrow"
                chunk = sequences.part(start, start + per_shard)
                if not path.exists():
                    _write_shard(
                        lm,
                        chunk,
                        path,
                        first_sequence=offset + start,
                        codec=codec,
                        compression=compression,
                        scales=scales,
                        batch_seqs=batch_seqs,
                    )
                shards.append(_describe(path, part))
                bar.advance(chunk.tokens.size)
            offset += len(sequences)
    write_json(directory / "cache.json", _summary(lm, shards, codec=codec, compression=compression))


def _static_scales(lm, sequences, *, directory, batch_seqs):
    """{side: [n_layers, d_model]} of int8's static scale, from the first sequences; read back when an earlier run wrote it."""
    from safetensors.torch import load_file

    path = directory / "codec.safetensors"
    if not path.exists():
        samples = {side: [] for side in SIDES}
        for batch in _batches(sequences.part(0, CALIBRATION_SEQS), batch_seqs):
            captured = lm.run(torch.from_numpy(batch.tokens).long())
            for side in SIDES:
                samples[side].append(getattr(captured, side)[:, 1:].flatten(0, 1).float().cpu())
        write_safetensors(path, {side: codecs.channel_scale(torch.cat(samples[side])) for side in SIDES})
    return load_file(path)


def _batches(sequences, batch_seqs):
    for start in range(0, len(sequences), batch_seqs):
        yield sequences.part(start, start + batch_seqs)


def _write_shard(lm, sequences, path, *, first_sequence, codec, compression, scales, batch_seqs):
    """One shard. Statistics leave out position 0, which is never trained or evaluated on."""
    sums = {
        f"{side}_{name}": torch.zeros(lm.n_layers, dtype=torch.float64) for side in SIDES for name in ("norm", "signal", "noise")
    }
    tables, written = [], 0
    for batch in _batches(sequences, batch_seqs):
        captured = lm.run(torch.from_numpy(batch.tokens).long())
        columns = _token_columns(batch, first_sequence + written)
        written += len(batch)
        for side in SIDES:
            x = getattr(captured, side).flatten(0, 1).float().cpu()
            if not torch.isfinite(x).all():
                raise DataError(
                    f"activations {path.name}",
                    found=f"values that are not finite in {side}",
                    expected="finite activations",
                    do="use model.dtype float32 or bfloat16",
                )
            stored, token_scale = codecs.encode(x, codec, scales[side])
            columns[side] = _fixed_size(codecs.to_numpy(stored.flatten(1)))
            if token_scale is not None:
                columns[f"{side}_scale"] = _fixed_size(token_scale.numpy())
            kept = torch.tensor(columns["position"].to_numpy() > 0)
            error = x - codecs.decode(stored, token_scale, codec, scales[side])
            for name, value in (("norm", x.norm(dim=-1)), ("signal", x.square().sum(-1)), ("noise", error.square().sum(-1))):
                sums[f"{side}_{name}"] += value[kept].double().sum(0)
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables).combine_chunks()
    counts = {"rows": table.num_rows, "trainable_rows": len(sequences) * (sequences.tokens.shape[1] - 1)}
    metadata = {
        "cltdb": json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "codec": codec,
                "model_id": lm.model_id,
                "revision": lm.revision,
                **counts,
                "mlp_input": lm.mlp_input,
                "n_layers": lm.n_layers,
                "d_model": lm.d_model,
                **{name: value.tolist() for name, value in sums.items()},
            }
        )
    }
    table = table.replace_schema_metadata(metadata)
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    with (
        writing(path) as aside,
        pa.OSFile(str(aside), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=options) as writer,
    ):
        writer.write_table(table)


def _token_columns(batch, first_sequence):
    n_seqs, context = batch.tokens.shape
    labels = pa.DictionaryArray.from_arrays(
        pa.array(batch.labels.ravel(), mask=batch.labels.ravel() < 0), pa.array(batch.label_names, pa.string())
    )
    return {
        "document": pa.array(batch.documents.ravel()),
        "sequence": pa.array(np.repeat(np.arange(first_sequence, first_sequence + n_seqs), context)),
        "position": pa.array(np.tile(np.arange(context, dtype=np.int32), n_seqs)),
        "token": pa.array(batch.tokens.ravel()),
        "label": labels,
    }


def _fixed_size(values):
    """[row, width] array to a fixed-size list column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _describe(path, part):
    """A shard's own metadata with its name, part, size and checksum; a damaged shard is an error."""
    try:
        with pa.memory_map(str(path)) as file:
            metadata = json.loads(pa.ipc.open_file(file).schema.metadata[b"cltdb"])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError) as error:
        raise DataError(
            str(path),
            found=f"a damaged shard ({error})",
            expected="a whole Arrow IPC file",
            do="remove this file and run again: only it is written anew",
        ) from error
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "part": part, "bytes": path.stat().st_size, "sha256": digest, **metadata}


def _summary(lm, shards, *, codec, compression):
    """What a reader needs to know of the whole cache."""
    total = lambda name, part: np.sum([shard[name] for shard in shards if shard["part"] == part], axis=0)  # noqa: E731
    summary = {
        "format_version": FORMAT_VERSION,
        "codec": codec,
        "compression": compression,
        "model_id": lm.model_id,
        "revision": lm.revision,
        "mlp_input": lm.mlp_input,
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "shards": [
            {name: shard[name] for name in ("file", "part", "bytes", "sha256", "rows", "trainable_rows")} for shard in shards
        ],
    }
    for side in SIDES:
        summary[f"{side}_mean_norm"] = (total(f"{side}_norm", "train") / total("trainable_rows", "train")).tolist()
        noise = np.maximum(total(f"{side}_noise", "train"), 1e-300)
        summary[f"{side}_snr_db"] = np.minimum(
            10 * np.log10(np.maximum(total(f"{side}_signal", "train"), 1e-300) / noise), 300
        ).tolist()
    return summary


class Batch(NamedTuple):
    """MLP inputs and outputs of a batch of tokens, each [token, n_layers, d_model] float32."""

    x: torch.Tensor
    y: torch.Tensor


class ActivationCache:
    """Reads the shards of one part. Row g of the endless stream of (seed, epochs) is the same whenever and wherever it is asked
    for."""

    def __init__(self, directory, *, part="train", seed=0, pool_shards=8):
        from safetensors.torch import load_file

        self.directory, self.seed, self.pool_shards = Path(directory), seed, pool_shards
        self.summary = read_json(self.directory / "cache.json")
        self.codec = self.summary["codec"]
        self.scales = load_file(self.directory / "codec.safetensors")
        self.shards = [shard for shard in self.summary["shards"] if shard["part"] == part]
        self.n_rows = sum(shard["trainable_rows"] for shard in self.shards)
        self._open, self._order = OrderedDict(), (None, None)

    def batch(self, step, batch_tokens):
        """Batch number `step` of `batch_tokens` rows; epochs follow one another without a gap, so no row is dropped."""
        rows = np.arange(step * batch_tokens, (step + 1) * batch_tokens)
        pairs = np.concatenate(
            [
                self._epoch_order(epoch)[rows[rows // self.n_rows == epoch] % self.n_rows]
                for epoch in np.unique(rows // self.n_rows)
            ]
        )
        return self._gather(pairs)

    def _epoch_order(self, epoch):
        """[n_rows, 2] of (shard, row): shards permuted, then rows permuted within pools of `pool_shards` shards."""
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, int(epoch)])
            shards = rng.permutation(len(self.shards))
            pools = []
            for start in range(0, len(shards), self.pool_shards):
                pool = np.concatenate(
                    [
                        np.stack([np.full(self.shards[s]["trainable_rows"], s), np.arange(self.shards[s]["trainable_rows"])], 1)
                        for s in shards[start : start + self.pool_shards]
                    ]
                )
                pools.append(rng.permutation(pool))
            self._order = (epoch, np.concatenate(pools))
        return self._order[1]

    def _gather(self, pairs):
        sides = {side: torch.empty(len(pairs), self.summary["n_layers"], self.summary["d_model"]) for side in SIDES}
        for shard in np.unique(pairs[:, 0]):
            places = np.flatnonzero(pairs[:, 0] == shard)
            columns = self._shard(int(shard))
            rows = columns["trainable"][pairs[places, 1]]
            for side in SIDES:
                values = codecs.from_numpy(columns[side][rows], self.codec).unflatten(1, sides[side].shape[1:])
                token_scale = torch.from_numpy(columns[f"{side}_scale"][rows]) if self.codec == "int8" else None
                sides[side][places] = codecs.decode(values, token_scale, self.codec, self.scales[side])
        return Batch(sides["mlp_input"], sides["mlp_output"])

    def _shard(self, number):
        """The columns of a shard as arrays, checked against its checksum when first opened; at most two pools stay in memory."""
        if number not in self._open:
            self._open[number] = self._read(self.shards[number])
            while len(self._open) > 2 * self.pool_shards:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _read(self, shard):
        path = self.directory / shard["file"]
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataError(
                str(path),
                found="no such shard",
                expected="every shard the cache was finished with",
                do="run again with --force activations, or restore the file",
            ) from None
        if hashlib.sha256(data).hexdigest() != shard["sha256"]:
            raise DataError(
                str(path),
                found=f"{len(data):,} bytes with another checksum",
                expected=f"{shard['bytes']:,} bytes with sha256 {shard['sha256'][:12]}…",
                do="run again with --force activations, or restore the file",
            )
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all().combine_chunks()
        columns = {"trainable": np.flatnonzero(table["position"].to_numpy() > 0)}
        for name in table.column_names:
            if name.startswith("mlp_"):
                column = table[name].chunk(0)
                columns[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        return columns
