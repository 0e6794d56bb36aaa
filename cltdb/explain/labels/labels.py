"""Texts about features from files of other tools, as one frame. Reads: the files of section `explain.labels`.

A format is a module with `files(path)`, those of a file or folder in the order in which they are read; `frames(paths)`, which yields frames with
the columns of rows.RAW; `PLACE`, what a row's number counts; `NAMES`, what the format calls layer, feature and text. What holds for all formats
is here. Nothing says who wrote the texts: each becomes one line without control characters, of at most MAX_CHARACTERS. Empty ones are left out,
and of several that an explainer has for one side of a feature all but the first; how many is logged.
"""

import logging
import re
from itertools import islice
from pathlib import Path

import polars as pl

from cltdb.engine.content import fingerprint
from cltdb.errors import DataError, shown
from cltdb.explain.labels import circuit_tracer, neuronpedia, table

logger = logging.getLogger(__name__)

FORMATS = {"neuronpedia": neuronpedia, "circuit_tracer": circuit_tracer, "table": table}
"""{name in `explain.labels[*].format`: module}."""
SCHEMA = {
    "layer": pl.Int32,
    "feature": pl.Int32,
    "side": pl.String,
    "text": pl.String,
    "explainer": pl.String,
    "model": pl.String,
}
SIDES = ("input", "output")
MAX_CHARACTERS, MAX_NAME = 600, 200
ENOUGH_ROWS = 50_000
UNPRINTABLE = r"[\s\p{Cc}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2066}-\x{2069}\x{FEFF}]+"
"""White space, control characters, and marks of writing direction, with which a text can look like another."""


def label_files(section, root):
    """The files that a section `Labels` names, in the order in which they are read; none where nothing is there."""
    path = Path(root) / section.path
    return FORMATS[section.format].files(path) if path.exists() else []


def labels_content(sections, root):
    """What stands in a key for the content of the files of each section."""
    return [fingerprint(label_files(section, root)) for section in sections]


def check_labels(sections, root):
    """Refuses sections whose files are not there, or whose first rows are no labels."""
    for section in sections:
        reader = _Reader(section, _present_files(section, root), None)
        for rows in islice(FORMATS[section.format].frames(reader.paths), 1):
            reader.labels(rows)


def _present_files(section, root):
    """`label_files`, at least one."""
    if found := label_files(section, root):
        return found
    raise DataError(
        f"explain.labels {section.name} path",
        found=f"no {'file of this format in' if (Path(root) / section.path).is_dir() else 'file or folder'} {section.path}",
        expected=f"a file of format {section.format}, or a folder of such files, relative to cltdb.yaml",
        do="mend the path or the format",
    )


def labels_of(section, root, features=None):
    """The labels of a section `Labels`, a frame with the columns of SCHEMA in the order of the files; explainer is the section's name, or
    `name:theirs` where a file names its explainers; model may be NULL.

    root: the folder of cltdb.yaml; features: frame (layer, feature) of all features of the dictionary, to which labels must belong. DataError
    names file and line of the first label that is wrong.
    """
    reader = _Reader(section, _present_files(section, root), features)
    frames = [reader.labels(rows) for rows in _together(FORMATS[section.format].frames(reader.paths))]
    texts = pl.concat([pl.DataFrame(schema=SCHEMA), *frames])
    place = pl.col("layer").cast(pl.Int64) * 10**9 + pl.col("feature")
    of_feature = 2 * place + (pl.col("side") == SIDES[0])  # one number is compared faster than three columns
    kept = texts.filter(of_feature.is_first_distinct().over(pl.col("explainer").cast(pl.Categorical).to_physical()))
    if kept.is_empty():
        raise DataError(
            str(Path(root) / section.path),
            found=f"{reader.n_rows:,} rows, none of them with a text",
            expected=f"rows with a text as {reader.names['text']}",
            do=f"mend the path, the format or the layer_names of explain.labels {section.name}",
        )
    left_out = {
        "of layers with other names": reader.n_elsewhere,
        "empty": reader.n_rows - reader.n_elsewhere - texts.height,
        "after the first of their feature": texts.height - kept.height,
    }
    said = "".join(f"; {n:,} left out, {why}" for why, n in left_out.items() if n)
    logger.info("labels %s: %s texts, files read: %d%s", section.name, f"{kept.height:,}", len(reader.paths), said)
    return kept


def _together(frames):
    """The same rows in frames of at least ENOUGH_ROWS: an export has hundreds of small files."""
    held = []
    for frame in frames:
        held.append(frame)
        if sum(one.height for one in held) >= ENOUGH_ROWS:
            yield pl.concat(held)
            held = []
    yield from [pl.concat(held)] if held else []


class _Reader:
    """What has been read of one section so far: the layer that each name means, and counts."""

    def __init__(self, section, paths, features):
        self.section, self.paths, self.features = section, paths, features
        self.names, self.place = FORMATS[section.format].NAMES, FORMATS[section.format].PLACE
        self.layers, self.n_rows, self.n_elsewhere = {}, 0, 0

    def labels(self, rows):
        """A frame of SCHEMA of the rows of a frame of RAW that have a text."""
        self._learn_layers(rows)
        layer = pl.col("source").replace_strict(self.layers, default=None, return_dtype=pl.Int32)
        feature = pl.col("feature").str.strip_chars().str.strip_suffix(".0")
        rows = rows.with_columns(
            layer=layer,
            index=pl.when(feature.str.contains("^[0-9]{1,9}$")).then(feature).cast(pl.Int32),
            side=pl.col("side").fill_null("input"),
        )
        here = rows.filter(pl.col("layer").is_not_null())
        self.n_rows, self.n_elsewhere = self.n_rows + rows.height, self.n_elsewhere + rows.height - here.height
        self._refuse(here.filter(pl.col("index").is_null()), "feature", "a feature's number from 0")
        self._refuse(here.filter(~pl.col("side").is_in(SIDES)), "side", " or ".join(SIDES))
        if self.features is not None:
            self._refuse_strangers(here)
        name, theirs = pl.lit(self.section.name), _plain("explainer", MAX_NAME)
        model = _plain("model", MAX_NAME)
        return here.select(
            "layer",
            pl.col("index").alias("feature"),
            "side",
            _plain("text", MAX_CHARACTERS),
            pl.when(theirs != "").then(name + ":" + theirs).otherwise(name).alias("explainer"),
            pl.when(model != "").then(model).alias("model"),
        ).filter(pl.col("text") != "")

    def _learn_layers(self, rows):
        """Adds the layers of the names that are new: those of layer_names, or the numbers that names begin with."""
        given = self.section.layer_names
        for source in rows["source"].unique(maintain_order=True).to_list():
            if source in self.layers:
                continue
            number = re.match(r"\s*([0-9]{1,4})(?:\.0)?(?![0-9.])", source or "")
            layer = given.get(source) if given else int(number[1]) if number else None
            beside = next((other for other, taken in self.layers.items() if taken == layer), None)
            first = rows.filter(pl.col("source").eq_missing(source))
            if layer is None and not given:
                self._refuse(
                    first, "source", "a layer's number, or a name that begins with it", do="say in layer_names which layer it is"
                )
            if layer is not None and beside is not None and not given:
                do = "say in layer_names which names are those of this dictionary; the others are left out"
                self._refuse(first, "source", f"one name of layer {layer}, which {shown(beside)} is too", do=do)
            self.layers[source] = layer

    def _refuse(self, wrong, column, expected, *, do="mend the file, or name another"):
        """Raises a DataError that names the first of the wrong rows; without any does nothing."""
        if wrong.height:
            row = wrong.row(0, named=True)
            name, value = self.names.get(column, column), row[column]
            found = f"no {name}" if value is None else f"{name} {shown(value)}"
            raise DataError(f"{self.paths[row['file']]}, {self.place} {row['number']}", found=found, expected=expected, do=do)

    def _refuse_strangers(self, here):
        """Refuses features that the dictionary does not have."""
        known = self.features.select(pl.col("layer", "feature").cast(pl.Int32))
        strangers = here.join(known, left_on=["layer", "index"], right_on=["layer", "feature"], how="anti", maintain_order="left")
        if strangers.height:
            layers = known["layer"].unique().sort().to_list()
            n_features, do = known.height // len(layers), "name labels of this dictionary, or its layers in layer_names"
            if strangers["layer"][0] not in layers:
                self._refuse(strangers, "source", f"one of the dictionary's layers, {layers[0]} to {layers[-1]}", do=do)
            self._refuse(strangers, "feature", f"one of the dictionary's {n_features:,} features per layer", do=do)


def _plain(column, length):
    """A column as text of one line, without what cannot be printed, of at most `length` characters; NULL as the empty text."""
    text = pl.col(column).fill_null("").str.replace_all(UNPRINTABLE, " ").str.strip_chars()
    return text.str.slice(0, length).str.strip_chars_end().alias(column)
