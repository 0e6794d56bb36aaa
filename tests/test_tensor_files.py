import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from cltdb import tensor_files
from cltdb.tensor_files import DTYPES, Pieces, mapped_tensors, pieces, stacked, whole, write_tensors


def some_tensors():
    """One of every dtype, and of every shape that is special."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for name, dtype in DTYPES.items()}
    return tensors | {
        "number": torch.tensor(3.5),
        "none": torch.empty(0, 4),
        "turned": torch.randn(6, 40, generator=generator).T,
        "every other": torch.randn(4, 9, 3, generator=generator).bfloat16()[:, ::2],
    }


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.mark.parametrize("piece_bytes", [16, 2**25])
def test_safetensors_reads_what_is_written(tmp_path, monkeypatch, piece_bytes):
    monkeypatch.setattr(tensor_files, "PIECE_BYTES", piece_bytes)
    tensors, path = some_tensors(), tmp_path / "some.safetensors"
    rows = torch.randn(7, 3)
    write_tensors(path, tensors | {"made": Pieces((7, 3), rows.dtype, lambda: rows.split(2))}, {"done": "5"})
    read = load_file(path)
    assert read.keys() == tensors.keys() | {"made"}
    assert all(equal(read[name], value.contiguous()) for name, value in (tensors | {"made": rows}).items() if value.ndim)
    assert read["number"] == 3.5
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"done": "5"}


def test_what_safetensors_writes_is_mapped(tmp_path):
    tensors = {name: value.contiguous() for name, value in some_tensors().items()}
    save_file(tensors, tmp_path / "some.safetensors", metadata={"a": "b"})
    read = mapped_tensors(tmp_path / "some.safetensors")
    assert read.keys() == tensors.keys() and read["number"] == 3.5
    assert all(equal(read[name], value) for name, value in tensors.items() if value.ndim)
    read["F32"][0] = 7  # of the process alone
    assert torch.equal(load_file(tmp_path / "some.safetensors")["F32"], tensors["F32"])


def test_a_file_larger_than_memory_is_mapped_and_one_that_is_cut_off_refused(tmp_path):
    """Larger than what Linux lets a process reserve; a file of holes, which takes no space."""
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    n_rows = 2 * sum(int(facts[name].split()[0]) for name in ("MemTotal", "SwapTotal"))
    header = json.dumps({"W": {"dtype": "F16", "shape": [n_rows, 512], "data_offsets": [0, n_rows * 1024]}}).encode()
    path = tmp_path / "large.safetensors"
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + n_rows * 1024)
        file.seek(-1024, 2)
        file.write(torch.full((512,), 2.5, dtype=torch.float16).numpy().tobytes())
    W = mapped_tensors(path)["W"]
    assert W[torch.tensor([5, n_rows - 1])].sum(1).tolist() == [0, 2.5 * 512]
    with open(path, "r+b") as file:
        file.truncate(2**20)
    with pytest.raises(SafetensorError):
        mapped_tensors(path)
    path.unlink()


def test_pieces_are_small_and_make_up_the_whole(monkeypatch):
    monkeypatch.setattr(tensor_files, "PIECE_BYTES", 100)
    W = torch.randn(5, 8, 6)
    found = list(pieces(W.transpose(0, 1)))
    assert max(piece.nbytes for piece in found) <= 100 and len(found) < 30
    assert torch.equal(torch.cat([piece.flatten() for piece in found]), W.transpose(0, 1).flatten())
    both = stacked([W[0].bfloat16(), Pieces((8, 6), torch.float32, lambda: W[1].split(3))])
    assert both.dtype == torch.float32 and torch.equal(whole(both), torch.stack([W[0].bfloat16().float(), W[1]]))
