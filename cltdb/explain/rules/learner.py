"""Learning a rule from windows: clauses that win windows one after another, with a price for every token, group and condition.

Positive windows weigh 1 each; negative ones together as much as all positives, half of it near misses. A clause restricts the token at some
places (here and up to MAX_BACK before) to a set, and may have a further condition. Its sets are found in turn: given the other sets,
each value of a place is worth what its places win less what they lose, and is taken if that exceeds its price; a group of tokens may be
taken whole for one price, with the members that were never seen. What is found place by place is then compared by the windows really
won and lost. Source: sequential covering as in Clark & Niblett, "The CN2 induction algorithm" (1989); prices in place of its
significance test.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from cltdb.explain.rules.grammar import CLASSES
from cltdb.explain.rules.text import describe

MAX_CLAUSES = 6
MAX_BACK = 6
MIN_SHARE = 0.05
"""Of the firings, that a clause covers."""
SAME_KIND = 0.9
"""Share of the firings from which on the token's kind of word is a condition."""
LABELS, SEEN_TOKENS, SEEN_LIFT = 4, 4, 0.02
"""Labels and tokens seen before, at most, that are conditions; by how much more often, as a share of windows, such a token must stand there."""
TRIED_PLACES, GROWN_PLACES, TRIED_FLAGS = 2, 2, 2
"""Places before that are tried with their best tokens here, those of which a further condition is tried, and conditions tried without one."""
# Prices in positive windows: what each must win beyond what it loses.
TOKEN_PRICE, GROUP_PRICE, CONDITION_PRICE, CLAUSE_PRICE = 0.5, 1.0, 0.7, 0.7
SURE = (0.5, 1.5)
"""A token that is worth no more is in a set, but the set is worth no more for it: what was seen in one window says little of others. At the place
itself, and at places before."""
ENOUGH = 0.9
"""Of what is left to win: a clause that wins so much, all losses and prices off, is taken at once."""
MISPLACED_WEIGHT = 1.0
"""Of matching all silent tokens of a positive window, against losing the window; fewer of them cost in proportion."""


class _Set(NamedTuple):
    """Which tokens may stand at a place: bool by the place's local values, bool by group (taken whole); the price."""

    values: np.ndarray
    groups: np.ndarray
    price: float


class _Clause(NamedTuple):
    """sets: {back: _Set}; flags: numbers of further conditions; rows: where it matches; price."""

    sets: dict
    flags: tuple
    rows: np.ndarray
    price: float


def explain_by_rules(features, lexicon):
    """[(text, rule)] of features [(layer, feature, Examples)]."""
    rules = [learn_rule(examples.training_positives, examples.training_negatives, lexicon) for _, _, examples in features]
    return [(describe(rule, lexicon), rule) for rule in rules]


def learn_rule(positives, negatives, lexicon):
    """A rule (grammar.py) that tells the windows `positives` from `negatives` (examples.Windows)."""
    return _Search(positives, negatives, lexicon).rule()


class _Search:
    """Rows are the places of all windows that hold a token. Those whose token fires in some window, or is of a group of which two tokens do,
    are `inside`: only they can be in a clause that names tokens.

    padded [n_windows, MAX_BACK + width]: the lexicon's numbers of the tokens, `flat` the same flat. place, window, token [rows]: of a row its place in
    `flat`, its window, its token; target bool [rows]: the feature fires. uncovered, unhit [n_windows]: what winning a positive window is worth and
    hitting a negative one costs, 0 once it is done; misplaced [rows]: what matching a silent place of a positive window costs.
    """

    def __init__(self, positives, negatives, lexicon):
        self.lexicon, none = lexicon, len(lexicon.tokens)
        self.n_tokens, self.n_groups = none + 1, lexicon.n_groups
        tokens = np.concatenate([positives.tokens, negatives.tokens])
        self.n_windows, self.n_positive, width = len(tokens), len(positives.tokens), tokens.shape[1]
        self.padded = np.full((len(tokens), MAX_BACK + width), none)
        self.padded[:, MAX_BACK:] = lexicon.index[tokens]
        holds, self.flat = self.padded < none, self.padded.ravel()
        self.place = _true(holds.ravel())
        self.window = np.repeat(np.arange(self.n_windows), holds.sum(axis=1))
        self.token = self.flat.take(self.place)
        fires = np.zeros(self.padded.shape, dtype=bool)
        fires[: self.n_positive, MAX_BACK:] = positives.activations > 0
        self.target = fires.ravel().take(self.place)
        self.targets = _true(self.target)
        firings = np.bincount(self.window[self.targets], minlength=self.n_windows)
        self.share = np.zeros(len(self.target))
        self.share[self.targets] = 1 / firings[self.window[self.targets]]
        near = negatives.kinds != "random"
        weight = near / max(1, near.sum()) + ~near / max(1, (~near).sum())
        self.uncovered = np.zeros(self.n_windows)
        self.uncovered[: self.n_positive] = 1
        n_silent = np.maximum(np.bincount(self.window, minlength=self.n_windows) - firings, 1)
        self.misplaced = ((MISPLACED_WEIGHT * self.uncovered) / n_silent).take(self.window)
        self.misplaced[self.targets] = 0
        self.unhit = np.zeros(self.n_windows)
        self.unhit[self.n_positive :] = weight * self.n_positive / max(weight.sum(), 1e-9)
        self.labels = np.concatenate([positives.labels, negatives.labels])
        self._index_values()

    def _back(self, back, rows):
        """The token numbers some places before rows."""
        return self.flat.take(self.place[rows] - back)

    def _index_values(self):
        """Numbers, place after place, of the tokens that stand there when it fires: `local` of each token (the first of a place: all others),
        `value_groups` of each such number its group, numbered place after place too; and `inside`."""
        groups, n_groups = self.lexicon.groups, self.n_groups
        self.local, value_groups, values, self.start = np.zeros((1 + MAX_BACK, self.n_tokens), dtype=np.intp), [], [], [0]
        for back, local in enumerate(self.local):
            local[self._back(back, self.targets)] = 1
            local[-1] = 0
            found = _true(local)
            local[found] = np.arange(1, 1 + len(found))
            value_groups += [[back * n_groups], groups[found] + back * n_groups]
            values += [[self.n_tokens - 1], found]
            self.start.append(self.start[back] + 1 + len(found))
        self.values, self.value_groups, self.start = np.concatenate(values), np.concatenate(value_groups), np.array(self.start)
        self.local += self.start[:-1, None]
        self.sure = np.full(len(self.values), SURE[1])
        self.sure[: self.start[1]] = SURE[0]
        several = np.bincount(value_groups[1], minlength=n_groups) > 1
        several[0] = False
        self.group_price = np.full((1 + MAX_BACK, n_groups), float(GROUP_PRICE))
        self.group_price[0, ~several] = self.group_price[:, 0] = np.inf
        fires = self.local[0] > 0
        self._look_inside(_true((fires | several[groups])[self.token]))

    def _look_inside(self, rows):
        self.inside = rows
        tokens = np.stack([self._back(back, rows) for back in range(1 + MAX_BACK)])
        self.inside_local = np.stack([local.take(row) for local, row in zip(self.local, tokens, strict=True)])
        self.inside_group = self.lexicon.groups.take(tokens) + self.n_groups * np.arange(1 + MAX_BACK)[:, None]
        self.known = _true(self.inside_local[0])

    # Further conditions.

    @cached_property
    def kinds(self):
        """[(condition as JSON value, bool [rows]: where it holds)] of labels and kinds of words."""
        lexicon, names = self.lexicon, self.lexicon.label_names
        counts = np.bincount(self.labels[: self.n_positive] + 1)[1:]
        found = [
            ({"kind": "label", "label": names[code]}, (self.labels == code).take(self.window))
            for code in np.argsort(-counts, kind="stable")[:LABELS]
            if counts[code] and len(names) > 1
        ]
        for back, tokens, least in ((0, self.token, SAME_KIND), (1, self._back(1, slice(None)), 0)):
            kinds = lexicon.kind_of.take(tokens)
            shares = np.bincount(kinds[self.targets] + 1, minlength=len(CLASSES) + 1)[1:] / len(self.targets)
            for code in _true(shares > least):
                found.append(({"kind": "class", "back": back, "class": CLASSES[code]}, kinds == code))
        return found

    @cached_property
    def flags(self):
        """The same with all further conditions."""
        repeated = repeats(self.padded, self.n_tokens - 1).ravel()
        again = repeated.take(self.place) & repeated.take(self.place - 1)
        twice = _true(again)
        pairs = self.padded[self.window[twice]]
        before = np.arange(1, pairs.shape[1]) < self.place[twice, None] % pairs.shape[1]
        same = (pairs[:, 1:] == self.token[twice, None]) & (pairs[:, :-1] == self._back(1, twice)[:, None])
        again[twice] = (same & before).any(axis=1)
        repeated = repeated.take(self.place)
        return [*self.kinds, ({"kind": "repeated"}, repeated), ({"kind": "repeated_pair"}, again), *self._seen(repeated)]

    def _flag(self, number):
        return (self.kinds if number < len(self.kinds) else self.flags)[number]

    def _seen(self, repeated):
        """Of tokens that stand before firings more often than before silent places with the same tokens (as shares of windows), whether
        they were seen earlier in the sentence, and in the window."""
        known = self.inside[self.known]
        rivals = known[self.window[known] >= self.n_positive]
        last = np.full(self.n_windows, -1)
        last[self.window[rivals]] = self.place[rivals]  # rows rise: the last one of a window stays
        n_rivals = int((last >= 0).sum())
        last[self.window[self.targets]] = self.place[self.targets]
        first = _true(~repeated & (self.place < last.take(self.window)))
        weight = np.where(self.window[first] < self.n_positive, 1 / self.n_positive, -1 / max(1, n_rivals))
        lift = np.bincount(self.token[first], weight, self.n_tokens)
        telling = _true(lift > SEEN_LIFT)
        best = telling[np.argsort(-lift[telling], kind="stable")[:SEEN_TOKENS]]
        ends = self.lexicon.kind_of.take(self.token) == CLASSES.index("sentence end")
        sentence = np.cumsum(ends) - ends + self.window  # of each row; rises from window to window
        found = []
        for token in best:
            here = _true(self.token == token)[::-1]
            for kind, unit in (("in_sentence", sentence), ("in_window", self.window)):
                start = np.full(unit[-1] + 1, self.padded.size)
                start[unit[here]] = self.place[here]
                found.append(({"kind": kind, "token": int(self.lexicon.tokens[token])}, start.take(unit) < self.place))
        return found

    @cached_property
    def same_kind(self):
        """Number of the flag that the token is of a kind, if nearly all are on which it fires; as a list."""
        return [number for number, (flag, _) in enumerate(self.kinds) if flag["kind"] == "class" and not flag["back"]]

    @cached_property
    def kind_before(self):
        """Number of the flag that the token before is of the kind that it mostly is where it fires."""
        numbers = [number for number, (flag, _) in enumerate(self.kinds) if flag["kind"] == "class" and flag["back"] == 1]
        return max(numbers, key=lambda number: np.count_nonzero(self.kinds[number][1][self.targets]))

    @cached_property
    def inside_flags(self):
        """float32 [n_conditions, inside]."""
        return np.stack([holds.take(self.inside) for _, holds in self.flags]).astype(np.float32)

    # Covering.

    def rule(self):
        """The rule; clauses in the order in which they were found."""
        clauses = []
        while len(clauses) < MAX_CLAUSES and self.uncovered.sum() > max(CLAUSE_PRICE, MIN_SHARE * self.n_positive):
            best = self._best()
            if best is None:
                break
            clauses.append(best)
            self.uncovered[self.window[best.rows[self.target[best.rows]]]] = 0
            self.unhit[self.window[best.rows]] = 0
            matters = (self.unhit + self.uncovered > 0).take(self.window[self.inside])
            self._look_inside(self.inside[matters])
            self.__dict__.pop("inside_flags", None)
        return {"clauses": [self._as_value(clause) for clause in clauses]}

    def _best(self):
        """The candidate that really wins most, None where none wins; some that win nearly all end the search."""
        best, best_gain = None, 1e-9
        least, enough = MIN_SHARE * len(self.targets), ENOUGH * self.uncovered.sum()
        for clauses in self._candidates():
            for clause in clauses:
                if np.count_nonzero(self.target[clause.rows]) >= least and (gain := self.gain(clause)) > best_gain:
                    best, best_gain = clause, gain
            if best_gain >= enough:
                break
        return best

    def gain(self, clause):
        """Windows that the clause wins less those that it loses, misplaced matches and its price."""
        fires, window = self.target[clause.rows], self.window[clause.rows]
        won, lost = np.zeros((2, self.n_windows), dtype=bool)
        won[window[fires]] = True
        lost[window[~fires]] = True
        return self.uncovered[won].sum() - self.unhit[lost].sum() - self.misplaced[clause.rows].sum() - clause.price

    def _net(self, rows):
        """What matching each row wins less what it loses."""
        window = self.window[rows]
        return np.where(self.target[rows], self.uncovered[window] * self.share[rows], -self.unhit[window] - self.misplaced[rows])

    def _candidates(self):
        """Lists of clauses that win much, place by place."""
        net, most = self._net(self.inside), self.uncovered.sum()
        total, tokens = self._best_set(0, None, net)
        yield [self._clause({0: tokens}, ())]
        if total < most - CONDITION_PRICE:
            yield from self._pairs(net)
            yield from self._with_flag(net)

    def _pairs(self, net):
        """Tokens after other tokens; the places before that tell most, given all firing tokens, are tried."""
        totals, chosen = self._best_sets(self.known, net[self.known])
        tried = []
        for back in sorted(range(1, 1 + MAX_BACK), key=lambda back: -totals[back])[:TRIED_PLACES]:
            if totals[back] > CONDITION_PRICE:
                rows = self._allowed(back, chosen(back), None)
                tried.append((*self._best_set(0, rows, net[rows]), back))
        first = max(tried, key=lambda one: one[0])[2] if tried else None
        for _, tokens, back in sorted(tried, key=lambda one: -one[0])[:GROWN_PLACES]:
            rows = self._allowed(0, tokens, None)
            _, before = self._best_set(back, rows, net[rows])
            sets = {0: tokens, back: before}
            yield [self._clause(sets, ()), *(self._for_any_token(tokens, back, before) if back == first else ())]
            yield self._grown(sets, (), self._allowed(back, before, rows), net)

    def _for_any_token(self, tokens, back, before):
        """Clauses that say less than which tokens fire after which: any token, or any of a kind, after these, or after any of a kind."""
        yield self._open({back: before}, ())
        for flag in self.same_kind:
            yield self._open({back: before}, (flag,))
        if back == 1:
            yield self._clause({0: tokens}, (self.kind_before,))
            for flag in self.same_kind:
                yield self._open({}, (flag, self.kind_before))

    def _with_flag(self, net):
        """Tokens under a further condition; those that hold where it fires more often than elsewhere are tried."""
        known = net[self.known].astype(np.float32)
        wins = np.zeros(len(net), dtype=np.float32)
        wins[self.known] = np.where(
            known > 0, known / max(known[known > 0].sum(), 1e-9), known / max(-known[known < 0].sum(), 1e-9)
        )
        flags, tried = np.argsort(-(self.inside_flags @ wins), kind="stable")[:TRIED_FLAGS].tolist(), []
        for flag in flags:
            rows = _true(self.inside_flags[flag])
            tried.append((*self._best_set(0, rows, net[rows]), flag))
        _, tokens, flag = max(tried, key=lambda one: one[0])
        yield [self._clause({0: tokens}, (flag,)), *(self._open({}, (flag,)) for flag in {*flags, *self.same_kind})]
        rows = self._allowed(0, tokens, _true(self.inside_flags[flag]))
        yield self._grown({0: tokens}, (flag,), rows, net)

    def _grown(self, sets, flags, rows, net):
        """The clause with one more set or condition, where one is better place by place. rows: where it matches."""
        here = net[rows]
        plain, best, grown = here.sum(), CONDITION_PRICE, None
        if -here[here < 0].sum() <= best:
            return []
        totals, chosen = self._best_sets(rows, here)
        totals[list(sets)] = 0
        back = int(np.argmax(totals))
        if totals[back] - plain > best:
            best, grown = totals[back] - plain, ({**sets, back: chosen(back)}, flags)
        totals = self.inside_flags[:, rows] @ here.astype(np.float32) - plain
        flag = int(np.argmax(totals))
        if totals[flag] > best and flag not in flags:
            grown = (sets, (*flags, flag))
        return [] if grown is None else [self._clause(*grown)]

    def _best_sets(self, rows, net):
        """(of each place what its best set of tokens is worth less its price, function of a place that gives the _Set); rows: numbers in
        `inside`."""
        net = np.broadcast_to(net, (1 + MAX_BACK, len(rows))).ravel()
        worth = np.bincount(self.inside_local.take(rows, axis=1).ravel(), net, self.start[-1])
        whole = np.bincount(self.inside_group.take(rows, axis=1).ravel(), net, self.group_price.size) - self.group_price.ravel()
        worth[self.start[:-1]] = 0
        counted = np.where(worth > self.sure, worth - TOKEN_PRICE, 0)
        listed = np.bincount(self.value_groups, counted, len(whole))
        is_whole = whole > listed

        def chosen(back):
            place = slice(self.start[back], self.start[back + 1])
            values = (worth[place] > TOKEN_PRICE) & ~is_whole[self.value_groups[place]]
            groups = is_whole.reshape(1 + MAX_BACK, -1)[back]
            return _Set(values, groups, (worth[place] - counted[place])[values].sum() + GROUP_PRICE * groups.sum())

        return np.maximum(whole, listed).reshape(1 + MAX_BACK, -1).sum(axis=1), chosen

    def _best_set(self, back, rows, net):
        """The same of one place; rows None: all."""
        first, stop = self.start[back : back + 2]
        local, group = self.inside_local[back], self.inside_group[back]
        local, group = (local, group) if rows is None else (local.take(rows), group.take(rows))
        n_before = back * self.n_groups
        return self._chosen(
            back, np.bincount(local, net, stop)[first:], np.bincount(group, net, n_before + self.n_groups)[n_before:]
        )

    def _chosen(self, back, worth, whole):
        """worth: of each value of a place; whole: of each group with all its tokens."""
        worth[0] = 0
        counted = np.where(worth > SURE[back > 0], worth - TOKEN_PRICE, 0)
        whole = whole - self.group_price[back]
        groups = self.value_groups[self.start[back] : self.start[back + 1]] - back * self.n_groups
        listed = np.bincount(groups, counted, self.n_groups)
        is_whole = whole > listed
        values = (worth > TOKEN_PRICE) & ~is_whole[groups]
        price = (worth - counted)[values].sum() + GROUP_PRICE * is_whole.sum()
        return float(np.maximum(whole, listed).sum()), _Set(values, is_whole, price)

    def _allowed(self, back, chosen, rows):
        """Those of `rows` (numbers in `inside`, None: all) whose token at a place is in the set."""
        local, group = self.inside_local[back], self.inside_group[back]
        if rows is not None:
            local, group = local[rows], group[rows]
        allowed = chosen.values[local - self.start[back]]
        if chosen.groups.any():
            allowed |= chosen.groups[group - back * self.n_groups]
        return _true(allowed) if rows is None else rows[allowed]

    def _price(self, sets, flags):
        return (
            CLAUSE_PRICE
            + CONDITION_PRICE * (len(flags) + sum(1 for back in sets if back))
            + sum(chosen.price for chosen in sets.values())
        )

    def _clause(self, sets, flags):
        rows = None
        for back, chosen in sets.items():
            rows = self._allowed(back, chosen, rows)
        rows = self.inside[rows]
        for flag in flags:
            rows = rows[self._flag(flag)[1].take(rows)]
        return _Clause(sets, flags, rows, self._price(sets, flags))

    def _open(self, sets, flags):
        """A clause for any token under these conditions."""
        rows = slice(None)
        for back, chosen in sets.items():
            allowed = chosen.values[self.local[back] - self.start[back]] | chosen.groups[self.lexicon.groups]
            rows = _true(allowed.take(self._back(back, slice(None))))
        for flag in flags:
            rows = np.arange(len(self.token))[rows][self._flag(flag)[1][rows]]
        return _Clause(sets, flags, rows, self._price(sets, flags))

    def _as_value(self, clause):
        """As in a rule; tokens in the order of how often it fires with them."""
        fires = clause.rows[self.target[clause.rows]]

        def listed(back):
            first, stop = self.start[back : back + 2]
            seen = self.values[first:stop][clause.sets[back].values]
            whole = [self.lexicon.index[self.lexicon.members[group]] for group in _true(clause.sets[back].groups)]
            tokens = np.unique(np.concatenate([seen, *whole]))
            counts = np.bincount(self._back(back, fires), minlength=self.n_tokens)[tokens]
            return self.lexicon.tokens[tokens[np.argsort(-counts, kind="stable")]].tolist()

        conditions = [{"kind": "previous", "back": back, "tokens": listed(back)} for back in sorted(clause.sets) if back]
        conditions += [self._flag(flag)[0] for flag in clause.flags]
        return {"tokens": listed(0) if 0 in clause.sets else None, "conditions": conditions}


def _true(mask):
    """Where a flat mask is true."""
    return mask.nonzero()[0]


def repeats(keys, missing):
    """Where a key stands earlier in its row, bool as keys [n, width], integers; `missing` never counts."""
    bits = keys.shape[1].bit_length()
    ordered = np.sort(keys << bits | np.arange(keys.shape[1]), axis=1)
    value = ordered >> bits
    row, column = np.nonzero((value[:, 1:] == value[:, :-1]) & (value[:, 1:] != missing))
    repeated = np.zeros(keys.shape, dtype=bool)
    repeated[row, ordered[row, column + 1] & (1 << bits) - 1] = True
    return repeated
