"""Sparse autoencoders: the kind that transcoders are compared with, at each place that it may read and reconstruct."""

from contextlib import contextmanager

import polars as pl
import pytest
import torch
from activations.test_cache import random_sequences
from torch.nn import functional as F
from train.test_train import SETTINGS, TRAINED, a_run, trained
from worlds import dictionaries, models
from worlds.batches import MemorySource

from cltdb.errors import CltdbError
from cltdb.evaluate.evaluate import evaluate
from cltdb.evaluate.settings import Evaluate
from cltdb.harvest.harvest import harvest
from cltdb.harvest.settings import Harvest
from cltdb.model.kinds import READS
from cltdb.model.transcoder import load_dictionary
from cltdb.replacement.replacement_model import LocalReplacementModel
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Train


def sae(reads, **sizes):
    return dictionaries.random(kind="sae", info={"reads": reads}, dtype=torch.float32, **sizes)


def model_of(reads, architecture):
    lm = models.language_model(architecture)
    lm.mlp_input = "residual" if reads == "residual" else "normed"
    return lm


@contextmanager
def spliced(lm, dictionary, reads, replaced):
    """`lm` whose activation at the place that is read becomes its reconstruction where the mask `replaced` [batch, pos] is true: plain hooks
    on modules of transformers, at that very place."""
    handles = []

    def new(layer, value):
        flat = dictionary.decode_layer([None] * layer + [dictionary.encode_layer(value, layer)], layer)
        return torch.where(replaced[..., None], flat, value)

    for layer, block in enumerate(lm.blocks):
        if reads == "mlp_output":
            handles.append(block.mlp_output.register_forward_hook(lambda module, args, y, layer=layer: new(layer, y)))
        elif reads == "mlp_input":
            handles.append(block.mlp.register_forward_pre_hook(lambda module, args, layer=layer: (new(layer, args[0]),)))
        else:  # the stream itself: GPT-2 and Llama add attention's output to what comes in
            handles.append(_replace_stream(block, layer, new))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replace_stream(block, layer, new):
    entered = {}
    norm = block.attention_norm.register_forward_pre_hook(lambda module, args: entered.update(x=args[0]))

    def attended(module, args, output):
        written = output[0] if isinstance(output, tuple) else output
        changed = new(layer, entered["x"] + written) - entered["x"]
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    added = block.attention_output.register_forward_hook(attended)

    class Both:
        def remove(self):
            norm.remove()
            added.remove()

    return Both()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("reads", READS)
def test_evaluation_splices_where_the_sae_reads(tmp_path, reads, architecture):
    lm, d, sequences = model_of(reads, architecture), sae(reads), random_sequences(6)
    evaluate(Evaluate(batch_seqs=3), lm, d, sequences, directory=tmp_path, dict_id="d")
    rows = pl.read_parquet(tmp_path / "tables/metrics/evaluate.parquet").filter(pl.col("layer").is_null())
    got = dict(rows.select("name", "value").iter_rows())
    tokens = torch.from_numpy(sequences.tokens).long()
    ordinary = torch.from_numpy(sequences.ordinary)
    captured = lm.run(tokens)
    place = (captured.mlp_output if reads == "mlp_output" else captured.mlp_input)[ordinary]
    a = d.encode(place)
    sse, sst = (place - d.decode(a)).square().sum(), (place - place.mean(0)).square().sum()
    assert got["fvu_model_units"] == pytest.approx(float(sse / sst), rel=1e-4)
    assert got["l0"] == pytest.approx(float((a > 0).sum(-1).float().mean()))
    with spliced(lm, d, reads, ordinary):
        logits = lm.logits(tokens)
    counted = ordinary[:, :-1]
    ce = F.cross_entropy(logits[:, :-1][counted], tokens[:, 1:][counted])
    assert got["ce_replacement"] == pytest.approx(float(ce), rel=1e-5)
    assert abs(got["ce_replacement"] - got["ce_original"]) > 1e-5


@pytest.mark.parametrize("reads", READS)
def test_training_is_that_of_a_per_layer_transcoder_whose_input_and_output_are_the_place(tmp_path, reads):
    place = TRAINED.y if reads == "mlp_output" else TRAINED.x
    twin = TrainingRun(
        Train(**SETTINGS, kind="plt"), source=MemorySource(place, place), heldout=MemorySource(place, place), seed=0, device="cpu"
    )
    run = a_run(kind="sae", reads=reads)
    for (_, batch), (_, other), _ in zip(enumerate(run.batches()), enumerate(twin.batches()), range(5), strict=False):
        facts, expected = run.make_step(batch), twin.make_step(other)
        assert facts.loss == expected.loss and torch.equal(facts.fvu, expected.fvu)
    made = trained(tmp_path, kind="sae", reads=reads)
    assert (made.kind, made.reads, made.writes) == ("sae", reads, reads)
    again = load_dictionary(tmp_path)
    assert again.reads == reads and torch.equal(again.W_enc, made.W_enc)
    assert pl.read_parquet(tmp_path / "tables/dictionaries/dictionary.parquet")["reads"].to_list() == [reads]


def test_a_harvest_counts_what_fires_at_the_place_that_is_read(tmp_path):
    lm, d, sequences = model_of("mlp_output", "gpt2"), sae("mlp_output"), random_sequences(12)
    settings = Harvest(tokens=10, top=2, per_quantile=1, window=4, pool_windows=20, coactivation_tokens=20)
    harvest(settings, lm, d, sequences, directory=tmp_path, dict_id="d", seed=0)
    ordinary = torch.from_numpy(sequences.ordinary)
    a = d.encode(lm.run(torch.from_numpy(sequences.tokens).long()).mlp_output[ordinary])
    for layer in range(d.n_layers):
        rows = pl.read_parquet(tmp_path / f"tables/features/layer-{layer:02d}.parquet").sort("feature")
        assert rows["density"].to_list() == pytest.approx((a[:, layer] > 0).float().mean(0).tolist())
        assert rows["top_embeddings"].list.len().max() == 0 and rows["top_logits"].list.len().min() > 0
    assert not list(tmp_path.glob("tables/feature_edges/*"))


def test_no_graph_leads_through_an_sae():
    lm = models.language_model()
    with pytest.raises(CltdbError) as refused:
        LocalReplacementModel.of(lm, sae("mlp_output"), [0, 1, 2])
    assert "explains an activation and not how the MLP makes it" in str(refused.value) and "\n" not in str(refused.value)


def test_an_sae_of_another_place_than_the_model_shows_is_refused(tmp_path):
    lm = models.language_model()
    with pytest.raises(CltdbError, match="model.mlp_input: residual"):
        evaluate(Evaluate(), lm, sae("residual"), random_sequences(3), directory=tmp_path, dict_id="d")


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"kind": "plt", "reads": "mlp_output"}, "expected kind sae with reads"),
        ({"kind": "sae", "skip": True}, "expected no skip with kind sae"),
        ({"kind": "sae", "decoder_span": 2}, "expected none with kind sae, which writes to its own layer"),
        ({"kind": "sae", "reads": "mlp_input", "kl": {"steps": 1}}, "expected reads mlp_output with train.kl"),
    ],
)
def test_settings_that_an_sae_cannot_have(settings, said):
    with pytest.raises(ValueError, match=said):
        Train(**settings)
