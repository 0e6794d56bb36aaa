"""The tokens that follow a prompt when features are set, or directions added: the likeliest ones, or drawn."""

from typing import NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.replacement.interventions import placed
from cltdb.replacement.responses import free_logits

MAX_SEED = 2**63 - 1


class Sampling(NamedTuple):
    """How the tokens that follow are drawn: from the probabilities at a temperature above 0, or only from those of the `top_k`
    likeliest. Each step's noise comes from the seed alone. So two runs with one seed differ only where their logits do."""

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def check(self):
        """CltdbError where a value means nothing."""
        for name, is_right, expected in (
            ("temperature", 0 < self.temperature < float("inf"), "a number above 0; leave sampling out for the likeliest tokens"),
            ("top-k", self.top_k is None or self.top_k >= 1, "1 or more"),
            ("seed", 0 <= self.seed <= MAX_SEED, f"0 to {MAX_SEED}"),
        ):
            if not is_right:
                found = getattr(self, name.replace("-", "_"))
                raise CltdbError(f"--{name}", found=found, expected=expected, do="mend it")


def continued(lm, dictionary, tokens, interventions, n, sampling=None, n_constant=1):
    """`tokens` (ids) and the `n` that follow, each the likeliest or drawn as `Sampling` says; the model itself responds (mode
    free). Interventions at all positions, or at a slice without an end, act on the new tokens too; others act at their positions
    only."""
    tokens = list(tokens)
    given = [other for one in interventions for other in _standing(one, dictionary, len(tokens), n_constant)]
    generator = None if sampling is None else torch.Generator().manual_seed(sampling.seed)
    for _ in range(min(n, lm.max_context - len(tokens))):
        logits = free_logits(lm, dictionary, tokens, placed(given, dictionary, len(tokens), n_constant), n_constant)
        tokens.append(int((logits if sampling is None else noisy_logits(logits, sampling, generator)).argmax()))
    return tokens


def _standing(one, dictionary, n_positions, n_constant):
    """An intervention as [one or more], with positions counted from the start of a prompt of `n_positions`; what is open to later
    positions stays open."""
    places = placed([one], dictionary, n_positions, n_constant)
    if isinstance(one.position, slice) and one.position.stop is None:
        return [one._replace(position=slice(places[0].position, None))]
    return [one] if one.position is None else places


def noisy_logits(logits, sampling, generator):
    """Logits [vocab] plus Gumbel noise: the largest one is a draw from their softmax."""
    noise = -torch.empty(len(logits), dtype=torch.float64).exponential_(generator=generator).log()
    scores = logits.double().cpu() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < len(scores):
        scores[scores < scores.topk(sampling.top_k).values[-1]] = -torch.inf
    return scores + noise
