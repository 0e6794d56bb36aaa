"""Which tokens are excluded, by default and as a spec names them, and that a massive activation at BOS costs the other tokens nothing."""

import json
import logging

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from tokenizers import AddedToken
from worlds import models, projects

from cltdb.activations.ordinary import excluded_ids, ordinary_places
from cltdb.activations.settings import Activations
from cltdb.engine import run as runner
from cltdb.engine.plan import plan
from cltdb.engine.workspace import Workspace
from cltdb.errors import DataError
from cltdb.model.language_model import LanguageModel
from cltdb.spec import load


def model_with(*, special=(), plain=(), **named):
    """A model whose tokenizer has further tokens: marked special, not marked, and special by name (pad_token=…)."""
    tokenizer = models.byte_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token) for token in plain])
    tokenizer.add_special_tokens(named)
    hf = models.hf_model()
    hf.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return LanguageModel(hf, tokenizer, model_id="m")


def test_by_default_bos_and_special_tokens_are_excluded_and_words_are_not():
    lm = model_with(special=["<|turn|>"], plain=["    ", "hello"], pad_token="<pad>", eos_token="<bos>")
    ids = {token: lm.tokenizer.convert_tokens_to_ids(token) for token in ("<bos>", "<|turn|>", "<pad>", "    ", "hello")}
    assert excluded_ids(lm, None) == tuple(sorted(ids[token] for token in ("<bos>", "<|turn|>", "<pad>")))
    assert excluded_ids(models.language_model(), None) == (0,)  # BOS, EOS and all else in one
    lm.bos_token_id = 7  # of the config, which the tokenizer does not know
    assert 7 in excluded_ids(lm, None)


def test_tokens_are_named_by_id_by_their_spelling_or_by_a_text_that_is_one_token():
    lm = model_with(plain=["hello"])
    hello, space = (lm.tokenizer.convert_tokens_to_ids(token) for token in ("hello", "\u0120"))
    assert excluded_ids(lm, []) == ()
    assert excluded_ids(lm, ["hello", 3, "<bos>", 3]) == (0, 3, hello)
    assert excluded_ids(lm, ["\u0120", " "]) == (space,)


@pytest.mark.parametrize(
    ("token", "message"),
    [("two words", "'two words', which is 9 tokens"), (100_000, "100000"), ("<nothing>", "'<nothing>', which is 9 tokens")],
)
def test_what_is_no_token_is_one_clear_error(token, message):
    with pytest.raises(DataError, match=f"activations.exclude_tokens: found {message}.*one token's text, or an id"):
        excluded_ids(model_with(), ["<bos>", token])


@pytest.mark.parametrize("value", ["<bos>", [True], [-1], [1.5], [2**31], [""], [None]])
def test_other_values_are_no_list_of_tokens(value):
    with pytest.raises(ValidationError, match="exclude_tokens"):
        Activations(text=[{"toyworld": True}], exclude_tokens=value)


def test_the_mask_leaves_out_position_0_and_excluded_ids_wherever_they_stand():
    tokens = np.array([[5, 1, 0, 2], [0, 0, 3, 9], [9, 9, 9, 9]])
    assert ordinary_places(tokens, ()).tolist() == [[False, True, True, True]] * 3
    assert ordinary_places(tokens, (0, 9)).tolist() == [[False, True, False, True], [False, False, True, False], [False] * 4]


SPEC = """
name: tiny
model: {id: model}
activations: {text: [{files: [text.txt]}], context: 16, train_tokens: 6000, heldout_tokens: 1500, codec: int8}
train: {n_features: 32, l0: 4, batch_tokens: 128, epochs: 2, warmup_steps: 5, learning_rate: 1e-2, skip: true}
harvest: {tokens: 2000, coactivation_tokens: 500, pool_windows: 50, feature_edges: 2}
"""


def project(folder, lm):
    """A project with this model and documents shorter than a context, so that BOS stands within sequences."""
    projects.new(folder, SPEC)
    lm.hf.save_pretrained(folder / "model")
    lm.tokenizer.save_pretrained(folder / "model")
    words, draw = [f"{word}{number}" for word in ("sea", "hill", "wood") for number in range(30)], np.random.default_rng(0)
    projects.write_texts(folder / "text.txt", [" ".join(draw.choice(words, 2)) for _ in range(1500)])
    return folder


def ran(folder, until, *overrides):
    """{stage: directory}"""
    loaded = load(folder / "tiny.yaml", overrides=overrides)
    runner.run(loaded, until=until)
    workspace = Workspace(loaded.project.workspace)
    return {item.stage: workspace.artifact(item.stage, item.key) for item in plan(loaded)}


def fvu(directories):
    rows = pl.read_parquet(directories["evaluate"] / "tables/metrics/evaluate.parquet")
    return dict(rows.filter(pl.col("name") == "fvu", pl.col("layer").is_not_null()).select("layer", "value").rows())


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sink")
    plain = models.bos_sink_model(mlp_scale=20)
    plain.blocks[1].mlp.c_proj.weight.data[0] = 0
    return {"plain": project(folder / "plain", plain), "sink": project(folder / "sink", models.bos_sink_model(mlp_scale=20))}


def test_a_massive_activation_at_bos_within_sequences_costs_the_other_tokens_nothing(both):
    """Before, layer 1 was not learnt and its FVU, ruled by BOS, did not tell."""
    done = {name: ran(folder, "harvest") for name, folder in both.items()}
    plain, sink = (fvu(done[name]) for name in ("plain", "sink"))
    assert plain.keys() == sink.keys() == {0, 1}
    for layer, value in plain.items():
        assert value < 0.05 and sink[layer] == pytest.approx(value, rel=0.1), (layer, plain, sink)
    for directories in done.values():
        counts = json.loads((directories["activations"] / "cache.json").read_text())
        assert counts["excluded_tokens"] == [0] and counts["token_counts"]["train"]["excluded"]["0"] > 300
        for stage in ("evaluate", "harvest"):
            counts = json.loads((directories[stage] / "counts.json").read_text())
            assert counts["excluded"]["0"] > 50 and counts["ordinary"] < counts["tokens"] * 15 / 16 - 50


def test_with_bos_among_the_ordinary_tokens_the_sink_rules_the_norms(both):
    """What the exclusion is for, and that the spec's key reaches the cache, its key and the order of training."""
    with_it, without = (ran(both["sink"], "activations", *some) for some in ((), ("activations.exclude_tokens=[]",)))
    assert with_it["activations"] != without["activations"]
    one, other = (json.loads((directories["activations"] / "cache.json").read_text()) for directories in (with_it, without))
    assert other["excluded_tokens"] == [] and other["mlp_output_mean_norm"][1] > 5 * one["mlp_output_mean_norm"][1]
    assert other["token_counts"]["train"]["ordinary"] > one["token_counts"]["train"]["ordinary"]


def test_a_wrong_token_is_said_before_anything_runs_and_text_of_nothing_else_is_refused(both):
    with pytest.raises(DataError, match="exclude_tokens: found '<nosuch>'"):
        ran(both["plain"], "activations", 'activations.exclude_tokens=["<nosuch>"]')
    everything = list(range(257))
    with pytest.raises(DataError, match="exclude_tokens: found no other token in the training text"):
        ran(both["plain"], "activations", f"activations.exclude_tokens={everything}")


def test_a_tokenizer_whose_special_tokens_are_words_is_warned_of(both, caplog):
    with caplog.at_level(logging.INFO):
        ran(both["plain"], "activations", "activations.exclude_tokens=['<bos>', a, e, o, s]")
    warned = [record for record in caplog.records if "are excluded beside position 0" in record.message]
    assert {record.levelname for record in warned} == {"WARNING"} and "activations.exclude_tokens" in warned[0].message
