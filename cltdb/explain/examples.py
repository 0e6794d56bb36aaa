"""The windows that make a feature's explanation and those that test it. Reads the files of a harvest.

Documents are split in two halves by a hash; explanations see windows of the first half only, scores windows of the second only.
Half of the negatives are random windows in which the feature is silent, half near misses: windows with the tokens it fires on, or
windows on which a feature with a similar decoder fires, in which it is silent too. A window whose only firings stand in its first
quarter is neither positive nor negative: what made the feature fire may lie before it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from cltdb.engine.integrity import checked
from cltdb.engine.workspace import read_parquet
from cltdb.errors import CltdbError
from cltdb.harvest.contexts import Contexts, Lists, read_table
from cltdb.harvest.hashing import hash64, hash_uniform
from cltdb.harvest.tables import NEIGHBOURS, POOL, POOL_ACTIVATIONS

LIVE_CONTEXTS, LIVE_DOCUMENTS = 20, 10
MIN_POSITIVES, MIN_NEGATIVES, TEST_WINDOWS = 20, 20, 30
MIN_TRAINING_POSITIVES = 5
TRAINING_POSITIVES, TRAINING_NEGATIVES = 300, 400
PEAK_TOKENS = 10
FEATURE_BITS = 32
RANDOM, SAME_TOKENS, SIMILAR_DECODER = "random", "same_tokens", "similar_decoder"


class Windows(NamedTuple):
    """tokens int32 [n, window], -1 after the end; labels int16 [n], -1 none; activations float32 [n, window]; documents int64
    [n]; kinds [n]: `positive` or the kind of negative."""

    tokens: np.ndarray
    labels: np.ndarray
    activations: np.ndarray
    documents: np.ndarray
    kinds: np.ndarray

    def take(self, rows):
        return Windows(*(column[rows] for column in self))


class Examples(NamedTuple):
    """Training and test windows of one feature, positives and negatives; `shortage` says what there is too little of, or is
    None."""

    training_positives: Windows
    training_negatives: Windows
    test_positives: Windows
    test_negatives: Windows
    shortage: str | None


def in_test_half(documents, seed):
    """True for documents whose windows score explanations; the others' windows make them."""
    return (hash64(seed, documents) & np.uint64(1)).astype(bool)


def _key(layer, feature):
    return (np.asarray(layer).astype(np.int64) << FEATURE_BITS) + np.asarray(feature)


class HarvestedWindows:
    """A harvest's contexts and pool, ready to give the examples of any feature."""

    def __init__(self, harvest_directory, *, seed):
        directory, self.seed = Path(harvest_directory), seed
        self.features = read_table(directory, "features").sort("layer", "feature")
        self.contexts = Contexts(directory)
        pool = read_parquet(checked(directory / POOL))
        labels = (self.contexts.rows["label"], pool["label"])
        self.label_names = sorted(set().union(*(column.drop_nulls() for column in labels)))
        self._load_contexts(self.contexts.rows)
        self._load_pool(pool)
        fired = read_parquet(checked(directory / POOL_ACTIVATIONS))
        self.fired_key = _key(fired["layer"].to_numpy(), fired["feature"].to_numpy())
        self.fired_window, self.fired_offset, self.fired_activation = (
            fired[name].to_numpy() for name in ("window_id", "offset", "activation")
        )
        earlier = directory / NEIGHBOURS
        similar = read_parquet(checked(earlier)) if earlier.is_file() else read_table(directory, "feature_neighbours")
        similar = similar.sort("layer", "feature", "rank")
        self.similar_key, self.similar = (
            _key(similar["layer"].to_numpy(), similar["feature"].to_numpy()),
            similar["neighbour"].to_numpy(),
        )

    def _codes(self, labels):
        codes = {name: code for code, name in enumerate(self.label_names)}
        return np.array([codes.get(label, -1) for label in labels], dtype=np.int16)

    def _load_contexts(self, rows):
        self.context_key = _key(rows["layer"].to_numpy(), rows["feature"].to_numpy())
        self.context_documents, self.context_labels = rows["document"].to_numpy(), self._codes(rows["label"])
        self.context_place = _key(rows["sequence"].to_numpy(), rows["start"].to_numpy())

    def _load_pool(self, pool):
        tokens = Lists.of(pool["tokens"])
        self.width = max(self.contexts.longest, int(tokens.length.max(initial=0)))
        self.pool_tokens = tokens.padded(0, len(pool), width=self.width, fill=-1)
        self.pool_documents, self.pool_labels = pool["document"].to_numpy(), self._codes(pool["label"])
        self.pool_place = _key(pool["sequence"].to_numpy(), pool["start"].to_numpy())
        self.pool_in_test = in_test_half(self.pool_documents, self.seed)
        window, _ = np.nonzero(self.pool_tokens >= 0)
        order = np.argsort(self.pool_tokens[self.pool_tokens >= 0], kind="stable")
        self.token_of, self.window_of = self.pool_tokens[self.pool_tokens >= 0][order], window[order]

    def live(self):
        """(layer, feature, density, max_activation) of every live feature, by layer and feature."""
        counts = self.contexts.rows.group_by("layer", "feature").agg(
            n_contexts=pl.len(), n_documents=pl.col("document").n_unique()
        )
        live = counts.filter(pl.col("n_contexts") >= LIVE_CONTEXTS, pl.col("n_documents") >= LIVE_DOCUMENTS)
        return (
            self.features.join(live, on=["layer", "feature"])
            .select("layer", "feature", "density", "max_activation")
            .sort("layer", "feature")
        )

    def named(self, pairs):
        """The same columns as `live` of these [layer, feature] pairs; an error where one never fires or is not there."""
        schema = {name: self.features.schema[name] for name in ("layer", "feature")}
        wanted = pl.DataFrame(pairs, schema=schema, orient="row")
        found = self.features.filter(pl.col("density") > 0).join(wanted, on=["layer", "feature"], how="semi")
        if absent := wanted.join(found, on=["layer", "feature"], how="anti").rows():
            raise CltdbError(
                "explain.features.only",
                found=f"{len(absent):,} of {len(wanted):,} features that never fire, such as {list(absent[0])}",
                expected="features of the dictionary that fire on the text of stage harvest",
                do="leave them out; cltdb sql 'SELECT layer, feature FROM features WHERE density > 0' lists those that do",
            )
        return found.select("layer", "feature", "density", "max_activation").sort("layer", "feature")

    def examples(self, layer, feature):
        """The Examples of one feature."""
        positives, in_test, from_pool = self._positives(layer, feature)
        training = positives.take(np.nonzero(~in_test)[0][:TRAINING_POSITIVES])
        test = positives.take(np.nonzero(in_test)[0][:TEST_WINDOWS])
        silent = np.ones(len(self.pool_documents), dtype=bool)
        silent[from_pool] = False
        firing_tokens = training.tokens[(training.activations > 0) & (training.tokens >= 0)]
        tokens, counts = np.unique(firing_tokens, return_counts=True)
        near = self._near_misses(layer, feature, tokens[np.argsort(-counts, kind="stable")[:PEAK_TOKENS]], silent)
        chosen = [
            self._negatives(layer, feature, near, silent & (self.pool_in_test == half), n)
            for half, n in ((False, TRAINING_NEGATIVES), (True, TEST_WINDOWS))
        ]
        return Examples(training, chosen[0], test, chosen[1], _shortage(training, test, chosen[1]))

    def _positives(self, layer, feature):
        """(Windows in which the feature fires, in shuffled order, contexts before pool windows; whether each is in the test half;
        the pool windows in which it fires anywhere)."""
        key = _key(layer, feature)
        first, stop = np.searchsorted(self.context_key, [key, key + 1])
        _, contexts = np.unique(self.context_place[first:stop], return_index=True)  # peaks of a short document share their window
        context_place = self.context_place[first:stop][contexts]
        low, high = np.searchsorted(self.fired_key, [key, key + 1])
        window, offset, activation = (
            column[low:high] for column in (self.fired_window, self.fired_offset, self.fired_activation)
        )
        from_pool, row = np.unique(window, return_inverse=True)
        activations = np.zeros((len(from_pool), self.width), dtype=np.float32)
        activations[row, offset] = activation
        visible = (activations[:, self.width // 4 :] > 0).any(axis=1) & ~np.isin(self.pool_place[from_pool], context_place)
        ids = from_pool[visible]
        order = np.concatenate(
            [
                np.argsort(hash64(self.seed, key, context_place)),
                len(contexts) + np.argsort(hash64(self.seed, key, self.pool_place[ids])),
            ]
        )
        joined = Windows(
            np.concatenate([self.contexts.tokens(first, stop, width=self.width)[contexts], self.pool_tokens[ids]]),
            np.concatenate([self.context_labels[first:stop][contexts], self.pool_labels[ids]]),
            np.concatenate([self.contexts.activations(first, stop, width=self.width)[contexts], activations[visible]]),
            np.concatenate([self.context_documents[first:stop][contexts], self.pool_documents[ids]]),
            np.full(len(contexts) + len(ids), "positive"),
        )
        positives = joined.take(order)
        return positives, in_test_half(positives.documents, self.seed), from_pool

    def _near_misses(self, layer, feature, tokens, silent):
        """{kind: ids of silent pool windows that resemble the feature's}."""
        spans = [np.searchsorted(self.token_of, [token, token + 1]) for token in tokens]
        same = np.concatenate([self.window_of[low:high] for low, high in spans]) if spans else np.empty(0, dtype=np.int64)
        low, high = np.searchsorted(self.similar_key, [_key(layer, feature), _key(layer, feature) + 1])
        similar = [
            self.fired_window[slice(*np.searchsorted(self.fired_key, [key, key + 1]))]
            for key in _key(layer, self.similar[low:high])
        ]
        near = {SAME_TOKENS: same, SIMILAR_DECODER: np.concatenate(similar) if similar else np.empty(0, dtype=np.int64)}
        return {kind: np.unique(ids[silent[ids]]) for kind, ids in near.items()}

    def _negatives(self, layer, feature, near, allowed, n_windows):
        """Up to `n_windows` allowed pool windows, half random and half near misses, the latter evenly of both kinds where
        possible."""
        rank = hash_uniform(self.seed, 1, _key(layer, feature), np.arange(len(allowed)))
        free = allowed.copy()
        picked, kinds = [], []

        def pick(kind, ids, n):
            ids = ids[free[ids]]
            ids = ids[np.argsort(rank[ids], kind="stable")[:n]]
            free[ids] = False
            picked.append(ids)
            kinds.extend([kind] * len(ids))
            return len(ids)

        n_near = n_windows // 2
        n_similar = pick(SIMILAR_DECODER, near[SIMILAR_DECODER], n_near // 2)
        n_same = pick(SAME_TOKENS, near[SAME_TOKENS], n_near - n_similar)
        pick(SIMILAR_DECODER, near[SIMILAR_DECODER], n_near - n_similar - n_same)
        pick(RANDOM, np.nonzero(free)[0], n_windows - n_near)
        ids = np.concatenate(picked)
        silence = np.zeros((len(ids), self.width), dtype=np.float32)
        return Windows(
            self.pool_tokens[ids], self.pool_labels[ids], silence, self.pool_documents[ids], np.array(kinds, dtype="U15")
        )


def _shortage(training, test, negatives):
    """What is missing for an honest score, in one line, or None."""
    n_random = int((negatives.kinds == RANDOM).sum())
    for found, least, what in (
        (len(training.documents), MIN_TRAINING_POSITIVES, "windows to explain from"),
        (len(test.documents), MIN_POSITIVES, "test windows in which it fires"),
        (n_random, MIN_NEGATIVES // 2, "random test windows in which it is silent"),
        (len(negatives.documents) - n_random, MIN_NEGATIVES // 2, "near misses among the test windows"),
    ):
        if found < least:
            return f"{found} {what}, at least {least} needed"
    return None
