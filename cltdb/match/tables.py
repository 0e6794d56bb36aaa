"""Rows of the tables `feature_matches` and `dictionary_matches`."""

import numpy as np
import polars as pl

from cltdb.match.relations import ABOVE, pairs_above, share

COSINES = ("decoder_cosine", "encoder_cosine", "activation_correlation")
SHARES = ("share_a", "share_a_low", "share_a_high", "share_b", "share_b_low", "share_b_high", "control_share")
SUMMARY = {
    **{"dict_a": pl.String, "dict_b": pl.String, "layer": pl.Int32, "matched_by": pl.String, "above": pl.Float64},
    **dict.fromkeys(("n_a", "n_b", "n_matched"), pl.Int64),
    **dict.fromkeys((*SHARES, "highest_a", "highest_b", "control_highest"), pl.Float64),
    "n_tokens": pl.Int64,
}


def feature_rows(match, dict_a, dict_b):
    """The rows of table feature_matches of a `LayerMatch`, in the order of their key."""
    measured = {name: np.asarray(getattr(match, name), dtype=np.float64) for name in COSINES}
    frame = pl.DataFrame(
        {
            "dict_a": pl.repeat(dict_a, len(match.relation), eager=True),
            "layer_a": pl.repeat(match.layer, len(match.relation), dtype=pl.Int32, eager=True),
            "feature_a": match.feature_a.astype(np.int32),
            "dict_b": pl.repeat(dict_b, len(match.relation), eager=True),
            "layer_b": pl.repeat(match.layer, len(match.relation), dtype=pl.Int32, eager=True),
            "feature_b": match.feature_b.astype(np.int32),
            **measured,
            "relation": pl.Series(match.relation.tolist(), dtype=pl.String),
        }
    )
    there = [pl.when(pl.col(f"feature_{side}") >= 0).then(pl.col(f"feature_{side}")) for side in "ab"]
    layers = [pl.when(pl.col(f"feature_{side}") >= 0).then(pl.col(f"layer_{side}")).alias(f"layer_{side}") for side in "ab"]
    frame = frame.with_columns(*layers, *(pl.col(name).fill_nan(None) for name in COSINES)).with_columns(*there)
    return frame.sort("layer_a", "feature_a", "layer_b", "feature_b", nulls_last=True)


def summary_rows(matches, names):
    """The rows of table dictionary_matches of the `LayerMatch`es of all layers: of each and of all together. names: {column: value} of what is the same in
    all rows."""
    rows = []
    for layer, parts in [*((match.layer, [match]) for match in matches), (None, matches)]:
        n_a, n_b = (sum(getattr(part, name) for part in parts) for name in ("n_a", "n_b"))
        highest = {
            "highest_a": np.concatenate([part.assignment.highest_first for part in parts]).mean(),
            "highest_b": np.concatenate([part.assignment.highest_second for part in parts]).mean(),
            "control_highest": np.concatenate([part.control.highest_first for part in parts]).mean(),
        }
        for above in ABOVE:
            n_matched, by_chance = (
                sum(len(pairs_above(getattr(part, of), above)[0]) for part in parts) for of in ("assignment", "control")
            )
            of_a, of_b = share(n_matched, n_a), share(n_matched, n_b)
            found = dict(zip(SHARES, (*of_a, *of_b, by_chance / n_a), strict=True))
            counts = {"layer": layer, "above": above, "n_a": n_a, "n_b": n_b, "n_matched": n_matched}
            rows.append(names | counts | found | {name: float(value) for name, value in highest.items()})
    return pl.DataFrame(rows, schema=SUMMARY)
