"""Dictionaries of which memory holds a part only, in any format and at every stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cltdb.tensor_files import Pieces, write_tensors

N_LAYERS, D_MODEL = 12, 128


def write_clt(folder, n_features):
    """A circuit-tracer CLT in bfloat16 of which few features fire; bytes of its decoders."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).bfloat16()  # noqa: E731
    folder.mkdir(parents=True)
    for layer in range(N_LAYERS):
        bias = {f"b_enc_{layer}": draw(n_features) / 100, f"b_dec_{layer}": draw(D_MODEL) / 100}
        cut = {f"threshold_{layer}": torch.full((n_features,), 3.5).bfloat16()}
        encoder = {f"W_enc_{layer}": draw(n_features, D_MODEL) / D_MODEL**0.5}
        write_tensors(folder / f"W_enc_{layer}.safetensors", encoder | bias | cut)
        block = draw(1000, N_LAYERS - layer, D_MODEL) / 30
        decoder = Pieces((n_features, *block.shape[1:]), block.dtype, lambda block=block: [block] * (n_features // 1000))
        write_tensors(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": decoder})
    return sum(path.stat().st_size for path in folder.glob("W_dec_*"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads RssAnon")
@pytest.mark.parametrize("n_features", [pytest.param(n, marks=pytest.mark.slow) for n in (5000, 30_000)])
def test_memory_stays_far_below_the_decoders(tmp_path, n_features):
    """Of 100 MB, or 600 MB; in float32, as the model computes, they would be twice that."""
    decoders = write_clt(tmp_path / "theirs", n_features)
    words = [sys.executable, str(Path(__file__).with_name("memory_worker.py")), tmp_path, N_LAYERS, D_MODEL]
    path = os.pathsep.join(str(Path(__file__).parents[n]) for n in (1, 2))
    at_once = {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "1",
    }  # glibc gives back what is freed
    environment = {**os.environ, **at_once, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    growth = json.loads(done.stdout.splitlines()[-1])
    assert growth.pop("import") < decoders / 8 and growth.pop("load") < decoders / 20
    large = {name: size for name, size in growth.items() if size > decoders / 3}
    assert large == {}, growth
    assert (tmp_path / "native/dictionary.safetensors").stat().st_size < 1.3 * decoders  # still bfloat16
    for path in (tmp_path / "theirs").glob("W_dec_*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
