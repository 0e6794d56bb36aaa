import fakes
import numpy as np
import pytest
import torch

from cltdb.activations import codec
from cltdb.activations.cache import ActivationCache, write_cache
from cltdb.activations.tokens import Sequences
from cltdb.errors import CltdbError, DataError


def random_sequences(n_seqs, context=8, seed=0):
    tokens = np.random.default_rng(seed).integers(1, 257, (n_seqs, context)).astype(np.int32)
    tokens[:, 0] = 0
    return Sequences(
        tokens, np.repeat(np.arange(n_seqs), context).reshape(n_seqs, context), np.zeros((n_seqs, context), np.int16), ["en"]
    )


def write(directory, *, codec="float32", compression="none", n_seqs=20):
    lm = fakes.language_model()
    parts = {"train": random_sequences(n_seqs), "heldout": random_sequences(4, seed=1)}
    write_cache(lm, parts, directory=directory, codec=codec, compression=compression, shard_tokens=32, batch_seqs=3)
    return lm, parts


@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
def test_an_epoch_gives_every_row_once_and_epochs_differ(tmp_path, compression):
    lm, parts = write(tmp_path, compression=compression)
    cache = ActivationCache(tmp_path, pool_shards=2)
    assert cache.n_rows == 20 * 7
    captured = lm.run(torch.from_numpy(parts["train"].tokens).long())
    wanted = torch.cat([captured.mlp_input, captured.mlp_output], -1)[:, 1:].flatten(0, 1).flatten(1)
    epochs = [
        torch.cat([torch.cat(cache.batch(step, 35), -1).flatten(1) for step in range(4 * epoch, 4 * epoch + 4)])
        for epoch in range(2)
    ]
    for rows in epochs:
        nearest = torch.cdist(rows.double(), wanted.double()).min(1)
        assert nearest.values.max() < 1e-4 and len(set(nearest.indices.tolist())) == len(wanted)
    assert not torch.equal(*epochs)


def test_batches_can_be_asked_for_in_any_order(tmp_path):
    write(tmp_path)
    in_order = [ActivationCache(tmp_path, seed=3).batch(step, 48).x for step in range(6)]
    for step in (5, 2, 0):
        assert torch.equal(ActivationCache(tmp_path, seed=3).batch(step, 48).x, in_order[step])


def test_a_killed_writer_keeps_its_shards_and_the_result_is_the_same(tmp_path):
    write(tmp_path / "whole", codec="int8")
    (tmp_path / "again").mkdir()
    for name in ("train-00000.arrow", "codec.safetensors"):
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
    with pytest.raises(DataError, match="train-00001.arrow: found a damaged shard"):
        write(tmp_path)


def snr_db(x, y):
    return 10 * torch.log10(x.square().sum() / (x - y).square().sum())


def test_int8_survives_an_outlier_channel_and_a_loud_token():
    x = torch.randn(500, 3, 64, generator=torch.Generator().manual_seed(0))
    assert snr_db(x, roundtrip(x)) > 40
    loud = x.clone()
    loud[:, :, 5] *= 100
    loud[7] *= 50
    others = [channel for channel in range(64) if channel != 5]
    assert snr_db(loud[:, :, others], roundtrip(loud)[:, :, others]) > 38
    assert snr_db(loud[8:, :, others], roundtrip(loud)[8:, :, others]) > 38


def roundtrip(x, name="int8"):
    scale = codec.channel_scale(x)
    values, token_scale = codec.encode(x, name, scale)
    return codec.decode(codec.from_numpy(codec.to_numpy(values), name), token_scale, name, scale)


def test_float32_and_bfloat16_are_exact_to_their_precision():
    x = torch.randn(20, 2, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(roundtrip(x, "float32"), x)
    assert torch.equal(roundtrip(x, "bfloat16"), x.bfloat16().float())
    assert torch.equal(roundtrip(torch.zeros(3, 2, 4)), torch.zeros(3, 2, 4))


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
