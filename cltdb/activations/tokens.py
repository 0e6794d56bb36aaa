"""Text to fixed-length token sequences, split into training and held-out text by document.

Packing: documents follow one another, each begun by BOS, in sequences of `context` tokens; a sequence that begins inside a
document has BOS put in front. So position 0 is always BOS, no token is lost but a last incomplete sequence, and `documents`
changes where a document begins. Every k-th document is held out, k from the wanted sizes. A document that is word for word the
same as an earlier one has the earlier one's number and goes to the same part, so the parts share no document; right after it, it
is left out. A BOS that a document brings itself does not count as its text; other control tokens written out in a text are text
(`LanguageModel.document_tokens`).
"""

import hashlib
import itertools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cltdb.activations.labels import names_labels
from cltdb.activations.ordinary import ordinary_places
from cltdb.activations.texts import Reading, documents
from cltdb.errors import DataError

DOCUMENT_CONTEXTS = 16  # longer documents are cut into pieces of this many contexts, each a document: books become chapters
TOKENIZE_BATCH = 256
DTYPES = (np.int32, np.int64, np.int16)  # of tokens, documents, labels


class Keys(NamedTuple):
    """The keys of a spec that ask for the tokens of each part, and that name the text."""

    train: str
    heldout: str
    text: str = "activations.text"


KEYS = Keys("activations.train_tokens", "activations.heldout_tokens")


class Sequences(NamedTuple):
    """tokens int32, documents int64, label codes int16 (-1: none), all [n_seqs, context]; label_names[code]; excluded: ids of the tokens
    that are not `ordinary`; by_label: whether the spec asks that counts are kept apart by label (`labels.labels_apart`)."""

    tokens: np.ndarray
    documents: np.ndarray
    labels: np.ndarray
    label_names: list
    excluded: tuple = ()
    by_label: bool = False

    @property
    def ordinary(self):
        """Mask [n_seqs, context]: what is trained and measured on (`ordinary_places`)."""
        return ordinary_places(self.tokens, self.excluded)

    def __len__(self):
        return len(self.tokens)

    def part(self, start, stop):
        """Sequences start to stop - 1."""
        return self.take(slice(start, stop))

    def take(self, numbers):
        """The sequences of these numbers."""
        return self.changed(tokens=self.tokens[numbers], documents=self.documents[numbers], labels=self.labels[numbers])

    def without(self, excluded):
        """The same sequences, whose tokens of the ids `excluded` are not ordinary."""
        return self.changed(excluded=tuple(excluded))

    def changed(self, **fields):
        """The same but for these fields. (A named tuple's `_replace` takes `len` for the number of fields.)"""
        return Sequences(**(self._asdict() | fields))


class Packing(NamedTuple):
    """How text becomes sequences. context: tokens of each, BOS included; seed: of the order of documents; heldout_frac: the share of
    documents that is held out, which fixes the split whatever sizes are asked for; root: the folder relative paths start from."""

    context: int
    seed: int
    heldout_frac: float
    root: Path


def pack(lm, sources, packing, *, train_tokens=0, heldout_tokens=0, reading=None, keys=KEYS, without=frozenset()):
    """(training Sequences, held-out Sequences) of at least the wanted tokens, rounded up to whole sequences.

    sources: `settings.TextSource`s; reading: a `texts.Reading` that counts what is left out; keys: those of the spec that ask for the
    tokens of each part; without: `content`s of documents that are left out.
    """
    wanted = {"train": train_tokens, "heldout": heldout_tokens}
    packers, names = _packed(lm, sources, packing, wanted=wanted, reading=reading, without=without)
    for split, packer in packers.items():
        if not packer.full:
            _refuse_short_text(split, packer, packing.context, keys)
    by_label = names_labels(sources)
    return tuple(packers[split].sequences(names).changed(by_label=by_label) for split in ("train", "heldout"))


def trained_on(lm, sources, packing, *, train_tokens, heldout_tokens, max_bad):
    """The `content`s of the documents that `pack` gives for training."""
    wanted = {"train": train_tokens, "heldout": heldout_tokens}
    packers, _ = _packed(lm, sources, packing, wanted=wanted, reading=Reading(max_bad), without=frozenset())
    return packers["train"].contents


def _packed(lm, sources, packing, *, wanted, reading, without):
    """({part: _Packer}, names of labels by their code): the documents in order, each in its part, until both parts have the tokens that are
    `wanted`."""
    context, heldout_frac = packing.context, packing.heldout_frac
    check_context(lm, context)
    reading = reading or Reading()
    codes = _LabelCodes(sources)
    every = max(2, math.floor(1 / heldout_frac)) if heldout_frac else 0
    packers = {split: _Packer(context, math.ceil(n_tokens / context), lm.bos_token_id) for split, n_tokens in wanted.items()}
    first_seen = {}
    for tokens, label in _documents(lm, sources, packing, reading):
        known = content(tokens)
        if known in without:
            continue
        index = first_seen.setdefault(known, len(first_seen))
        packer = packers["heldout" if every and index % every == every - 1 else "train"]
        if packer.last_document != index and not packer.full:
            packer.add(tokens, index, codes[label])
            packer.contents.add(known)
        if all(packer.full for packer in packers.values()):
            break
    reading.check()
    reading.say()
    names, order = codes.sorted()
    for packer in packers.values():
        packer.rename_labels(order)
    return packers, names


class _LabelCodes:
    """Numbers for labels: those that a spec names, sorted, then those that columns bring, as they come."""

    def __init__(self, sources):
        toyworld = {"en", "fr", "de"} if any(source.toyworld for source in sources) else set()
        self.codes = {
            name: code for code, name in enumerate(sorted({source.label for source in sources if source.label} | toyworld))
        }

    def __getitem__(self, label):
        if not label:
            return -1
        code = self.codes.setdefault(label, len(self.codes))
        if code > np.iinfo(DTYPES[2]).max:
            raise DataError(
                "activations.text.label_column",
                found=f"more than {code:,} labels",
                expected="at most so many kinds of text",
                do="name a column with few different values",
            )
        return code

    def sorted(self):
        """(sorted names, new code of each code)."""
        names = sorted(self.codes)
        place = {name: code for code, name in enumerate(names)}
        return names, np.array([place[name] for name in self.codes] or [0], dtype=DTYPES[2])


def check_context(lm, context):
    """Raises DataError where the model has no positions for sequences of this length."""
    if not 2 <= context <= lm.max_context:
        raise DataError(
            "activations.context",
            found=str(context),
            expected=f"2 to the {lm.max_context} positions of {lm.model_id}",
            do="change it",
        )


def content(tokens):
    """A number that only equal lists of tokens share."""
    return int.from_bytes(hashlib.blake2b(np.array(tokens, dtype=np.int32).tobytes(), digest_size=16).digest())


def _refuse_short_text(split, packer, context, keys):
    found, part = len(packer.rows) * context, f" for the {split} part" if keys.text == KEYS.text else ""
    if not packer.rows:
        raise DataError(
            keys.text,
            found=f"text shorter than one context of {context} tokens{part}",
            expected=f"text for {packer.n_seqs * context:,} tokens",
            do="add text or shorten activations.context",
        )
    raise DataError(
        getattr(keys, split),
        found=f"{packer.n_seqs * context:,} tokens asked for",
        expected=f"at most the {found:,} of whole sequences that the text holds{part}",
        do="lower it or add text",
    )


class _Packer:
    """Fills sequences of one part until it has `n_seqs`."""

    def __init__(self, context, n_seqs, bos):
        self.context, self.n_seqs, self.bos = context, n_seqs, bos
        self.rows, self.tokens, self.documents, self.labels, self.last_document = [], [], [], [], None
        self.contents = set()

    full = property(lambda self: len(self.rows) >= self.n_seqs)

    def add(self, tokens, document, label):
        """Appends a document; `tokens` without BOS."""
        pending, self.last_document = [self.bos, *tokens], document
        while pending and not self.full:
            if not self.tokens and pending[0] != self.bos:
                pending = [self.bos, *pending]
            taken, pending = pending[: self.context - len(self.tokens)], pending[self.context - len(self.tokens) :]
            self.tokens += taken
            self.documents += [document] * len(taken)
            self.labels += [label] * len(taken)
            if len(self.tokens) == self.context:
                columns = zip((self.tokens, self.documents, self.labels), DTYPES, strict=True)
                self.rows.append([np.array(column, dtype) for column, dtype in columns])  # a tenth of the lists' memory
                self.tokens, self.documents, self.labels = [], [], []

    def rename_labels(self, order):
        """Gives labels the codes order[code]; -1 stays."""
        for _, _, labels in self.rows:
            labels[labels >= 0] = order[labels[labels >= 0]]

    def sequences(self, names):
        columns = list(zip(*self.rows, strict=True)) or [[], [], []]
        shape = (len(self.rows), self.context)
        return Sequences(
            *(np.array(column, dtype=dtype).reshape(shape) for column, dtype in zip(columns, DTYPES, strict=True)),
            names,
        )


def _documents(lm, sources, packing, reading):
    """(token ids, label) of every document of all sources, mixed so that each source gives tokens in proportion to its weight."""
    streams = [_tokenized(lm, source, packing, reading) for source in sources]
    given = [0.0] * len(sources)
    while any(stream is not None for stream in streams):
        turn = min((i for i, stream in enumerate(streams) if stream is not None), key=lambda i: given[i] / sources[i].weight)
        document = next(streams[turn], None)
        if document is None:
            streams[turn] = None
            continue
        given[turn] += len(document[0])
        yield document


def _tokenized(lm, source, packing, reading):
    """(token ids without BOS in front, label) of one source's documents; long ones in pieces, those without tokens left out."""
    found = documents(source, seed=packing.seed, root=packing.root, reading=reading)
    piece = DOCUMENT_CONTEXTS * packing.context
    while batch := list(itertools.islice(found, TOKENIZE_BATCH)):
        contents = [document.content for document in batch]
        every = _known_tokens(lm, contents, source) if source.tokens_column else lm.document_tokens(contents)
        for tokens, (_, label) in zip(every, batch, strict=True):
            for start in range(0, len(tokens), piece):
                if part := lm.without_bos(tokens[start : start + piece]):
                    yield part, label


def _known_tokens(lm, contents, source):
    """Lists of token ids of documents that came as tokens; DataError where the model has no such token."""
    for tokens in contents:
        wrong = tokens[(tokens < 0) | (tokens >= lm.vocab_size)]
        if len(wrong):
            raise DataError(
                f"activations.text.tokens_column {source.tokens_column}",
                found=f"token {wrong[0]}",
                expected=f"ids of the vocabulary of {lm.model_id}, 0 to {lm.vocab_size - 1}",
                do="tokenize the text with the tokenizer of this model, or name the column of the text itself",
            )
    return [lm.without_bos(tokens.tolist()) for tokens in contents]
