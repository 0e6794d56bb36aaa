"""Text to fixed-length token sequences, split into training and held-out text by document.

Packing: documents follow one another, each begun by BOS, in sequences of `context` tokens; a sequence that begins inside a
document has BOS put in front. So position 0 is always BOS, no token is lost but a last incomplete sequence, and `documents`
changes where a document begins. Every k-th document is held out, k from the wanted sizes. A document that is word for word the
same as an earlier one has the earlier one's number and goes to the same part, so the parts share no document; right after it, it
is left out.
"""

import glob
import hashlib
import io
import itertools
import math
import os
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cltdb import revisions
from cltdb.activations.ordinary import ordinary_places
from cltdb.activations.storage import is_uri, matching_uris, open_uri
from cltdb.errors import DataError
from cltdb.workspace import explain_full_disk

DOCUMENT_CONTEXTS = 16  # longer documents are cut into pieces of this many contexts, each a document: books become chapters
TOKENIZE_BATCH = 256
DTYPES = (np.int32, np.int64, np.int16)  # of tokens, documents, labels


class Sequences(NamedTuple):
    """tokens int32, documents int64, label codes int16 (-1: none), all [n_seqs, context]; label_names[code]; excluded: ids of the tokens
    that are not `ordinary`."""

    tokens: np.ndarray
    documents: np.ndarray
    labels: np.ndarray
    label_names: list
    excluded: tuple = ()

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
        columns = (self.tokens[numbers], self.documents[numbers], self.labels[numbers])
        return Sequences(*columns, self.label_names, self.excluded)

    def without(self, excluded):
        """The same sequences, whose tokens of the ids `excluded` are not ordinary."""
        return Sequences(self.tokens, self.documents, self.labels, self.label_names, tuple(excluded))


def pack(lm, sources, *, context, seed, heldout_frac, root, train_tokens=0, heldout_tokens=0):
    """(training Sequences, held-out Sequences) of at least the wanted tokens, rounded up to whole sequences.

    sources: `spec.TextSource`s; root: the folder their relative paths start from; heldout_frac: the share of documents that is
    held out, which fixes the split whatever sizes are asked for.
    """
    check_context(lm, context)
    names = sorted(
        {source.label for source in sources if source.label} | ({"en", "fr", "de"} if any(s.toyworld for s in sources) else set())
    )
    every = max(2, math.floor(1 / heldout_frac)) if heldout_frac else 0
    wanted = {"train": math.ceil(train_tokens / context), "heldout": math.ceil(heldout_tokens / context)}
    packers = {split: _Packer(context, n_seqs, lm.bos_token_id) for split, n_seqs in wanted.items()}
    first_seen = {}
    for tokens, label in _documents(lm, sources, context=context, seed=seed, root=root):
        index = first_seen.setdefault(_content(tokens), len(first_seen))
        packer = packers["heldout" if every and index % every == every - 1 else "train"]
        if packer.last_document != index:
            packer.add(tokens, index, names.index(label) if label else -1)
        if all(packer.full for packer in packers.values()):
            break
    for split, packer in packers.items():
        if not packer.full:
            _refuse_short_text(split, packer, context)
    return tuple(packers[split].sequences(names) for split in ("train", "heldout"))


def check_context(lm, context):
    """Raises DataError where the model has no positions for sequences of this length."""
    if not 2 <= context <= lm.max_context:
        raise DataError(
            "activations.context",
            found=str(context),
            expected=f"2 to the {lm.max_context} positions of {lm.model_id}",
            do="change it",
        )


def _content(tokens):
    """A number that only equal lists of tokens share."""
    return int.from_bytes(hashlib.blake2b(np.array(tokens, dtype=np.int32).tobytes(), digest_size=16).digest())


def _refuse_short_text(split, packer, context):
    key = "activations.train_tokens or harvest.tokens" if split == "train" else "activations.heldout_tokens"
    found = len(packer.rows) * context
    if not packer.rows:
        raise DataError(
            "activations.text",
            found=f"text shorter than one context of {context} tokens for the {split} part",
            expected=f"text for {packer.n_seqs * context:,} tokens",
            do="add text or shorten activations.context",
        )
    raise DataError(
        key,
        found=f"{packer.n_seqs * context:,} tokens asked for",
        expected=f"at most the {found:,} of whole sequences that the text holds for the {split} part",
        do="lower it or add text",
    )


class _Packer:
    """Fills sequences of one part until it has `n_seqs`."""

    def __init__(self, context, n_seqs, bos):
        self.context, self.n_seqs, self.bos = context, n_seqs, bos
        self.rows, self.tokens, self.documents, self.labels, self.last_document = [], [], [], [], None

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

    def sequences(self, names):
        columns = list(zip(*self.rows, strict=True)) or [[], [], []]
        shape = (len(self.rows), self.context)
        return Sequences(
            *(np.array(column, dtype=dtype).reshape(shape) for column, dtype in zip(columns, DTYPES, strict=True)),
            names,
        )


def _documents(lm, sources, *, context, seed, root):
    """(token ids, label) of every document of all sources, mixed so that each source gives tokens in proportion to its weight."""
    streams = [_tokenized(lm, source, context=context, seed=seed, root=root) for source in sources]
    given = [0.0] * len(sources)
    while any(stream is not None for stream in streams):
        turn = min((i for i, stream in enumerate(streams) if stream is not None), key=lambda i: given[i] / sources[i].weight)
        document = next(streams[turn], None)
        if document is None:
            streams[turn] = None
            continue
        given[turn] += len(document[0])
        yield document


def _tokenized(lm, source, *, context, seed, root):
    """(token ids, label) of one source's documents; long ones in pieces, empty ones left out."""
    texts = _texts(source, seed=seed, root=root)
    piece = DOCUMENT_CONTEXTS * context
    while batch := list(itertools.islice(texts, TOKENIZE_BATCH)):
        for tokens, (_, label) in zip(lm.text_tokens([text for text, _ in batch]), batch, strict=True):
            for start in range(0, len(tokens), piece):
                yield tokens[start : start + piece], label


def _texts(source, *, seed, root):
    """(text, label) of one source."""
    if source.toyworld:
        from cltdb.toyworld.text import documents

        yield from ((text, source.label or label) for text, label in documents(seed))
    elif source.files:
        yield from ((text, source.label) for text in _file_texts(source, seed=seed, root=root))
    else:
        yield from ((text, source.label) for text in _dataset_texts(source, seed=seed, root=root))


def matching_files(root, patterns):
    """Sorted paths of the files that match globs relative to `root`, and URIs of those in object storage."""
    remote = {uri for pattern in patterns if is_uri(pattern) for uri in matching_uris(pattern)}
    local = [os.path.join(glob.escape(str(root)), pattern) for pattern in patterns if not is_uri(pattern)]
    found = {path for pattern in local for path in glob.glob(pattern, recursive=True)}
    return sorted(path for path in found if os.path.isfile(path)) + sorted(remote)


def existing_files(root, source):
    """The files of a source; DataError where one of its patterns matches none."""
    nothing = [pattern for pattern in source.files if not matching_files(root, [pattern])]
    if nothing:
        raise DataError(
            "activations.text.files",
            found=f"no file that matches {', '.join(nothing)}",
            expected="paths or globs relative to cltdb.yaml",
            do="mend the path",
        )
    return matching_files(root, source.files)


def _file_texts(source, *, seed, root):
    texts = []
    for path in existing_files(root, source):
        suffix = Path(path.rpartition("?")[0] or path).suffix if is_uri(path) else Path(path).suffix
        if suffix == ".txt":
            texts += _paragraphs(path)
        elif suffix in (".jsonl", ".parquet") and is_uri(path):
            texts += list(_column(_remote_table(path, suffix), source, path))
        elif suffix in (".jsonl", ".parquet"):
            texts += list(
                _column(
                    _load_dataset({".jsonl": "json", ".parquet": "parquet"}[suffix], path, data_files=path, split="train"),
                    source,
                    path,
                )
            )
        else:
            raise DataError(
                str(path),
                found=f"a file of type {suffix or 'none'}",
                expected=".txt, .jsonl or .parquet",
                do="convert it or name other files",
            )
    random.Random(seed).shuffle(texts)
    return texts


def _paragraphs(path):
    """The texts between blank lines, or the whole file where there is none."""
    try:
        with open_uri(path) if is_uri(path) else open(path, "rb") as file:
            lines = io.TextIOWrapper(io.BytesIO(file.read()), encoding="utf-8").read().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            str(path), found=str(error), expected="a UTF-8 text file", do="convert it to UTF-8 or name another file"
        ) from error
    groups = itertools.groupby(lines, key=lambda line: bool(line.strip()))
    return ["".join(group).strip() for filled, group in groups if filled]


def _remote_table(uri, suffix):
    """A .jsonl or .parquet file in object storage as a dataset in memory."""
    import datasets
    from pyarrow import ArrowException, json, parquet

    try:
        with open_uri(uri) as file:
            return datasets.Dataset((json.read_json if suffix == ".jsonl" else parquet.read_table)(file))
    except (ArrowException, OSError) as error:
        raise DataError(
            uri, found=str(error).split("\n")[0], expected=f"a {suffix} file that can be read", do="mend or name another file"
        ) from error


def _dataset_texts(source, *, seed, root):
    local, options = Path(root) / source.dataset, {"split": source.split, "streaming": source.streaming}
    if local.is_dir():
        dataset = _load_dataset(str(local), source.dataset, name_of_config=source.config, **options)
    else:
        dataset = _hub_dataset(source, options)
    if not source.streaming:
        dataset = dataset.shuffle(seed=seed)
    return _column(dataset, source, source.dataset)


def _hub_dataset(source, options):
    """A dataset of the Hub at its revision; where the Hub cannot be reached, the copy of that commit on this machine: datasets itself
    takes the last copy, whatever its commit."""
    import datasets

    offline, where = datasets.config.HF_HUB_OFFLINE, f"activations.text {source.dataset}"
    if not (offline or revisions.limits("dataset", source.dataset, source.revision, where=where)):
        return _load_dataset(source.dataset, source.dataset, name_of_config=source.config, revision=source.revision, **options)
    if revisions.COMMIT.fullmatch(source.revision or ""):
        return _cached_copy(source, where)
    try:
        datasets.config.HF_HUB_OFFLINE = True  # no tries that take half a minute
        return _load_dataset(source.dataset, source.dataset, name_of_config=source.config, **options)
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _cached_copy(source, where):
    """What datasets keeps on this machine of a commit of a Hub dataset."""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    *owner, name = source.dataset.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    config = glob.escape(source.config) if source.config else "*"
    copies = sorted(path for path in folder.glob(f"{config}/*/{source.revision}") if path.is_dir())
    if len(copies) != 1:
        configs = ", ".join(sorted({path.parts[-3] for path in copies}))
        raise DataError(
            where,
            found=f"configurations {configs} of it" if copies else f"no copy of commit {source.revision[:12]} on this machine",
            expected="one of them" if copies else "a copy, as the Hub cannot be reached",
            do="name config" if copies else "run again with network",
        )
    config, version = copies[0].parts[-3:-1]
    try:
        copy = Cache(dataset_name=name, repo_id=source.dataset, config_name=config, version=version, hash=source.revision)
        read = copy.as_streaming_dataset if source.streaming else copy.as_dataset
        return read(split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            where, found=str(error).split("\n")[0], expected="a copy that can be read", do="check split; the Hub needs network"
        ) from error


def _load_dataset(name, shown, *, name_of_config=None, **options):
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what fails is said below, once
    try:
        if Path(name).is_dir() and (Path(name) / "state.json").is_file():
            return datasets.load_from_disk(name)
        if Path(name).is_dir() and (Path(name) / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(name)
            if options["split"] not in splits:
                raise ValueError(f"no split {options['split']!r} among {', '.join(splits)}")
            return splits[options["split"]]
        with explain_full_disk(
            datasets.config.HF_DATASETS_CACHE, do="set HF_HOME, where datasets keeps its copies, to a folder on a larger disk"
        ):
            return datasets.load_dataset(name, name_of_config, **options)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"activations.text {shown}",
            found=str(error.__cause__ or error).split("\n")[0],
            expected="a dataset on the Hub or in a local directory, or a readable file",
            do="check its name, config and split; the Hub needs network",
        ) from error


def _column(dataset, source, shown):
    columns = dataset.column_names
    if columns is not None and source.column not in columns:
        raise DataError(
            f"activations.text.column of {shown}",
            found=repr(source.column),
            expected="one of " + ", ".join(columns),
            do="name a column of the data",
        )
    for row in dataset:
        if not isinstance(row[source.column], str):
            raise DataError(
                f"activations.text.column of {shown}",
                found=f"{type(row[source.column]).__name__} values in {source.column!r}",
                expected="text",
                do="name a column that holds text",
            )
        yield row[source.column]
