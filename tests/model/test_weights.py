"""A model whose files do not hold what its config describes is refused with the names; what no text goes through is not asked for."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from worlds import models

from cltdb.errors import CltdbError
from cltdb.model.loading import load_model, load_sizes_and_tokens

OUTER = "h.1.mlp.c_proj.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return models.saved(tmp_path_factory.mktemp("model") / "good")


def changed(saved, folder, *, tensors=None, **config):
    """A copy of a saved model whose tensors went through a function, and whose config has other values."""
    shutil.copytree(saved, folder)
    if tensors:
        made = tensors(load_file(saved / "model.safetensors"))
        save_file({name: tensor.contiguous() for name, tensor in made.items()}, folder / "model.safetensors", {"format": "pt"})
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


def put(name, value):
    """Sets the first number of the tensor of this name, all tensors in bfloat16."""

    def edit(tensors):
        tensors = {key: tensor.bfloat16() for key, tensor in tensors.items()}
        tensors[f"transformer.{name}"].view(-1)[0] = value
        return tensors

    return edit


REFUSED = {
    "a tensor is missing": (
        {"tensors": lambda t: {name: x for name, x in t.items() if not name.endswith(OUTER)}},
        f"no transformer.{OUTER};",
    ),
    "the embedding, which two share, is missing": (
        {"tensors": lambda t: {name: x for name, x in t.items() if "wte" not in name}},
        "no lm_head.weight, transformer.wte.weight;",
    ),
    "another prefix": (
        {"tensors": lambda t: {name.replace("transformer.", "backbone."): x for name, x in t.items()}},
        "no lm_head.weight, transformer.h.0.* and no place for backbone.h.0.",
    ),
    "one renamed": (
        {"tensors": lambda t: {name.replace("h.1.mlp.c_proj", "h.1.mlp.down"): x for name, x in t.items()}},
        "no transformer.h.1.mlp.c_proj.bias, transformer.h.1.mlp.c_proj.weight and no place for transformer.h.1.mlp.down.bias,",
    ),
    "one too many": (
        {"tensors": lambda t: t | {"transformer.h.0.mlp.gate.weight": torch.ones(2)}},
        "no place for transformer.h.0.mlp.gate.weight;",
    ),
    "a layer too many in the file": (
        {"tensors": lambda t: t | {name.replace("h.1.", "h.2."): x.clone() for name, x in t.items() if "h.1." in name}},
        "no place for transformer.h.2.*3 layers in the file, 2 in config.json",
    ),
    "a layer too many in the config": ({"n_layer": 3}, "no transformer.h.2.*2 layers in the file, 3 in config.json"),
    "a layer too few in the config": ({"n_layer": 1}, "no place for transformer.h.1.*2 layers in the file, 1 in config.json"),
    "another vocabulary": ({"vocab_size": 300}, "other sizes of transformer.wte.weight .257x16, of the config 300x16.;"),
    "another width": ({"n_inner": 48}, "other sizes of transformer.h.0.mlp.c_fc.bias .64, of the config 48."),
    "another width of all": ({"n_embd": 32}, "other sizes of .*16, of the config 32"),
    "untied, and one missing": ({"tie_word_embeddings": False}, "no lm_head.weight;"),
    "a bfloat16 NaN": ({"tensors": put(OUTER, float("nan"))}, f"no finite numbers as float32: transformer.{OUTER};"),
    "infinity": ({"tensors": put("h.0.ln_2.bias", float("-inf"))}, "no finite numbers as float32: transformer.h.0.ln_2.bias;"),
    "whole numbers": (
        {"tensors": lambda t: t | {f"transformer.{OUTER}": t[f"transformer.{OUTER}"].to(torch.int8)}},
        f"whole numbers in transformer.{OUTER} .I8.;",
    ),
    "a config of other types": ({"n_layer": "two"}, "n_layer"),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_a_model_that_is_not_what_its_files_hold_is_refused_with_the_names(saved, tmp_path, problem):
    change, words = REFUSED[problem]
    with pytest.raises(CltdbError, match=words):
        load_model(changed(saved, tmp_path / "model", **change), device="cpu")


def test_numbers_too_large_for_a_type_are_refused_and_others_load(saved, tmp_path):
    folder = changed(saved, tmp_path / "model", tensors=put(OUTER, 1e6))
    with pytest.raises(CltdbError, match=f"no finite numbers as float16: transformer.{OUTER};.*bfloat16"):
        load_model(folder, device="cpu", dtype="float16")
    assert load_model(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_a_file_cut_short_is_named(saved, tmp_path):
    folder = changed(saved, tmp_path / "model")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(CltdbError, match="model.safetensors: found a damaged file"):
        load_model(folder, device="cpu")


def test_what_older_versions_saved_beside_the_weights_is_left_out(saved, tmp_path):
    old = {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64), "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    with_masks = changed(saved, tmp_path / "masks", tensors=lambda t: t | old)
    without_prefix = changed(
        saved, tmp_path / "bare", tensors=lambda t: {n.removeprefix("transformer."): x for n, x in t.items()}
    )
    plain = load_model(changed(saved, tmp_path / "plain"), device="cpu").fingerprint
    assert [load_model(folder, device="cpu").fingerprint for folder in (with_masks, without_prefix)] == [plain, plain]


@pytest.mark.parametrize("base, words", [(10_000, None), (1e6, "rotary frequencies in .*inv_freq that are not those")])
def test_rotary_frequencies_of_a_file_must_be_those_of_the_config(tmp_path, base, words):
    stored = {"model.layers.0.self_attn.rotary_emb.inv_freq": base ** -(torch.arange(0, 8, 2) / 8)}
    folder = changed(models.saved(tmp_path / "made", "llama"), tmp_path / "model", tensors=lambda t: t | stored)
    if words is None:
        assert load_model(folder, device="cpu").n_layers == 2
        return
    with pytest.raises(CltdbError, match=words):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "gemma2", "gemma3_text"])
def test_every_family_loads_and_lacks_no_tensor_silently(tmp_path, architecture):
    """Gemma's embedding is its unembedding too, which no file holds."""
    made = models.saved(tmp_path / "made", architecture)
    assert load_model(made, device="cpu").fingerprint
    dropped = next(name for name in load_file(made / "model.safetensors") if "1" in name and "norm" in name)
    folder = changed(made, tmp_path / "model", tensors=lambda t: {n: x for n, x in t.items() if n != dropped})
    with pytest.raises(CltdbError, match=f"no {dropped};"):
        load_model(folder, device="cpu")


def test_the_towers_beside_the_text_of_gemma_3_may_be_missing_but_nothing_of_the_text(tmp_path):
    text = models.hf_model("gemma3_text").config.to_dict()
    seeing = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=seeing, mm_tokens_per_image=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "made")
    models.byte_tokenizer().save_pretrained(tmp_path / "made")
    blind = changed(tmp_path / "made", tmp_path / "blind", tensors=lambda t: {n: x for n, x in t.items() if "vision" not in n})
    whole = load_model(changed(tmp_path / "made", tmp_path / "whole"), device="cpu")
    assert load_model(blind, device="cpu").fingerprint == whole.fingerprint
    part = "layers.1.mlp.up_proj.weight"
    holed = changed(tmp_path / "made", tmp_path / "holed", tensors=lambda t: {n: x for n, x in t.items() if part not in n})
    with pytest.raises(CltdbError, match=f"no model.language_model.{part};"):
        load_model(holed, device="cpu")


def test_shards_that_are_not_what_their_index_says(tmp_path):
    models.hf_model("llama").save_pretrained(tmp_path / "made", max_shard_size="20KB")
    models.byte_tokenizer().save_pretrained(tmp_path / "made")
    whole, index = load_model(tmp_path / "made", device="cpu"), "model.safetensors.index.json"
    assert whole.fingerprint == load_model(models.saved(tmp_path / "one", "llama"), device="cpu").fingerprint
    places = json.loads((tmp_path / "made" / index).read_text())
    shards = sorted(set(places["weight_map"].values()))
    norm = places["weight_map"]["model.norm.weight"]
    without_shard = {name: file for name, file in places["weight_map"].items() if file != norm}
    elsewhere = places["weight_map"] | {"model.norm.weight": next(shard for shard in shards if shard != norm)}
    for number, (weight_map, words) in enumerate(
        [(without_shard, "model.norm.weight"), (elsewhere, "no model.norm.weight in"), ({}, "index.json: found no tensor")]
    ):
        folder = shutil.copytree(tmp_path / "made", tmp_path / str(number))
        (folder / index).write_text(json.dumps(places | {"weight_map": weight_map}))
        with pytest.raises(CltdbError, match=words):
            load_model(folder, device="cpu")
    (tmp_path / "made" / norm).unlink()
    with pytest.raises(CltdbError, match=f"no file {norm}"):
        load_model(tmp_path / "made", device="cpu")


def test_an_adapter_is_not_taken_for_a_model(saved, tmp_path):
    folder = changed(saved, tmp_path / "model")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CltdbError, match="adapter"):
        load_model(folder, device="cpu")


def test_the_fingerprint_is_that_of_weights_config_and_tokenizer(saved, tmp_path):
    def fingerprint(name, **change):
        return load_model(changed(saved, tmp_path / name, **change), device="cpu").fingerprint

    same = fingerprint("same", tensors=lambda t: dict(reversed(t.items())))
    others = [
        fingerprint("weight", tensors=lambda t: t | {f"transformer.{OUTER}": -t[f"transformer.{OUTER}"]}),
        fingerprint("heads", n_head=2),  # of which no tensor tells
        fingerprint("activation", activation_function="relu"),
    ]
    folder = changed(saved, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    others.append(load_model(folder, device="cpu").fingerprint)
    assert same == fingerprint("copy") and len({same, *others}) == 5


def test_sizes_and_tokens_need_no_weights(saved, tmp_path):
    lm = load_sizes_and_tokens(saved)
    assert (lm.n_layers, lm.d_model, lm.vocab_size, lm.max_context) == (2, 16, 257, 64) and lm.dtype == torch.float32
    assert lm.prompt_tokens("ab") == load_model(saved, device="cpu").prompt_tokens("ab") and lm.device.type == "meta"


# Tokenizers that do not fit their model.


def tokenizer(saved, folder, edit=lambda facts: None, **settings):
    """A copy of a saved model with other facts in tokenizer.json and settings in tokenizer_config.json."""
    changed(saved, folder)
    for name, change in (("tokenizer.json", edit), ("tokenizer_config.json", lambda known: known.update(settings))):
        known = json.loads((folder / name).read_text())
        change(known)
        (folder / name).write_text(json.dumps(known))
    return folder


def test_a_token_that_the_embedding_has_no_row_for(saved, tmp_path):
    lm = load_model(saved, device="cpu")
    lm.tokenizer.add_tokens(["<extra-0>", "<extra-1>"])
    lm.tokenizer.save_pretrained(changed(saved, tmp_path / "model"))
    lm = load_model(tmp_path / "model", device="cpu")
    assert len(lm.token_strings()) == 257 and lm.prompt_tokens("plain") and lm.text_tokens(["all", "plain"])
    for ask in (lm.text_tokens, lm.prompt_tokens, lambda text: lm.text_tokens(["plain", text])):
        with pytest.raises(CltdbError, match="'<extra-1>' in a text, whose id is 258; expected ids below 257"):
            ask("an <extra-1> token")


def test_holes_of_a_vocabulary_are_shown_as_numbers(saved, tmp_path):
    def drop(facts):
        facts["model"]["vocab"] = {text: token for text, token in facts["model"]["vocab"].items() if token not in (40, 41)}

    lm = load_model(tokenizer(saved, tmp_path / "model", drop), device="cpu")
    strings = lm.token_strings()
    assert lm.token_text(40) == "[40]" and lm.token_text(66) == "b"
    whole = load_model(saved, device="cpu").token_strings()
    assert strings[40:42] == ["[40]", "[41]"] and [*strings[:40], *strings[42:]] == [*whole[:40], *whole[42:]]


BEGINNINGS = {
    "none": ({"bos_token": None, "eos_token": None}, {"bos_token_id": None, "eos_token_id": None}, "no BOS"),
    "several": ({"bos_token": None}, {"bos_token_id": [5, 6]}, "bos_token_id"),
    "beyond the embedding": ({"bos_token": "<begin>"}, {}, "bos_token_id 257; expected ids below 257"),
    "of the config, beyond": ({"bos_token": None}, {"bos_token_id": 50256}, "bos_token_id 50256; expected ids below 257"),
    "the config's": ({"bos_token": None}, {"bos_token_id": 7}, 7),
    "the tokenizer's": ({}, {"bos_token_id": 7}, 0),
    "the end": ({"bos_token": None, "eos_token": None}, {"bos_token_id": None, "eos_token_id": [9, 8]}, 9),
}


@pytest.mark.parametrize("case", BEGINNINGS)
def test_which_token_stands_first(saved, tmp_path, case):
    settings, config, expected = BEGINNINGS[case]
    folder = changed(tokenizer(saved, tmp_path / "made", **settings), tmp_path / "model", **config)
    if isinstance(expected, int):
        assert load_sizes_and_tokens(folder).bos_token_id == expected
        return
    with pytest.raises(CltdbError, match=expected):
        load_sizes_and_tokens(folder)


def test_another_unembedding_than_the_config_ties_is_said(saved, tmp_path, caplog):
    folder = changed(saved, tmp_path / "model", tensors=lambda t: t | {"lm_head.weight": -t["transformer.wte.weight"]})
    lm = load_model(folder, device="cpu")
    assert torch.equal(lm.unembedding_weight(), -lm.embedding.weight) and "the file holds another one" in caplog.text
    caplog.clear()
    load_model(saved, device="cpu")
    assert not caplog.text
