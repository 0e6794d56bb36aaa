"""The windows that make a feature's explanation and those that test it. Reads the files of a harvest.

Documents are split in two halves by a hash; explanations see windows of the first half only, scores windows of the second only.
Half of the negatives are random windows in which the feature is silent, half near misses in which it is silent too: windows with the
tokens it fires on, windows in which a feature with a similar decoder fires, and windows in which a feature fires that otherwise
fires in the same windows. A window whose only firings stand in its first quarter is neither positive nor negative: what made the
feature fire may lie before it.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from cltdb.engine.integrity import checked
from cltdb.engine.workspace import read_parquet
from cltdb.errors import CltdbError
from cltdb.harvest.contexts import Contexts, Lists, read_table
from cltdb.harvest.hashing import hash64
from cltdb.harvest.tables import NEIGHBOURS, POOL, POOL_ACTIVATIONS
from cltdb.harvest.windows import consecutive

LIVE_CONTEXTS, LIVE_DOCUMENTS = 20, 10
MIN_POSITIVES, MIN_NEGATIVES, TEST_WINDOWS = 20, 20, 30
MIN_TRAINING_POSITIVES = 5
TRAINING_POSITIVES, TRAINING_NEGATIVES = 300, 400
PEAK_TOKENS = 10
FEATURE_BITS = 32
RANDOM, SAME_TOKENS, SIMILAR_DECODER, COACTIVATING = "random", "same_tokens", "similar_decoder", "coactivating"
COACTIVATING_FEATURES = 10
COACTIVATION_WINDOWS = 2000
"""Pool windows of the training half, at most, by which features of a layer are compared; time grows with them times the square of the features
that fire in a window."""


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
        fired = read_parquet(checked(directory / POOL_ACTIVATIONS))  # by layer, feature, window
        self.fired_key = _key(fired["layer"].to_numpy(), fired["feature"].to_numpy())
        self.fired_window, self.fired_offset, self.fired_activation = (
            fired[name].to_numpy() for name in ("window_id", "offset", "activation")
        )
        self.fired_start = np.append(np.flatnonzero(np.diff(self.fired_key, prepend=-1)), len(self.fired_key))
        self.fired_features = self.fired_key[self.fired_start[:-1]]
        self.coactivating = cache(self._coactivating)
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
        self.context_in_test = in_test_half(self.context_documents, self.seed)

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

    def known_tokens(self):
        """The vocabulary ids that occur in the pool or in a context, sorted."""
        return np.unique(np.concatenate([np.unique(self.pool_tokens[self.pool_tokens >= 0]), self.contexts.known_tokens()]))

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
        key = int(_key(layer, feature))
        first, stop = (int(self.fired_start[row]) for row in np.searchsorted(self.fired_features, [key, key + 1]))
        starts = np.flatnonzero(np.diff(self.fired_window[first:stop], prepend=-1))
        from_pool = self.fired_window[first:stop][starts]
        fired = _Fired(from_pool, first + np.append(starts, stop - first))
        training, test = self._positives(key, fired)
        silent = np.ones(len(self.pool_documents), dtype=bool)
        silent[from_pool] = False
        tokens, counts = np.unique(training.tokens[(training.activations > 0) & (training.tokens >= 0)], return_counts=True)
        near = self._near_misses(layer, feature, tokens[np.argsort(-counts, kind="stable")[:PEAK_TOKENS]])
        rank = hash64(self.seed, 1, key, np.arange(len(silent)))
        chosen = [
            self._negatives(near, silent & (self.pool_in_test == half), rank, n)
            for half, n in ((False, TRAINING_NEGATIVES), (True, TEST_WINDOWS))
        ]
        return Examples(training, chosen[0], test, chosen[1], _shortage(training, test, chosen[1]))

    def _positives(self, key, fired):
        """(training, test) Windows in which the feature fires, in shuffled order, contexts before pool windows."""
        first, stop = np.searchsorted(self.context_key, [key, key + 1])
        context_place, contexts = np.unique(
            self.context_place[first:stop], return_index=True
        )  # peaks of a short document share their window
        late = np.append(0, np.cumsum(self.fired_offset[fired.rows[0] : fired.rows[-1]] >= self.width // 4))
        visible = np.diff(late[fired.rows - fired.rows[0]]) > 0
        place = self.pool_place[fired.windows]
        nearest = np.minimum(np.searchsorted(context_place, place), len(context_place) - 1)
        if len(context_place):
            visible &= context_place[nearest] != place
        shown = np.flatnonzero(visible)
        contexts = contexts[np.argsort(hash64(self.seed, key, context_place))]
        shown = shown[np.argsort(hash64(self.seed, key, place[shown]))]
        context_tokens, context_activations = (
            read(first, stop, width=self.width) for read in (self.contexts.tokens, self.contexts.activations)
        )
        context_in_test = self.context_in_test[first:stop][contexts]
        pool_in_test = self.pool_in_test[fired.windows[shown]]
        halves = []
        for half, most in ((False, TRAINING_POSITIVES), (True, TEST_WINDOWS)):
            mine = contexts[context_in_test == half][:most]
            rows = shown[pool_in_test == half][: most - len(mine)]
            ids = fired.windows[rows]
            activations = np.zeros((len(ids), self.width), dtype=np.float32)
            entries = consecutive(fired.rows[rows], fired.rows[rows + 1] - fired.rows[rows])
            which = np.repeat(np.arange(len(rows)), fired.rows[rows + 1] - fired.rows[rows])
            activations[which, self.fired_offset[entries]] = self.fired_activation[entries]
            halves.append(
                Windows(
                    np.concatenate([context_tokens[mine], self.pool_tokens[ids]]),
                    np.concatenate([self.context_labels[first + mine], self.pool_labels[ids]]),
                    np.concatenate([context_activations[mine], activations]),
                    np.concatenate([self.context_documents[first + mine], self.pool_documents[ids]]),
                    np.full(len(mine) + len(ids), "positive"),
                )
            )
        return halves

    def _near_misses(self, layer, feature, tokens):
        """{kind: mask of pool windows that resemble the feature's}."""
        spans = np.searchsorted(self.token_of, [tokens, tokens + 1]).T
        low, high = np.searchsorted(self.similar_key, [_key(layer, feature), _key(layer, feature) + 1])
        return {
            SIMILAR_DECODER: self._windows_of(layer, self.similar[low:high]),
            COACTIVATING: self._windows_of(layer, self.coactivating(layer).get(feature, ())),
            SAME_TOKENS: self._mask([self.window_of[low:high] for low, high in spans]),
        }

    def _windows_of(self, layer, features):
        """The pool windows in which some of these features fire, as a mask."""
        keys = _key(layer, np.asarray(features, dtype=np.int64))
        spans = zip(*(self.fired_start[np.searchsorted(self.fired_features, key)] for key in (keys, keys + 1)), strict=True)
        return self._mask([self.fired_window[low:high] for low, high in spans])

    def _mask(self, windows):
        mask = np.zeros(len(self.pool_documents), dtype=bool)
        for ids in windows:
            mask[ids] = True
        return mask

    def _coactivating(self, layer):
        """{feature: those of its layer that most often fire in the same pool windows of the training half, as shares of the windows in which
        either fires}."""
        low, high = np.searchsorted(self.fired_key, _key([layer, layer + 1], 0))
        column = np.full(len(self.pool_documents), -1)
        used = np.flatnonzero(~self.pool_in_test)[:COACTIVATION_WINDOWS]
        column[used] = np.arange(len(used))
        column = column[self.fired_window[low:high]]
        feature = (self.fired_key[low:high] - _key(layer, 0))[column >= 0]
        n_features = int(feature.max(initial=-1)) + 1
        fires = sparse.csr_array(
            (np.ones(len(feature), dtype=np.float32), (feature, column[column >= 0])), shape=(n_features, len(used))
        )
        fires.sum_duplicates()
        fires.data[:] = 1
        count, transposed, found = fires.sum(axis=1), fires.T.tocsr(), {}
        for first in range(0, n_features, 512):
            rows = np.arange(first, min(first + 512, n_features))
            both = (fires[rows] @ transposed).toarray()
            share = both / np.maximum(count[rows, None] + count - both, 1)
            share[np.arange(len(rows)), rows] = 0
            best = np.argsort(-share, axis=1, kind="stable")[:, :COACTIVATING_FEATURES]
            for row, others in zip(rows, best, strict=True):
                found[int(row)] = others[share[row - first, others] > 0]
        return found

    def _negatives(self, near, allowed, rank, n_windows):
        """Up to `n_windows` allowed pool windows, half random and half near misses, the latter evenly of all kinds where possible; of each kind
        those of lowest rank."""
        free, picked, kinds = allowed.copy(), [], []

        def pick(kind, mask, n):
            if n <= 0:
                return 0
            ids = np.flatnonzero(free if mask is None else mask & free)
            if len(ids) > n:
                ids = ids[np.argpartition(rank[ids], n)[:n]]
            free[ids] = False
            picked.append(ids)
            kinds.append(np.full(len(ids), kind, dtype="U15"))
            return len(ids)

        left = n_windows // 2
        for n_kinds, (kind, mask) in zip((3, 2, 1), near.items(), strict=True):
            left -= pick(kind, mask, left // n_kinds)
        for kind, mask in near.items():
            left -= pick(kind, mask, left)
        pick(RANDOM, None, n_windows - n_windows // 2)
        ids = np.concatenate(picked)
        silence = np.zeros((len(ids), self.width), dtype=np.float32)
        return Windows(self.pool_tokens[ids], self.pool_labels[ids], silence, self.pool_documents[ids], np.concatenate(kinds))


class _Fired(NamedTuple):
    """windows [n]: of the pool, in which the feature fires; rows [n + 1]: where their entries begin in `fired_*`, and end."""

    windows: np.ndarray
    rows: np.ndarray


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
