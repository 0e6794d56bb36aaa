"""What activations take, on the disk and in memory, before anything is loaded: imports neither torch nor transformers, so that a plan
is there at once."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cltdb.errors import DataError

CODECS = ("float32", "bfloat16", "int8", "int4")
GROUP = 32
TOKEN_COLUMN_BYTES = 26
LIBRARY_BYTES = 50_000_000  # what pyarrow takes for itself when the first block is read, measured


def layout(codec, *, n_layers, d_model):
    """{suffix: (width, dtype)} of the columns of one side."""
    values = {
        "float32": (n_layers * d_model, np.float32),
        "bfloat16": (n_layers * d_model, np.uint16),  # the bits; Arrow has no bfloat16
        "int8": (n_layers * d_model, np.int8),
        "int4": (n_layers * -(-d_model // 2), np.uint8),
    }
    columns = {"": values[codec]}
    if codec in ("int8", "int4"):
        columns["_scale"] = (n_layers, np.float32)
    if codec == "int4":
        columns["_group_scale"] = (n_layers * -(-d_model // GROUP), np.float16)
    return columns


def row_bytes(codec, *, n_layers, d_model):
    """Bytes of one token's MLP inputs and outputs, before compression."""
    return 2 * sum(
        width * np.dtype(dtype).itemsize for width, dtype in layout(codec, n_layers=n_layers, d_model=d_model).values()
    )


def bytes_per_token(n_layers, d_model, codec):
    """Size of one row before compression."""
    return row_bytes(codec, n_layers=n_layers, d_model=d_model) + TOKEN_COLUMN_BYTES


class MemoryPlan(NamedTuple):
    """n_pools that are held at once, and batches decoded ahead."""

    n_pools: int
    ahead: int


class Sizes(NamedTuple):
    """What memory depends on. pool_rows: of the largest pool; row_bytes: as a pool holds it; tokens_per_read: rows that are
    brought at once; values: of one decoded row."""

    pool_rows: int
    row_bytes: int
    tokens_per_read: int
    batch_rows: int
    values: int
    parallel: bool


def memory_plan(options, sizes):
    """The `MemoryPlan` that fits in the configured bound; DataError where not even one pool and two batches do."""
    bound = options.memory_mb * 10**6
    pool = sizes.pool_rows * (sizes.row_bytes + 4 * 8)  # and row numbers
    batch = sizes.batch_rows * sizes.values * 4
    block = sizes.tokens_per_read * max(4 * sizes.row_bytes, 2 * sizes.values) * (options.threads if sizes.parallel else 1)
    for n_pools, ahead in ((2, options.read_ahead), (2, 1), (1, options.read_ahead), (1, 1)):
        if LIBRARY_BYTES + n_pools * pool + (ahead + 1) * batch + block <= bound and (sizes.parallel or n_pools == 1):
            return MemoryPlan(n_pools, ahead)
    raise DataError(
        "activations.loader.memory_mb",
        found=f"{options.memory_mb:,}",
        expected=f"at least {math.ceil((LIBRARY_BYTES + pool + 2 * batch + block) / 1e6):,}: a shuffle pool of {sizes.pool_rows:,} rows of"
        f" {sizes.row_bytes:,} bytes ({pool / 1e6:,.0f} MB), two batches ({2 * batch / 1e6:,.0f} MB), and blocks being read"
        f" and the library that reads them ({(LIBRARY_BYTES + block) / 1e6:,.0f} MB)",
        do="raise it, or lower activations.loader.shuffle_tokens (which makes another training run)",
    )


def check_memory(options, *, sizes, codec, context, train_tokens, batch_tokens):
    """Raises before anything is computed what `memory_plan` would when training begins. sizes: (n_layers, d_model) of the model."""
    n_layers, d_model = sizes
    memory_plan(
        options,
        Sizes(
            pool_rows=min(options.shuffle_tokens, train_tokens),
            row_bytes=row_bytes(codec, n_layers=n_layers, d_model=d_model),
            tokens_per_read=context,
            batch_rows=batch_tokens,
            values=2 * n_layers * d_model,
            parallel=True,
        ),
    )


def model_sizes(directory):
    """(n_layers, d_model) that a model's config.json names, or None where it names them otherwise."""
    try:
        config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        found = (config.get("num_hidden_layers", config.get("n_layer")), config.get("hidden_size", config.get("n_embd")))
    except (OSError, ValueError, AttributeError):
        return None
    return found if all(type(size) is int for size in found) else None


def known_sizes(source):
    """(n_layers, d_model) of a model on this machine, `source` as `load_model` takes it; None where that would need the network. A
    config that names them in a way of its own, and a folder that is no model, are left to transformers."""
    from cltdb.toyworld import MODEL_DIR

    path = MODEL_DIR if source == "toyworld" else Path(source)
    if path.is_dir() and any(path.glob("*.safetensors")) and (found := model_sizes(path)):
        return found
    if not path.is_dir() and not path.is_absolute() and not str(source).startswith("."):
        return None
    from cltdb.model.loading import local_sizes

    return local_sizes(source)


def check_layers(layers, n_layers, model_id):
    """Raises DataError where the model has no such layer, `train.layers` of a spec."""
    if max(layers) >= n_layers:
        raise DataError(
            "train.layers",
            found=f"layer {max(layers)}",
            expected=f"0 to {n_layers - 1}, the layers of {model_id}",
            do="leave it out",
        )
