"""The columns of the tables of stage `groups`, and their parts."""

import polars as pl

from cltdb.engine.workspace import write_parquet

NUMBERS = ("value", "ci_low", "ci_high", "corrected", "corrected_ci_low", "corrected_ci_high")
SETTING = {"layer": pl.Int32, "feature": pl.Int32, "position": pl.Int32, "operation": pl.String, "value": pl.Float64}
COLUMNS = {
    "group_prompts": {
        **dict.fromkeys(("groups_id", "dict_id", "concept", "kind", "label", "prompt", "target"), pl.String),
        **{"tokens": pl.List(pl.Int32), "target_token": pl.Int32, "probability": pl.Float64, "top_token": pl.Int32},
        **{"replacement_score": pl.Float64, "n_active": pl.List(pl.Int32)},
        **dict.fromkeys(("feature_influence", "error_influence"), pl.List(pl.Float64)),
    },
    "group_overlaps": {
        **{"groups_id": pl.String, "dict_id": pl.String, "layer": pl.Int32},
        **dict.fromkeys(("label_a", "label_b", "keyed_by", "weighting", "null_kind"), pl.String),
        **dict.fromkeys(NUMBERS, pl.Float64),
        "n": pl.Int64,
    },
    "label_features": {
        **{"groups_id": pl.String, "dict_id": pl.String, "label": pl.String},
        **dict.fromkeys(("layer", "feature", "rank"), pl.Int32),
        **dict.fromkeys(("recurrence", "influence", "contrast", "effect", "auc", "auc_matched", "matched_share"), pl.Float64),
        **dict.fromkeys(("embedding_share", "probe_cosine", "high"), pl.Float64),
    },
    "label_scores": {
        **{"groups_id": pl.String, "dict_id": pl.String, "label": pl.String, "first_layer": pl.Int32, "n_features": pl.Int32},
        **dict.fromkeys(("auc", "auc_matched", "matched_share", "fitted_auc", "fitted_auc_matched"), pl.Float64),
        "n_pieces": pl.Int32,
    },
    "interventions": {
        **dict.fromkeys(("intervention_id", "graph_id", "dict_id", "model_id", "prompt"), pl.String),
        **{"tokens": pl.List(pl.Int32), "mode": pl.String, "until_layer": pl.Int32},
        **{
            "settings": pl.List(pl.Struct(SETTING)),
            "given": pl.List(pl.String),
            "created_at": pl.String,
            "text_without": pl.String,
            "text_with": pl.String,
        },
    },
    "intervention_effects": {
        **{"intervention_id": pl.String, "kind": pl.String, "position": pl.Int32, "token": pl.Int32},
        **dict.fromkeys(("layer", "feature"), pl.Int32),
        **dict.fromkeys(("before", "after", "predicted", "probability_before", "probability_after"), pl.Float64),
    },
    "substitutions": {
        **dict.fromkeys(("groups_id", "dict_id", "label_from", "label_to", "part", "control"), pl.String),
        **{"draw": pl.Int32, "n_suppressed": pl.Int32, "n_boosted": pl.Int32},
        **{
            "n_features": pl.Int32,
            "positions": pl.String,
            "set_to": pl.String,
            "suppress": pl.Float64,
            "boost": pl.Float64,
            "is_best": pl.Boolean,
            "n": pl.Int32,
        },
        **dict.fromkeys(
            ("rate_label", "rate_concept", "rate_right", "kl_nats", "text_rate_label", "text_rate_right"), pl.Float64
        ),
    },
}


def write_rows(directory, names, table, rows):
    """Writes rows as dicts, each with those of the columns `names` that the table has, as its one part."""
    same = {name: value for name, value in names.items() if name in COLUMNS[table]}
    frame = pl.DataFrame([same | row for row in rows], schema=COLUMNS[table])
    if "created_at" in frame.columns:
        frame = frame.with_columns(pl.col("created_at").str.to_datetime(time_unit="us"))
    write_parquet(directory / f"tables/{table}/{table}.parquet", frame)
