from typing import get_args

import pytest
import torch
from worlds import models

from cltdb.errors import CltdbError
from cltdb.model.language_model import LanguageModel
from cltdb.model.loading import DTYPES, MLP_INPUTS, load_model
from cltdb.model.settings import Model

TOKENS = torch.tensor([[0, 5, 60, 7, 99, 31], [0, 9, 9, 8, 200, 3]])


def test_what_load_model_is_asked_for_is_known():
    """As in a spec; another word for the MLP input was taken as `residual`."""
    known = {name: get_args(Model.model_fields[name].annotation) for name in ("mlp_input", "dtype")}
    assert known == {"mlp_input": MLP_INPUTS, "dtype": DTYPES}
    for name in ("mlp_input", "dtype", "device"):
        with pytest.raises(CltdbError, match=f"load_model {name}: found 'other'; expected"):
            load_model("toyworld", **{name: "other"})


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
@pytest.mark.parametrize("mlp_input", ["normed", "residual"])
def test_output_plus_residual_is_the_next_residual(architecture, mlp_input):
    """What is captured as MLP output is exactly what the block adds: replacing it by itself changes nothing, by zero removes
    it."""
    lm = LanguageModel(models.hf_model(architecture), models.byte_tokenizer(), model_id=architecture, mlp_input=mlp_input)
    captured = lm.run(TOKENS)
    assert captured.mlp_input.shape == captured.mlp_output.shape == (2, 6, lm.n_layers, lm.d_model)
    hidden = lm.hf(input_ids=TOKENS, output_hidden_states=True).hidden_states
    with lm.replaced_mlps(lambda layer, x, y: torch.zeros_like(y) if layer == 0 else None):
        without = lm.hf(input_ids=TOKENS, output_hidden_states=True).hidden_states
    assert torch.allclose(hidden[1] - without[1], captured.mlp_output[:, :, 0], atol=1e-5)
    with lm.replaced_mlps(lambda layer, x, y: y):
        assert torch.equal(lm.logits(TOKENS), captured.logits)
    assert torch.equal(lm.logits(TOKENS), captured.logits)
    without_logits = lm.run(TOKENS, with_logits=False)
    assert without_logits.logits is None and all(map(torch.equal, without_logits[:2], captured[:2]))


def test_normed_input_is_what_the_mlp_reads():
    lm = models.language_model("llama")
    captured = lm.run(TOKENS)
    assert torch.allclose(lm.blocks[1].mlp(captured.mlp_input[:, :, 1]), captured.mlp_output[:, :, 1], atol=1e-6)


def test_hooks_come_off_after_an_exception():
    lm = models.language_model()
    before = lm.logits(TOKENS)
    with pytest.raises(ZeroDivisionError), lm.replaced_mlps(lambda layer, x, y: 1 / 0):
        lm.logits(TOKENS)
    assert torch.equal(lm.logits(TOKENS), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.hf.modules())


@pytest.mark.parametrize("adds_bos", [False, True])
def test_prompts_have_exactly_one_bos(adds_bos):
    lm = LanguageModel(models.hf_model(), models.byte_tokenizer(adds_bos=adds_bos), model_id="fake")
    assert lm.prompt_tokens("ab") == [0, *lm.text_tokens("ab")]
    assert lm.prompt_tokens("<bos>ab") == lm.prompt_tokens("ab")


def test_prompt_errors():
    lm = models.language_model()
    with pytest.raises(CltdbError, match="empty prompt"):
        lm.prompt_tokens("  " * 0)
    with pytest.raises(CltdbError, match="65 tokens with BOS; expected at most the 64"):
        lm.prompt_tokens("a" * 64)


def test_token_strings_are_printable():
    strings = models.language_model().token_strings()
    assert len(strings) == 257 and all(string.isprintable() and string for string in strings)


def test_saved_model_loads_and_errors_are_plain(tmp_path):
    lm = load_model(models.saved(tmp_path / "good"))
    assert torch.equal(lm.logits(TOKENS), models.language_model().logits(TOKENS))
    with pytest.raises(CltdbError, match="no such directory"):
        load_model(tmp_path / "nowhere")
    models.saved(tmp_path / "empty")
    (tmp_path / "empty/model.safetensors").unlink()
    with pytest.raises(CltdbError, match="no weights"):
        load_model(tmp_path / "empty")
    models.saved(tmp_path / "other")
    config = (tmp_path / "other/config.json").read_text()
    (tmp_path / "other/config.json").write_text(config.replace('"model_type": "gpt2"', '"model_type": "opt"'))
    with pytest.raises(CltdbError, match="found architecture 'opt'; expected one of gpt2, gpt_neox, llama"):
        load_model(tmp_path / "other")
