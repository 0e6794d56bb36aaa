"""Ordinary tokens: the one mask of what is trained and measured on.

Not ordinary are position 0, whatever stands there, and the excluded tokens wherever they stand (`activations.exclude_tokens`; default BOS
and the tokenizer's other special tokens). Models keep massive activations at BOS, which say nothing of the text and would rule norms,
FVU and training. Norm statistics, codec calibration, training rows, held-out checks, FVU, l0, replaced predictions and all that harvest
counts leave them out. They stay in the sequences and in the cache: the model reads them.
"""

import logging

import numpy as np

from cltdb.errors import DataError

logger = logging.getLogger(__name__)
LARGE_SHARE = 0.1
"""Of the tokens: if more are excluded at positions above 0, the tokenizer may call words special."""
KEY = "activations.exclude_tokens"
COUNTS_FILE = "counts.json"
"""What stages write their `token_counts` to."""


def ordinary_places(tokens, excluded):
    """Mask of tokens [n_seqs, context]: True where a token is trained and measured on. excluded: token ids."""
    mask = ~np.isin(tokens, np.array(excluded, dtype=np.int64))
    mask[:, 0] = False
    return mask


def excluded_ids(lm, tokens):
    """Sorted ids of a spec's `activations.exclude_tokens`. tokens: texts and ids; None: BOS and the tokenizer's special tokens."""
    if tokens is None:
        marked = [number for number, token in lm.tokenizer.added_tokens_decoder.items() if token.special]
        return tuple(sorted({lm.bos_token_id, *lm.tokenizer.all_special_ids, *marked}))
    vocabulary = lm.tokenizer.get_vocab()
    return tuple(sorted({_token_id(lm, token, vocabulary) for token in tokens}))


def _token_id(lm, token, vocabulary):
    """The id of a token given as id, in the vocabulary's spelling, or as a text that is one token."""
    found = (
        [token] if isinstance(token, int) else [vocabulary[token]] if token in vocabulary else lm.text_tokens(token, special=True)
    )
    unknown = not isinstance(token, int) and token not in vocabulary and found == [lm.tokenizer.unk_token_id]
    if len(found) == 1 and not unknown and 0 <= found[0] < lm.vocab_size:
        return found[0]
    raise DataError(
        KEY,
        found=f"{token!r}" + (f", which is {len(found)} tokens" if len(found) > 1 else ""),
        expected=f"tokens of {lm.model_id}: one token's text, or an id from 0 to {lm.vocab_size - 1}",
        do="mend the list, or leave it out for BOS and the tokenizer's other special tokens",
    )


def token_counts(sequences):
    """{"tokens", "ordinary": how many, "excluded": {id: how many at positions above 0}} of sequences, as JSON values."""
    ids, counts = np.unique(sequences.tokens[:, 1:], return_counts=True)
    is_excluded = np.isin(ids, np.array(sequences.excluded, dtype=np.int64))
    found = zip(ids[is_excluded].tolist(), counts[is_excluded].tolist(), strict=True)
    return {
        "tokens": sequences.tokens.size,
        "ordinary": int(sequences.ordinary.sum()),
        "excluded": {str(number): count for number, count in found},
    }


def check_ordinary(sequences, *, part):
    """DataError where no token of a part of the text is ordinary."""
    if len(sequences) and not sequences.ordinary.any():
        raise DataError(
            KEY,
            found=f"no other token in the {part} text",
            expected="text of which some is left",
            do="exclude fewer tokens, or choose other text",
        )


def say_excluded(lm, sequences, *, part):
    """Logs how much of a part of the text is excluded beyond position 0; a warning where that is much."""
    counts = token_counts(sequences)
    n_excluded = sum(counts["excluded"].values())
    if not n_excluded:
        return
    often = sorted(counts["excluded"].items(), key=lambda item: -item[1])[:3]
    named = [f"{lm.tokenizer.convert_ids_to_tokens(int(number))} {count:,} times" for number, count in often]
    logger.log(
        logging.WARNING if n_excluded > LARGE_SHARE * counts["tokens"] else logging.INFO,
        "%s text: %.1f %% of the tokens are excluded beside position 0 (%s%s); activations.exclude_tokens chooses them",
        part,
        100 * n_excluded / counts["tokens"],
        ", ".join(named),
        ", …" * (len(counts["excluded"]) > len(named)),
    )
