"""Every key of a spec against values that it cannot have: taken with exactly its type, or refused with its dotted key and its line."""

import json
import math
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from worlds import projects

from cltdb.engine.section import Section, documented
from cltdb.errors import SpecError
from cltdb.spec import Experiment, load

BASE = {
    "name": "small",
    "model": {"id": "toyworld"},
    "activations": {"text": [{"toyworld": True}]},
    "train": {"sparsity": {"coefficient": 1}, "activation": "relu", "kl": {}},
    "evaluate": {"text": [{"toyworld": True}], "isolation": {"facts": {"toyworld": True}}},
    "harvest": {"text": [{"toyworld": True}]},
    "explain": {"labels": [{"name": "mine", "path": "labels.csv", "format": "table"}]},
    "attribute": {"prompts": [{"text": "hello"}]},
    "groups": {"prompts": {"toyworld": True}, "label_features": {}, "text": [{"toyworld": True}]},
    "match": {"text": [{"toyworld": True}]},
}
"""A spec in which every optional section stands, so that each of its keys has a place."""
PUBLISHED = {**BASE, "train": {"from": {"format": "cltdb", "path": "folder"}}}
FROM_FILE = {**BASE, "attribute": {"prompts": {"file": "prompts.jsonl"}}}
NVME = {"device": "nvme", "nvme_path": "folder"}
DEEPSPEED = {
    "zero_optimization": {"zero_optimization": {"stage": 3, "offload_param": NVME, "offload_optimizer": NVME}},
    "fp16": {"fp16": {"enabled": True}},
    "data_types": {"bf16": {"enabled": True}},
}
WRONG = [
    True, False, None, "", "5", "1e3", "x" * 2_000, "\0", "a\nb", "é", 10**30, -(10**30), 10**300, -1, 0, 0.5, 1e300, -1e300,
    math.nan, math.inf, -math.inf, [], [[]], [None], ["a"], [1], {}, {"a": 1}, {"str": 1}, [{"a": 1}], [10**30], [True],
]  # fmt: skip


OF_EACH_TYPE = [True, None, "", "5", -1, 0.5, math.nan, [], {}]


def members(annotation):
    """The types that an annotation allows."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for argument in get_args(annotation) for member in members(argument)]
    return [annotation]


def keys(section, path=()):
    """(key path, field) of every key below a section; of lists of sections the first item."""
    for name, field in documented(section).items():
        here = (*path, field.alias or name)
        yield here, field
        for member in members(field.annotation):
            inner, place = (get_args(member)[0], (*here, 0)) if get_origin(member) is list else (member, here)
            for kind in members(inner):
                if isinstance(kind, type) and issubclass(kind, Section):
                    yield from keys(kind, place)


EVERY = [(path, field) for path, field in keys(Experiment) if path[0] != "sweep"]


def base(path):
    """A spec with a place for the key: what every spec has, and the key's section."""
    whole = PUBLISHED if path[:2] == ("train", "from") else FROM_FILE if path == ("attribute", "prompts", "file") else BASE
    if path[:2] == ("train", "deepspeed"):
        whole = {**BASE, "train": {"deepspeed": DEEPSPEED.get(path[2] if len(path) > 2 else None, {})}}
    return {name: section for name, section in whole.items() if name in ("name", "model", "activations", path[0])}


def wrong(kinds):
    """The values to try: where a key holds numbers or words alone, all of its own type and a few of each other."""
    types = {int, float} if {int, float} & set(kinds) else {str} if str in kinds else set()
    if all(kind in (int, float, str, bool, NoneType) or get_origin(kind) is Literal for kind in kinds):
        return [*OF_EACH_TYPE, *(value for value in WRONG if type(value) in types)]
    return WRONG


def changed(path, value, *, key=None):
    """The spec with another value at a key path, or with the key there renamed; and its values by key path."""
    spec = json.loads(json.dumps(base(path)))
    holder = spec
    for part in path[:-1]:
        holder = holder.setdefault(part, {}) if isinstance(part, str) else holder[part]
    holder.pop(path[-1], None)
    holder[path[-1] if key is None else key] = value
    return spec


def block(value, indent=0):
    """Block-style YAML, every key on a line of its own."""
    pad = " " * indent
    if isinstance(value, dict) and value:
        return "".join(f"\n{pad}{json.dumps(str(key))}:{block(item, indent + 1)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"\n{pad}-{block(item, indent + 1)}" for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        return " .nan" if math.isnan(value) else " .inf" if value > 0 else " -.inf"
    return f" {json.dumps(value)}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return projects.new(tmp_path_factory.mktemp("fuzz"), settings="")


def read(folder, spec):
    (folder / "spec.yaml").unlink(missing_ok=True)  # a file written over is brought to the disk at once
    (folder / "spec.yaml").write_text(block(spec).lstrip() + "\n")
    return load(folder / "spec.yaml").experiment


def line_of(folder, key):
    lines = (folder / "spec.yaml").read_text().splitlines()
    return max(i for i, line in enumerate(lines, start=1) if f"{json.dumps(key)}:" in line)


def at(experiment, path):
    for part in path:
        names = (
            {field.alias or name: name for name, field in type(experiment).model_fields.items()} if isinstance(part, str) else {}
        )
        experiment = getattr(experiment, names[part]) if isinstance(part, str) else experiment[part]
    return experiment


def allows(kind, value):
    """Whether a value is of an annotated type, to the letter: no boolean for a number, no number for a word."""
    origin = get_origin(kind)
    if kind is Any:
        return True
    if kind in (NoneType, None):
        return value is None
    if origin is Literal:
        return value in get_args(kind) and not isinstance(value, bool)
    if origin is list:
        return isinstance(value, list) and all(any(allows(k, item) for k in members(get_args(kind)[0])) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and all(type(item) is float for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if kind is float:
        return type(value) is float and math.isfinite(value)
    return type(value) is kind


@pytest.mark.parametrize(("path", "field"), EVERY, ids=[".".join(map(str, path)) for path, _ in EVERY])
def test_a_value_has_the_type_of_its_key_or_is_refused_with_its_place(folder, path, field):
    taken, kinds = [], members(field.annotation)
    for value in wrong(kinds):
        try:
            experiment = read(folder, changed(path, value))
        except SpecError as error:
            message = str(error)
            assert len(message) < 1500 and "\n" not in message
            assert path[-1] in message, (value, message)
            assert "spec.yaml:" in message, (value, message)
            continue
        found = at(experiment, path)
        assert any(allows(kind, found) for kind in kinds), (value, found)
        assert isinstance(value, bool) == isinstance(found, bool) or isinstance(found, Section), (value, found)
        assert found == value or isinstance(found, Section | list | tuple) or found == float(value), (value, found)
        taken.append(value)
    numbers = [kind for kind in kinds if kind in (int, float)]
    assert not numbers or not any(type(value) in (int, float) and abs(value) > 1e38 for value in taken)


MISSPELT = {
    "capital": str.capitalize,
    "upper case": str.upper,
    "hyphen": lambda key: key.replace("_", "-") if "_" in key else f"{key}-",
    "space": lambda key: key.replace("_", " ") if "_" in key else f"{key} ",
    "digit": lambda key: f"{key}2",
    "doubled letter": lambda key: f"{key[0]}{key}",
    "doubled last letter": lambda key: f"{key}{key[-1]}",
    "missing letter": lambda key: key[:-1] or key,
    "swapped letters": lambda key: key[:-2] + key[-1] + key[-2:-1],
}


def assert_helped(folder, paths, how):
    """Each key, misspelt in one way, is said with its section, its line and the right key."""
    wrong = []
    for path in paths:
        if len(path[-1]) == 1:  # of a single letter nothing is left to recognise
            continue
        key = MISSPELT[how](path[-1])
        if key == path[-1]:
            continue
        spec = changed(path, 1, key=key)
        with pytest.raises(SpecError) as caught:
            read(folder, spec)
        where, said = ".".join(map(str, (*path[:-1], key))), str(caught.value)
        place = f"{where.strip()} ({folder}/spec.yaml:{line_of(folder, key)}): found unknown key {key!r}"
        if " ".join(place.split()) not in said or not said.endswith(f"do this: write {path[-1]!r}"):
            wrong.append((where, said))
    assert not wrong, (len(wrong), wrong[:10])


@pytest.mark.parametrize("how", MISSPELT)
def test_a_misspelt_key_hears_of_its_section_its_line_and_the_right_key(folder, how):
    """Every key in two ways, each way of a share of the keys."""
    first, n = [*MISSPELT].index(how), len(MISSPELT)
    assert_helped(folder, [path for number, (path, _) in enumerate(EVERY) if (number - first) % n < 2], how)


@pytest.mark.slow
@pytest.mark.parametrize("how", MISSPELT)
def test_every_key_may_be_misspelt_in_every_way(folder, how):
    assert_helped(folder, [path for path, _ in EVERY], how)


def test_every_key_has_a_docstring():
    assert not [path for path, field in EVERY if not field.description]
