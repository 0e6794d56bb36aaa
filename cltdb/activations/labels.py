"""The labels of a text (languages, say) by which counts are kept apart: profiles of features in harvest, metrics in evaluate.

A spec asks for it by naming labels: a `label_column`, or sources with different `label`s (`names_labels`). Tokens without a label count in
none of them.
"""

import logging
from typing import NamedTuple

import numpy as np

logger = logging.getLogger(__name__)
MOST_LABELS = 256
"""More are no groups of text, but names of documents: nothing is kept apart then."""


class Labels(NamedTuple):
    """names: of the labels that ordinary tokens of the text have, at least two; codes int16 [n_seqs, context]: the label of each ordinary
    token, -1 where it has none and at other tokens."""

    names: list
    codes: np.ndarray

    @property
    def n_tokens(self):
        """Ordinary tokens of each label, int64 [n_labels]."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))


def names_labels(sources):
    """Whether a spec's sources of text, `settings.TextSource`s, ask that counts are kept apart by label."""
    return any(source.label_column for source in sources) or len({source.label for source in sources if source.label}) > 1


def labels_apart(sequences):
    """The `Labels` of `tokens.Sequences`; None where the spec names none, or where the text has fewer than two or too many."""
    if not sequences.by_label:
        return None
    is_labelled = sequences.ordinary & (sequences.labels >= 0)
    found = np.unique(sequences.labels[is_labelled])
    names = [sequences.label_names[code] for code in found]
    if len(found) < 2:
        only = f"the one label {names[0]}" if names else "no label"
        logger.warning("text: has %s, so nothing is kept apart by label", only)
        return None
    if len(found) > MOST_LABELS:
        logger.warning("text: has %s labels, more than %d: nothing is kept apart by label", f"{len(found):,}", MOST_LABELS)
        return None
    codes = np.full(sequences.labels.shape, -1, dtype=np.int16)
    codes[is_labelled] = np.searchsorted(found, sequences.labels[is_labelled])
    return Labels(names, codes)
