"""The tokens that follow: the model's own, under interventions, likeliest or drawn."""

import pytest
import torch
from worlds.numbers import PROMPT, dictionary, language_model

from cltdb.attribution.intervene import intervene
from cltdb.errors import CltdbError
from cltdb.replacement.continuation import Sampling, continued, noisy_logits
from cltdb.replacement.interventions import Addition


def test_continuations_are_those_of_the_model_with_its_outputs_changed():
    lm, d = language_model(), dictionary()
    expected = list(PROMPT)
    for _ in range(4):
        expected.append(int(lm.logits(torch.tensor([expected]))[0, -1].argmax()))
    assert continued(lm, d, PROMPT, [], 4) == expected
    assert len(continued(lm, d, PROMPT, [], 100)) == lm.max_context

    vector, changed = 100 * torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64), list(PROMPT)

    def everywhere(layer, x, y):
        return torch.cat([y[:, :1], y[:, 1:] + vector], dim=1) if layer == 2 else y

    for _ in range(4):
        with lm.replaced_mlps(everywhere):
            changed.append(int(lm.logits(torch.tensor([changed]))[0, -1].argmax()))
    assert continued(lm, d, PROMPT, [Addition(vector.tolist(), 2, None)], 4) == changed != expected
    outcome = intervene(lm, d, PROMPT, [Addition(vector.tolist(), 2, None)], n_generated=4)
    assert outcome.continuations == tuple(lm.tokenizer.decode(some[len(PROMPT) :]) for some in (expected, changed))


def test_a_slice_without_an_end_acts_on_new_tokens_and_one_with_an_end_does_not():
    lm, d, vector = language_model(), dictionary(), (100 * torch.randn(24, generator=torch.Generator().manual_seed(0))).tolist()
    last = len(PROMPT) - 1
    same = [[slice(-1, None), slice(last, None)], [slice(-1, len(PROMPT)), -1], [slice(None, None), None]]
    texts = [[continued(lm, d, PROMPT, [Addition(vector, 2, position)], 4) for position in pair] for pair in same]
    assert all(first == second for first, second in texts)
    changed = list(PROMPT)
    for _ in range(4):
        with lm.replaced_mlps(
            lambda layer, x, y: y + (layer == 2) * (torch.arange(y.shape[1]) >= last)[:, None] * torch.tensor(vector)
        ):
            changed.append(int(lm.logits(torch.tensor([changed]))[0, -1].argmax()))
    assert texts[0][0] == changed != texts[1][0]


def test_tokens_are_drawn_from_the_probabilities_at_a_temperature():
    logits, n = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5], dtype=torch.float64), 4000
    for sampling, allowed in ((Sampling(0.7), [0, 1, 2, 3, 4]), (Sampling(2.0, top_k=3), [0, 2, 4])):
        generator = torch.Generator().manual_seed(0)
        drawn = torch.stack([noisy_logits(logits, sampling, generator).argmax() for _ in range(n)]).bincount(minlength=5) / n
        expected = torch.zeros(5, dtype=torch.float64)
        expected[allowed] = torch.softmax(logits[allowed] / sampling.temperature, dim=0)
        assert (drawn - expected).abs().max() < 0.025 and bool((drawn[expected == 0] == 0).all())


def test_the_draws_are_the_same_without_and_with_the_intervention():
    lm, d = language_model(), dictionary()
    for seed in range(3):
        sampling = Sampling(3.0, seed=seed)
        tokens = continued(lm, d, PROMPT, [], 6, sampling)
        nothing = Addition([1e-9] * 24, 2, None)
        outcome = intervene(lm, d, PROMPT, [nothing], n_generated=6, sampling=sampling)
        assert outcome.continuations == (lm.tokenizer.decode(tokens[len(PROMPT) :]),) * 2
        assert outcome.to_dict()["sampling"] == {"temperature": 3.0, "top_k": None, "seed": seed}
        assert continued(lm, d, PROMPT, [], 6, sampling) == tokens
    assert len({tuple(continued(lm, d, PROMPT, [], 6, Sampling(3.0, seed=seed))) for seed in range(3)}) == 3
    assert continued(lm, d, PROMPT, [], 4, Sampling(3.0, top_k=1, seed=5)) == continued(lm, d, PROMPT, [], 4)


@pytest.mark.parametrize(
    "sampling,found",
    [
        (Sampling(0.0), "--temperature: found 0.0"),
        (Sampling(float("nan")), "--temperature: found nan"),
        (Sampling(-1.0), "--temperature: found -1.0"),
        (Sampling(top_k=0), "--top-k: found 0"),
        (Sampling(seed=-1), "--seed: found -1"),
        (Sampling(seed=2**64), "--seed: found 18446744073709551616"),
    ],
)
def test_sampling_that_means_nothing_is_refused(sampling, found):
    with pytest.raises(CltdbError, match=found):
        intervene(language_model(), dictionary(), PROMPT, ["0:3@1=0"], n_generated=1, sampling=sampling)
