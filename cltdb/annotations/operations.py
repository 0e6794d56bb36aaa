"""The operations that events record, checked field by field. An operation names what it changes, never a whole state, so that those of
two browsers can be applied one after the other in any order.

An event is an operation with `id`, `at` (UTC), `author`, and the graph_id or dict_id that it is about.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cltdb.errors import CltdbError, shown

MAX_NAME, MAX_NOTE, MAX_MEMBERS = 200, 10_000, 20_000
"""Characters of a name or label, characters of a note, nodes or features that one operation names."""
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters, and marks of writing direction, with which a text can look like another; not tab and line feed."""
GRAPH, FEATURES = "graph_id", "dict_id"
"""What an event is about: a graph, or the features of a dictionary."""


def clean(text):
    """The text without what cannot be seen or stored; halves of characters (surrogates) become �."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return UNSEEN.sub("", whole.replace("\r\n", "\n")).strip()


def one_line(text):
    """A name: `clean`, on one line."""
    return " ".join(clean(text).split())


def _at_most(n):
    def check(text):
        if len(text) > n:
            raise ValueError(f"at most {n:,} characters")
        return text

    return AfterValidator(check)


def _not_empty(text):
    if not text:
        raise ValueError("a name that can be seen")
    return text


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
Index = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, AfterValidator(one_line), AfterValidator(_not_empty), _at_most(MAX_NAME)]
Label = Annotated[str, AfterValidator(one_line), _at_most(MAX_NAME)]
Note = Annotated[str, AfterValidator(clean), _at_most(MAX_NOTE)]
Nodes = Annotated[list[Index], Field(max_length=MAX_MEMBERS)]
Features = Annotated[list[Annotated[list[Index], Field(min_length=2, max_length=2)]], Field(max_length=MAX_MEMBERS)]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Place = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _OfNodes(_Operation):
    op: Literal["pin", "unpin", "hide", "unhide"]
    nodes: Nodes


class _NodeLabel(_Operation):
    """A name for one node of the graph; an empty text takes it away."""

    op: Literal["label"]
    node: Index
    text: Label


class _GraphNote(_Operation):
    """A note on a node, or without one on the graph."""

    op: Literal["note"]
    node: Index | None = None
    text: Note


class _Places(_Operation):
    """Where boxes of nodes ("node:12") and groups ("group:<id>") stand in the drawing of what is pinned; None: where the layout puts them."""

    op: Literal["place"]
    places: Annotated[dict[Id, Place | None], Field(max_length=MAX_MEMBERS)]


class _SubgraphPlaces(_Operation):
    """The places of the subgraph as a graph file of another tool has them (qParams.sg_pos), which only that tool can read."""

    op: Literal["sg-pos"]
    text: Note


class _GroupCreate(_Operation):
    op: Literal["group-create"]
    group: Id
    name: Name
    nodes: Nodes
    note: Note = ""
    source: Literal["user", "proposal", "import"] = "user"


class _GroupMembers(_Operation):
    op: Literal["group-add", "group-remove"]
    group: Id
    nodes: Nodes


class _GroupRename(_Operation):
    op: Literal["group-rename"]
    group: Id
    name: Name


class _GroupNote(_Operation):
    op: Literal["group-note"]
    group: Id
    text: Note


class _GroupDelete(_Operation):
    op: Literal["group-delete"]
    group: Id


class _FeatureLabel(_Operation):
    """A user's own label of a feature; an empty text takes it away."""

    op: Literal["label"]
    layer: Index
    feature: Index
    text: Label


class _FeatureNote(_Operation):
    op: Literal["note"]
    layer: Index
    feature: Index
    text: Note


class _ListCreate(_Operation):
    op: Literal["list-create"]
    list: Id
    name: Name
    features: Features = []


class _ListMembers(_Operation):
    """A star, or one taken away: features that are in a list, given as [layer, feature]."""

    op: Literal["star", "unstar"]
    list: Id
    features: Features


class _ListRename(_Operation):
    op: Literal["list-rename"]
    list: Id
    name: Name


class _ListDelete(_Operation):
    op: Literal["list-delete"]
    list: Id


class _Undo(_Operation):
    """Takes back the event of that id, whoever made it; an undone undo brings it back."""

    op: Literal["undo"]
    event: Id


_OF_GRAPH = (
    _OfNodes
    | _NodeLabel
    | _GraphNote
    | _Places
    | _SubgraphPlaces
    | _GroupCreate
    | _GroupMembers
    | _GroupRename
    | _GroupNote
    | _GroupDelete
    | _Undo
)
_OF_FEATURES = _FeatureLabel | _FeatureNote | _ListCreate | _ListMembers | _ListRename | _ListDelete | _Undo
_ADAPTERS = {
    kind: TypeAdapter(Annotated[operations, Field(discriminator="op")])
    for kind, operations in ((GRAPH, _OF_GRAPH), (FEATURES, _OF_FEATURES))
}
STAMP = ("id", "at", "author", GRAPH, FEATURES)
"""What an event has besides its operation."""


def checked(kind, operation):
    """The operation with its texts cleaned, as a dict; CltdbError where a field is missing, unknown or wrong. kind: GRAPH or FEATURES."""
    try:
        return _ADAPTERS[kind].validate_python(operation).model_dump(exclude_defaults=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "operation"
        raise CltdbError(
            f"annotation {place}",
            found="nothing" if first["type"] == "missing" else shown(first["input"]),
            expected=first["msg"].removeprefix("Value error, "),
            do="change it, or load the page again",
        ) from None


def checked_event(event):
    """An event as it stands in a log, checked; CltdbError where it is none."""
    subjects = [name for name in (GRAPH, FEATURES) if isinstance(event.get(name), str)] if isinstance(event, dict) else []
    try:
        [kind] = subjects
        at = datetime.fromisoformat(event["at"])
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        stamp = {
            "id": str(event["id"]),
            "at": at.isoformat(timespec="microseconds"),
            "author": str(event["author"]),
            kind: event[kind],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise CltdbError(
            "annotation", found=shown(event), expected=f"an event with {', '.join(STAMP[:3])} and one subject", do="mend its log"
        ) from error
    return stamp | checked(kind, {name: value for name, value in event.items() if name not in STAMP})


def members(operation):
    """The nodes, or (layer, feature) pairs, that an operation names."""
    found = list(operation.get("nodes", ())) + [tuple(pair) for pair in operation.get("features", ())]
    if operation.get("node") is not None:
        found.append(operation["node"])
    if "feature" in operation:
        found.append((operation["layer"], operation["feature"]))
    return found
