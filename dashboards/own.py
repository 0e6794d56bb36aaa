"""What a user writes of a feature or node: own label, note and stars, as an element that assets/own.js fills and saves."""

import polars as pl

from dashboards.drawn import drawn


def own(*, dict_id=None, layer=None, feature=None, node=None):
    """The fields of a feature of a dictionary, or of a node of the graph of the page."""
    is_feature = dict_id is not None and feature is not None
    about = {"dict_id": dict_id, "layer": layer, "feature": feature} if is_feature else {"node": node, "feature": None}
    return drawn("own", about, name="Own label, note and lists")


def with_own(frame, labels, *keys):
    """A frame with column `own`: a user's own label, NULL where there is none. labels: {value of column `keys`, or a tuple of those of several:
    label}."""
    rows = [(*(place if isinstance(place, tuple) else (place,)), label) for place, label in labels.items()]
    own_ones = pl.DataFrame(rows, schema={**{key: frame.schema[key] for key in keys}, "own": pl.String}, orient="row")
    return frame.join(own_ones, on=keys, how="left", maintain_order="left")


def with_own_labels(rows, labels, *, layer="layer", feature="feature", text="text"):
    """Rows {column: value} of features, with a user's own label in place of an explanation where there is one. labels: {(layer, feature): label};
    layer, feature, text: the columns that say which feature it is and what explainers say of it."""
    return [row | {text: labels.get((row[layer], row[feature]), row[text])} for row in rows]
