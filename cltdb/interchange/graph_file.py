"""Reads and checks one attribution-graph JSON file of any tool; graph_import.py makes rows of it.

Numbers are checked against what they are: influence of nodes is a cumulative share of the graph's, probabilities and scores lie between
0 and 1, sums of absolute weights are not negative, and what is stored in single precision fits it.
"""

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cltdb.errors import DataError
from cltdb.interchange.graph_json import EXTRA, EXTRA_VERSION, SCHEMA_VERSION

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
PICKLED = (b"PK\x03\x04", b"\x80")
"""How files of torch.save and pickle begin."""
ROUNDING = 1e-4
"""By how much a share may exceed 1: other tools add up in single precision."""
Index = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1 + ROUNDING)]
NotNegative = Annotated[float, Field(ge=0)]
Single = Annotated[float, Field(ge=-3.4e38, le=3.4e38)]


class _Part(BaseModel):
    """What is read of a JSON object; other keys are other tools' own."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class NodeExtra(_Part):
    influence: NotNegative | None = None
    pre_activation: Single | None = None
    bias: Single | None = None
    dropped_mass: Annotated[Single, Field(ge=0)] | None = None
    expanded: bool | None = None
    token: Index | None = None
    is_direction: bool = False
    probability: Share | None = None


class _Node(_Part):
    node_id: str
    feature: int | None = None
    layer: str | int
    ctx_idx: Index
    feature_type: str
    clerp: str | None = None
    token_prob: Share | None = None
    influence: Share | None = None
    activation: Single | None = None
    cltdb: NodeExtra | None = None


class LinkExtra(_Part):
    influence: NotNegative | None = None
    measured: float | None = None


class _Link(_Part):
    source: str
    target: str
    weight: float
    cltdb: LinkExtra | None = None


class PruningSettings(_Part):
    node_threshold: Share | None = None
    edge_threshold: Share | None = None


class _FeatureDetails(_Part):
    neuronpedia_source_set: str | None = None


class _Metadata(_Part):
    slug: str
    scan: str
    prompt_tokens: list[str]
    prompt: str
    node_threshold: Share | None = None
    schema_version: int | None = None
    pruning_settings: PruningSettings | None = None
    feature_details: _FeatureDetails | None = None
    replacement_score: Share | None = None
    completeness_score: Share | None = None


class _QParams(_Part):
    supernodes: list[list[str]] | None = None
    pinnedIds: list[str] | None = None
    sg_pos: str | None = None


class _Annotations(_Part):
    pinned: list[str] = []
    hidden: list[str] = []
    labels: dict[str, str] = {}
    notes: dict[str, str] = {}
    note: str = ""
    group_notes: dict[str, str] = {}


class _GraphExtra(_Part):
    format_version: int
    dict_id: str | None = None
    model_id: str | None = None
    prompt_id: str | None = None
    tokens: list[Index | None] | None = None
    target: str | None = None
    foil: str | None = None
    n_features_active: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    pruned_replacement_score: Share | None = None
    pruned_completeness_score: Share | None = None
    total_influence: NotNegative | None = None
    max_abs_error: NotNegative | None = None
    seconds: NotNegative | None = None
    annotations: _Annotations | None = None


class GraphFile(_Part):
    metadata: _Metadata
    qParams: _QParams | None = None
    nodes: Annotated[list[_Node], Field(min_length=1)]
    links: list[_Link]
    cltdb: _GraphExtra | None = None


def read_file(path):
    """(the checked `GraphFile`, its bytes); DataError, with the node or link, where it is not one of schema version 1."""
    try:
        content = Path(path).read_bytes()
        _refuse_pickle(path, content)
        value = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_each_once)
    except (OSError, ValueError, RecursionError) as error:
        raise wrong(path, f"no JSON ({error})", expected="an attribution graph as JSON, in UTF-8") from error
    if SURROGATE.search(content.decode("utf-8-sig")):
        value = _whole_characters(value)
    if isinstance(value, dict) and isinstance(value.get("metadata"), dict):
        _check_schema(value["metadata"], path)
    try:
        file = GraphFile.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        expected = "at least one" if first["type"] == "too_short" else first["msg"]
        raise wrong(f"{path}{_place(first['loc'], value)}", _found(first), expected=expected) from error
    if file.cltdb and file.cltdb.format_version != EXTRA_VERSION:
        found = f"format_version {file.cltdb.format_version} of its key {EXTRA}"
        raise wrong(path, found, expected=str(EXTRA_VERSION), do="import it with the cltdb version that wrote it")
    return file, content


def _refuse_constant(name):
    raise ValueError(f"{name} is no JSON number")


def _each_once(pairs):
    """The object of these (name, value) pairs. ValueError where a name stands twice: readers differ in which of the two they take."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r:.60} twice in one object")
    return value


def _refuse_pickle(path, content):
    if not content.startswith(PICKLED) and Path(path).suffix.lower() not in (".pt", ".pth", ".pkl"):
        return
    raise wrong(
        path,
        "a file of torch.save or pickle, which can run code when it is read",
        expected="an attribution graph as JSON",
        do="write it as JSON where it was made: circuit_tracer.utils.create_graph_files(graph, slug, output_path)",
    )


def _check_schema(metadata, path):
    details = metadata.get("feature_details")
    version = metadata.get("schema_version")
    if version is None and isinstance(details, dict) and details.get("neuronpedia_source_set"):
        return  # whose features are Cantor pairs as well
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise wrong(
            path,
            "no schema_version (the old decimal feature ids)" if version is None else f"schema_version {version!r}",
            expected=f"schema_version {SCHEMA_VERSION}, whose features are Cantor pairs",
            do="write the file again with a newer version of its tool",
        )


def _place(location, value):
    """Where in the file a value stands, with the id of its node or the ends of its link."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f" {part}" for part in location)
    if len(location) > 1 and location[0] in ("nodes", "links") and isinstance(location[1], int):
        item = value[location[0]][location[1]]
        if isinstance(item, dict):
            text += f" ({item.get('node_id') or ' to '.join(str(item.get(end)) for end in ('source', 'target'))})"
    return text


def _found(error):
    if error["type"] == "too_short":
        return "none"
    return "nothing" if error["type"] == "missing" else f"{error['input']!r:.100}"


def wrong(where, found, *, expected, do="mend the file, or export it again"):
    return DataError(where, found=found, expected=expected, do=do)


def _whole_characters(value):
    """The value with the two halves of a character (surrogates) joined, and lone halves replaced: no text can hold these."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_whole_characters(item) for item in value]
        case dict():
            return {_whole_characters(name): _whole_characters(item) for name, item in value.items()}
    return value
