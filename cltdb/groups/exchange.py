"""Values of label features for `values: exchanged`: what they come to where the last token of a prompt alone is that of the other label's prompt; and
for `shifted`: what they are, and the mean of that change over some prompts.

What is asked about stays in the prompt's own words. So the values hold what the other label's last token makes of this prompt, and nothing of the
other label's prompt: its features at the last position know what is asked about, and setting them would give the answer away. A mean holds nothing
of any one prompt.
"""

from typing import NamedTuple

import torch


class Exchange(NamedTuple):
    """now {(layer, feature): [n_questions]}: activations at the last position; change: what is added to them where the last token is exchanged, or
    one value for all questions."""

    now: dict
    change: dict

    @classmethod
    def of(cls, lm, dictionary, asked, concepts, source, target, features):
        """asked: {concept: {label: `Question`}}; features: [(layer, feature)]."""
        own = [asked[concept][source].tokens for concept in concepts]
        changed = [(*tokens[:-1], asked[concept][target].tokens[-1]) for concept, tokens in zip(concepts, own, strict=True)]
        now, then = (_at_last(lm, dictionary, rows, features) for rows in (own, changed))
        return cls(now, {one: then[one] - now[one] for one in features})

    def shifted_as(self, other):
        """With the mean change of another's questions."""
        return self._replace(change={one: change.mean() for one, change in other.change.items()})

    def values_at(self, point, held, raised, *, own):
        """{(layer, feature): values [n_questions]} of a point: a label feature moves by `boost` times its change. held, raised: lists of (layer,
        feature, high), own: the label features in whose places they stand, both lists; another feature moves as far, in units of each one's high."""
        values = {}
        for some, of_label in zip((held, raised), own, strict=True):
            for (*place, high), (*label_feature, own_high) in zip(some[: point.n_features], of_label, strict=False):
                values[*place] = self.now[*place] + point.boost * self.change[*label_feature] * (high / own_high)
        return values


@torch.no_grad()
def _at_last(lm, dictionary, rows, features):
    """{(layer, feature): activations [n_rows]} at the last positions of token rows."""
    lengths, found = {}, torch.zeros(len(rows), len(features), dtype=dictionary.dtype, device=dictionary.device)
    for place, tokens in enumerate(rows):
        lengths.setdefault(len(tokens), []).append(place)
    for places in lengths.values():
        x = lm.run(torch.tensor([rows[place] for place in places], device=lm.device), with_logits=False).mlp_input[:, -1]
        for layer in sorted({layer for layer, _ in features}):
            columns = [column for column, one in enumerate(features) if one[0] == layer]
            of_layer = torch.tensor([features[column][1] for column in columns], device=dictionary.device)
            of_rows = activations_of(dictionary, x[:, layer].to(dictionary.dtype), layer, of_layer)
            found[torch.tensor(places)[:, None], torch.tensor(columns)] = of_rows
    return dict(zip(features, found.T, strict=True))


def activations_of(dictionary, x, layer, features):
    """As `encode_layer`, of some features."""
    if dictionary.activation == "topk":
        return dictionary.encode_layer(x, layer)[..., features]
    h = x @ dictionary.encoder(layer, features).T + dictionary.b_enc[layer, features]
    return dictionary.activate(h, (layer, features))


def cannot_exchange(asked, concepts, source, target):
    """Why last tokens are no exchange; empty where they are."""
    given = {(asked[concept][source].tokens, asked[concept][target].tokens[-1]) for concept in concepts}
    if all(tokens[-1] == other for tokens, other in given):
        return "their prompts end with the same token"
    if len({tokens for tokens, _ in given}) < len(given):
        return "prompts that are the same under the one end with different tokens under the other"
    return ""
