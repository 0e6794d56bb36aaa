"""What a user writes of a feature or node: own label, note and stars, as an element that assets/own.js fills and saves."""

from dashboards.drawn import drawn


def own(*, dict_id=None, layer=None, feature=None, node=None):
    """The fields of a feature of a dictionary, or of a node of the graph of the page."""
    is_feature = dict_id is not None and feature is not None
    about = {"dict_id": dict_id, "layer": layer, "feature": feature} if is_feature else {"node": node, "feature": None}
    return drawn("own", about, name="Own label, note and lists")
