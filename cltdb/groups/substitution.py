"""Substitution: the label features of one label are held down and those of another set, and the model answers. Does it answer under the other
label, and with the right concept?

A grid point says how many features of each label (those of highest contrast), at which positions, and their values: multiples of each
feature's `high`, the 99th percentile of its activations on text of its own label, or moved as the prompt's last token moves them where it alone is that
of the other label (`exchange.py`). The best point of each ordered pair of labels is chosen on one half
of the concepts and measured on the other; which features are set, and in what order, comes from all concepts. Beside it stand controls: the untouched
model; several draws of random features (`controls.py`), each with its own best point; and a control of direction that is no null, the target's
features held down and the source's set, which ought to leave the answer as it is. The model itself responds (mode free, `responses.py`).
Source: features_stitching of Harrasse, Draye, Jin et al. (arXiv 2511.10840), with multiples in place of absolute values, greedy answers with
and without, and controls.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from cltdb.groups.exchange import Exchange, activations_of, cannot_exchange
from cltdb.groups.settings import MULTIPLES, SHIFTED
from cltdb.groups.stored import Made, value_of

CHOICE, TEST = "choice", "test"
NONE, UNTOUCHED, RANDOM, REVERSE = "none", "untouched", "random", "reverse"
MOST_ROWS, MOST_LOGITS = 256, 2**26
"""Prompts in one forward pass, and logits of all their positions, unless the questions alone are more."""


class Point(NamedTuple):
    """n_features of each label; positions: last (from the prompt's last position on) or all; multiples of `high`."""

    n_features: int
    positions: str
    suppress: float
    boost: float


class Change(NamedTuple):
    """Features set to `values`, {(layer, feature): value, or one of each question [n_questions]}, from a position on: the prompt's last, or with
    positions all the first that is not constant; to the prompt's end, or where it is continued at new tokens too."""

    values: dict
    positions: str = "last"
    continued: bool = True


class Question(NamedTuple):
    """A prompt of the source label: its token ids, and the ids of the concept's answers {label: token}."""

    tokens: tuple
    answers: dict


class Answers(NamedTuple):
    """logits [n_questions, vocab] of the next token; following [n_questions, n_new]: greedy tokens, the first of them the likeliest next one."""

    logits: torch.Tensor
    following: torch.Tensor


def points(settings):
    """The grid of a section `Substitute`. What is moved has one multiple, of the features of both labels."""
    if settings.values != MULTIPLES:
        return [Point(n, where, one, one) for n, where, one in product(settings.features, settings.positions, settings.boost)]
    return [Point(*one) for one in product(settings.features, settings.positions, settings.suppress, settings.boost)]


def values_at(point, source, target):
    """{(layer, feature): value} of a point. source, target: [(layer, feature, high)], the highest contrast first; of a feature of both the target's
    value counts."""
    held = {(layer, feature): point.suppress * high for layer, feature, high in source[: point.n_features]}
    return held | {(layer, feature): point.boost * high for layer, feature, high in target[: point.n_features]}


@torch.no_grad()
def answers(lm, dictionary, questions, changes, *, n_new=1, n_constant=1):
    """Yields the `Answers` of the model under each `Change`."""
    lengths, longest = {}, n_new + max(len(question.tokens) for question in questions)
    at_once = max(1, min(MOST_ROWS, MOST_LOGITS // (longest * lm.vocab_size)) // len(questions))
    for place, question in enumerate(questions):
        lengths.setdefault(len(question.tokens), []).append(place)
    for part in (changes[start : start + at_once] for start in range(0, len(changes), at_once)):
        logits, following = ([[None] * len(questions) for _ in part] for _ in range(2))
        for length, places in lengths.items():
            spans = [
                (length - 1 if change.positions == "last" else n_constant, longest if change.continued else length)
                for change in part
            ]
            setting = _Setting(dictionary, part, spans, places)
            tokens = torch.tensor([questions[place].tokens for place in places] * len(part), device=lm.device)
            first = None
            for _ in range(max(1, min(n_new, lm.max_context - length))):
                with lm.replaced_mlps(setting.of_a_run()):
                    found = lm.logits(tokens)[:, -1]
                first = found if first is None else first
                tokens = torch.cat([tokens, found.argmax(-1, keepdim=True)], dim=1)
            for row, (number, place) in enumerate(product(range(len(part)), places)):
                logits[number][place], following[number][place] = first[row], tokens[row, length:]
        for of_change, new in zip(logits, following, strict=True):
            padded = torch.nn.utils.rnn.pad_sequence(new, batch_first=True, padding_value=-1)
            yield Answers(torch.stack(of_change).double(), padded)


class _Setting:
    """What stands in for the MLPs of a batch, every change with the same prompts: the change of what set features write is added (mode
    free)."""

    def __init__(self, dictionary, changes, spans, places):
        """spans: (first position, the one after the last) of each change; places: of the prompts among the questions."""
        self.dictionary, self.by_layer = dictionary, {}
        self.spans = torch.tensor(spans, device=dictionary.device).repeat_interleave(len(places), dim=0)
        for layer in sorted({layer for change in changes for layer, _ in change.values}):
            features = sorted({feature for change in changes for at, feature in change.values if at == layer})
            rows = [
                [value_of(change.values.get((layer, feature), torch.nan), place) for feature in features]
                for change, place in product(changes, places)
            ]
            values = torch.tensor(rows, dtype=dictionary.dtype, device=dictionary.device)
            self.by_layer[layer] = (torch.tensor(features, device=dictionary.device), values[:, None])

    def of_a_run(self):
        """What one forward pass calls at each layer."""
        return partial(self._output, {})

    def _output(self, added, layer, x, y):
        if layer in self.by_layer:
            features, values = self.by_layer[layer]
            now = activations_of(self.dictionary, x.to(self.dictionary.dtype), layer, features)
            place, (start, end) = torch.arange(x.shape[1], device=x.device), self.spans.T[..., None]
            within = ((place >= start) & (place < end))[..., None]
            change = torch.where(within & ~values.isnan(), values - now, 0)
            written = torch.einsum("bpf,ftd->tbpd", change, self.dictionary.decoder(layer, features))
            for target, of_target in zip(self.dictionary.target_layers(layer), written, strict=True):
                added[target] = added[target] + of_target if target in added else of_target
        return y + added[layer].to(y.dtype) if layer in added else y


def measured(questions, *, source, target, words, clean, changed):
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


@dataclass(frozen=True)
class Substitution:
    """settings: `Substitute`. asked: {concept: {label: `Question`}}. features: {label: [(layer, feature, high)]} by falling contrast; draws:
    random ones in their place, as often as they were drawn. seed: of the halves."""

    settings: Any
    lm: Any
    dictionary: Any
    asked: dict
    features: dict
    draws: list
    seed: int

    @cached_property
    def grid(self):
        return points(self.settings)

    n_changes = property(lambda self: len(self.grid) * (1 + len(self.draws)))

    def concepts(self, source, target):
        """Those whose answers differ."""
        return [concept for concept, of in self.asked.items() if of[source].answers[source] != of[source].answers[target]]

    def lacks(self, source, target):
        """Why a pair of labels cannot be substituted; empty where it can."""
        concepts = self.concepts(source, target)
        if len(concepts) < 2:
            return "fewer than two concepts have different answers"
        if self.settings.values != MULTIPLES and (why := cannot_exchange(self.asked, concepts, source, target)):
            return why
        return (
            ""
            if self.features[source] or self.features[target]
            else "neither has label features to set, each with a random one for its place"
        )

    def of_pair(self, source, target, advance):
        """(rows of table substitutions, a `stored.Made` of the best point on the half that measures). advance(): called for each change."""
        parts = halves(self.concepts(source, target), self.seed)
        choosing, testing = ([self.asked[concept][source] for concept in part] for part in parts)
        words = {label: {of[label].answers[label] for of in self.asked.values()} for label in (source, target)}
        rates, answered = partial(measured, source=source, target=target, words=words), partial(answers, self.lm, self.dictionary)
        [plain] = answered(choosing, [Change({})])
        of_choosing, of_testing = self._changes_of(parts, source, target)
        changes = [of_choosing(point, arm[source], arm[target]) for arm in (self.features, *self.draws) for point in self.grid]
        found = []
        for changed in answered(choosing, changes):
            found.append(rates(choosing, clean=plain, changed=changed))
            advance()
        own, *others = (found[start : start + len(self.grid)] for start in range(0, len(found), len(self.grid)))
        best = _best(own, 0)
        arms = [_Arm(NONE, None, self.grid[best], self.features[source], self.features[target])]
        arms.append(self._reverse(self.grid[best], source, target))
        for draw, (of_draw, features) in enumerate(zip(others, self.draws, strict=True)):
            point = self.grid[_best(of_draw, own[best]["kl_nats"])]
            arms.append(_Arm(RANDOM, draw, point, features[source], features[target]))
        changes = [Change({}), *(of_testing(arm.point, arm.held, arm.raised) for arm in arms)]
        plain, *changed = answered(testing, changes, n_new=self.settings.new_tokens)
        pair, rows = {"label_from": source, "label_to": target}, []
        for place, (point, columns) in enumerate(zip(self.grid, own, strict=True)):
            same = pair | {"set_to": self.settings.values, "part": CHOICE, "control": NONE, "is_best": place == best}
            rows.append(same | _of_point(point, self.features[source], self.features[target]) | columns)
        same = pair | {"part": TEST, "is_best": True}
        rows.append(same | {"control": UNTOUCHED} | rates(testing, clean=plain, changed=plain))
        for arm, one in zip(arms, changed, strict=True):
            known = {"control": arm.control, "draw": arm.draw, "set_to": self.settings.values} | _of_point(
                arm.point, arm.held, arm.raised
            )
            rows.append(same | known | rates(testing, clean=plain, changed=one))
        return rows, Made(source, target, testing, changes[1], plain, changed[0])

    def _changes_of(self, parts, source, target):
        """For each part of the concepts, the first of which chooses, a function of a point and features of both labels, or those in their places: their
        `Change` on its prompts."""
        values = [values_at, values_at]
        if self.settings.values != MULTIPLES:
            arms = (self.features, *self.draws)
            every = sorted({one[:2] for arm in arms for label in (source, target) for one in arm[label]})
            moved = [Exchange.of(self.lm, self.dictionary, self.asked, part, source, target, every) for part in parts]
            if self.settings.values == SHIFTED:
                moved = [one.shifted_as(moved[0]) for one in moved]
            own = self.features[source], self.features[target]
            values = [partial(one.values_at, own=own) for one in moved]
        return [partial(self._change, of_part) for of_part in values]

    def _change(self, values, point, held, raised):
        return Change(values(point, held, raised), point.positions, self.settings.continued)

    def _reverse(self, point, source, target):
        """The control of direction: the two labels' features exchanged; where their values are, these moved the other way."""
        if self.settings.values != MULTIPLES:
            away = point._replace(suppress=-point.suppress, boost=-point.boost)
            return _Arm(REVERSE, None, away, self.features[source], self.features[target])
        return _Arm(REVERSE, None, point, self.features[target], self.features[source])


class _Arm(NamedTuple):
    """What is measured at its best point; held, raised: [(layer, feature, high)]."""

    control: str
    draw: int | None
    point: Point
    held: list
    raised: list


def _best(found, kl_nats):
    """The place of the point with most right answers, of equal ones with most answers of the target label, of these that whose KL is nearest. Where no
    answer is right, KL alone would take the point that does least."""

    def merit(place):
        one = found[place]
        return one["rate_right"], one["rate_label"], -abs(one["kl_nats"] - kl_nats), -place

    return max(range(len(found)), key=merit)


def _of_point(point, held, raised):
    """Columns of table substitutions: the point, and how many features it sets."""
    n_boosted = len({one[:2] for one in raised[: point.n_features]})
    n_set = len(values_at(point, held, raised))
    return point._asdict() | {"n_suppressed": n_set - n_boosted, "n_boosted": n_boosted}
