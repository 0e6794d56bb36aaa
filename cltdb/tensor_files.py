"""Safetensors files larger than memory: read as tensors mapped into memory, written piece by piece.

safetensors' reader maps files too, but reserves memory for changes to every byte, which Linux refuses for a file larger than RAM and
swap together (vm.overcommit_memory 0, the default; safetensors 0.8 and torch 2.13, a 40 GB file on 24 GB). Its writer wants
every tensor whole and contiguous. Source: the format's description in safetensors' README.
"""

import json
import math
import mmap
import sys
from collections.abc import Callable, Iterable
from functools import reduce
from typing import NamedTuple

import torch

PIECE_BYTES = 2**25
ALIGNMENT = (
    64  # as torch allocates: products of misaligned matrices differ in the last digit. Large tensors come first, of even sizes
)
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # Python names it from 3.13 on
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Pieces(NamedTuple):
    """A tensor that is made when it is read: make() yields tensors whose values, one after the other, are its own."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Iterable[torch.Tensor]]


def mapped_tensors(path):
    """{name: tensor} of a safetensors file. Pages are read when they are used, and given up when memory is short; a change to a tensor
    stays in memory. OSError or SafetensorError where the file is damaged."""
    from safetensors import SafetensorError, safe_open

    with safe_open(path, framework="np"):  # checks header and length
        pass
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_header))
        access = {"flags": mmap.MAP_PRIVATE | NO_RESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        content = mmap.mmap(file.fileno(), 0, **access)
    header.pop("__metadata__", None)
    tensors = {}
    for name, facts in header.items():
        if facts["dtype"] not in DTYPES:
            raise SafetensorError(f"tensor {name} of dtype {facts['dtype']}")
        dtype, count = DTYPES[facts["dtype"]], math.prod(facts["shape"])
        flat = torch.empty(0, dtype=dtype)
        if count:
            flat = torch.frombuffer(content, dtype=dtype, count=count, offset=8 + n_header + facts["data_offsets"][0])
        tensors[name] = flat.view(facts["shape"])
    return tensors


def write_tensors(path, tensors, metadata=None):
    """Writes {name: tensor or `Pieces`} as a safetensors file, a piece in memory at a time; metadata values are strings."""
    n_bytes = {name: math.prod(value.shape) * value.dtype.itemsize for name, value in tensors.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, -n_bytes[name], name))
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for name in order:
        shape, dtype = list(tensors[name].shape), tensors[name].dtype
        start, end = end, end + n_bytes[name]
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            for piece in pieces(tensors[name]) if n_bytes[name] else ():
                file.write(piece.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            assert file.tell() == 8 + len(text) + header[name]["data_offsets"][1], f"{name}: pieces of another size"


def pieces(value):
    """The values of a tensor or `Pieces`, one after the other, as tensors of at most PIECE_BYTES where it can be cut; nothing is copied."""
    if isinstance(value, Pieces):
        yield from value.make()
        return
    value = value.detach()
    row_bytes = value[:1].nbytes if value.ndim else 0
    if value.nbytes <= PIECE_BYTES:
        yield value
    elif row_bytes > PIECE_BYTES:
        for row in value:
            yield from pieces(row)
    else:
        yield from value.split(PIECE_BYTES // row_bytes)


def stacked(parts):
    """Tensors or `Pieces` of one shape, one above the other, in the dtype that holds all of them."""
    parts = list(parts)
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    return Pieces((len(parts), *parts[0].shape), dtype, lambda: (piece.to(dtype) for part in parts for piece in pieces(part)))


def scaled(parts, scale):
    """Tensors or `Pieces` [some rows, …], one below the other, each times a scale that fits its last axes (None: as they are)."""
    dtype = parts[0].dtype if scale is None else torch.promote_types(parts[0].dtype, scale.dtype)
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Pieces(shape, dtype, lambda: (piece if scale is None else piece * scale for part in parts for piece in pieces(part)))


def scaled_rows(value, scale):
    """A tensor [some rows, …], each row times its value of scale [some rows]."""
    n_rows = max(1, PIECE_BYTES // max(value[:1].nbytes, 1))
    shape = (-1, *[1] * (value.ndim - 1))
    parts = lambda: zip(value.split(n_rows), scale.split(n_rows), strict=True)  # noqa: E731
    dtype = torch.promote_types(value.dtype, scale.dtype)
    return Pieces(tuple(value.shape), dtype, lambda: (rows * factors.view(shape) for rows, factors in parts()))


def whole(value):
    """The tensor itself, contiguous; of `Pieces` with several a copy."""
    if not isinstance(value, Pieces):
        return value.contiguous()
    made = list(pieces(value))
    flat = made[0].flatten() if len(made) == 1 else torch.cat([piece.flatten() for piece in made])
    return flat.view(value.shape)
