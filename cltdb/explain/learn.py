"""Learning a rule from windows: greedy set cover with a price for every token and condition.

Weights are those of balanced accuracy: positive windows weigh 1 together, negative ones 1. Clauses are added one by one: the best
(token set, condition) pair by position-wise gain, a second condition where it pays, then the candidates are compared by the
windows they really win and lose. A clause is kept while it wins more than it costs. Source: sequential covering as in Clark &
Niblett, "The CN2 induction algorithm" (1989); price per token in place of its significance test.
"""

from typing import NamedTuple

import numpy as np

from cltdb.explain.rules import CLASSES, TokenView

MAX_CLAUSES = 8
MAX_BACK = 6
TOKENS_PER_PLACE, SEEN_TOKENS, LABELS = 6, 10, 4
CANDIDATES = 6
# Prices in positive windows: what a token (of a clause or of a condition), a condition or a clause must win beyond what it loses.
TOKEN_PRICE, CONDITION_PRICE, CLAUSE_PRICE = 0.5, 0.7, 0.7
MISPLACED_WEIGHT = 0.1  # of matching one silent token of a positive window, against losing the window


class _Task(NamedTuple):
    """Positions of all windows in rows. token, window [rows]; n_ids: one more than the largest token; holds bool [rows,
    conditions], the first always true; prices [conditions]; target [rows]: the feature fires; weights [n_windows], zero for the
    other class."""

    token: np.ndarray
    n_ids: int
    holds: np.ndarray
    prices: np.ndarray
    target: np.ndarray
    window: np.ndarray
    positive_weight: np.ndarray
    negative_weight: np.ndarray


def learn_rule(*, tokens, activations, labels, kinds, classes):
    """A rule (see rules.py) that tells the positive windows from the others.

    tokens [n, window] int, -1 after the end; activations [n, window], zero in negatives; labels: name or None per window; kinds:
    `positive` or the kind of negative (`random`, else a near miss); classes: rules.token_classes.
    """
    view = TokenView(tokens, labels, classes)
    fires, positive = activations > 0, kinds == "positive"
    price = 1 / positive.sum()
    conditions = _conditions(view, fires, positive, labels)
    real = tokens >= 0
    holds = np.stack([real, *(view.holds(condition) for condition in conditions)], axis=-1)[real]
    window = np.nonzero(real)[0]
    near = ~positive & (kinds != "random")
    negative_weight = _shares(near) + _shares(~positive & ~near)
    prices = price * np.array(
        [0, *(CONDITION_PRICE + TOKEN_PRICE * (len(condition.get("tokens", "1")) - 1) for condition in conditions)]
    )
    task = _Task(
        tokens[real],
        len(classes),
        holds,
        prices,
        fires[real],
        window,
        positive * price,
        negative_weight / max(negative_weight.sum(), 1e-9),
    )
    clauses = []
    for chosen in _cover(task, price):
        listed = None if chosen.tokens is None else [int(token) for token in chosen.tokens]
        clauses.append({"tokens": listed, "conditions": [conditions[index - 1] for index in chosen.conditions if index]})
    return {"clauses": clauses}


def _shares(mask):
    return mask / max(1, mask.sum())


# Candidate conditions.


def _conditions(view, fires, positive, labels):
    """Conditions worth trying: those that hold often where the feature fires."""
    found = [{"kind": "label", "label": label} for label in _most(labels[positive], LABELS) if label is not None]
    firing_tokens = np.unique(view.tokens[fires])
    rivals = view.one_of(firing_tokens) & ~fires & ~positive[:, None]
    for back in range(1, MAX_BACK + 1):
        place = view.token_at(back)
        here, rival = place[fires], place[rivals]
        values, counts = np.unique(here[here >= 0], return_counts=True)
        top = values[np.argsort(-counts, kind="stable")[:TOKENS_PER_PLACE]]
        found += [{"kind": "previous", "back": back, "tokens": [int(token)]} for token in top]
        rival_counts = np.bincount(rival[rival >= 0], minlength=int(values.max(initial=0)) + 1)[values]
        typical = values[counts / max(1, len(here)) > rival_counts / max(1, len(rival))]
        if len(typical) > 1:
            found.append({"kind": "previous", "back": back, "tokens": [int(token) for token in typical]})
    for token in _telling_tokens(view, fires, rivals, positive):
        found += [{"kind": kind, "token": int(token)} for kind in ("in_sentence", "in_window")]
    for back in (0, 1):
        shown = np.bincount(view.class_at(back)[fires] + 1, minlength=len(CLASSES) + 1)[1:]
        found += [
            {"kind": "class", "back": back, "class": CLASSES[index]}
            for index in np.argsort(-shown, kind="stable")[:3]
            if shown[index]
        ]
    return [*found, {"kind": "repeated"}]


def _most(values, n):
    """The n most frequent values, ties in order of appearance."""
    counts = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts, key=lambda value: -counts[value])[:n]


def _telling_tokens(view, fires, rivals, positive):
    """Tokens that stand before firings more often than before silent places with the same tokens, as shares of windows."""
    before_firing = np.arange(view.tokens.shape[1]) < np.where(fires, np.arange(view.tokens.shape[1]), 0).max(axis=1)[:, None]
    before_rival = np.arange(view.tokens.shape[1]) < np.where(rivals, np.arange(view.tokens.shape[1]), 0).max(axis=1)[:, None]
    n_tokens = int(view.tokens.max()) + 1
    shares = []
    for mask, n in ((before_firing & positive[:, None], positive.sum()), (before_rival, rivals.any(axis=1).sum())):
        window, _ = np.nonzero(mask & (view.tokens >= 0))
        pairs = np.unique(window * n_tokens + view.tokens[mask & (view.tokens >= 0)])
        shares.append(np.bincount(pairs % n_tokens, minlength=n_tokens) / max(1, n))
    lift = shares[0] - shares[1]
    best = np.argsort(-lift, kind="stable")[:SEEN_TOKENS]
    return best[lift[best] > 0]


# Covering.


class _Clause(NamedTuple):
    """tokens: sorted ids or None; conditions: columns of `holds`; rows: where it matches; price."""

    tokens: np.ndarray | None
    conditions: tuple
    rows: np.ndarray
    price: float


def _cover(task, price):
    """The chosen clauses, best first."""
    uncovered, unhit, chosen = task.positive_weight.copy(), task.negative_weight.copy(), []
    while len(chosen) < MAX_CLAUSES and uncovered.sum() > 1e-9:
        best, best_gain = None, 0.0
        for clause in _candidates(task, uncovered, unhit, price):
            gain = _real_gain(task, clause, uncovered, unhit)
            if gain > best_gain + 1e-12:
                best, best_gain = clause, gain
        if best is None:
            break
        chosen.append(best)
        uncovered[task.window[best.rows & task.target]] = 0
        unhit[task.window[best.rows]] = 0
    return chosen


def _real_gain(task, clause, uncovered, unhit):
    """Weight of windows won less that of windows lost, misplaced matches and price."""
    won, lost = np.zeros((2, len(uncovered)), dtype=bool)
    won[task.window[clause.rows & task.target]] = True
    lost[task.window[clause.rows & ~task.target]] = True
    return uncovered[won].sum() - unhit[lost].sum() - MISPLACED_WEIGHT * task.positive_weight[lost].sum() - clause.price


def _candidates(task, uncovered, unhit, price):
    """Clauses with large position-wise gain."""
    target = task.target
    firings = np.bincount(task.window[target], minlength=len(uncovered))
    gain = np.where(target, uncovered[task.window] / np.maximum(firings[task.window], 1), 0)
    loss = np.where(target, 0, unhit[task.window] + MISPLACED_WEIGHT / 4 * task.positive_weight[task.window])
    net = (gain - loss).astype(np.float32)
    yield from _token_clauses(task, net, gain > 0, price)
    totals = net @ task.holds - task.prices
    for column in np.argsort(-totals[1:], kind="stable")[:2] + 1:
        yield from _grown(task, net, None, (int(column),), task.holds[:, column], CLAUSE_PRICE * price + task.prices[column])


def _token_clauses(task, net, useful, price):
    """For every condition the best token set together with it, grown by a further condition where that pays."""
    tokens = np.unique(task.token[useful])
    if not len(tokens):
        return
    rows = np.nonzero(_members(task, tokens))[0]
    rows = rows[np.argsort(task.token[rows], kind="stable")]
    starts = np.searchsorted(task.token[rows], tokens)
    per_token = np.add.reduceat(net[rows, None] * task.holds[rows], starts, axis=0) - TOKEN_PRICE * price
    totals = np.maximum(per_token, 0).sum(axis=0) - task.prices
    for column in np.argsort(-totals, kind="stable")[:CANDIDATES]:
        chosen = tokens[per_token[:, column] > 0]
        if len(chosen):
            cost = (CLAUSE_PRICE + TOKEN_PRICE * len(chosen)) * price + task.prices[column]
            yield from _grown(task, net, chosen, (int(column),), _members(task, chosen) & task.holds[:, column], cost)


def _members(task, tokens):
    """Rows whose token is one of these."""
    table = np.zeros(task.n_ids, dtype=bool)
    table[tokens] = True
    return table[task.token]


def _grown(task, net, tokens, conditions, matching, cost):
    """The clause, and the clause with one more condition where that is better position by position."""
    yield _Clause(tokens, conditions, matching, cost)
    inside = np.nonzero(matching)[0]
    totals = net[inside] @ task.holds[inside] - task.prices
    column = int(np.argmax(totals))
    if column and column not in conditions:
        yield _Clause(tokens, (*conditions, column), matching & task.holds[:, column], cost + task.prices[column])
