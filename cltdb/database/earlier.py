"""Rows of artifacts that an earlier cltdb made, in the form that tables have today."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def windows(contexts):
    """Rows of table windows from those of table contexts, which held every token and activation of a window."""
    contexts = contexts.combine_chunks()
    tokens, dense = contexts["tokens"].combine_chunks(), contexts["activations"].combine_chunks()
    length, values = pc.list_value_length(tokens).to_numpy(), dense.flatten().to_numpy()
    row, active = np.repeat(np.arange(len(contexts)), length), values > 0
    begins = np.cumsum(length) - length
    bounds = np.concatenate([[0], np.cumsum(np.bincount(row[active], minlength=len(contexts)))]).astype(np.int32)
    peak = begins + contexts["position"].to_numpy() - contexts["start"].to_numpy()
    kept = contexts.drop_columns(["activations"])
    added = {
        "length": pa.array(length.astype(np.int32)),
        "offsets": pa.ListArray.from_arrays(bounds, pa.array((np.arange(len(values)) - begins[row])[active].astype(np.uint16))),
        "activations": pa.ListArray.from_arrays(bounds, pa.array(values[active])),
        "peak_token": pa.array(tokens.flatten().to_numpy()[peak]),
    }
    return pa.table({**dict(zip(kept.column_names, kept.columns, strict=True)), **added})


FORMS = {"contexts": windows}
"""{name of a table in an artifact: what makes rows of today's table (`tables.EARLIER_NAMES`) of its rows}."""
