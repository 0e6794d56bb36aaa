"""Text to token ids and back, as a model reads them: one BOS in front, no id beyond its embedding, control tokens as text."""

import re

from cltdb.errors import CltdbError, escaped, nearest, shown
from cltdb.model import control_tokens

MOST_NAMED = 5
"""Unknown words that a message names."""
MOST_SEARCHED = 50_000
"""Words of a vocabulary in which a message looks for one that is spelled like an unknown one."""


class Tokens:
    """The tokenizer of a model, with the ids that the model has."""

    special_tokens_in_text = False
    """Whether control tokens that are written out in a text are these tokens; else they are text."""

    def __init__(self, tokenizer, config, *, model_id):
        self.tokenizer, self.model_id = tokenizer, model_id
        self.vocab_size, self.max_context = config.vocab_size, config.max_position_embeddings
        self.bos_token_id = _bos_token_id(tokenizer, config)

    def text_tokens(self, text, *, special=None):
        """Token ids of `text`, or a list of them for a list of texts; no special token added. special: whether control tokens that are
        written out in it are these tokens, or text like any other; default self.special_tokens_in_text."""
        special = self.special_tokens_in_text if special is None else special
        if special:
            tokens = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        else:
            tokens = control_tokens.as_text(self.tokenizer, text)
        self._refuse_beyond(tokens)
        return tokens

    def document_tokens(self, texts, *, special=None):
        """Token ids of each of `texts` as they follow BOS: a BOS that a text brings itself, as token or written out, is left out."""
        if bos := control_tokens.strings(self.tokenizer).get(self.bos_token_id):
            texts = [control_tokens.without_front(text, bos) for text in texts]
        return [self.without_bos(tokens) for tokens in self.text_tokens(texts, special=special)]

    def without_bos(self, tokens):
        """Token ids without BOS at their front, unless an ordinary word of the vocabulary serves as BOS."""
        if self.bos_token_id not in tokens[:1] or self.bos_token_id not in control_tokens.strings(self.tokenizer):
            return tokens
        start = next((place for place, token in enumerate(tokens) if token != self.bos_token_id), len(tokens))
        return tokens[start:]

    def prompt_tokens(self, text, *, special=None):
        """Token ids of `text` with exactly one BOS in front, whether or not the tokenizer or the text brings one. special: as of
        `text_tokens`."""
        return self.prompt_of(*self.document_tokens([text], special=special), text)

    def known_prompt(self, text):
        """Token ids of a prompt as of `prompt_tokens`. CltdbError where the tokenizer has no token for a word of it and would read another prompt;
        the unknown token itself may be written where `special_tokens_in_text` lets it."""
        tokens = self.prompt_tokens(text)
        if unknown := self.unknown_words(text):
            words = ", ".join(map(shown, unknown[:MOST_NAMED])) + ", …" * (len(unknown) > MOST_NAMED)
            raise CltdbError(
                "prompt",
                found=f"{words}, which {self.model_id} has no token for",
                expected="words of its vocabulary",
                do=nearest(unknown[0], self._words(), otherwise="choose words that it has: they are in table vocabulary"),
            )
        return tokens

    def _words(self):
        """The words of a vocabulary of words, in which one can look for a word that was meant."""
        return [word.strip("▁Ġ ") for word in self.tokenizer.get_vocab()] if self.vocab_size <= MOST_SEARCHED else []

    def unknown_words(self, text):
        """Words of a text that the tokenizer has no token for. Tokenizers that spell such words know all; theirs for unknown words may be their BOS."""
        unknown, rest = self.tokenizer.unk_token_id, text
        if self.special_tokens_in_text and unknown is not None:
            rest = text.replace(self.tokenizer.unk_token, " ")
        [tokens] = self.document_tokens([rest])
        if unknown not in tokens:
            return []
        words = [word for word in dict.fromkeys(re.findall(r"\w+|[^\w\s]+", rest)) if unknown in self.text_tokens(word)]
        return words or [text]

    def prompt_of(self, tokens, text):
        """Token ids of a prompt with one BOS in front; text: as messages name it."""
        tokens = self.without_bos(tokens)
        if not tokens:
            raise CltdbError(
                "prompt",
                found="an empty prompt" if not text.strip() else f"{text!r}, which has no tokens",
                expected="a text of at least one token",
                do="give the prompt some text",
            )
        if len(tokens) + 1 > self.max_context:
            raise CltdbError(
                "prompt",
                found=f"{len(tokens) + 1} tokens with BOS",
                expected=f"at most the {self.max_context} of {self.model_id}",
                do="shorten it",
            )
        return [self.bos_token_id, *tokens]

    def _refuse_beyond(self, tokens):
        """Raises CltdbError where ids (a list, or a list of lists) have no row in the embedding, as those of tokens that were added to the
        tokenizer alone."""
        for token in tokens:
            if isinstance(token, list):
                self._refuse_beyond(token)
            elif token >= self.vocab_size:
                raise CltdbError(
                    f"tokenizer of {self.model_id}",
                    found=f"token {self.tokenizer.convert_ids_to_tokens(token)!r} in a text, whose id is {token}",
                    expected=f"ids below {self.vocab_size}, the rows of the embedding",
                    do="use the tokenizer that the model was trained with, or give the model rows for the tokens added to it",
                )

    def token_strings(self, tokens=None):
        """One printable string per id of `tokens`, by default of the vocabulary; a leading space stays a space, control characters are
        escaped. An id that the tokenizer has no token for is its number in brackets."""
        tokens = range(self.vocab_size) if tokens is None else tokens
        known = sorted({*self.tokenizer.get_vocab().values()} & {*tokens})
        pieces = self.tokenizer.convert_ids_to_tokens(known)
        decoded = self.tokenizer.batch_decode([[token] for token in known], clean_up_tokenization_spaces=False)
        strings = {token: _printable(*texts) for token, *texts in zip(known, pieces, decoded, strict=True)}
        return [strings.get(token) or f"[{token}]" for token in tokens]

    def token_text(self, token):
        """A vocabulary id as text; its number in brackets where the tokenizer has nothing for it."""
        return self.tokenizer.decode([token]) or f"[{token}]"


def _bos_token_id(tokenizer, config):
    """The token that stands first: the tokenizer's BOS, else the config's, else the end-of-text token."""
    for name in ("bos_token_id", "eos_token_id"):
        given = next((ids for ids in (getattr(tokenizer, name), getattr(config, name, None)) if ids not in (None, [])), None)
        if given is None:
            continue
        ids = given if isinstance(given, list) else [given]
        if name == "bos_token_id" and len(set(ids)) > 1:
            raise CltdbError(
                "tokenizer",
                found=f"several BOS tokens, {', '.join(map(str, ids))}",
                expected="one token that stands first",
                do="set bos_token in tokenizer_config.json",
            )
        if not 0 <= ids[0] < config.vocab_size:
            raise CltdbError(
                "tokenizer",
                found=f"{name} {ids[0]}",
                expected=f"ids below {config.vocab_size}, the rows of the embedding",
                do=f"set {name.removesuffix('_id')} in tokenizer_config.json to a token of the model's vocabulary",
            )
        return ids[0]
    raise CltdbError(
        "tokenizer",
        found="no BOS and no end-of-text token",
        expected="a token that can stand first",
        do="set bos_token in tokenizer_config.json",
    )


def _printable(piece, decoded):
    """A token as text: SentencePiece's word mark is a space, bytes that are no character keep the tokenizer's own spelling."""
    text = piece.replace("▁", " ") if "▁" in piece else decoded
    if not text or "�" in text:
        text = piece
    return escaped(text)
