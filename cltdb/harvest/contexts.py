"""The contexts of a finished harvest, as the stage explain reads them. Reads: `tables/windows` and `tables/harvested_text`; of a harvest
made by an earlier cltdb `tables/contexts`, whose rows hold their tokens and the activation at each."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from cltdb.engine.integrity import checked
from cltdb.engine.workspace import read_parquet

EARLIER = "contexts"


def read_table(directory, table):
    """The rows of a table of a harvest."""
    return read_parquet(*(checked(path) for path in sorted((Path(directory) / "tables" / table).glob("*.parquet"))))


class Lists(NamedTuple):
    """Lists of different lengths: list i is values[begin[i] : begin[i] + length[i]]."""

    values: np.ndarray
    begin: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, series):
        """Those of a list column."""
        array = series.rechunk().to_arrow()
        values, offsets = (
            pl.from_arrow(part).to_numpy() for part in (array.values, array.offsets)
        )  # pyarrow's own imports pandas
        return cls(values, offsets[:-1], np.diff(offsets))

    def padded(self, first, stop, *, width, fill):
        """Lists first to stop - 1 as a matrix, each filled up to `width`."""
        row, column, values = self._entries(first, stop)
        return _matrix(row, column, values, shape=(stop - first, width), fill=fill)

    def spread(self, columns, first, stop, *, width):
        """Lists first to stop - 1 as a matrix of zeros, in which each value stands in the column that `columns`, of the same lengths,
        has for it."""
        row, _, values = self._entries(first, stop)
        return _matrix(row, columns._entries(first, stop)[2], values, shape=(stop - first, width), fill=0)

    def _entries(self, first, stop):
        """(row, column, value) of every value of the lists first to stop - 1, rows counted from `first`."""
        begin, length = self.begin[first:stop], self.length[first:stop]
        row = np.repeat(np.arange(stop - first), length)
        column = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        return row, column, self.values[begin[row] + column]


def _matrix(row, column, values, *, shape, fill):
    matrix = np.full(shape, fill, dtype=values.dtype)
    matrix[row, column] = values
    return matrix


class Contexts:
    """`rows`: a frame by layer and feature, with the columns of table contexts or windows."""

    def __init__(self, directory):
        is_earlier = (Path(directory) / "tables" / EARLIER).is_dir()
        self.rows = read_table(directory, EARLIER if is_earlier else "windows").sort("layer", "feature", maintain_order=True)
        self._activations, self._offsets = Lists.of(self.rows["activations"]), None
        if is_earlier:
            self._tokens = Lists.of(self.rows["tokens"])
        else:
            self._offsets, self._tokens = (
                Lists.of(self.rows["offsets"]),
                _slices(read_table(directory, "harvested_text"), self.rows),
            )

    @property
    def longest(self):
        """The tokens of the longest context."""
        return int(self._tokens.length.max(initial=0))

    def known_tokens(self):
        """The tokens of the text that the contexts are parts of, each once, sorted."""
        return np.unique(self._tokens.values)

    def tokens(self, first, stop, *, width):
        """Those of rows first to stop - 1, int32 [n, width], -1 after the end."""
        return self._tokens.padded(first, stop, width=width, fill=-1)

    def activations(self, first, stop, *, width):
        """Of the feature of each row at these tokens, float32 [n, width], 0 after the end."""
        if self._offsets is None:
            return self._activations.padded(first, stop, width=width, fill=0)
        return self._activations.spread(self._offsets, first, stop, width=width)


def _slices(text, windows):
    """The tokens of each window as `Lists` of a text by sequence."""
    sequences = Lists.of(text["tokens"])
    row = np.searchsorted(text["sequence"].to_numpy(), windows["sequence"].to_numpy())
    return Lists(sequences.values, sequences.begin[row] + windows["start"].to_numpy(), windows["length"].to_numpy())
