"""YAML to `spec.Experiment`: the project file, the spec over it, `--set` over both; errors name file, line and nearest key."""

import difflib
import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from cltdb import sweeps
from cltdb.errors import SpecError
from cltdb.spec import Database, Experiment

PROJECT_FILE = "cltdb.yaml"
PROJECT_KEYS = {"workspace", "database"}
ENVIRONMENT = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Loader(yaml.SafeLoader):
    """YAML with 1.2 numbers (1e-5 is one) and without yes, no, on, off as booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)
AMBIGUOUS = re.compile(r"^(yes|no|on|off|y|n)$", re.IGNORECASE)


class Project(NamedTuple):
    """Where things are: the folder of cltdb.yaml, the workspace, the database file."""

    root: Path
    workspace: Path
    database: Path


class Loaded(NamedTuple):
    """A validated experiment, its project, the text it came from (before ${…} is expanded) and that text's hash.

    A point of a sweep is an experiment like any other; `sweep` is then the sweep's name, `swept` {dotted key: the point's value}.
    """

    experiment: Experiment
    project: Project
    text: str
    spec_hash: str
    sweep: str | None = None
    swept: dict | None = None


def find_project(start):
    """The project whose cltdb.yaml is in `start` or above, else the folder `start` with the defaults."""
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return _project(folder, _read(folder / PROJECT_FILE)[0])
    return _project(start, {})


def _project(root, values):
    database = values.get("database") or {}
    where = str(root / PROJECT_FILE)
    if not isinstance(database, dict) or set(database) - set(Database.model_fields):
        raise SpecError(f"database ({where})", found=repr(database), expected="{path: FILE}", do="mend cltdb.yaml")
    workspace = values.get("workspace", "artifacts")
    if not isinstance(workspace, str):
        raise SpecError(f"workspace ({where})", found=repr(workspace), expected="a path", do="mend cltdb.yaml")
    return Project(root, root / _expand(workspace, where), root / _expand(database.get("path", "cltdb.duckdb"), where))


def load(path, *, overrides=(), point=None):
    """The experiment in YAML file `path` with `key=value` overrides; SpecError for whatever is wrong with it.

    Of a sweep the point of that name (or of what follows the sweep's name in it); an error that lists them where there are several.
    """
    points = load_points(path, overrides=overrides)
    names = [loaded.experiment.name for loaded in points]
    found = [loaded for loaded in points if point in (loaded.experiment.name, _suffix(loaded))] if point else points
    if len(found) == 1:
        return found[0]
    raise SpecError(
        f"--point {point}" if point else f"sweep ({path})",
        found="no such point" if point else f"{len(points)} points",
        expected=f"one of {', '.join(names)}",
        do="choose one with --point NAME" if points[0].sweep else "leave --point out: the spec has no sweep",
    )


def _suffix(loaded):
    return loaded.experiment.name.removeprefix(f"{loaded.sweep}-") if loaded.sweep else None


def load_points(path, *, overrides=()):
    """The experiments that YAML file `path` with `key=value` overrides describes: the points of its sweep in order, or the one.

    An override of a swept key leaves that value alone; one of `sweep.KEY` gives the key other values.
    """
    path = Path(path)
    merged, origin, project = _merged(path)
    axes = sweeps.axes(merged.pop("sweep", None), origin=origin, shown=str(path))
    fixed = []
    for override in overrides:
        parts, value = _parse_override(override)
        if parts[0] == "sweep":
            axes = sweeps.override(axes, parts[1:], value, origin=origin, shown=f"--set {override}")
        elif parts in axes:
            axes[parts] = [value]
        else:
            fixed.append((parts, value, override))
        origin[parts] = f"--set {override}"
    points = []
    for values in sweeps.grid(axes):
        point = dict(merged)
        for parts, value, override in fixed:
            _put(point, parts, value, where=f"--set {override}")
        for parts, value in values.items():
            _put(point, parts, value, where=f"sweep.{_dotted(parts)} ({origin[parts]})")
        for parts, value, override in fixed:
            if any(parts[: len(axis)] == axis for axis in axes):  # beneath a swept key
                _put(point, parts, value, where=f"--set {override}")
        points.append(_loaded(point, values, origin=origin, project=project, path=path))
    sweeps.check_names([loaded.experiment.name for loaded in points], shown=f"sweep ({path})")
    return points


def _merged(path):
    """(values of the project's defaults and the spec over them, {dotted key: where it stands}, project)."""
    if not path.is_file():
        raise SpecError(
            str(path), found="no such file", expected="a spec", do="give the path of a spec, such as experiments/quickstart.yaml"
        )
    values, lines = _read(path)
    project = find_project(path.parent)
    if not (project.root / PROJECT_FILE).is_file():
        project = find_project(Path.cwd())
    project_file = project.root / PROJECT_FILE
    defaults, default_lines = _read(project_file) if project_file.is_file() else ({}, {})
    defaults = {key: value for key, value in defaults.items() if key not in PROJECT_KEYS}
    origin = {key: f"{project_file.name}:{line}" for key, line in default_lines.items()} | {
        key: f"{path}:{line}" for key, line in lines.items()
    }
    return _merge(defaults, values), origin, project


def _loaded(values, swept, *, origin, project, path):
    """One experiment; as a point of a sweep where `swept`, {key path: value}, is not empty."""
    sweep = None
    if swept:
        sweep = _validate(_expand(values, str(path)), origin, str(path)).name
        values = values | {"name": sweeps.point_name(sweep, swept)}
    text = yaml.safe_dump(values, sort_keys=True, allow_unicode=True)
    experiment = _validate(_expand(values, str(path)), origin, str(path))
    spec_hash = hashlib.sha256(text.encode()).hexdigest()[:16]
    named = {sweeps.dotted(parts): value for parts, value in swept.items()} or None
    return Loaded(experiment, project, text, spec_hash, sweep, named)


def _read(path):
    """(values, {dotted key: line}) of a YAML file; duplicate keys are errors."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        lines = {}
        if node is not None:
            _walk(node, (), lines, path)
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader: plain values only
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise SpecError(
            f"{path}:{mark.line + 1}" if mark else str(path),
            found=getattr(error, "problem", None) or str(error),
            expected="valid YAML",
            do="mend the file",
        ) from error
    if values is not None and not isinstance(values, dict):
        raise SpecError(
            str(path), found=f"a {type(values).__name__}", expected="keys and values", do="start from `cltdb init NAME`"
        )
    return values or {}, lines


def _walk(node, path, lines, file):
    """Notes the line of every key and refuses duplicates and merge keys' surprises."""
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise SpecError(
                    f"{_dotted((*path, key.value))} ({file}:{key.start_mark.line + 1})",
                    found="the key twice",
                    expected="each key once",
                    do="remove one",
                )
            seen.add(key.value)
            _walk(value, (*path, key.value), lines, file)
            lines[(*path, key.value)] = key.start_mark.line + 1
            if isinstance(value, yaml.ScalarNode) and value.style is None and AMBIGUOUS.match(value.value):
                raise SpecError(
                    f"{_dotted((*path, key.value))} ({file}:{key.start_mark.line + 1})",
                    found=f"a bare {value.value}",
                    expected="true, false or a quoted string",
                    do=f'write "{value.value}" for the word, true or false for the choice',
                )
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, file)


def _dotted(path):
    return ".".join(str(part) for part in path) or "the spec"


def _merge(defaults, values):
    merged = dict(defaults)
    for key, value in values.items():
        merged[key] = _merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def _parse_override(override):
    """(key path, value) of `a.b.0=VALUE`; the value is YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SpecError(
            f"--set {override}",
            found="no key=value",
            expected="key=value, the value in YAML",
            do="write for example --set 'train.l0=16'",
        )
    try:
        return sweeps.key_path(key), yaml.load(text, Loader=_Loader)  # a SafeLoader: plain values only
    except yaml.YAMLError as error:
        raise SpecError(
            f"--set {override}",
            found="a value that is not YAML",
            expected="a number, word, [list] or {mapping}",
            do="quote it for the shell",
        ) from error


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
        raise SpecError(where, found=f"no place {_dotted(parts)!r}", expected="a key of the spec", do="check the path") from error


def _expand(value, where):
    """`${NAME}` in strings from the environment; `$${` stands for `${` itself."""
    if isinstance(value, dict):
        return {key: _expand(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, where) for item in value]
    if not isinstance(value, str):
        return value
    for name in filter(None, ENVIRONMENT.findall(value)):
        if name not in os.environ:
            raise SpecError(
                where, found=f"${{{name}}}, which is not set", expected="an environment variable", do=f"export {name}=…"
            )
    return ENVIRONMENT.sub(lambda match: os.environ[match[1]] if match[1] else "${", value)


def _validate(values, origin, shown):
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(
            part for part in first["loc"] if isinstance(part, int) or part.isidentifier() and part.islower()
        )  # without the names of types
        raise _spec_error(first, path, origin, shown) from None


def _spec_error(problem, path, origin, shown):
    place = next((origin[path[:n]] for n in range(len(path), -1, -1) if path[:n] in origin), shown)
    where = f"{_dotted(path)} ({place})"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        return SpecError(
            where,
            found=f"unknown key {path[-1]!r}",
            expected="one of " + ", ".join(known),
            do=f"write {near[0]!r}" if near else "remove it",
        )
    if problem["type"] == "missing":
        return SpecError(where, found="nothing", expected=f"a value for {path[-1]}", do="add it")
    if problem["type"] == "value_error":
        expected, _, found = problem["msg"].removeprefix("Value error, expected ").partition(", found ")
        return SpecError(where, found=found or repr(problem["input"]), expected=expected, do="mend it")
    message = problem["msg"].removeprefix("Input should be ")
    return SpecError(where, found=repr(problem["input"]), expected=message, do="mend it")


def _known_keys(path):
    """The keys of the section at `path`."""
    model = Experiment
    for part in path:
        if isinstance(part, int):
            continue
        model = next(iter(_sections(model.model_fields[part].annotation)), model)
    return list(model.model_fields)


def _sections(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections(argument)
