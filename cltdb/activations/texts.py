"""The documents of text sources: which rows are taken, in which order, and which are left out and why.

Local files and folders are read by `text_files`, whole, then shuffled; datasets of the Hub and folders that `save_to_disk` wrote by
`datasets_library`, row by row. A row without text (NULL, empty, of another type, lone surrogates) is left out and counted in a
`Reading`; too many of them stop the run.
"""

import glob
import logging
import random
import tempfile
from array import array
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cltdb.activations.datasets_library import check_splits, dataset_rows, explained, is_saved, opened
from cltdb.activations.text_files import Unusable, columns_of, existing_files, file_kind, file_rows
from cltdb.engine.workspace import explain_full_disk
from cltdb.errors import DataError

logger = logging.getLogger(__name__)
HELD_BYTES = 512 << 20  # of documents in memory; more are held in a temporary file
FIRST_PLACES = 20  # of rows that are left out, kept by name
JUDGED_DOCUMENTS = 1_000_000  # before so many of a stream are read, the share that is left out is that of so many
READ_BY_US = {"json", "csv", "text", "parquet", "arrow"}  # datasets' names of kinds of files
_said = set()


class Document(NamedTuple):
    """content: text, or the tokens of a source with `tokens_column`, an int array; label: a word or None."""

    content: object
    label: str | None


class Reading:
    """What was read of the text: how many documents, which rows were left out and why."""

    def __init__(self, max_bad=0.001):
        """max_bad: the share of documents that may be left out, at least one unless it is 0."""
        self.max_bad, self.n_documents, self.reasons, self.places = max_bad, 0, Counter(), []

    def taken(self, row, source, place):
        """The `Document` of a row, or None where it is left out. place: what names the file or dataset."""
        self.n_documents += 1
        reason = _wrong_tokens(row.value) if source.tokens_column else _wrong_text(row.value)
        label, wrong_label = _label(row.label)
        if reason or wrong_label:
            self._leave_out(reason or wrong_label, f"{place}, row {row.number}")
            return None
        content = np.array(row.value) if source.tokens_column else row.value
        return Document(content, source.label if label is None else label)

    def _leave_out(self, reason, place):
        self.reasons[reason] += 1
        if len(self.places) < FIRST_PLACES:
            self.places.append({"place": place, "reason": reason})

    n_left_out = property(lambda self: self.reasons.total())

    def check(self, n_documents=None):
        """Raises DataError where too many of n_documents, default those read, are left out."""
        n_documents = self.n_documents if n_documents is None else n_documents
        if self.n_left_out > (max(1, self.max_bad * n_documents) if self.max_bad else 0):
            first = self.places[0]
            raise DataError(
                first["place"],
                found=f"{first['reason']} instead of text, the first of {self.text}",
                expected=f"at most {self.max_bad:g} of the documents without text (activations.max_bad_documents)",
                do="mend the rows or name another column, or raise activations.max_bad_documents to leave such rows out",
            )

    @property
    def text(self):
        """One clause: how many were left out and why."""
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.reasons.items()))
        return f"{self.n_left_out:,} of {self.n_documents:,} documents ({reasons})"

    def say(self):
        """Logs what was left out, once in a process."""
        if self.n_left_out and self.text not in _said:
            _said.add(self.text)
            logger.warning("text: left out %s, the first at %s", self.text, self.places[0]["place"])

    def summary(self):
        """JSON values to store."""
        return {"documents": self.n_documents, "left_out": dict(sorted(self.reasons.items())), "first": self.places}


def _wrong_text(value):
    """Why a value is no text, or None."""
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return value.reason if isinstance(value, Unusable) else f"{type(value).__name__} values"
    if not value.strip():
        return "empty"
    return None if _is_unicode(value) else "lone surrogates or bytes that are not UTF-8"


def _is_unicode(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong_tokens(value):
    """Why a value is no list of token ids, or None; which ids a model has is not asked here."""
    if value is None:
        return "NULL"
    if not isinstance(value, list):
        return value.reason if isinstance(value, Unusable) else f"{type(value).__name__} values"
    if not value:
        return "empty"
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in value):
        return "lists of other values than whole numbers"
    return None


def _label(value):
    """(the label that a value says, why it is none); None for both where there is no value."""
    if value is None or isinstance(value, str):
        return (value or None, None) if value is None or _is_unicode(value) else (None, "lone surrogates in the label")
    if isinstance(value, bool | int | float):
        return str(value), None
    return None, f"{type(value).__name__} values as label"


class _Store:
    """Documents in the order they were read, to be read back in any order."""

    def __init__(self):
        self.file = tempfile.SpooledTemporaryFile(HELD_BYTES, prefix="cltdb-text-")
        self.ends, self.labels, self.names = array("q", [0]), array("i"), {None: 0}

    def add(self, document):
        is_text = isinstance(document.content, str)
        data = document.content.encode() if is_text else document.content.astype(np.int64).tobytes()
        with explain_full_disk(tempfile.gettempdir() + "/text", do="set TMPDIR to a folder on a larger disk"):
            self.file.write(data)
        self.ends.append(self.ends[-1] + len(data))
        self.labels.append(self.names.setdefault(document.label, len(self.names)))
        self.is_text = is_text

    def read(self, order):
        """The documents of these numbers."""
        names = list(self.names)
        for number in order:
            self.file.seek(self.ends[number])
            data = self.file.read(self.ends[number + 1] - self.ends[number])
            yield Document(data.decode() if self.is_text else np.frombuffer(data, np.int64), names[self.labels[number]])

    def __len__(self):
        return len(self.labels)


def documents(source, *, seed, root, reading):
    """The `Document`s of a `spec.TextSource`, in their order."""
    if source.toyworld:
        from cltdb.toyworld.text import documents_with_languages

        for text, languages in documents_with_languages(seed):
            reading.n_documents += 1
            language = None if source.label_column and len(languages) > 1 else languages[0]
            yield Document(text, source.label or language)
    elif source.files:
        store = _stored(_rows_of_files(existing_files(root, source), source, root), source, reading)
        order = list(range(len(store)))
        random.Random(seed).shuffle(order)
        yield from store.read(order)
    else:
        yield from _dataset_documents(source, seed=seed, root=root, reading=reading)


def _rows_of_files(paths, source, root, *, by_line=False):
    """(place, `Row`) of all rows of files; a place is a path relative to `root` where it is below."""
    for path in paths:
        shown = str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else str(path)
        for row in file_rows(path, columns_of(source), by_line=by_line):
            yield shown, row


def _stored(rows, source, reading):
    store = _Store()
    for place, row in rows:
        if document := reading.taken(row, source, place):
            store.add(document)
    return store


# Datasets


def _dataset_documents(source, *, seed, root, reading):
    folder = Path(root) / source.dataset
    if folder.is_dir() and not is_saved(folder):
        rows = _rows_of_folder(folder, source, root)
        if rows is not None:
            if source.streaming:
                yield from _as_they_come(rows, source, reading)
                return
            store = _stored(rows, source, reading)
            yield from store.read(np.random.default_rng(seed).permutation(len(store)).tolist())  # as datasets shuffles
            return
    rows = dataset_rows(opened(folder, source), source, seed=seed)
    yield from _as_they_come(((source.dataset, row) for row in rows), source, reading)


def _as_they_come(rows, source, reading):
    """The `Document`s of rows that nobody has counted, and that may never end."""
    for place, row in rows:
        if document := reading.taken(row, source, place):
            yield document
        else:
            reading.check(max(reading.n_documents, JUDGED_DOCUMENTS))


def _rows_of_folder(folder, source, root):
    """(place, `Row`) of the rows of a folder that is laid out as a dataset of the Hub; None where datasets has to read it: kinds of files
    that we do not know, configurations with settings of their own."""
    with explained(source, is_local=True):
        found = _files_by_split(folder, source)
        if found is None:
            return None
        splits, kind = found
        parts = [part.strip() for part in source.split.split("+")]
        names = [part.split("[")[0] for part in parts]
        check_splits(names, splits, source)
    by_line = kind == "text"
    if names == parts:
        return (pair for name in names for pair in _rows_of_files(splits[name], source, root, by_line=by_line))
    return _slices(source, {name: (splits[name], by_line) for name in names}, root)


def _slices(source, splits, root):
    """The rows that a split such as `train[:10%]` names."""
    import datasets

    rows = {name: list(_rows_of_files(paths, source, root, by_line=by_line)) for name, (paths, by_line) in splits.items()}
    instruction = datasets.ReadInstruction.from_spec(source.split)
    with explained(source, is_local=True):
        parts = instruction.to_absolute({name: len(found) for name, found in rows.items()})
    for part in parts:
        yield from rows[part.splitname][part.from_ : part.to]


def _files_by_split(folder, source):
    """({split: paths}, kind) as datasets finds them, or None where it has to read them itself."""
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
    from datasets.load import infer_module_for_data_files

    base = glob.escape(folder.resolve().as_posix())  # else brackets in the folder's name would be patterns too
    configs = _configurations(folder)
    if configs is None or source.config and source.config not in configs:
        return None
    chosen = configs.get(source.config) if source.config else _default(configs)
    if chosen is None:
        patterns = get_data_patterns(base)
    elif set(chosen) <= {"config_name", "data_files", "default"} and "data_files" in chosen:
        patterns = sanitize_patterns(chosen["data_files"])
    else:
        return None
    files = DataFilesDict.from_patterns(patterns, base_path=base)
    kind, settings = infer_module_for_data_files(data_files=files, path=str(folder))
    if kind not in READ_BY_US or settings:
        return None
    return {str(split): [path for path in dict.fromkeys(paths) if _is_of(path, kind)] for split, paths in files.items()}, kind


def _is_of(path, kind):
    try:
        found = file_kind(path)[0]
    except DataError:
        return False
    return found == kind or (found, kind) == ("tsv", "csv")


def _configurations(folder):
    """{name: settings} of the configurations that a folder's README.md describes."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    if (folder / ".huggingface.yaml").is_file():
        return None
    if not (folder / "README.md").is_file():
        return {}
    return MetadataConfigs.from_dataset_card_data(DatasetCard.load(folder / "README.md").data)


def _default(configs):
    """The settings of the default configuration, or None where there are none."""
    if not configs:
        return None
    if len(configs) == 1:
        return next(iter(configs.values()))
    chosen = [settings for name, settings in configs.items() if settings.get("default") or name == "default"]
    if chosen:
        return chosen[0]
    raise ValueError(f"several configurations, {', '.join(configs)}: name one with config")
