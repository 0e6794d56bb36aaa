"""The section `sweep` of a spec: lists of values per key, whose product is a grid of experiments, each with a name of its own; or a list
of such sections, whose grids come one after the other.

A point is the plain spec with its values: its stage keys, and so its artifacts, are those of that spec, and what points share is
made once. Keys may be dotted (`section.key`), nested, or both.
"""

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from typing import NamedTuple

from cltdb.errors import SpecError

MAX_SUFFIX = 100
"""Characters of a point's name after the sweep's; a longer one is cut and ends in a hash."""
MAX_POINTS = 1000
"""Points of a sweep; a plan of so many takes a few seconds."""
OWN_KEYS = ("name", "sweep")


def key_path(key):
    """A dotted key as a tuple of keys and indices."""
    return tuple(int(part) if part.isascii() and part.isdigit() and len(part) < 10 else part for part in str(key).split("."))


def dotted(path):
    return ".".join(map(str, path))


class Grid(NamedTuple):
    """axes: {key path: values}. origin: {key path: where it stands}."""

    axes: dict
    origin: dict


def grids(section, *, origin, shown):
    """The `Grid`s of a section `sweep`, one at least. origin: where each key of the file stands. SpecError for what is wrong with it."""
    if isinstance(section, list) and section:
        found = [_grid(part, ("sweep", number), origin, shown) for number, part in enumerate(section)]
        if empty := [number for number, grid in enumerate(found) if not grid.axes]:
            place = origin.get(("sweep", empty[0]), shown)
            raise _error(
                (empty[0],), {}, place, expected="keys of the spec with lists of values", do="add a key, or remove the grid"
            )
        return found
    return [_grid({} if section is None else section, ("sweep",), origin, shown)]


def _grid(section, place, origin, shown):
    if not isinstance(section, dict):
        raise _error((), section, origin.get(place, shown), expected="keys of the spec with lists of values")
    found = Grid({}, {})
    _collect(section, (), place, found, origin, shown)
    return found


def _collect(section, path, place, found, origin, shown):
    for key, value in section.items():
        here, key_place = (*path, *key_path(key)), (*place, str(key))
        where = origin.get(key_place, shown)
        if isinstance(value, dict) and value:
            _collect(value, here, key_place, found, origin, shown)
            continue
        _add(found, here, value, where=where)


def _add(grid, path, values, *, where):
    """Adds an axis that has passed all checks."""
    if path[0] in OWN_KEYS:
        raise _error(path, path[0], where, expected="a key that points can differ in", do="remove it: points are named by cltdb")
    if not isinstance(values, list):
        raise _error(path, values, where, expected="a list of values", do=f"write [{_short(values)}]")
    if not values:
        raise _error(path, values, where, expected="at least one value", do="add a value, or remove the key")
    for i, value in enumerate(values):
        if any(_same(value, other) for other in values[:i]):
            raise _error(path, value, where, found=f"{_short(value)} twice", expected="each value once", do="remove one")
    for other in grid.axes:
        shorter = min(len(other), len(path))
        if other[:shorter] == path[:shorter]:
            both = "the key twice" if other == path else f"{dotted(other)} swept too"
            raise _error(path, values, where, found=both, expected="each key once, and none within another", do="remove one")
    grid.axes[path], grid.origin[path] = values, where


def _same(a, b):
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _error(path, value, where, *, expected, found=None, do="mend it"):
    key = dotted(("sweep", *path))
    return SpecError(f"{key} ({where})", found=found or _short(value), expected=expected, do=do)


def _short(value):
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def override(found, path, value, *, shown):
    """The grids with an override of `sweep` (empty path) or of `sweep.KEY`: in those that sweep the key, in all where none does."""
    if not path:
        return grids(value, origin={}, shown=shown)
    having = [grid for grid in found if path in grid.axes] or found
    return [_with_axis(grid, path, value, shown) if grid in having else grid for grid in found]


def _with_axis(grid, path, values, shown):
    """The grid with other values of a key, which keeps its place; None: without the key."""
    changed = Grid({key: old for key, old in grid.axes.items() if key != path}, dict(grid.origin))
    if values is not None:
        _add(changed, path, values, where=shown)
    order = [*grid.axes, path]
    return changed._replace(axes=dict(sorted(changed.axes.items(), key=lambda item: order.index(item[0]))))


def narrowed(found, path, value, *, shown):
    """The grids that have a value of a swept key, with that value alone; where none has it, all grids, which take it in its place."""
    having = [grid for grid in found if any(_same(value, other) for other in grid.axes.get(path, ()))]
    return [_with_axis(grid, path, [value], shown) if path in grid.axes else grid for grid in having or found]


def points(found, *, shown):
    """(grid, {key path: value}) of every point of all grids, the last key's values changing fastest; one empty point without axes."""
    sizes = [[len(values) for values in grid.axes.values()] for grid in found]
    n_points = sum(map(math.prod, sizes))
    if n_points > MAX_POINTS:
        by = " + ".join(" x ".join(map(str, size)) for size in sizes)
        raise SpecError(
            shown,
            found=f"{n_points:,} points ({by if len(by) <= 60 else 'of ' + str(sum(map(len, sizes))) + ' keys'})",
            expected=f"at most {MAX_POINTS:,}, each an experiment to run",
            do="sweep fewer values, or share them out among several specs",
        )
    return [
        (grid, dict(zip(grid.axes, values, strict=True))) for grid in found for values in itertools.product(*grid.axes.values())
    ]


def point_name(sweep, swept):
    """The name of a point, `{sweep}-{key}_{value}-…`: it depends on the keys that are swept and on its own values alone."""
    paths = list(swept)
    suffix = "-".join(f"{_short_key(path, paths)}_{_label(value)}" for path, value in swept.items())
    if len(suffix) > MAX_SUFFIX:
        suffix = f"{suffix[: MAX_SUFFIX - 9]}-{_digest(suffix)[:8]}"
    return f"{sweep}-{suffix}"


def _short_key(path, paths):
    """The end of a key path that tells it from the other swept ones, without indices where it can."""
    for n in range(1, len(path) + 1):
        end = path[-n:]
        if isinstance(end[0], str) and sum(other[-n:] == end for other in paths) == 1:
            break
    return ".".join(map(str, end))


def _label(value):
    """A value as part of a name; where characters had to go, a hash keeps it apart from others."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("+", "")
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")
    return slug if slug == text else f"{slug[:40]}-{_digest(text)[:4]}"


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def check_names(names, *, shown):
    """SpecError where two points have one name."""
    double = next((name for name, n in Counter(names).items() if n > 1), None)
    if double:
        raise SpecError(shown, found=f"two points named {double}", expected="values that can be told apart", do="remove one")
