"""What passes have seen: a file for each stretch of the text, `parts/<first sequence>-<stop>.safetensors`, complete once it has its name.

A file holds what was found in its stretch alone, per layer: statistics, candidates for contexts, and firings at chosen tokens. So nothing is
written twice, and whoever puts all together needs the features of one range in memory. Rows are by feature; firings at the counted
tokens are by token.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cltdb.engine.workspace import write_safetensors
from cltdb.errors import CltdbError
from cltdb.harvest.candidates import Peaks, joined
from cltdb.harvest.chosen_tokens import Firings
from cltdb.harvest.labels import Cells, summed
from cltdb.harvest.statistics import RunningStatistics
from cltdb.harvest.windows import by_feature
from cltdb.tensor_files import mapped_tensors

FOLDER = "parts"


class Part(NamedTuple):
    first: int
    stop: int
    path: Path


def parts(directory):
    """The `Part`s that are there, in the order of the text."""
    paths = (Path(directory) / FOLDER).glob("*.safetensors")
    return sorted(Part(*map(int, path.stem.split("-")), path) for path in paths)


def unseen(stretch, seen):
    """What no part of `seen` covers of a stretch, as ranges of sequences."""
    left, first = [], stretch.start
    for part in seen:
        left.append(range(first, min(part.first, stretch.stop)))
        first = max(first, part.stop)
    return [one for one in (*left, range(first, stretch.stop)) if len(one)]


def write_part(directory, stretch, found):
    """found: {layer: {kind: {column: array}}}."""
    tensors = {
        f"{layer}.{kind}.{name}": torch.from_numpy(np.ascontiguousarray(column))
        for layer, kinds in found.items()
        for kind, columns in kinds.items()
        for name, column in columns.items()
    }
    write_safetensors(Path(directory) / FOLDER / f"{stretch.start:08d}-{stretch.stop:08d}.safetensors", tensors)


class Found:
    """All parts of a directory, of a text of `n_seqs` sequences, together; files are mapped for as long as a method runs."""

    def __init__(self, directory, n_seqs):
        whole = parts(directory)
        if [0, *(part.stop for part in whole)] != [*(part.first for part in whole), n_seqs]:
            raise CltdbError(
                f"harvest ({Path(directory) / FOLDER})",
                found="parts that have some of the text twice or not at all: a process of an earlier run still writes there, or files were removed",
                expected=f"each of the {n_seqs:,} sequences once",
                do="end such processes, delete this folder, and run again",
            )
        self.paths = [part.path for part in whole]

    def statistics(self, layer, n_features):
        """`RunningStatistics` of a layer."""
        whole = RunningStatistics(n_features)
        for columns in self._columns(layer, "statistics"):
            whole.absorb(columns)
        return whole

    def peaks(self, layer, features):
        """The candidates of a range of features, by feature and place."""
        found = []
        for columns in self._columns(layer, "peaks"):
            low, high = np.searchsorted(columns["feature"], [features.start, features.stop])
            entries = slice(*(int(columns["end"][row - 1]) if row else 0 for row in (low, high)))
            rows = [columns[name][low:high] for name in Peaks._fields[:4]]
            found.append(
                Peaks(*rows, columns["end"][low:high] - entries.start, columns["offset"][entries], columns["value"][entries])
            )
        whole = joined(found)
        return whole.take(by_feature(whole.feature))

    def cells(self, layer, features, n_labels):
        """The label counts, `labels.Cells`, of a range of features."""
        found = []
        for columns in self._columns(layer, "labels"):
            rows = slice(*np.searchsorted(columns["cell"], [features.start * n_labels, features.stop * n_labels]))
            found.append(Cells(*(columns[name][..., rows] for name in Cells._fields)))
        return summed(found)

    def firings(self, layer, kind, features=None):
        """`Firings` at the chosen tokens of a kind, in the order of the text; features: a range, of a kind that is by feature."""
        found = []
        for columns in self._columns(layer, kind):
            rows = slice(*np.searchsorted(columns["feature"], [features.start, features.stop])) if features else slice(None)
            found.append(Firings(*(columns[name][rows] for name in Firings._fields)))
        return Firings(*map(np.concatenate, zip(*found, strict=True)))

    def _columns(self, layer, kind):
        """Yields the columns {name: array} that each part has."""
        for path in self.paths:
            tensors, prefix = mapped_tensors(path), f"{layer}.{kind}."
            yield {name.removeprefix(prefix): tensor.numpy() for name, tensor in tensors.items() if name.startswith(prefix)}
