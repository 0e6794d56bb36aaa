import fakes
import numpy as np
import pytest

from cltdb.activations.cache import ActivationCache, write_cache
from cltdb.activations.tokens import Sequences
from cltdb.errors import CltdbError, DataError


def random_sequences(n_seqs, context=8, seed=0):
    tokens = np.random.default_rng(seed).integers(1, 257, (n_seqs, context)).astype(np.int32)
    tokens[:, 0] = 0
    return Sequences(
        tokens, np.repeat(np.arange(n_seqs), context).reshape(n_seqs, context), np.zeros((n_seqs, context), np.int16), ["en"]
    )


def write(directory, *, codec="float32", compression="none", n_seqs=20, architecture="gpt2", **sizes):
    lm = fakes.language_model(architecture, **sizes)
    parts = {"train": random_sequences(n_seqs), "heldout": random_sequences(4, seed=1)}
    write_cache(lm, parts, directory=directory, codec=codec, compression=compression, shard_tokens=32, batch_seqs=3)
    return lm, parts


def test_a_killed_writer_keeps_its_shards_and_the_result_is_the_same(tmp_path):
    write(tmp_path / "whole", codec="int8")
    (tmp_path / "again").mkdir()
    for name in ("train-00000.arrow", "train-00000.arrow.index.json", "codec.safetensors"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    kept = (tmp_path / "again/train-00000.arrow").stat().st_mtime_ns
    write(tmp_path / "again", codec="int8")
    assert (tmp_path / "again/train-00000.arrow").stat().st_mtime_ns == kept
    assert (tmp_path / "again/cache.json").read_text() == (tmp_path / "whole/cache.json").read_text()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    write(tmp_path)
    shard = tmp_path / "train-00001.arrow"
    data = bytearray(shard.read_bytes())
    if damage == "remove":
        shard.unlink()
    elif damage == "truncate":
        shard.write_bytes(data[:-200])
    else:
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    with pytest.raises(DataError, match=r"train-00001.arrow: found (no such shard|.* bytes with another checksum)"):
        ActivationCache(tmp_path).batch(0, 140)


def test_a_truncated_shard_of_a_killed_run_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "cache.json").unlink()
    shard = tmp_path / "train-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(
        DataError, match=r"train-00001.arrow: found .* bytes with another checksum.*remove this file and run again"
    ):
        write(tmp_path)


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_shard(tmp_path):
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(CltdbError, match="no room to write"):
            write(tmp_path, n_seqs=200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.glob("*.arrow")) and not list(tmp_path.glob(".*tmp"))
