"""The text of the synthetic database: documents of Zipf-distributed tokens, each about a topic, with phrases that come again and again.

Phrases are what makes tokens stand before a feature's peaks: a feature "of a phrase" fires on what comes after it.
"""

from typing import NamedTuple

import numpy as np

from cltdb.harvest.windows import document_spans

LABELS = ["en", "fr", "de", "code"]
LABEL_SHARES = [0.7, 0.1, 0.1, 0.1]
ON_TOPIC = 0.15  # share of a document's tokens that are of its topic
N_SET = 16  # tokens that a feature may fire on, or that may come after a phrase
N_ENOUGH = 40  # occurrences of a token that a feature fires on
SLOT = 8  # a phrase, and what comes after it, lie in so many tokens, which no other shares
PHRASED = 0.4  # share of these places that have a phrase
OCCURRENCES = 60  # of a phrase, in the mean
BOS = 0


class Phrases(NamedTuple):
    """places: the flat places in the text after an occurrence, sorted by phrase; begin [n + 1]: where each phrase begins there. tokens
    [n, N_SET]: what may come after it, n_tokens [n]: how many of them; topic [n]."""

    places: np.ndarray
    begin: np.ndarray
    tokens: np.ndarray
    n_tokens: np.ndarray
    topic: np.ndarray


class Text(NamedTuple):
    """tokens, documents, labels, start, stop: each [n_seqs, context]; start and stop are of the document in the sequence. by_token: the flat
    places sorted by token, begin [n_vocabulary + 1]: where each token begins there."""

    tokens: np.ndarray
    documents: np.ndarray
    labels: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    by_token: np.ndarray
    begin: np.ndarray
    phrases: Phrases

    @property
    def n_ordinary(self):
        return int((self.tokens != BOS).sum())


def random_text(vocabulary, n_tokens, *, context, seed):
    """Documents of log-normal length."""
    rng = np.random.default_rng([seed, 0])
    n_seqs = max(4, n_tokens // context)
    n = n_seqs * context
    weight = zipf(len(vocabulary))
    lengths = np.ceil(rng.lognormal(5.5, 0.8, n // 50)).astype(np.int64) + 8
    begins = np.zeros(n, dtype=np.int64)
    places = np.cumsum(lengths)
    begins[places[places < n]] = 1
    document = np.cumsum(begins)
    begins[0] = 1
    n_documents = int(document[-1]) + 1
    topic = rng.integers(1, len(vocabulary.begin) - 1, n_documents)[document]
    token = np.searchsorted(np.cumsum(weight), rng.random(n) * weight.sum())
    on_topic = rng.random(n) < ON_TOPIC
    token[on_topic] = of_topics(vocabulary, weight, topic[on_topic], rng)
    phrases = _put_phrases(token, begins, context, vocabulary, weight, rng)
    token[begins == 1] = BOS
    documents = document.reshape(n_seqs, context)
    start, stop = document_spans(documents)
    labels = rng.choice(len(LABELS), n_documents, p=LABEL_SHARES)[document]
    by_token = np.argsort(token, kind="stable")
    begin = np.searchsorted(token[by_token], np.arange(len(vocabulary) + 1))
    shape = (n_seqs, context)
    return Text(token.astype(np.int32).reshape(shape), documents, labels.reshape(shape), start, stop, by_token, begin, phrases)


def _put_phrases(token, begins, context, vocabulary, weight, rng):
    """Writes phrases over `token` [n], of which `begins` tells where documents begin; the `Phrases`. Each has two to seven tokens, half of them of
    its topic, the others any; common ones are written ten times as often as rare ones."""
    assert context % SLOT == 0, f"{context} is no multiple of {SLOT}"
    is_free = ~begins.reshape(-1, SLOT).any(axis=1)
    slot = np.flatnonzero(is_free & (rng.random(len(is_free)) < PHRASED))
    n = max(1, len(slot) // OCCURRENCES)
    expected = weight / weight.sum() * len(token)
    after, topic = firing_tokens(vocabulary, expected, n, rng)
    n_after = n_firing(n, rng)
    length = rng.integers(2, SLOT, n)
    said = np.searchsorted(np.cumsum(weight), rng.random((n, SLOT)) * weight.sum())
    is_on_topic = rng.random((n, SLOT)) < 0.5
    said[is_on_topic] = of_topics(vocabulary, weight, np.repeat(topic[:, None], SLOT, axis=1)[is_on_topic], rng)
    common = 1 / (np.arange(n) + 1 + n / 10)
    phrase = np.sort(np.searchsorted(np.cumsum(common), rng.random(len(slot)) * common.sum()))
    first = rng.permutation(slot) * SLOT
    for place in range(int(length.max())):
        there = length[phrase] > place
        token[first[there] + place] = said[phrase[there], place]
    last = first + length[phrase]
    token[last] = after[phrase, (n_after[phrase] * rng.random(len(slot)) ** 2).astype(np.int64)]
    return Phrases(last, np.searchsorted(phrase, np.arange(n + 1)), after, n_after, topic)


def zipf(n):
    """The frequency of each token; <bos> is never drawn."""
    weight = 1 / (np.arange(n) + 2.7)
    weight[BOS] = 0
    return weight


def firing_tokens(vocabulary, occurrences, shape, rng):
    """(tokens [*shape, N_SET] of one topic each that a feature may fire on, that topic [*shape]): rare ones more often than they are in the text."""
    occurrences = np.where(np.arange(len(occurrences)) == BOS, 0, occurrences).astype(float)
    weight = np.sqrt(occurrences) * (occurrences >= min(N_ENOUGH, occurrences.max()))
    first = np.searchsorted(np.cumsum(weight), rng.random(shape) * weight.sum(), side="right")
    topic = vocabulary.topic[first]
    others = of_topics(vocabulary, weight, np.repeat(topic.ravel(), N_SET - 1), rng).reshape(*first.shape, N_SET - 1)
    return np.concatenate([first[..., None], others], axis=-1).astype(np.int32), topic


def n_firing(shape, rng):
    """On how many of these a feature fires."""
    return np.minimum(rng.geometric(0.2, shape), N_SET)


def of_topics(vocabulary, weight, topic, rng):
    """A token for each topic [n], by weight [n_vocabulary]."""
    total = np.concatenate([[0.0], np.cumsum(weight[vocabulary.by_topic])])
    low, high = total[vocabulary.begin[topic]], total[vocabulary.begin[topic + 1]]
    found = np.searchsorted(total, low + rng.random(len(topic)) * (high - low), side="right") - 1
    return vocabulary.by_topic[np.minimum(found, vocabulary.begin[topic + 1] - 1)]
