import pytest
import torch
from worlds import models

from cltdb.model.language_model import LanguageModel
from cltdb.model.norms import is_centred, norm_gain, norm_scale, read_directions, times_gain


def shaken(norm):
    for parameter in norm.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return norm.double().requires_grad_(False)


NORMS = [*models.ARCHITECTURES, "layernorm without a weight"]


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_is_its_scale_times_what_is_read_plus_a_constant(name):
    torch.manual_seed(0)
    plain = torch.nn.LayerNorm(16, elementwise_affine=False)
    norm = shaken(models.language_model(name).final_norm if name in models.ARCHITECTURES else plain)
    x, vectors = torch.randn(40, 16, dtype=torch.float64), torch.randn(7, 16, dtype=torch.float64)
    rest = norm(x) @ vectors.T - norm_scale(norm, x) * (x @ read_directions(norm, vectors).T)
    assert torch.allclose(rest, rest[:1].expand_as(rest), atol=1e-5)  # some compute in float32
    assert is_centred(norm) == (name in ("gpt2", "gpt_neox", NORMS[-1]))
    assert norm_gain(norm).dtype.is_floating_point


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_what_a_model_of_bfloat16_reads_has_the_digits_of_its_weights(name):
    hf = models.hf_model(name)
    for norm in hf.modules():
        if "norm" in type(norm).__name__.lower():
            shaken(norm)
    hf.bfloat16()
    vectors = torch.randn(7, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    narrow = LanguageModel(hf, models.byte_tokenizer(), model_id=name)
    found, gain = narrow.residual_directions(1, vectors), norm_gain(narrow.final_norm).double()
    assert times_gain(narrow.final_norm, vectors).dtype == torch.bfloat16  # as the model itself goes on in
    wide = LanguageModel(hf.double(), models.byte_tokenizer(), model_id=name)
    assert torch.allclose(found.double(), wide.residual_directions(1, vectors.double()), rtol=1e-6, atol=1e-6)
    assert torch.equal(gain, norm_gain(wide.final_norm))
