"""Substitution: the label features of one label are held down and those of another set, and the model answers. Does it answer under the other
label, and with the right concept?

A grid point says how many features of each label (those of highest contrast), at which positions, and their values: multiples of each
feature's `high`, the 99th percentile of its activations on text of its own label. The best point of each ordered pair of labels is chosen on one half of
the concepts and measured on the other, beside two controls: random features in the place of each, of the same layer and nearly the same rate of
firing; and the reverse, the source's features set and the target's held down. The model itself responds (mode free, `responses.py`).
Source: features_stitching of Harrasse, Draye, Jin et al. (arXiv 2511.10840), with multiples in place of absolute values, greedy answers with
and without, and controls.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from cltdb import log
from cltdb.groups.stored import Made
from cltdb.model.transcoder import Outputs

NEAREST = 10
"""A random feature is drawn among so many of the nearest rates of firing."""
CHOICE, TEST = "choice", "test"
NONE, RANDOM, REVERSE = "none", "random", "reverse"


class Point(NamedTuple):
    """n_features of each label; positions: last (from the prompt's last position on) or all; multiples of `high`."""

    n_features: int
    positions: str
    suppress: float
    boost: float


class Question(NamedTuple):
    """A prompt of the source label: its token ids, and the ids of the concept's answers {label: token}."""

    tokens: tuple
    answers: dict


class Answers(NamedTuple):
    """logits [n_questions, vocab] of the next token; following [n_questions, n_new]: greedy tokens, the first of them the likeliest next one."""

    logits: torch.Tensor
    following: torch.Tensor


def points(settings):
    """The grid of a section `Substitute`."""
    return [Point(*one) for one in product(settings.features, settings.positions, settings.suppress, settings.boost)]


def random_features(found, rate, *, n, seed):
    """{(label, layer, feature): feature} of the first n label features of each label: in its place one of the same layer that is no label feature of any
    label, drawn among those of nearest rate. rate [n_layers, n_features]. A layer without any left has none."""
    generator, drawn = np.random.default_rng(seed), {}
    taken = {(one.layer, one.feature) for of_label in found.values() for one in of_label}
    for label, of_label in found.items():
        for one in of_label[:n]:
            free = [f for f in np.flatnonzero(rate[one.layer] > 0).tolist() if (one.layer, f) not in taken]
            if free:
                away = np.abs(np.log(rate[one.layer, free]) - np.log(max(rate[one.layer, one.feature], 1e-9)))
                chosen = free[generator.choice(np.argsort(away, stable=True)[:NEAREST])]
                taken.add((one.layer, chosen))
                drawn[label, one.layer, one.feature] = chosen
    return drawn


def values_at(point, source, target):
    """{(layer, feature): value} of a point. source, target: [(layer, feature, high)], the highest contrast first; of a feature of both the target's
    value counts."""
    held = {(layer, feature): point.suppress * high for layer, feature, high in source[: point.n_features]}
    return held | {(layer, feature): point.boost * high for layer, feature, high in target[: point.n_features]}


@torch.no_grad()
def answer(lm, dictionary, questions, values, *, positions, n_new=1, n_constant=1):
    """The `Answers` of the model with features set to `values`, {(layer, feature): value}, from a position on: the prompt's last, or with
    positions all the first that is not constant."""
    by_layer = {}
    for (layer, feature), value in sorted(values.items()):
        by_layer.setdefault(layer, []).append((feature, value))
    logits, following = [None] * len(questions), [None] * len(questions)
    lengths = {}
    for place, question in enumerate(questions):
        lengths.setdefault(len(question.tokens), []).append(place)
    for length, places in lengths.items():
        tokens = torch.tensor([questions[place].tokens for place in places], device=lm.device)
        first = None
        for _ in range(min(n_new, lm.max_context - length)):
            with lm.replaced_mlps(_Setting(dictionary, by_layer, length - 1 if positions == "last" else n_constant)):
                found = lm.logits(tokens)[:, -1].double()
            first = found if first is None else first
            tokens = torch.cat([tokens, found.argmax(-1, keepdim=True)], dim=1)
        for row, place in enumerate(places):
            logits[place], following[place] = first[row], tokens[row, length:]
    return Answers(torch.stack(logits), torch.nn.utils.rnn.pad_sequence(following, batch_first=True, padding_value=-1))


class _Setting:
    """What stands in for the MLPs of a batch: the change of what set features write is added (mode free)."""

    def __init__(self, dictionary, by_layer, start):
        self.dictionary, self.by_layer, self.start = dictionary, by_layer, start
        self.written = Outputs(dictionary, torch.zeros_like(dictionary.b_dec))

    def __call__(self, layer, x, y):
        if layer in self.by_layer:
            features, values = zip(*self.by_layer[layer], strict=True)
            now = self.dictionary.encode_layer(x.to(self.dictionary.dtype), layer)
            change = torch.zeros_like(now)
            places = torch.tensor(features, device=now.device)
            change[:, self.start :, places] = (
                torch.tensor(values, dtype=now.dtype, device=now.device) - now[:, self.start :, places]
            )
            self.written.add(change, layer)
        return y + self.written.sum(layer).to(y.dtype)


def measured(questions, source, target, words, clean, changed):
    """Rates over questions as columns of table substitutions. words: {label: set of all answers' token ids}; clean, changed: `Answers`. A token is of
    the target label where it is an answer under it and none under the source; right where it is the concept's answer under the target."""
    own = words[target] - words[source]
    following, n = changed.following.tolist(), len(questions)
    right = [question.answers[target] for question in questions]
    concept = [{question.answers[source], question.answers[target]} for question in questions]
    before, after = clean.logits.log_softmax(-1), changed.logits.log_softmax(-1)
    columns = {
        "n": n,
        "rate_label": sum(tokens[0] in own for tokens in following) / n,
        "rate_concept": sum(tokens[0] in known for tokens, known in zip(following, concept, strict=True)) / n,
        "rate_right": sum(tokens[0] == one for tokens, one in zip(following, right, strict=True)) / n,
        "kl_nats": float((before.exp() * (before - after)).sum(-1).mean()),
    }
    if changed.following.shape[1] > 1:
        columns |= {
            "text_rate_label": sum(bool(own & set(tokens)) for tokens in following) / n,
            "text_rate_right": sum(one in tokens for tokens, one in zip(following, right, strict=True)) / n,
        }
    return columns


def halves(concepts, seed):
    """Two halves of concepts, drawn; the first, on which a point is chosen, has one more where they are odd."""
    drawn = np.random.default_rng(seed).permutation(len(concepts))
    middle = -(-len(concepts) // 2)
    return [[concepts[place] for place in sorted(part.tolist())] for part in (drawn[:middle], drawn[middle:])]


def substitution_rows(settings, lm, dictionary, asked, features, randoms, *, seed):
    """(rows of table substitutions, a `stored.Made` of each pair's best point on the half that measures).

    settings: `Substitute`. asked: {concept: {label: `Question`}}. features, randoms: {label: [(layer, feature, high)]} by falling contrast.
    """
    labels = sorted(features)
    words = {label: {of[label].answers[label] for of in asked.values()} for label in labels}
    rows, made, pairs = [], [], [(a, b) for a in labels for b in labels if a != b]
    grid = points(settings)
    with log.progress("groups", total=len(pairs) * len(grid), unit="substitutions") as bar:
        for source, target in pairs:
            usable = [concept for concept, of in asked.items() if of[source].answers[source] != of[source].answers[target]]
            parts = [[asked[concept][source] for concept in part] for part in halves(usable, seed)]
            if not all(parts):
                continue
            plain = [answer(lm, dictionary, part, {}, positions="last", n_new=settings.new_tokens) for part in parts]
            found = []
            for point in grid:
                values = values_at(point, features[source], features[target])
                changed = answer(lm, dictionary, parts[0], values, positions=point.positions)
                columns = measured(parts[0], source, target, words, plain[0], changed)
                found.append({"part": CHOICE, "control": NONE, **point._asdict(), **columns})
                bar.advance(note=f"{source} to {target}")
            best = max(range(len(grid)), key=lambda place: (found[place]["rate_right"], -found[place]["kl_nats"], -place))
            point = grid[best]
            for control, (held, raised) in {
                NONE: (features[source], features[target]),
                RANDOM: (randoms[source], randoms[target]),
                REVERSE: (features[target], features[source]),
            }.items():
                values, asks = values_at(point, held, raised), {"positions": point.positions, "n_new": settings.new_tokens}
                changed = answer(lm, dictionary, parts[1], values, **asks)
                columns = measured(parts[1], source, target, words, plain[1], changed)
                found.append({"part": TEST, "control": control, **point._asdict(), **columns})
                if control == NONE:
                    made.append(Made(target, parts[1], values, point.positions, plain[1], changed))
            rows += [
                {"label_from": source, "label_to": target, "is_best": row is found[best] or row["part"] == TEST, **row}
                for row in found
            ]
    return rows, made
