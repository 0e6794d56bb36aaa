"""What rules know about tokens: their strings, their kind of word, and groups of tokens that stand in the same contexts.

Groups are learnt from the pool's windows in the training half: a token is described by what stands right before and after it (positive
pointwise mutual information with the most frequent tokens), and k-means puts similar descriptions together. Source: distributional
classes as in Brown et al., "Class-based n-gram models of natural language" (1992); PPMI vectors and k-means in place of its merging.
"""

from typing import NamedTuple

import numpy as np

from cltdb.explain.rules.grammar import token_classes

MIN_COUNT = 8
"""Occurrences of a token that is put in a group."""
CONTEXT_TOKENS = 300
MAX_GROUPS, TOKENS_PER_GROUP = 96, 8
KMEANS_ROUNDS = 12


class Lexicon(NamedTuple):
    """strings: one per vocabulary id. classes: grammar.token_classes. label_names: names by label code. index int32 [n_vocabulary + 1]: of a
    token its number among those that occur in the harvest; the last number, n, stands for no token. tokens int32 [n]: the reverse.
    kind_of int8 [n + 1]: the classes by token number. groups intp [n + 1]: a token's group, 0: none. members: per group its vocabulary ids,
    the commonest first."""

    strings: list
    classes: np.ndarray
    label_names: list
    index: np.ndarray
    tokens: np.ndarray
    kind_of: np.ndarray
    groups: np.ndarray
    members: list

    @classmethod
    def learnt(cls, windows, strings):
        """From `HarvestedWindows`."""
        tokens = windows.known_tokens()
        index = np.full(len(strings) + 1, len(tokens), dtype=np.int32)
        index[tokens] = np.arange(len(tokens))
        text = index[windows.pool_tokens[~windows.pool_in_test]]
        groups, counts = token_groups(text, len(tokens))
        members = [tokens[rows[np.argsort(-counts[rows], kind="stable")]] for rows in map(np.flatnonzero, _each(groups))]
        classes = token_classes(strings)
        return cls(strings, classes, windows.label_names, index, tokens, classes[[*tokens, -1]], groups, members)

    @property
    def n_groups(self):
        """Group 0, of tokens without one, counted."""
        return len(self.members)


def _each(groups):
    return (groups[:-1] == group for group in range(groups.max(initial=0) + 1))


def token_groups(text, n_tokens):
    """(intp [n_tokens + 1]: each token's group, 0 none; the tokens' counts). text [n, width]: token numbers, n_tokens: none."""
    counts = np.bincount(text.ravel(), minlength=n_tokens + 1)
    counts[n_tokens] = 0
    groups = np.zeros(n_tokens + 1, dtype=np.intp)
    common = np.flatnonzero(counts >= MIN_COUNT)
    n_groups = min(MAX_GROUPS, len(common) // TOKENS_PER_GROUP)
    if n_groups >= 2:
        groups[common] = 1 + _kmeans(_descriptions(text, common, counts), n_groups)
    return groups, counts[:-1]


def _descriptions(text, common, counts):
    """Unit vectors of the common tokens [n_common, 2 * n_context]: square roots of positive mutual information with the most frequent
    tokens right before and right after."""
    context = np.sort(np.argsort(-counts, kind="stable")[:CONTEXT_TOKENS])
    row = np.full(len(counts), -1)
    row[common] = np.arange(len(common))
    column = np.full(len(counts), len(context))  # the last column: every other token, and none
    column[context] = np.arange(len(context))
    sides = []
    for here, there in ((text[:, 1:], text[:, :-1]), (text[:, :-1], text[:, 1:])):
        used = row[here] >= 0
        key = row[here[used]] * (len(context) + 1) + column[there[used]]
        joint = np.bincount(key, minlength=len(common) * (len(context) + 1)).reshape(len(common), -1).astype(np.float32)
        expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0) / max(1, joint.sum())
        sides.append(np.sqrt(np.log(np.maximum(joint / np.maximum(expected, 1e-9), 1)))[:, :-1])
    vectors = np.concatenate(sides, axis=1)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _kmeans(vectors, n_groups):
    """Group of each unit vector, by cosine. Source of the first centres: k-means++, Arthur & Vassilvitskii (2007)."""
    rng = np.random.default_rng(0)
    centres, nearest = vectors[:1], vectors @ vectors[0]
    while len(centres) < n_groups:
        chance = np.cumsum(np.maximum(1 - nearest, 0), dtype=np.float64)
        chosen = min(int(np.searchsorted(chance, rng.random() * chance[-1], side="right")), len(vectors) - 1)
        centres = np.concatenate([centres, vectors[chosen : chosen + 1]])
        nearest = np.maximum(nearest, vectors @ vectors[chosen])
    for _ in range(KMEANS_ROUNDS):
        group = np.argmax(vectors @ centres.T, axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, group, vectors)
        centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return group
