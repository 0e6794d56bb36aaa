import pytest
import torch
from worlds import models

from cltdb.model.norms import is_centred, norm_gain, norm_scale, read_directions


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
