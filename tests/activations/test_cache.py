import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from command_line import no_larger_files
from safetensors.torch import load_file
from worlds import models

from cltdb.activations import codec as codecs
from cltdb.activations import shards
from cltdb.activations.cache import write_cache
from cltdb.activations.loader import open_source
from cltdb.activations.tokens import Sequences
from cltdb.engine.stage import Share
from cltdb.errors import CltdbError, DataError


def random_sequences(n_seqs, context=8, seed=0):
    tokens = np.random.default_rng(seed).integers(1, 257, (n_seqs, context)).astype(np.int32)
    tokens[:, 0] = 0
    return Sequences(
        tokens, np.repeat(np.arange(n_seqs), context).reshape(n_seqs, context), np.zeros((n_seqs, context), np.int16), ["en"]
    )


def packed_sequences(n_seqs, context=8, seed=0):
    """As `random_sequences`, with BOS where documents begin within sequences, and in a whole block of 4 sequences nothing else."""
    sequences = random_sequences(n_seqs, context, seed)
    sequences.tokens[np.random.default_rng(seed).random((n_seqs, context)) < 0.2] = 0
    sequences.tokens[4:8] = 0
    return sequences.without((0,))


def write(
    directory, *, codec="float32", compression="none", n_seqs=20, architecture="gpt2", ranks=((0, 1),), packed=False, **sizes
):
    lm, make = models.language_model(architecture, **sizes), packed_sequences if packed else random_sequences
    parts = {"train": make(n_seqs), "heldout": random_sequences(4, seed=1).without(make(1).excluded)}
    settings = models.activations(codec=codec, compression=compression)
    for rank, world_size in ranks:
        write_cache(settings, lm, parts, directory=directory, share=Share(rank, world_size))
    return lm, parts


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("codec", codecs.CODECS)
def test_shards_keep_tokens_labels_and_positions_and_the_measured_noise(tmp_path, codec):
    _, parts = write(tmp_path, codec=codec)
    summary = json.loads((tmp_path / "cache.json").read_text())
    for part, sequences in parts.items():
        files = [shard["file"] for shard in summary["shards"] if shard["part"] == part]
        table = pa.concat_tables([pa.ipc.open_file(tmp_path / file).read_all() for file in files])
        assert table["token"].to_pylist() == sequences.tokens.ravel().tolist()
        assert table["document"].to_pylist() == sequences.documents.ravel().tolist()
        assert table["position"].to_pylist() == list(range(8)) * len(sequences)
        assert set(table["label"].to_pylist()) == {"en"}
        first = 0 if part == "train" else 20
        assert table["sequence"].to_pylist() == np.repeat(np.arange(first, first + len(sequences)), 8).tolist()
    least = {"float32": 299, "bfloat16": 50, "int8": 40, "int4": 20}[codec]
    assert all(len(summary[f"{side}_snr_db"]) == 2 for side in ("mlp_input", "mlp_output"))
    assert min(summary["mlp_input_snr_db"] + summary["mlp_output_snr_db"]) > least
    assert summary["format_version"] == 3 and summary["codec"] == codec


@pytest.mark.parametrize("ranks", [[(0, 2), (1, 2)], [(2, 3), (1, 3), (0, 3)], [(1, 2), (0, 1)]])
def test_any_number_of_processes_in_any_order_write_the_same_bytes(tmp_path, ranks):
    write(tmp_path / "one", codec="int8")
    write(tmp_path / "several", codec="int8", ranks=ranks)
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


def test_no_summary_before_every_process_has_written_its_shards(tmp_path):
    write(tmp_path, ranks=[(0, 3), (2, 3)])
    assert not (tmp_path / "cache.json").exists()
    write(tmp_path, ranks=[(1, 3)])
    assert (tmp_path / "cache.json").exists()


def test_a_writer_killed_in_a_shard_leaves_nothing_that_shows(tmp_path, monkeypatch):
    """What a kill would leave is what stands in the folder when the third shard is written but for its last bytes."""
    written, whole, killed = [], shards._write_blocks, tmp_path / "killed"

    def write_blocks(path, *arguments):
        whole(path, *arguments)
        written.append(Path(path))
        if len(written) == 3:
            shutil.copytree(tmp_path / "whole", killed)
            half = killed / written[2].name
            half.write_bytes(half.read_bytes()[:-100])

    monkeypatch.setattr(shards, "_write_blocks", write_blocks)
    write(tmp_path / "whole", codec="int8")
    left = contents(killed)
    assert "train-00001.arrow" in left and "train-00002.arrow" not in left and any(name.endswith(".tmp") for name in left)
    write(killed, codec="int8")
    assert contents(killed) == contents(tmp_path / "whole")


def test_a_killed_writer_keeps_its_shards_and_the_result_is_the_same(tmp_path):
    write(tmp_path / "whole", codec="int8")
    (tmp_path / "again").mkdir()
    for name in ("train-00000.arrow", "train-00000.arrow.index.json", "codec.safetensors"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    kept = (tmp_path / "again/train-00000.arrow").stat().st_mtime_ns
    write(tmp_path / "again", codec="int8")
    assert (tmp_path / "again/train-00000.arrow").stat().st_mtime_ns == kept
    assert (tmp_path / "again/cache.json").read_text() == (tmp_path / "whole/cache.json").read_text()


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_shard_of_a_killed_run_is_named(tmp_path, damage):
    write(tmp_path)
    (tmp_path / "cache.json").unlink()
    shard = tmp_path / "train-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= damage == "flip"
    shard.write_bytes(data[:-200] if damage == "truncate" else data)
    message = r"train-00001.arrow: found .* bytes with another checksum.*remove this file and run again"
    with pytest.raises(DataError, match=message):
        write(tmp_path)
    shard.unlink()
    write(tmp_path)
    assert (tmp_path / "cache.json").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(seed=1), "codec.safetensors|scales_sha256"),
        (dict(codec="int4"), "codec int4"),
        (dict(compression="zstd"), "compression zstd"),
        (dict(n_seqs=3), "rows 24"),
    ],
)
def test_a_shard_of_another_run_left_in_the_directory_is_refused(tmp_path, other, message):
    write(tmp_path / "here", codec="int8", ranks=[(1, 100)])
    write(tmp_path / "other", **{"codec": "int8", **other})
    for name in ("train-00000.arrow", "train-00000.arrow.index.json"):
        (tmp_path / "here" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(DataError, match=f"train-00000.arrow: found a shard of another cache .*({message}).*remove it"):
        write(tmp_path / "here", codec="int8")


@pytest.mark.parametrize(("name", "value"), [("revision", "abc"), ("model_id", "other"), ("mlp_input", "residual")])
def test_a_shard_of_a_model_of_another_name_is_refused(tmp_path, name, value):
    lm, parts = write(tmp_path)
    setattr(lm, name, value)
    (tmp_path / "cache.json").unlink()
    with pytest.raises(DataError, match=f"train-00000.arrow: found a shard of another cache .*{name}"):
        write_cache(models.activations(), lm, parts, directory=tmp_path)


def test_other_text_of_the_same_size_is_refused(tmp_path):
    lm, parts = write(tmp_path)
    parts["train"].tokens[0, 3] += 1
    with pytest.raises(DataError, match=r"train-00000.arrow: found a shard of another cache .tokens_sha256"):
        write_cache(models.activations(), lm, parts, directory=tmp_path)


def test_scales_of_another_model_are_refused(tmp_path):
    write(tmp_path, d_model=32, ranks=[(99, 100)])
    with pytest.raises(DataError, match="codec.safetensors: found scales of another model"):
        write(tmp_path)


def test_activations_that_are_not_finite_are_refused(tmp_path):
    import torch

    lm = models.language_model()
    with torch.no_grad():
        lm.blocks[1].mlp.c_fc.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite in mlp_output"):
        write_cache(models.activations(codec="int8"), lm, {"train": random_sequences(20)}, directory=tmp_path)


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_shard(tmp_path):
    with no_larger_files(10_000), pytest.raises(CltdbError, match="no room to write"):
        write(tmp_path, n_seqs=200)
    assert not list(tmp_path.glob("*.arrow")) and not list(tmp_path.glob(".*tmp"))
    write(tmp_path, n_seqs=200)
    assert open_source(tmp_path, seed=0).n_rows == 1400


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_statistics_and_counts_are_those_of_the_ordinary_tokens(tmp_path, codec):
    """At BOS one neuron writes a vector a thousand times as long as the others: neither norms nor the scales of the codec see it."""
    lm = models.bos_sink_model()
    parts = {"train": packed_sequences(20), "heldout": packed_sequences(9, seed=1)}
    write_cache(models.activations(codec=codec), lm, parts, directory=tmp_path)
    summary = json.loads((tmp_path / "cache.json").read_text())
    tokens = torch.from_numpy(parts["train"].tokens).long()
    captured, ordinary = lm.run(tokens, with_logits=False), tokens != 0
    for side in ("mlp_input", "mlp_output"):
        x = getattr(captured, side)
        assert summary[f"{side}_mean_norm"] == pytest.approx(x[ordinary].norm(dim=-1).mean(0).tolist(), rel=1e-5)
        scale = load_file(tmp_path / "codec.safetensors")[side]
        assert torch.allclose(scale, x[ordinary].abs().mean(0), rtol=1e-4)
    assert captured.mlp_output[~ordinary].norm(dim=-1).mean(0)[1] > 100 * summary["mlp_output_mean_norm"][1]
    assert min(summary["mlp_output_snr_db"]) > 40
    assert summary["excluded_tokens"] == [0]
    for part, sequences in parts.items():
        n_inside = int((sequences.tokens[:, 1:] == 0).sum())
        assert summary["token_counts"][part] == {
            "tokens": sequences.tokens.size,
            "ordinary": int((sequences.tokens > 0).sum()),
            "excluded": {"0": n_inside},
        }
    shards = [shard for shard in summary["shards"] if shard["part"] == "train"]
    assert [sum(shard["block_rows"]) for shard in shards] == [shard["trainable_rows"] for shard in shards]
    assert 0 in [rows for shard in shards for rows in shard["block_rows"]]


def test_excluded_tokens_that_are_nowhere_change_nothing_but_what_is_said_of_them(tmp_path):
    lm, parts = models.language_model(), {"train": random_sequences(20), "heldout": random_sequences(4, seed=1)}
    summaries = []
    for name, excluded in (("none", ()), ("some", (0,))):
        texts = {part: sequences.without(excluded) for part, sequences in parts.items()}
        write_cache(models.activations(codec="int8"), lm, texts, directory=tmp_path / name)
        summary = json.loads((tmp_path / name / "cache.json").read_text())
        summary["shards"] = [{**shard, "sha256": "", "index_sha256": "", "bytes": 0} for shard in summary["shards"]]
        summaries.append(summary | {"excluded_tokens": []})
    assert summaries[0] == summaries[1]
    assert {shard["trainable_rows"] for shard in summaries[0]["shards"]} == {28}
    captured = lm.run(torch.from_numpy(parts["train"].tokens).long(), with_logits=False)
    norms = captured.mlp_output[:, 1:].norm(dim=-1).mean((0, 1)).tolist()
    assert summaries[0]["mlp_output_mean_norm"] == pytest.approx(norms, rel=1e-6)


def test_a_shard_with_other_excluded_tokens_is_refused(tmp_path):
    lm, parts = write(tmp_path)
    (tmp_path / "cache.json").unlink()
    with pytest.raises(DataError, match="train-00000.arrow: found a shard of another cache .*excluded_tokens"):
        others = {part: sequences.without((0,)) for part, sequences in parts.items()}
        write_cache(models.activations(), lm, others, directory=tmp_path)
