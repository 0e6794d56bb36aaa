"""The section `sweep` of a spec: lists of values per key, whose product is a grid of experiments, each with a name of its own.

A point is the plain spec with its values: its stage keys, and so its artifacts, are those of that spec, and what points share is
made once. Keys may be dotted (`section.key`), nested, or both.
"""

import hashlib
import itertools
import json
import math
import re
from collections import Counter

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


def axes(section, *, origin, shown):
    """{key path: values} of a section `sweep`; notes in `origin` where each key stands. SpecError for what is wrong with it."""
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise _error((), section, origin.get(("sweep",), shown), expected="keys of the spec with lists of values")
    found = {}
    _collect(section, (), ("sweep",), found, origin, shown)
    return found


def _collect(section, path, place, found, origin, shown):
    for key, value in section.items():
        here, key_place = (*path, *key_path(key)), (*place, str(key))
        where = origin.get(key_place, shown)
        if isinstance(value, dict) and value:
            _collect(value, here, key_place, found, origin, shown)
            continue
        _add(found, here, value, where=where)
        origin[here] = where


def _add(found, path, values, *, where):
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
    for other in found:
        shorter = min(len(other), len(path))
        if other[:shorter] == path[:shorter]:
            both = "the key twice" if other == path else f"{dotted(other)} swept too"
            raise _error(path, values, where, found=both, expected="each key once, and none within another", do="remove one")
    found[path] = values


def _same(a, b):
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _error(path, value, where, *, expected, found=None, do="mend it"):
    key = dotted(("sweep", *path))
    return SpecError(f"{key} ({where})", found=found or _short(value), expected=expected, do=do)


def _short(value):
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def override(found, path, value, *, origin, shown):
    """The axes with those of an override of `sweep` (empty path) or of `sweep.KEY`."""
    if not path:
        origin.update(dict.fromkeys(_places(value, ("sweep",)), shown))
        return axes(value, origin=origin, shown=shown)
    changed = {key: values for key, values in found.items() if key != path}
    if value is not None:
        _add(changed, path, value, where=shown)
        origin[path] = shown
    order = [*found, path]  # a key keeps its place
    return dict(sorted(changed.items(), key=lambda item: order.index(item[0])))


def _places(section, place):
    yield place
    for key, value in section.items() if isinstance(section, dict) else ():
        yield from _places(value, (*place, str(key)))


def grid(found, *, shown):
    """{key path: value} of every point, the last key's values changing fastest; one empty point without axes."""
    n_points = math.prod(len(values) for values in found.values())
    if n_points > MAX_POINTS:
        by = " x ".join(str(len(values)) for values in found.values())
        raise SpecError(
            shown,
            found=f"{n_points:,} points ({by if len(by) <= 60 else 'of ' + str(len(found)) + ' keys'})",
            expected=f"at most {MAX_POINTS:,}, each an experiment to run",
            do="sweep fewer values, or share them out among several specs",
        )
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


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
