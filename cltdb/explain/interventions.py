"""What setting a feature does to the model: the tokens whose log-probabilities rise most, on average over some prompts.

Prompts are windows of the test half of documents, the same for all features of a harvest. At the last token of each the feature is set to its
largest activation: what its decoders write more than before is added to the MLP outputs there, and the model itself runs on, in its own
dtype. That is mode `free` of `cltdb intervene`. Mode `constrained` would give the direct effects again, which explainers see. Mode
`iterative` would ask the dictionary what it says of itself. What a cross-layer feature writes to a later layer can count twice here, since
that layer also responds to what was written before; of a per-layer feature nothing does.
What comes before the last token is read once for all features. Source: intervention scoring of Paulo et al. (2024).
"""

import copy
from threading import Lock

import numpy as np
import polars as pl
import torch

from cltdb.errors import CltdbError
from cltdb.harvest.hashing import hash64

RISES = "rises"
"""Kind of units: what setting a feature raises. Their keys hold `keys.VERSION`, which is raised when what follows here changes."""
PROMPTS, PROMPT_TOKENS = 8, 15
"""Prompts, and the tokens of one after BOS."""
AT_ONCE = 16
"""Features in a forward pass; always as many, so that no number depends on which others are measured."""
TOKENS = 10
"""The tokens that are kept, if as many rise."""


class Interventions:
    """What setting features of a harvest raises, a unit of the workspace for each. From any thread.

    windows: `HarvestedWindows`; load(): (LanguageModel, Dictionary), called once there is something to measure; base: of the units' keys.
    """

    def __init__(self, windows, load, *, units, base):
        self.windows, self.load, self.units, self.base = windows, load, units, base
        self._lock, self._known, self._prompted = Lock(), {}, None
        self.largest = {
            layer: dict(rows.select("feature", "max_activation").iter_rows())
            for (layer,), rows in windows.features.filter(pl.col("max_activation") > 0).group_by("layer")
        }

    def raised(self, layer, features):
        """{feature: token ids that setting it raises, the strongest first} of some features of a layer; none of one that never fires."""
        known = self._known.setdefault(layer, {})
        if not known.keys() >= set(features):
            with self._lock:
                self._learn(layer, [feature for feature in dict.fromkeys(features) if feature not in known])
        return {feature: known[feature] for feature in features}

    def _learn(self, layer, features):
        fires = self.largest.get(layer, {})
        keys = {f"{self.base}/{layer}-{feature}": feature for feature in features if feature in fires}
        there = self.units.get_many(RISES, keys)
        self.units.put_many(RISES, self._measured(layer, {key: keys[key] for key in keys if key not in there}))
        there = self.units.get_many(RISES, keys)  # of two processes that measure the same the first counts
        self._known[layer] |= dict.fromkeys(features, []) | {keys[key]: record["tokens"] for key, record in there.items()}

    def _measured(self, layer, keys):
        """{key: record} of features, {key: feature}."""
        if keys and self._prompted is None:
            self._prompted = Prompted(*self.load(), self.windows)
        records, names, features = {}, list(keys), list(keys.values())
        for first in range(0, len(features), AT_ONCE):
            here = features[first : first + AT_ONCE]
            rises = self._prompted.rises(layer, here, [self.largest[layer][feature] for feature in here])
            top = rises.topk(min(TOKENS, rises.shape[1]), dim=1)
            for name, tokens, values in zip(names[first:], top.indices.tolist(), top.values.tolist(), strict=False):
                n = sum(value > 0 for value in values)
                records[name] = {"tokens": tokens[:n], "rises": values[:n]}
        return records


class Prompted:
    """A model that has read all but the last tokens of the prompts, which windows give."""

    @torch.no_grad()
    def __init__(self, lm, dictionary, windows):
        self.lm, self.dictionary = lm, dictionary
        prompts = torch.tensor(prompts_of(windows, lm.bos_token_id), device=lm.device)
        self.last, self.n_prompts = prompts[:, -1:], len(prompts)
        self.read = lm.hf(input_ids=prompts[:, :-1], use_cache=True).cache
        self.inputs = []
        self.before = self._log_probabilities(1, lambda layer, x, y: self.inputs.append(dictionary.read_of(x, y)[:, 0]))

    @torch.no_grad()
    def rises(self, layer, features, values):
        """By how much the log-probability of each token rises at the end of a prompt when each of up to AT_ONCE `features` of a layer has its value
        of `values`, the mean over the prompts; [n, vocab]. 0 where it is not finite."""
        n, dictionary = len(features), self.dictionary
        padded = torch.tensor([*features, *features[:1] * (AT_ONCE - n)], device=dictionary.device)
        wanted = torch.tensor([*values, *values[:1] * (AT_ONCE - n)], device=dictionary.device, dtype=dictionary.dtype)
        now = dictionary.encode_layer(self.inputs[layer].to(dictionary.device, dictionary.dtype), layer)[:, padded]
        written = torch.einsum("pf,ftd->pftd", wanted - now, dictionary.decoder(layer, padded)).flatten(0, 1)
        targets = dictionary.target_layers(layer)

        def replace(target, x, y):
            if target not in targets:
                return None
            return self.lm.output_with(target, x, y, written[:, target - layer, None].to(y), dictionary.writes)

        after = self._log_probabilities(AT_ONCE, replace).unflatten(0, (self.n_prompts, AT_ONCE))
        return (after - self.before[:, None]).mean(dim=0)[:n].nan_to_num(0.0, 0.0, 0.0)

    def _log_probabilities(self, n, replace):
        """Of the next token after each prompt, n times each, with `replace` for MLPs (`LanguageModel.replaced_mlps`); [n_prompts * n, vocab]."""
        read = copy.deepcopy(self.read)
        read.batch_repeat_interleave(n)
        with self.lm.replaced_mlps(replace):
            logits = self.lm.hf(input_ids=self.last.repeat_interleave(n, dim=0), cache=read, use_cache=True).logits
        return torch.log_softmax(logits[:, -1].float(), dim=-1)


def prompts_of(windows, bos):
    """Token ids of up to PROMPTS prompts, all of one length: BOS and the first tokens of a window, each of another document."""
    tokens = windows.pool_tokens[:, :PROMPT_TOKENS]
    usable = np.flatnonzero(windows.pool_in_test & (tokens >= 0).all(axis=1) & (tokens != bos).all(axis=1))
    usable = usable[np.argsort(hash64(windows.seed, 5, usable), kind="stable")]
    chosen = usable[np.sort(np.unique(windows.pool_documents[usable], return_index=True)[1])][:PROMPTS]
    if not len(chosen):
        raise CltdbError(
            "explain.scorers, intervention",
            found=f"no window of {tokens.shape[1]} tokens in the half of harvest's random windows that tests explanations",
            expected="one or more, for prompts",
            do="raise harvest.pool_windows or harvest.tokens, or leave the scorer out",
        )
    return [[bos, *row] for row in tokens[chosen].tolist()]
