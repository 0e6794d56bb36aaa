"""The table `metrics`, which training and evaluation both write: `<artifact>/tables/metrics/<stage>.parquet`."""

from cltdb.engine.workspace import write_parquet


def write_metrics(path, *, dict_id, stage, rows, variant=None, label=None, intervals=None):
    """Writes rows (step, layer or None for pooled, name, value) as the table `metrics`. variant: which MLPs were replaced; None: all.
    label: of whose text alone; None: of all. intervals: per row (low, high), or None of a row without; None of none."""
    import pyarrow as pa

    step, layer, name, value = zip(*rows, strict=True)
    low, high = zip(*(interval or (None, None) for interval in intervals or [None] * len(rows)), strict=True)
    write_parquet(
        path,
        pa.table(
            {
                "dict_id": [dict_id] * len(rows),
                "stage": [stage] * len(rows),
                "step": pa.array(step, pa.int64()),
                "layer": pa.array(layer, pa.int32()),
                "name": name,
                "value": pa.array(value, pa.float64()),
                "variant": pa.array([variant] * len(rows), pa.string()),
                "label": pa.array([label] * len(rows), pa.string()),
                "ci_low": pa.array(low, pa.float64()),
                "ci_high": pa.array(high, pa.float64()),
            }
        ),
    )
