"""The explicit linear maps against their slow twin: the model's own frozen forward pass, differentiated."""

import pytest
import torch
from worlds.numbers import FAMILIES, N_LAYERS, PROMPT, dictionary, language_model

from cltdb.replacement.linear_maps import LinearMaps
from cltdb.replacement.replacement_model import LocalReplacementModel

N_TARGETS = 5


def by_autograd(replacement, layer, positions, vectors):
    """Gradients at every MLP output [n_layers, batch, pos, d_model] and at the embeddings [batch, pos, d_model]."""
    embeddings = replacement.embeddings.expand(len(vectors), -1, -1).clone().requires_grad_()
    sites = replacement.sites.transpose(0, 1)[:, None].repeat(1, len(vectors), 1, 1).requires_grad_()
    run = replacement.run(embeddings, sites)
    read = (run.final if layer == N_LAYERS else run.mlp_inputs[layer])[torch.arange(len(vectors)), positions]
    at_embeddings, at_sites = torch.autograd.grad((read * vectors).sum(), [embeddings, sites], materialize_grads=True)
    return at_sites, at_embeddings


def check(lm, d, *, n_constant=1):
    generator = torch.Generator().manual_seed(0)
    replacement = LocalReplacementModel.of(lm, d, PROMPT, constant_positions=n_constant)
    maps = LinearMaps(replacement)
    for layer in range(N_LAYERS + 1):
        positions = torch.randint(1, len(PROMPT), (N_TARGETS,), generator=generator)
        vectors = torch.randn(N_TARGETS, lm.d_model, generator=generator, dtype=lm.dtype)
        at_sites, at_embeddings = by_autograd(replacement, layer, positions, vectors)
        found, n = dict(maps.gradients(layer, positions, vectors)), int(positions.max()) + 1
        assert set(found) == {*range(layer), None}
        assert not at_sites[layer:].any() and not at_sites[:, :, n:].any() and not at_embeddings[:, n:].any()
        torch.testing.assert_close(found[None], at_embeddings[:, :n], rtol=1e-9, atol=1e-11)
        for source in range(layer):
            torch.testing.assert_close(found[source], at_sites[source, :, :n], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("mlp_input", ["normed", "residual"])
def test_gradients_equal_those_of_autograd(architecture, skip, mlp_input):
    check(language_model(architecture=architecture, mlp_input=mlp_input), dictionary(skip=skip))


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "gemma2"])
def test_gradients_with_a_skip_path_but_at_constant_positions(architecture):
    check(language_model(architecture=architecture), dictionary(skip=True), n_constant=4)


def test_gradients_of_a_gpt_neox_without_parallel_residual():
    lm = language_model(architecture="gpt_neox")
    for block in lm.hf.gpt_neox.layers:
        block.use_parallel_residual = False
    lm.hf.config.use_parallel_residual = False
    check(lm, dictionary(skip=True))
