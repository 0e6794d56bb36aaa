import shutil
import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from activations.test_cache import random_sequences, write

from cltdb.activations import codec as codecs
from cltdb.activations import reader
from cltdb.activations.cache import describe_stream
from cltdb.activations.loader import open_source
from cltdb.activations.settings import Loader
from cltdb.errors import DataError


def opened(directory, *, seed=3, **options):
    return open_source(directory, seed=seed, options=Loader(**{"shuffle_tokens": 56, **options}))


def stream(lm, sequences, directory, **options):
    describe_stream(lm, {"train": sequences}, directory=directory, batch_seqs=3)
    return open_source(
        directory, seed=3, options=Loader(**{"shuffle_tokens": 56, **options}), language_model=lm, sequences=sequences
    )


def rows(batch):
    return torch.cat(batch, -1).flatten(1)


def slow_epoch(source, directory, epoch):
    """All rows of an epoch, from whole tables and the formula of the order."""
    tables = [pa.ipc.open_file(directory / shard["file"]).read_all() for shard in source.shards]
    stored = {name: np.concatenate([np.array(table[name].to_pylist()) for table in tables]) for name in source.columns}
    tokens, positions = (np.concatenate([table[name].to_numpy() for table in tables]) for name in ("token", "position"))
    kept = (positions > 0) & np.array([token not in source.summary["excluded_tokens"] for token in tokens])
    sides = []
    for side in ("mlp_input", "mlp_output"):
        columns = {
            suffix: stored[side + suffix][kept].astype(dtype)
            for suffix, (_, dtype) in codecs.layout(source.codec, n_layers=source.n_layers, d_model=source.d_model).items()
        }
        sides.append(np.empty((kept.sum(), source.n_layers, source.d_model), np.float32))
        codecs.decode(columns, source.codec, source.scales[side], sides[-1])
    order, places, row = source.order, [], 0
    while row < source.n_rows:
        pool = order.pool(epoch, order.pool_at(row).number)
        first = np.concatenate([[0], np.cumsum(order.block_rows)])
        ends = [np.arange(first[block], first[block + 1]) for block in order.blocks(pool)]
        places.append(np.concatenate(ends)[order.rows(pool)])
        row += pool.n_rows
    places = np.concatenate(places)
    assert sorted(places) == list(range(source.n_rows))
    return rows([torch.from_numpy(side[places]) for side in sides])


@pytest.mark.parametrize(
    ("codec", "compression", "packed"),
    [
        *((codec, compression, False) for codec in codecs.CODECS for compression in ("none", "zstd", "lz4")),
        *((codec, "none", True) for codec in codecs.CODECS),
    ],
)
def test_epochs_are_the_rows_of_the_shards_in_the_order_of_the_formula(tmp_path, codec, compression, packed):
    write(tmp_path, codec=codec, compression=compression, n_seqs=21, packed=packed)
    source = opened(tmp_path)
    epochs = [slow_epoch(source, tmp_path, epoch) for epoch in range(2)]
    assert not torch.equal(*epochs)
    wanted = torch.cat(epochs)
    found = torch.cat([rows(batch) for batch in source.batches(0, source.n_rows * 2 // 49, 49)])
    assert torch.equal(found, wanted[: len(found)])
    assert torch.equal(rows(source.batch(1, source.n_rows)), epochs[1])


@pytest.mark.parametrize("packed", [False, True])
def test_an_epoch_gives_every_row_of_the_model_once(tmp_path, packed):
    lm, parts = write(tmp_path, packed=packed)
    tokens = torch.from_numpy(parts["train"].tokens).long()
    captured = lm.run(tokens)
    wanted = torch.cat([captured.mlp_input, captured.mlp_output], -1)[tokens != 0].flatten(1)
    n_batches = next(n for n in (4, 3, 2, 1) if len(wanted) % n == 0)
    for source in (opened(tmp_path), stream(lm, parts["train"], tmp_path / "stream")):
        assert source.n_rows == len(wanted) and (packed or len(wanted) == 20 * 7)
        for epoch in range(2):
            batches = source.batches(n_batches * epoch, n_batches, len(wanted) // n_batches)
            found = torch.cat([rows(batch) for batch in batches])
            nearest = torch.cdist(found.double(), wanted.double()).min(1)
            assert nearest.values.max() < 1e-4 and len(set(nearest.indices.tolist())) == len(wanted)


@pytest.mark.parametrize(("kind", "packed"), [("cache", False), ("stream", False), ("cache", True), ("stream", True)])
def test_batches_are_the_same_wherever_one_begins_and_however_they_are_read(tmp_path, kind, packed, monkeypatch):
    lm, parts = write(tmp_path, codec="int8", packed=packed)

    def source(**options):
        return opened(tmp_path, **options) if kind == "cache" else stream(lm, parts["train"], tmp_path / "stream", **options)

    wanted = [batch.x for batch in source().batches(0, 9, 48)]
    for step in (8, 2, 0):
        assert torch.equal(source().batch(step, 48).x, wanted[step])
    variations = [dict(threads=1), dict(threads=5, read_ahead=7), dict(read_ahead=1)]
    for options in variations:
        assert torch.equal(torch.stack([batch.x for batch in source(**options).batches(3, 6, 48)]), torch.stack(wanted[3:]))
    with monkeypatch.context() as tight:  # one pool at a time
        tight.setattr(reader, "memory_plan", lambda options, sizes: reader.MemoryPlan(1, 1))
        assert torch.equal(torch.stack([batch.x for batch in source().batches(3, 6, 48)]), torch.stack(wanted[3:]))
    for world_size in (2, 3):
        parts_of = [list(source().batches(2, 5, 48, rank=rank, world_size=world_size)) for rank in range(world_size)]
        for step in range(5):
            assert torch.equal(torch.cat([part[step].x for part in parts_of]), wanted[2 + step])
        assert torch.equal(source().batch(4, 48, rank=1, world_size=world_size).x, parts_of[1][2].x)


def test_a_batch_may_be_larger_than_a_pool_or_an_epoch(tmp_path):
    write(tmp_path)
    source = opened(tmp_path)
    wanted = torch.cat([source.batch(step, 10).x for step in range(90)])
    assert torch.equal(torch.cat([batch.x for batch in source.batches(0, 3, 300)]), wanted)
    assert torch.equal(source.batch(2, 300).x, wanted[600:])


def test_seed_and_pool_choose_the_order_and_rows_are_well_mixed(tmp_path):
    write(tmp_path, n_seqs=80)
    one, same, other = opened(tmp_path, seed=1), opened(tmp_path, seed=1), opened(tmp_path, seed=2)
    assert torch.equal(one.batch(0, 70).x, same.batch(0, 70).x) and not torch.equal(one.batch(0, 70).x, other.batch(0, 70).x)
    assert not torch.equal(one.batch(0, 70).x, opened(tmp_path, seed=1, shuffle_tokens=140).batch(0, 70).x)


@pytest.mark.parametrize("packed", [False, True])
def test_the_stream_is_the_cache_without_a_disk(tmp_path, packed):
    lm, parts = write(tmp_path, packed=packed)
    streamed = stream(lm, parts["train"], tmp_path / "stream", shuffle_tokens=56)
    cached = opened(tmp_path)
    assert sorted(path.name for path in (tmp_path / "stream").iterdir()) == ["cache.json"]
    # blocks of the test's cache are smaller (4 sequences a shard); with equal ones the order is the same
    streamed.order, streamed.summary = cached.order, {**streamed.summary, "block_seqs": cached.summary["block_seqs"]}
    for left, right in zip(streamed.batches(0, 5, 48), cached.batches(0, 5, 48), strict=True):
        assert torch.allclose(left.x, right.x, atol=1e-6) and torch.allclose(left.y, right.y, atol=1e-6)
    for name in ("mlp_input_mean_norm", "mlp_output_mean_norm"):
        assert np.allclose(streamed.summary[name], cached.summary[name])


def test_a_stream_of_other_text_is_refused(tmp_path):
    lm, parts = write(tmp_path)
    stream(lm, parts["train"], tmp_path / "stream")
    with pytest.raises(DataError, match="cache.json: found a description of other train text"):
        open_source(tmp_path / "stream", seed=0, language_model=lm, sequences=random_sequences(20, seed=5))


def test_a_bfloat16_model_is_streamed_as_it_is(tmp_path):
    from worlds import models

    lm = models.language_model(dtype=torch.bfloat16)
    source = stream(lm, random_sequences(20), tmp_path)
    assert source.codec == "bfloat16"
    batch = source.batch(0, 48)
    assert torch.equal(batch.x, batch.x.bfloat16().float())


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) + at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_flipped_byte_anywhere_in_a_shard_is_found(tmp_path, compression):
    write(tmp_path / "cache", codec="int8", compression=compression)
    shard = tmp_path / "cache/train-00001.arrow"
    whole = shard.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 30).astype(int):
        flip(shard, int(at))
        with pytest.raises(DataError, match=r"train-00001.arrow: found [\d,]+ bytes with another checksum"):
            list(opened(tmp_path / "cache").batches(0, 3, 140))
        shard.write_bytes(whole)
    list(opened(tmp_path / "cache").batches(0, 3, 140))


@pytest.mark.parametrize("how", ["batch", "batches"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "train-00001.arrow").unlink(), "train-00001.arrow: found no such shard"),
        (lambda folder: flip(folder / "train-00001.arrow.index.json", 90), "index.json: found a file with another checksum"),
        (lambda folder: (folder / "train-00001.arrow.index.json").unlink(), "index.json: found no such file"),
        (lambda folder: flip(folder / "codec.safetensors", -3), "codec.safetensors: found .* another checksum"),
        (lambda folder: (folder / "codec.safetensors").unlink(), "codec.safetensors: found no such file"),
        (lambda folder: (folder / "cache.json").write_text("{"), "cache.json: found no summary that can be read"),
        (lambda folder: (folder / "cache.json").write_text('{"format_version": 1}'), "cache.json: found format version 1"),
    ],
)
def test_damage_is_named_with_what_to_do(tmp_path, how, damage, message):
    write(tmp_path, codec="int8")
    damage(tmp_path)
    with pytest.raises(DataError, match=f"{message}.*--force activations"):
        source = opened(tmp_path)
        source.batch(0, 140) if how == "batch" else list(source.batches(0, 2, 70))


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_shard_of_another_model_is_found(tmp_path, with_index, architecture):
    """The same size (other weights) or not (another architecture), with its index and without."""
    write(tmp_path / "one", codec="int8")
    write(tmp_path / "two", codec="int8", architecture=architecture, seed=1, d_model=16 if architecture == "gpt2" else 32)
    for name in ["train-00001.arrow"] + ["train-00001.arrow.index.json"] * with_index:
        shutil.copy(tmp_path / "two" / name, tmp_path / "one" / name)
    with pytest.raises(DataError, match=r"train-00001.arrow.*another checksum.*--force activations"):
        list(opened(tmp_path / "one").batches(0, 2, 140))


def test_threads_end_when_the_batches_are_left(tmp_path):
    write(tmp_path)

    def loader_threads():
        return [thread for thread in threading.enumerate() if thread.name.startswith("cltdb-loader")]

    batches = opened(tmp_path).batches(0, 100, 35)
    next(batches)
    assert loader_threads()
    batches.close()
    assert not loader_threads()


def test_a_pool_that_does_not_fit_the_memory_is_refused_with_what_fits(tmp_path):
    lm = write(tmp_path, n_layers=4, d_model=512, n_seqs=60)[0]
    for source in (
        opened(tmp_path, memory_mb=51, shuffle_tokens=400),
        stream(lm, random_sequences(60), tmp_path / "stream", memory_mb=51, shuffle_tokens=400),
    ):
        with pytest.raises(DataError, match=r"memory_mb: found 51; expected at least \d+: a shuffle pool of \d+ rows"):
            source.batch(0, 10)
        with pytest.raises(DataError, match="lower activations.loader.shuffle_tokens"):
            next(source.batches(0, 60, 10))


def test_batches_must_divide_among_ranks(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match="train.batch_tokens: found 35 for 2 processes"):
        opened(tmp_path).batch(0, 35, world_size=2)


def test_pools_keep_only_what_a_rank_trains_on(tmp_path):
    from cltdb.activations.reader import Share

    for world_size in (1, 2, 4):
        wanted = [Share(1, 4, 8, rank, world_size).wanted(5, 40) for rank in range(world_size)]
        together = np.sort(np.concatenate(wanted))
        assert together.tolist() == list(range(3, 27))
        assert all((np.diff(places) > 0).all() for places in wanted) and all(len(a) for a, _ in pairwise(wanted))
