"""The streaming harvest against an obvious one that looks at everything at once."""

import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from slow_harvest import slow_bins, slow_contexts, slow_window
from worlds import dictionaries, models

from cltdb.activations.tokens import Sequences
from cltdb.engine.stage import Share
from cltdb.errors import CltdbError
from cltdb.harvest import harvest as module
from cltdb.harvest import statistics
from cltdb.harvest.harvest import HarvestPass, harvest
from cltdb.harvest.lens import chosen_tokens, logit_lens
from cltdb.harvest.parts import FOLDER
from cltdb.harvest.settings import Harvest
from cltdb.model.norms import norm_gain

NAMED = dict(dict_id="d", seed=5)
SETTINGS = Harvest(
    top=3,
    per_quantile=2,
    n_quantiles=3,
    window=6,
    pool_windows=30,
    feature_edges=4,
    coactivation_tokens=200,
    lens_tokens="[0-9]",
    batch_seqs=2,
)


def sequences(n_seqs=80, context=24, seed=0, excluded=(0, 77)):
    """Random bytes with a document border every few tokens, where BOS stands, and a label on most documents."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 257, (n_seqs, context)).astype(np.int32)
    borders = rng.random((n_seqs, context)) < 0.08
    borders[:, 0] = rng.random(n_seqs) < 0.6
    documents = np.cumsum(borders.ravel()).reshape(n_seqs, context)
    tokens[borders] = 0
    tokens[:, 0] = 0
    return Sequences(
        tokens, documents.astype(np.int64), (documents % 3 - 1).astype(np.int16), ["en", "fr"], excluded, by_label=True
    )


@pytest.fixture(scope="module")
def world():
    return models.language_model(), dictionaries.random(dtype=torch.float32), sequences()


@pytest.fixture(scope="module")
def harvested(world, tmp_path_factory):
    directory = tmp_path_factory.mktemp("harvest")
    harvest(SETTINGS, *world, directory=directory, **NAMED)
    return directory


@pytest.fixture(scope="module")
def activations(world):
    """[n_seqs, pos, n_layers, n_features], silent at position 0, BOS and the other excluded token."""
    lm, dictionary, text = world
    parts = [
        dictionary.encode(lm.run(torch.from_numpy(text.tokens[first : first + 3]).long()).mlp_input)
        for first in range(0, len(text), 3)
    ]
    a = torch.cat(parts).numpy()
    a[:, 0] = a[text.tokens == 0] = a[text.tokens == 77] = 0
    return a


def is_ordinary(text):
    return [(n, p) for (n, p), token in np.ndenumerate(text.tokens) if p > 0 and token not in (0, 77)]


def rows(directory, table):
    return [row for path in sorted((directory / "tables" / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def contexts(directory):
    """Rows of windows, with their tokens and the activation at each."""
    text = {row["sequence"]: row["tokens"] for row in rows(directory, "harvested_text")}
    for row in rows(directory, "windows"):
        tokens = text[row["sequence"]][row["start"] :][: row["length"]]
        active = dict(zip(row["offsets"], row["activations"], strict=True))
        assert all(value > 0 for value in active.values()) and row["peak_token"] == tokens[row["position"] - row["start"]]
        yield row | {"tokens": tokens, "activations": [active.pop(offset, 0.0) for offset in range(len(tokens))]}
        assert not active


def test_contexts_equal_those_of_the_slow_twin(world, harvested, activations):
    _, dictionary, text = world
    got = {}
    for row in contexts(harvested):
        got.setdefault((row["layer"], row["feature"]), {}).setdefault(row["band"], []).append((row["sequence"], row["position"]))
    for layer in range(2):
        for feature in range(dictionary.n_features):
            assert got.get((layer, feature), {}) == slow_contexts(
                activations[:, :, layer, feature], text, SETTINGS, NAMED["seed"], (layer, feature)
            ), (layer, feature)
    assert any("q2" in bands for bands in got.values())


def test_a_context_is_the_text_around_its_peak(world, harvested, activations):
    _, _, text = world
    seen = set()
    for row in contexts(harvested):
        first, length, _ = slow_window(text, row["sequence"], row["position"], SETTINGS.window)
        place = slice(first, first + length)
        assert (row["start"], row["tokens"]) == (first, text.tokens[row["sequence"], place].tolist())
        assert np.allclose(row["activations"], activations[row["sequence"], place, row["layer"], row["feature"]], atol=1e-5)
        assert row["max_activation"] == row["activations"][row["position"] - first]
        assert text.tokens[row["sequence"], row["position"]] not in (0, 77)
        assert not any(value for token, value in zip(row["tokens"], row["activations"], strict=True) if token in (0, 77))
        assert set(text.documents[row["sequence"], place].tolist()) == {row["document"]}
        assert row["label"] == [None, "en", "fr"][text.labels[row["sequence"], row["position"]] + 1]
        key = tuple(row[name] for name in ("layer", "feature", "sequence", "position"))
        assert key not in seen
        seen.add(key)


def test_statistics_and_logit_effects(world, harvested, activations):
    lm, dictionary, text = world
    counted = activations[tuple(zip(*is_ordinary(text), strict=True))]
    assert 1 - len(counted) / text.tokens[:, 1:].size == pytest.approx(0.08, abs=0.02)  # what the borders take
    assert json.loads((harvested / "counts.json").read_text()) == {
        "tokens": text.tokens.size,
        "ordinary": len(counted),
        "excluded": {str(token): int((text.tokens[:, 1:] == token).sum()) for token in (0, 77)},
    }
    found = {}
    for row in contexts(harvested):
        found.setdefault((row["layer"], row["feature"]), []).append((row["sequence"], row["position"], row["document"]))
    for row in rows(harvested, "features"):
        a = counted[:, row["layer"], row["feature"]]
        here = found.get((row["layer"], row["feature"]), [])
        assert (row["n_contexts"], row["n_documents"]) == (len(set(here)), len({document for _, _, document in here}))
        assert row["density"] == pytest.approx((a > 0).mean())
        assert row["max_activation"] == pytest.approx(a.max(), rel=1e-5)
        assert row["mean_activation"] == pytest.approx(a[a > 0].mean() if (a > 0).any() else 0, rel=1e-5)
        assert row["dead"] == (not (a > 0).any())
        decoder = dictionary.W_dec[row["layer"]][row["feature"]]
        assert row["decoder_norms"] == pytest.approx([math.sqrt(float((w * w).sum())) for w in decoder], rel=1e-5)
        effect = lm.unembedding_weight() @ (norm_gain(lm.final_norm) * decoder.sum(0))
        effect = effect - effect.mean()
        assert [entry["token"] for entry in row["top_logits"]] == effect.argsort(descending=True)[:10].tolist()
        assert [entry["token"] for entry in row["bottom_logits"]] == effect.argsort()[:10].tolist()
        assert row["top_logits"][0]["value"] == pytest.approx(float(effect.max()), rel=1e-4)
        lens = {entry["token"]: entry["value"] for entry in row["lens_logits"]}
        assert lm.token_strings(list(lens)) == list("0123456789")
        assert [*lens.values()] == pytest.approx(effect[[*lens]].tolist(), abs=1e-5)


def test_tokens_of_the_lens_are_named_by_text_or_id_or_by_an_expression(world):
    lm, dictionary, _ = world
    named = logit_lens(lm, dictionary, 1, ["9", 51, "3", "9"])
    for layer in (-1, dictionary.n_layers):
        with pytest.raises(CltdbError, match=f"logit_lens layer: found {layer}; expected 0 to"):
            logit_lens(lm, dictionary, layer, ["9"])
    assert named.shape == (dictionary.n_features, 3)
    assert chosen_tokens(lm, "[39]|S") == [19, 25, 51]
    assert torch.allclose(named, logit_lens(lm, dictionary, 1, "[39]|S")[:, [1, 2, 0]])
    for chosen, message in (
        (["9", "99"], "tokens: found '99'; expected a token of .*, by its text or its id"),
        ([257], "found 257"),
        ("[0-9]{2}", "no token whose whole text matches"),
    ):
        with pytest.raises(CltdbError, match=message):
            chosen_tokens(lm, chosen)


def test_a_lens_over_more_tokens_than_can_be_stored_is_refused_before_the_pass(world, tmp_path, monkeypatch):
    monkeypatch.setattr("cltdb.harvest.lens.MOST_TOKENS", 9)
    with pytest.raises(CltdbError, match="harvest.lens_tokens: found 10 tokens; expected at most 9"):
        harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    assert not list(tmp_path.iterdir())


def test_the_text_of_windows_is_there_once(world, harvested):
    text = world[2]
    wanted = sorted({row["sequence"] for row in rows(harvested, "windows")})
    kept = rows(harvested, "harvested_text")
    assert [row["sequence"] for row in kept] == wanted and {row["dict_id"] for row in kept} == {"d"}
    assert all(row["tokens"] == text.tokens[row["sequence"]].tolist() for row in kept)


def test_histogram_quantiles_and_spread(world, harvested, activations):
    counted = activations[tuple(zip(*is_ordinary(world[2]), strict=True))]
    for row in rows(harvested, "features"):
        a = counted[:, row["layer"], row["feature"]]
        a = a[a > 0]
        if not len(a):
            continue
        assert {entry["low"]: entry["n"] for entry in row["histogram"]} == slow_bins(a)
        assert row["std_activation"] == pytest.approx(a.astype(np.float64).std(), rel=1e-5, abs=1e-7)
        exact = np.quantile(a, statistics.QUANTILES, method="inverted_cdf")
        assert np.allclose(row["quantiles"], exact, rtol=0.25, atol=a.max() / 2**6)  # in the same bin
        assert min(row["quantiles"]) >= row["threshold"]


def test_pool_windows_carry_all_their_activations(world, harvested, activations):
    _, _, text = world
    windows = pq.read_table(harvested / "pool.parquet").to_pylist()
    assert len(windows) == SETTINGS.pool_windows
    assert len({(window["sequence"], window["start"]) for window in windows}) == len(windows)
    wanted = {}
    for window in windows:
        place = slice(window["start"], window["start"] + len(window["tokens"]))
        assert window["tokens"] == text.tokens[window["sequence"], place].tolist()
        assert set(text.documents[window["sequence"], place].tolist()) == {window["document"]}
        a = activations[window["sequence"], place]
        wanted |= {
            (layer, feature, window["window_id"], offset): a[offset, layer, feature]
            for offset, layer, feature in zip(*np.nonzero(a), strict=True)
        }
    got = pq.read_table(harvested / "pool_activations.parquet").to_pylist()
    keys = [(row["layer"], row["feature"], row["window_id"], row["offset"]) for row in got]
    assert keys == sorted(wanted)
    assert np.allclose([row["activation"] for row in got], [wanted[key] for key in keys], atol=1e-5)


def test_neighbours_have_the_most_similar_decoders(world, harvested):
    _, dictionary, _ = world
    W = dictionary.W_dec[0].flatten(1)
    cosine = torch.nn.functional.cosine_similarity(W[:, None], W[None], dim=-1)
    cosine.fill_diagonal_(-2)
    found = [
        row
        for row in pq.read_table(harvested / "tables/feature_neighbours/layer-00.parquet").to_pylist()
        if row["layer"] == 0 and row["feature"] == 4
    ]
    assert [row["neighbour"] for row in found] == cosine[4].argsort(descending=True)[:10].tolist()


@pytest.mark.parametrize("decoder_floats", [1, 300, 2**27])
def test_neighbours_found_in_parts_are_the_same(world, monkeypatch, decoder_floats):
    _, dictionary, _ = world
    W = dictionary.W_dec[0].double().flatten(1)
    cosine = torch.nn.functional.cosine_similarity(W[:, None], W[None], dim=-1).fill_diagonal_(-2)
    wanted = cosine.topk(min(10, len(W) - 1), dim=1)
    monkeypatch.setattr(statistics, "DECODER_FLOATS", decoder_floats)
    neighbours, cosines = statistics.similar_features(dictionary, 0)
    assert np.array_equal(neighbours, wanted.indices) and np.allclose(cosines, wanted.values, atol=1e-5)


class Killed(BaseException):
    """What no code of cltdb catches."""


def die_after(monkeypatch, n_batches):
    """The next pass ends in the middle."""
    see, calls = HarvestPass.see, []

    def dies(self, *args, **kwargs):
        calls.append(args)
        if len(calls) > n_batches:
            monkeypatch.setattr(HarvestPass, "see", see)
            raise Killed
        see(self, *args, **kwargs)

    monkeypatch.setattr(HarvestPass, "see", dies)


def assert_same_files(got, wanted):
    files = sorted(path.relative_to(wanted) for path in wanted.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(got) for path in got.rglob("*") if path.is_file())
    assert all((got / path).read_bytes() == (wanted / path).read_bytes() for path in files)


@pytest.mark.parametrize("killed_after", [1, 8, 20])
def test_a_killed_pass_goes_on_to_the_same_bytes(world, harvested, tmp_path, monkeypatch, killed_after):
    die_after(monkeypatch, killed_after)
    with pytest.raises(Killed):
        harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    assert_same_files(tmp_path, harvested)


@pytest.mark.parametrize("batch_seqs", [1, 64])
def test_batches_make_no_difference_nor_does_another_size_after_a_kill(world, harvested, tmp_path, monkeypatch, batch_seqs):
    batched = SETTINGS.model_copy(update={"batch_seqs": batch_seqs})
    die_after(monkeypatch, 1 if batch_seqs == 64 else 5)
    with pytest.raises(Killed):
        harvest(SETTINGS if batch_seqs == 64 else batched, *world, directory=tmp_path, **NAMED)
    harvest(batched, *world, directory=tmp_path, **NAMED)
    assert_same_files(tmp_path, harvested)


def test_batches_are_as_large_as_wished(world, tmp_path, monkeypatch):
    see, sizes = HarvestPass.see, []
    monkeypatch.setattr(
        HarvestPass, "see", lambda self, lm, first, stop: (sizes.append(stop - first), see(self, lm, first, stop))
    )
    harvest(SETTINGS.model_copy(update={"batch_seqs": 32}), *world, directory=tmp_path, **NAMED)
    assert sizes == [32, 32, 16]


def test_a_stretch_that_grows_large_ends_early_and_is_not_seen_again(world, harvested, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STRETCH_BYTES", 0)
    die_after(monkeypatch, 3)
    with pytest.raises(Killed):
        harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    assert [path.stem for path in sorted((tmp_path / FOLDER).iterdir())] == [
        f"{first:08d}-{first + 2:08d}" for first in (0, 2, 4)
    ]
    harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    assert_same_files(tmp_path, harvested)


def test_features_put_together_in_ranges_have_the_same_rows(world, harvested, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FEATURES_AT_ONCE", 5)
    harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    for path in ("tables/windows/layer-01.parquet", "pool_activations.parquet"):
        assert pq.ParquetFile(tmp_path / path).num_row_groups > 1
        assert pq.read_table(tmp_path / path).equals(pq.read_table(harvested / path))


def test_an_activation_that_is_not_finite_is_refused(world, tmp_path):
    lm, dictionary, text = world
    broken = dictionary.to(dtype=torch.float32)
    broken.b_enc = broken.b_enc.clone()
    broken.b_enc[1, 3] = math.nan
    with pytest.raises(CltdbError, match="the activation nan of feature 3"):
        harvest(SETTINGS, lm, broken, text, directory=tmp_path, **NAMED)


def test_processes_share_the_text_and_one_puts_it_together(world, harvested, tmp_path, monkeypatch):
    for rank in (2, 0, 1):
        harvest(SETTINGS, *world, directory=tmp_path, **NAMED, share=Share(rank, 3))
        assert not (tmp_path / "tables").exists()
    monkeypatch.setattr(HarvestPass, "see", None)  # nothing is left to be seen
    harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    assert_same_files(tmp_path, harvested)


@pytest.mark.parametrize("then", [1, 2])
def test_a_killed_pass_goes_on_in_another_number_of_processes(world, harvested, tmp_path, monkeypatch, then):
    for rank, n_batches in enumerate((5, 1, 4)):
        die_after(monkeypatch, n_batches)
        with pytest.raises(Killed):
            harvest(SETTINGS, *world, directory=tmp_path, **NAMED, share=Share(rank, 3))
    for rank in range(then):
        harvest(SETTINGS, *world, directory=tmp_path, **NAMED, share=Share(rank, then))
    harvest(SETTINGS, *world, directory=tmp_path, **NAMED)
    assert_same_files(tmp_path, harvested)


def test_text_that_a_process_of_an_earlier_run_wrote_too_is_not_counted_twice(world, tmp_path):
    harvest(SETTINGS, *world, directory=tmp_path, **NAMED, share=Share(0, 2))
    first = min((tmp_path / FOLDER).iterdir())
    shutil.copy(first, first.with_name("00000000-00000001.safetensors"))  # of smaller batches
    with pytest.raises(CltdbError, match="some of the text twice"):
        harvest(SETTINGS, *world, directory=tmp_path, **NAMED)


def test_where_no_excluded_token_stands_nothing_changes(world, tmp_path):
    text = sequences(n_seqs=9)
    text.tokens[:, 1:] = np.where(np.isin(text.tokens[:, 1:], (0, 77)), 5, text.tokens[:, 1:])
    for name, excluded in (("none", ()), ("some", (0, 77))):
        harvest(SETTINGS, *world[:2], text.without(excluded), directory=tmp_path / name, **NAMED)
    assert_same_files(tmp_path / "some", tmp_path / "none")


def test_a_finished_harvest_is_left_alone(world, harvested, monkeypatch):
    monkeypatch.setattr(HarvestPass, "see", None)
    harvest(SETTINGS, *world, directory=harvested, **NAMED)


def test_a_dictionary_of_another_model_is_refused(world, tmp_path):
    with pytest.raises(CltdbError, match="trained on this model"):
        harvest(SETTINGS, world[0], dictionaries.random(n_layers=3), world[2], directory=tmp_path, **NAMED)
    with pytest.raises(CltdbError, match="mlp_input='residual'"):
        harvest(SETTINGS, world[0], dictionaries.random(info={"mlp_input": "residual"}), world[2], directory=tmp_path, **NAMED)


def test_a_silent_dictionary_gives_dead_features_and_no_contexts(world, tmp_path):
    lm, dictionary, text = world
    silent = dictionary.to(dtype=torch.float32)
    silent.threshold = torch.full_like(silent.threshold, 1e9)
    harvest(SETTINGS, lm, silent, text, directory=tmp_path, **NAMED)
    assert all(row["dead"] for row in rows(tmp_path, "features"))
    assert rows(tmp_path, "windows") == [] == rows(tmp_path, "harvested_text")
    assert all((row["n_contexts"], row["quantiles"], row["histogram"]) == (0, None, []) for row in rows(tmp_path, "features"))
