"""Which node of an attribution-graph file an id means: an error and a feature of layer 0 can share one.

circuit-tracer's releases write an error as `0_{layer}_{position}`, the id of feature `layer` of layer 0 at that position. The two are told
apart by `feature_type`. A link of a shared id is the feature's where it leads to it, because nothing leads to an error; where it comes
from it, by what a graph allows (to a later layer, not to an earlier position) and by the order of links: circuit-tracer writes those of
one target by source, features by (layer, position, feature), then errors, then embeddings.
"""

import logging
import re

from cltdb.interchange.graph_file import wrong
from cltdb.interchange.graph_json import ERROR

log = logging.getLogger(__name__)

SHARED = "error "
"""Before the id of an error that a feature has as well."""


def nodes_by_key(file, path):
    """{key: node} of a `GraphFile`: the node's id, after SHARED for an error whose id is another node's too."""
    others = {node.node_id for node in file.nodes if node.feature_type != ERROR}
    nodes = {}
    for number, node in enumerate(file.nodes):
        key = f"{SHARED}{node.node_id}" if node.feature_type == ERROR and node.node_id in others else node.node_id
        if key in nodes:
            raise wrong(f"{path} nodes[{number}] ({node.node_id})", "a second node of this id", expected="each id once")
        nodes[key] = node
    return nodes


def check_id(node, kind, layer, where):
    """Refuses an id of three numbers, as every tool writes it, whose layer, token or position is not that of the node's fields."""
    match = re.fullmatch(r"([0-9]{1,9})_(-?[0-9]{1,9})_([0-9]{1,9})", node.node_id)
    if not match:
        return
    first, second, position = map(int, match.groups())
    is_right = {
        "feature": first == layer,
        "error": (first, second) in ((0, layer), (layer, -1)),
        "logit": second == node.feature,
    }[kind]
    if not is_right or position != node.ctx_idx:
        found = f"layer {node.layer}, feature {node.feature!s:.40}, ctx_idx {node.ctx_idx}, which are not those of its node_id"
        raise wrong(where, found, expected="an id that names its own layer and position")


def link_sources(file, places, heights, path):
    """The key of each link's source, in the order of the links; its target's key is the link's own.

    places: {key: (kind, layer, position, …)} in the order of the table's node_id; heights: {key: the layer it stands at}.
    """
    number = {key: row for row, key in enumerate(places)}
    into = {}
    for index, link in enumerate(file.links):
        if link.target in number:
            into.setdefault(link.target, []).append(index)
    options = [_options(link, places, heights) for link in file.links]
    unclear = [index for index, keys in enumerate(options) if len(keys) > 1]
    for target in {file.links[index].target for index in unclear}:
        _by_order(into[target], options, number)
    for index in unclear:
        link = file.links[index]
        if len(options[index]) > 1 and link.source not in into:
            options[index] = [f"{SHARED}{link.source}"]  # a feature that nothing leads to is not left by pruning
        if len(options[index]) > 1:
            raise wrong(
                f"{path} links[{index}] ({link.source} to {link.target})",
                f"{link.source}, the id of a feature and of an error, either of which could have this link",
                expected="an id of one node",
                do="write the file again with errors named {layer}_-1_{position}, as newer writers do",
            )
    if unclear:
        log.warning("%s: %d links come from an id of two nodes; the order of links says which", path, len(unclear))
    return [keys[0] for keys in options]


def _options(link, places, heights):
    """Keys that a link's source can mean, a feature's first; the id itself where none is possible."""
    keys = [link.source, f"{SHARED}{link.source}"]
    if keys[1] not in places or link.target not in places:
        return keys[:1]
    position = places[link.target][2]
    return [key for key in keys if heights[key] < heights[link.target] and places[key][2] <= position] or keys[:1]


def _by_order(links, options, number):
    """Narrows the `options` of one target's `links` to those with which the numbers of their sources can ascend; leaves them where none
    can."""
    numbers = [[number.get(key, -1) for key in options[index]] for index in links]
    lowest, highest = [], []
    for some in numbers:
        lowest.append(min((n for n in some if n > (lowest[-1] if lowest else -1)), default=None))
        if lowest[-1] is None:
            return
    for some in reversed(numbers):
        highest.insert(0, max((n for n in some if n < (highest[0] if highest else len(number))), default=None))
    lowest, highest = [-1, *lowest], [*highest, len(number)]
    for place, index in enumerate(links):
        options[index] = [key for key in options[index] if lowest[place] < number.get(key, -1) < highest[place + 1]]
