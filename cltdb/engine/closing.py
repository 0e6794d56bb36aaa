"""What a run says at its end: the lines of each stage on its artifact, and the points of a sweep side by side.

Reads the artifacts of the run itself, not the database, which also holds what others brought.
"""

from cltdb.engine.integrity import checked
from cltdb.engine.records import records_in_order
from cltdb.engine.workspace import read_parquet

NAMED = 8
"""Digits of an artifact's key that lines show."""


def headlines(stages, made):
    """Lines of text on the artifacts of a run. stages: the table of stages; made: {stage: directory}."""
    return [line for name, stage in stages.items() if made.get(name) for line in stage.lines(made)]


def named(directory):
    """How lines name an artifact."""
    return f"{directory.parent.name} {directory.name[:NAMED]}"


def table(directory, name):
    """A table that an artifact wrote, as a polars frame; None where it has no rows."""
    import polars as pl

    paths = [checked(path) for path in sorted((directory / "tables" / name).glob("*.parquet"))]
    return pl.concat([read_parquet(path) for path in paths], how="vertical_relaxed") if paths else None


def comparison(results):
    """Lines of a table, a row per point of a sweep (`run.PointResult`s) in order: what each stage says of its artifact."""
    made_by = {record["key"]: record for record in records_in_order(results[0].loaded.project) if record["seconds"]}
    cells = [_cells(result, made_by) for result in results]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    rows = [("point", *columns, "")]
    for result, row in zip(results, cells, strict=True):
        rows.append((result.loaded.experiment.name, *(row.get(name, "") for name in columns), "failed" if result.error else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _cells(result, made_by):
    """{column: text} of a point of a sweep, what the last stage says first."""
    cells = {}
    for made in reversed(result.stages):
        if made.directory:
            stage = result.loaded.experiment.stages[made.stage]
            cells |= stage.compared(made.directory, made_by.get(made.directory.name))
    return cells
