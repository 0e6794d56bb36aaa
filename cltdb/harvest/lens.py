"""The logit lens of features over chosen tokens: what each feature writes to their logits directly, by weights alone."""

import re

import torch

from cltdb.errors import CltdbError, nearest, shown
from cltdb.model.kinds import MLP_INPUT
from cltdb.model.norms import norm_gain

MOST_TOKENS = 1000


def chosen_tokens(lm, chosen, *, where="tokens"):
    """Ids of the tokens `chosen`, each once: a list of ids and of texts as table `vocabulary` has them, or a regular expression, which stands
    for all tokens whose whole text it matches. CltdbError where the model has no such token, and where they are more than 1,000."""
    if isinstance(chosen, str):
        ids = [token for token, string in enumerate(lm.token_strings()) if re.fullmatch(chosen, string)]
        if not ids:
            found = f"no token whose whole text matches {shown(chosen)}"
            raise CltdbError(where, found=found, expected="one at least", do="look at the texts in table vocabulary")
    else:
        texts = lm.token_strings() if any(isinstance(token, str) for token in chosen) else []
        of_text = {text: token for token, text in reversed([*enumerate(texts)])}
        ids = [*dict.fromkeys(_id(lm, token, of_text, where) for token in chosen)]
    if len(ids) > MOST_TOKENS:
        raise CltdbError(where, found=f"{len(ids):,} tokens", expected=f"at most {MOST_TOKENS:,}", do="choose fewer")
    return ids


def _id(lm, token, of_text, where):
    if isinstance(token, str) and token in of_text:
        return of_text[token]
    if not isinstance(token, str) and 0 <= token < lm.vocab_size:
        return token
    do = nearest(token, of_text, otherwise="look at the texts in table vocabulary; a leading space counts")
    raise CltdbError(where, found=shown(token), expected=f"a token of {lm.model_id}, by its text or its id", do=do)


@torch.no_grad()
def logit_lens(lm, dictionary, layer, tokens):
    """What a unit of each feature of `layer` adds to the logits of `tokens` directly, less the mean over the vocabulary:
    W_U (final norm gain * sum over targets of W_dec), before the final norm divides by its denominator. [n_features, n_tokens], float32.
    None where the features write into the MLP, behind which no direction has a fixed meaning.

    tokens: ids, texts or a regular expression, as in `chosen_tokens`; the columns are in their order, of an expression by id."""
    if not 0 <= layer < dictionary.n_layers:
        raise CltdbError("logit_lens layer", found=layer, expected=f"0 to {dictionary.n_layers - 1}", do="choose one of these")
    if dictionary.writes == MLP_INPUT:
        return None
    W_U = lm.unembedding_weight()
    read = W_U[chosen_tokens(lm, tokens)].float() - W_U.mean(0, dtype=torch.float32)
    return promoted(lm, dictionary, layer) @ read.T


def promoted(lm, dictionary, layer):
    """What a unit of each feature of `layer` adds to the final norm's output, before that divides by its denominator [n_features, d_model]."""
    device = lm.unembedding_weight().device
    return dictionary.decoder_sum(layer).float().to(device) * norm_gain(lm.final_norm).float()
