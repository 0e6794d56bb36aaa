"""YAML to an experiment: the project file, the spec over it, `--set` over both; errors name file, line and nearest key."""

import hashlib
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from cltdb.engine import sweeps, yaml_text
from cltdb.engine.spec_errors import spec_error
from cltdb.engine.workspace import PROJECT_FILE
from cltdb.engine.yaml_text import dotted, option_place, read_keys, read_pair
from cltdb.errors import SpecError

LATER = ("missing", "value_error")
"""Kinds of errors in the defaults of cltdb.yaml that a spec may mend."""
ENVIRONMENT = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Schema(NamedTuple):
    """The sections that YAML is read as. experiment: of a spec; file: all keys of cltdb.yaml; paths: those of them that say where things
    are, whose `at(root)` gives the project, which has a `root` and a `workspace`."""

    experiment: type
    file: type
    paths: type


class Loaded(NamedTuple):
    """A validated experiment, its project, the text it came from (before ${…} is expanded) and that text's hash.

    A point of a sweep is an experiment like any other; `sweep` is then the sweep's name, `swept` {dotted key: the point's value}.
    """

    experiment: Any
    project: Any
    text: str
    spec_hash: str
    sweep: str | None = None
    swept: dict | None = None


def find_project(start, *, schema):
    """The project whose cltdb.yaml is in `start` or above, else the folder `start` with the defaults."""
    return _project_of(Path(start).resolve(), schema)[0]


def _project_of(start, schema):
    """(project, its defaults for every experiment, {key path: where it stands in cltdb.yaml}) of a folder."""
    for folder in (start, *start.parents):
        path = folder / PROJECT_FILE
        if path.is_file():
            values, lines = read_keys(path)
            origin = {key: f"{path}:{line}" for key, line in lines.items()}
            _check_defaults(values, origin, schema)
            own = {key: value for key, value in values.items() if key in schema.paths.model_fields}
            defaults = {key: value for key, value in values.items() if key not in own}
            return _project(folder, own, origin, schema), defaults, origin
    return _project(start, {}, {}, schema), {}, {}


def project_section(start, name, type_):
    """(folder, section `name`) of the cltdb.yaml in `start` or above; None where there is none. Nothing else in it is looked at."""
    for folder in (start, *start.parents):
        path = folder / PROJECT_FILE
        if path.is_file():
            values, lines = read_keys(path)
            origin = {key[1:]: f"{path}:{line}" for key, line in lines.items() if key[:1] == (name,)}
            given = _expand(values.get(name, {}), lambda key, origin=origin, path=path: _place(key, origin, str(path)))
            return folder, _validate(given, type_, origin, str(path))
    return None


def _project(root, values, origin, schema):
    where = str(root / PROJECT_FILE)
    try:
        return schema.paths.model_validate(_expand(values, lambda key: _place(key, origin, where))).at(root)
    except ValidationError as error:
        raise spec_error(error, schema.paths, place=lambda path: _place(path, origin, where), root=schema.experiment) from None


def _check_defaults(values, origin, schema):
    """Refuses keys and values that no spec can have. What a spec may still change, and what is missing, is not looked at."""
    try:
        schema.file.model_validate(values)
    except ValidationError as error:
        if any(problem["type"] not in LATER for problem in error.errors()):
            place = lambda path: _place(path, origin, PROJECT_FILE)  # noqa: E731
            raise spec_error(error, schema.file, place=place, root=schema.experiment, leave_out=LATER) from None


def load(path, *, schema, overrides=(), point=None):
    """The experiment in YAML file `path` with `key=value` overrides; SpecError for whatever is wrong with it.

    Of a sweep the point of that name (or of what follows the sweep's name in it); an error that lists them where there are several.
    """
    points = _points(path, schema, overrides)
    found = [one for one in points if point in (one.name, one.suffix)] if point else points
    if len(found) == 1:
        loaded = found[0].load()
        if not loaded.experiment.refers:
            return loaded  # what is wrong with other points does not matter
        return _referring([one.load() for one in points])[points.index(found[0])]
    names = [one.name for one in points]
    if None in names:
        points[names.index(None)].load()  # which says that the name is missing
    sweeps.check_names(names, shown=f"sweep ({path})")
    raise SpecError(
        f"--point {point}" if point else f"sweep ({path})",
        found="no such point" if point else f"{len(points)} points",
        expected=f"one of {', '.join(names[:20])}" + (f" and {len(names) - 20} more" if len(names) > 20 else ""),
        do="choose one with --point NAME" if points[0].suffix else "leave --point out: the spec has no sweep",
    )


class _Point(NamedTuple):
    """name: None where the spec has none; suffix: what follows the sweep's name in it, None without a sweep; load(): the `Loaded`, or SpecError for
    what is wrong with it."""

    name: str | None
    suffix: str | None
    load: Any


def load_points(path, *, schema, overrides=()):
    """The experiments that YAML file `path` with `key=value` overrides describes: the points of its sweep in order, or the one.

    An override of a swept key leaves that value alone; one of `sweep.KEY` gives the key other values.
    """
    points = _points(path, schema, overrides)
    found = [point.load() for point in points]
    sweeps.check_names([point.name for point in points], shown=f"sweep ({path})")
    return _referring(found)


def _referring(points):
    """All points of a sweep, each knowing those that it reads."""
    of_sweep = [(loaded.experiment, loaded.swept or {}) for loaded in points]
    return [loaded._replace(experiment=loaded.experiment.referring(of_sweep, number)) for number, loaded in enumerate(points)]


def _points(path, schema, overrides):
    """The `_Point`s of `load_points`."""
    path = Path(path)
    merged, origin, project = _merged(path, schema)
    grids = sweeps.grids(merged.pop("sweep", None), origin=origin, shown=str(path))
    parsed = [(*_parse_override(override), option_place("--set", override)) for override in overrides]
    fixed = [one for one in parsed if one[0][0] != "sweep"]
    for parts, value, where in parsed:
        if parts[0] == "sweep":
            grids = sweeps.override(grids, parts[1:], value, shown=where)
    for parts, value, where in fixed:  # of the grids as they are left, whatever the order of the overrides
        if any(parts in grid.axes for grid in grids):
            grids = sweeps.narrowed(grids, parts, value, shown=where)
        origin[parts] = where
    points = []
    for grid, values in sweeps.points(grids, shown=f"sweep ({path})"):
        point, places = dict(merged), origin | grid.origin
        for parts, value, where in fixed:
            _put(point, parts, value, where=where)
        for parts, value in values.items():
            _put(point, parts, value, where=f"sweep.{dotted(parts)} ({places[parts]})")
        for parts, value, where in fixed:
            if any(parts[: len(axis)] == axis for axis in grid.axes):  # beneath a swept key
                _put(point, parts, value, where=where)
        given = {*values, *(parts for parts, *_ in fixed)}
        for stage in schema.experiment.stages.values():
            for parts in stage.left_out(point, values):
                if not any(parts == other[: len(parts)] for other in given):
                    _remove(point, parts)
        name = _expand(point.get("name"), lambda _, places=places: places.get(("name",), str(path)))
        suffix = sweeps.point_name("", values)[1:] if values else None
        made = partial(_loaded, point, values, origin=places, project=project, path=path, type_=schema.experiment)
        whole = "-".join(str(part) for part in (name, suffix) if part is not None)
        points.append(_Point(None if name is None else whole, suffix, made))
    return points


def load_recorded(record, changes, *, schema, project):
    """The experiment of an experiment record, with the values of `changes`, {key path: value}."""
    where = f"the spec of {record['experiment']}"
    values = yaml_text.read(record["spec_yaml"], place=lambda line: where).values
    for parts, value in changes.items():
        _put(values, parts, value, where=where)
    return _loaded(values, {}, origin={}, project=project, path=where, type_=schema.experiment)


def _merged(path, schema):
    """(values of the project's defaults and the spec over them, {dotted key: where it stands}, project)."""
    if not path.is_file():
        raise SpecError(
            str(path),
            found="a folder" if path.is_dir() else "no such file",
            expected="a spec",
            do="give the path of a spec, such as experiments/quickstart.yaml",
        )
    values, lines = read_keys(path)
    project, defaults, origin = _project_of(path.resolve().parent, schema)
    if not (project.root / PROJECT_FILE).is_file():
        project, defaults, origin = _project_of(Path.cwd(), schema)
    origin |= {key: f"{path}:{line}" for key, line in lines.items()}
    return _merge(defaults, values), origin, project


def _loaded(values, swept, *, origin, project, path, type_):
    """One experiment; as a point of a sweep where `swept`, {key path: value}, is not empty."""
    sweep, place = None, lambda key: _place(key, origin, str(path))
    if swept:
        sweep = _validate(_expand(values, place), type_, origin, str(path)).name
        values = values | {"name": sweeps.point_name(sweep, swept)}
    experiment = _validate(_expand(values, place), type_, origin, str(path))
    text = yaml_text.dump(values)
    spec_hash = hashlib.sha256(text.encode()).hexdigest()[:16]
    named = {sweeps.dotted(parts): value for parts, value in swept.items()} or None
    return Loaded(experiment, project, text, spec_hash, sweep, named)


def _merge(defaults, values):
    merged = dict(defaults)
    for key, value in values.items():
        merged[key] = _merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def _parse_override(override):
    """(key path, value) of `a.b.0=VALUE`; the value is YAML."""
    key, value = read_pair(override, option="--set", example="'seed=1'")
    return sweeps.key_path(key), value


def _put(values, parts, value, *, where):
    """Puts a value at a key path into the nested values, copying what it changes."""
    holder = values
    try:
        for part in parts[:-1]:
            if isinstance(holder, dict) and not isinstance(holder.get(part), dict | list):
                holder[part] = {}
            holder[part] = holder[part].copy()
            holder = holder[part]
        holder[parts[-1]] = value
    except (IndexError, TypeError, KeyError) as error:
        raise SpecError(where, found=f"no place {dotted(parts)!r}", expected="a key of the spec", do="check the path") from error


def _remove(values, parts):
    """Takes a key path out of the nested values, where it is there, copying what it changes."""
    first, *rest = parts
    if not rest:
        values.pop(first, None)
    elif isinstance(values.get(first), dict):
        values[first] = dict(values[first])
        _remove(values[first], rest)


def _expand(value, place, path=()):
    """`${NAME}` in strings from the environment; `$${` stands for `${` itself. place(key path): where errors say that a value stands."""
    if isinstance(value, dict):
        return {key: _expand(item, place, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, place, (*path, number)) for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in filter(None, ENVIRONMENT.findall(value)):
        if name not in os.environ:
            raise SpecError(
                place(path), found=f"${{{name}}}, which is not set", expected="an environment variable", do=f"export {name}=…"
            )
    return ENVIRONMENT.sub(lambda match: os.environ[match[1]] if match[1] else "${", value)


def _validate(values, type_, origin, shown):
    try:
        return type_.model_validate(values)
    except ValidationError as error:
        raise spec_error(error, type_, place=lambda path: _place(path, origin, shown)) from None


def _place(path, origin, shown):
    """Where a key stands; else what put a key into it, such as `--set`; else where the nearest stands that holds it."""
    if path and path not in origin:
        path = next((key for key in origin if key[: len(path)] == path), path)
    return next((origin[path[:n]] for n in range(len(path), -1, -1) if path[:n] in origin), shown)
