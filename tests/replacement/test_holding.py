"""Units held at given values, against plain loops that hold them one prompt, position and unit at a time."""

import pytest
import torch
from worlds.numbers import D_MODEL, N_FEATURES, N_LAYERS, PROMPT, dictionary, language_model

from cltdb.errors import CltdbError
from cltdb.replacement.holding import Features, Neurons, run_all, run_held

TOKENS = torch.tensor([PROMPT, [0, *PROMPT[:0:-1]], [0, 2, 4, 6, 8, 10, 12]])
DOWN = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h", "llama": "down_proj", "gemma2": "down_proj"}


def mask_and_values(n_units, *, by_position):
    generator = torch.Generator().manual_seed(3)
    shape = (TOKENS.shape[1], N_LAYERS, n_units) if by_position else (N_LAYERS, n_units)
    return torch.rand(shape, generator=generator) < 0.4, torch.randn(shape, generator=generator, dtype=torch.float64)


def plainly_held(activations, kept, values, layer, n_constant):
    """activations [batch, pos, n_units] of a layer, each that is not kept replaced by its value."""
    held = activations.clone()
    for position in range(n_constant, held.shape[1]):
        at = (lambda x, position=position: x[position, layer]) if kept.ndim == 3 else (lambda x: x[layer])
        for unit in range(held.shape[2]):
            if not at(kept)[unit]:
                held[:, position, unit] = at(values)[unit]
    return held


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("kind, skip, n_constant", [("plt", False, 1), ("plt", True, 3), ("clt", False, 1)])
def test_held_features_write_their_values_and_the_kept_ones_respond(kind, skip, n_constant, by_position):
    lm, d = language_model(), dictionary(kind, skip=skip)
    kept, values = mask_and_values(N_FEATURES, by_position=by_position)
    run = run_held(Features(lm, d), TOKENS, kept, values, n_constant=n_constant)
    encoded, held = [], []

    def replace(layer, x, y):
        encoded.append(d.encode_layer(x, layer))
        held.append(plainly_held(encoded[-1], kept, values, layer, n_constant))
        new = d.decode_layer(held, layer, x)
        return torch.cat([y[:, :n_constant], new[:, n_constant:]], dim=1)

    with lm.replaced_mlps(replace):
        logits = lm.logits(TOKENS)[:, -1]
    torch.testing.assert_close(run.logits, logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(run.values, torch.stack(encoded, dim=2), rtol=0, atol=1e-10)


@pytest.mark.parametrize("architecture", DOWN)
def test_held_neurons_enter_the_down_projection_with_their_values(architecture):
    lm = language_model(architecture=architecture)
    units = Neurons(lm)
    assert units.n_units == 2 * D_MODEL or architecture in ("gpt2", "gpt_neox")
    kept, values = mask_and_values(units.n_units, by_position=True)
    run = run_held(units, TOKENS, kept, values, n_constant=2)
    seen, handles = [], []
    for layer, block in enumerate(lm.blocks):

        def hold(module, args, layer=layer):
            seen.append(args[0])
            return (plainly_held(args[0], kept, values, layer, 2),)

        handles.append(getattr(block.mlp, DOWN[architecture]).register_forward_pre_hook(hold))
    logits = lm.logits(TOKENS)[:, -1]
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(run.logits, logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(run.values, torch.stack(seen, dim=2), rtol=0, atol=1e-10)


def test_with_all_responding_neurons_are_the_model_and_features_its_replacement_model():
    lm, d = language_model(), dictionary("clt", skip=True)
    model, replaced = run_all(Neurons(lm), TOKENS), run_all(Features(lm, d), TOKENS)
    torch.testing.assert_close(model.logits, lm.logits(TOKENS)[:, -1], rtol=0, atol=1e-12)
    encoded = []

    def replace(layer, x, y):
        encoded.append(d.encode_layer(x, layer))
        return torch.cat([y[:, :1], d.decode_layer(encoded, layer, x)[:, 1:]], dim=1)

    with lm.replaced_mlps(replace):
        torch.testing.assert_close(replaced.logits, lm.logits(TOKENS)[:, -1], rtol=0, atol=1e-10)
    torch.testing.assert_close(lm.logits(TOKENS)[:, -1], model.logits, rtol=0, atol=1e-12)  # no hook is left behind


def test_units_held_at_what_they_give_change_nothing():
    for units in (Neurons(language_model()), Features(language_model(), dictionary("plt"))):
        run = run_all(units, TOKENS)
        held = run_held(units, TOKENS, torch.zeros(1, dtype=torch.bool), run.values)
        torch.testing.assert_close(held.logits, run.logits, rtol=0, atol=1e-10)
        other = run_held(units, TOKENS, torch.zeros(1, dtype=torch.bool), run.values.mean(0))
        assert (other.logits - run.logits).abs().max() > 1e-3


def test_layers_that_were_not_trained_stay_the_models_own():
    lm, d = language_model(), dictionary("plt", info={"layers": [1]})
    run = run_all(Features(lm, d), TOKENS)
    with lm.replaced_mlps(
        lambda layer, x, y: None if layer != 1 else torch.cat([y[:, :1], d.decode_layer([0, d.encode_layer(x, 1)], 1)[:, 1:]], 1)
    ):
        torch.testing.assert_close(run.logits, lm.logits(TOKENS)[:, -1], rtol=0, atol=1e-10)


def test_shapes_that_fit_no_unit_are_refused():
    lm = language_model()
    with pytest.raises(CltdbError, match=r"held units, kept: found shape \[5\]"):
        run_held(Neurons(lm), TOKENS, torch.ones(5, dtype=torch.bool), torch.zeros(1))
    with pytest.raises(CltdbError, match=r"held units, values"):
        run_held(Features(lm, dictionary("plt")), TOKENS, torch.ones(1, dtype=torch.bool), torch.zeros(2, N_FEATURES))
    with pytest.raises(CltdbError, match="kind sae"):
        Features(lm, dictionary("sae"))
