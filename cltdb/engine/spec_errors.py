"""What pydantic finds wrong with a section, as a SpecError: dotted key, place, what was expected and, of a misspelt key, the nearest."""

import difflib
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from cltdb.engine.section import Expected, Section, sections_in
from cltdb.engine.yaml_text import dotted
from cltdb.errors import SpecError, shown

KINDS = {
    "string_type": "a word (quoted, where it looks like something else)",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "int_type": "an integer",
    "float_type": "a number",
}
"""What a type is called."""


class _Problem(NamedTuple):
    """One of pydantic's errors: the key path, what the annotations there say is expected (or None), the section it is in, and the annotation
    there."""

    path: tuple
    expected: str | None
    section: Any
    error: dict
    annotation: Any


def spec_error(invalid, section, *, place, whole="the spec", root=None, leave_out=()):
    """The SpecError for a pydantic ValidationError of a section. place(key path): where that is; whole: what the section is; root: the
    section whose keys are looked through for a key that stands in the wrong place (default `section`); leave_out: pydantic's names of
    kinds of errors that do not count."""
    problems = [_problem(error, section) for error in invalid.errors() if error["type"] not in leave_out]
    return _said(_first(problems), place=place, whole=whole, root=root or section)


def _first(problems):
    """A misspelt key before what it makes missing; of a union's members the one that fits best."""
    unknown = [problem for problem in problems if problem.error["type"] in ("extra_forbidden", "invalid_key")]
    if unknown:
        return unknown[0]
    first = problems[0].path
    alike = [problem for problem in problems if all(a == b for a, b in zip(problem.path, first, strict=False))]
    return max(alike, key=lambda problem: len(problem.path))


def _said(problem, *, place, whole, root):
    path, error = problem.path, problem.error
    where, kind = f"{dotted(path) or whole} ({place(path)})", error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(problem, where, root)
    if kind == "missing":
        return SpecError(where, found="nothing", expected=problem.expected or f"a value for {path[-1]}", do="add it")
    if kind == "value_error":
        expected, _, found = error["msg"].removeprefix("Value error, expected ").partition(", found ")
        do = getattr(error["ctx"]["error"], "do", None) or "mend it"
        return SpecError(where, found=_cut(found) or shown(error["input"]), expected=expected, do=do)
    expected = problem.expected or KINDS.get(kind) or _cut(error["msg"].removeprefix("Input should be "))
    if kind == "too_short":
        expected = f"a list of {error['ctx']['min_length']} or more"
    if kind.startswith("greater_than") and expected.startswith("an integer"):  # the reason is that of the upper bound
        expected = expected.partition(" (")[0]
    do = "mend it"
    if kind == "model_type" and (wanted := next(iter(sections_in(problem.annotation)), None)):
        expected, do = f"keys and values: {', '.join(key_names(wanted))}", _as_section(wanted, error["input"])
    elif kind == "list_type" and _is_item(problem.annotation, error["input"]):
        do = f"write [{shown(error['input'])}]"
    return SpecError(where, found=shown(error["input"]), expected=expected, do=do)


def _as_section(section, value):
    """How to write a section where a single value was found: with the one key that has to be there, or that it has; `true` asks for the defaults."""
    names, fields = key_names(section), section.model_fields.values()
    required = [name for name, field in zip(names, fields, strict=True) if field.is_required()]
    only = next((some[0] for some in (required, names) if len(some) == 1), None)
    if only and _is_right(section, {only: value}):
        return f"write {{{only}: {shown(value)}}}"
    return (
        "write {} for its defaults"
        if value is True and _is_right(section, {})
        else "write one or more of these keys with their values"
    )


def _is_item(annotation, value):
    """Whether the value would be right as the only item of a list that stands there."""
    items = [get_args(member)[0] for member in _members(annotation) if get_origin(member) is list]
    return bool(items) and isinstance(value, str | int | float) and _is_right(items[0], value)


def _is_right(annotation, value):
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def _cut(text):
    return shown(text, quoted=False)


def _unknown_key(problem, where, root):
    key, section = str(problem.path[-1]), problem.section
    known = key_names(section)
    advice = section.elsewhere.get(key)
    return SpecError(
        where,
        found=f"unknown key {shown(key)}",
        expected=f"one of {', '.join(known)}",
        do=advice or _advice(key, section, known, root),
    )


def _advice(key, section, known, root):
    """The key that was meant: the same but for case and signs, here or in another section; else one that is near."""
    plain, here = _letters(key[:100]), {_letters(name): name for name in known}
    if plain in here:
        return f"write {here[plain]!r}"
    near = [letters for letters in here if sorted(letters) == sorted(plain)]
    near = near or difflib.get_close_matches(plain, here, n=1, cutoff=0.7)
    if near:
        return f"write {here[near[0]]!r}"
    if plain in (others := _all_keys(root)):
        return f"move it: {others[plain]} is the key"
    near = difflib.get_close_matches(plain, here, n=1, cutoff=0.55 if len(plain) > 2 else 0.5)  # lo: l0
    return f"write {here[near[0]]!r}" if near else "remove it"


def _letters(key):
    return "".join(character for character in key.lower() if character.isalnum())


@cache
def _all_keys(root):
    """{letters of a key: its dotted path} of every key of a section, those nearest to the top first."""
    found, sections = {}, [((), root)]
    for path, section in sections:
        for name, field in section.model_fields.items():
            here = (*path, field.alias or name)
            found.setdefault(_letters(here[-1]), dotted(here))
            sections += [(here, inner) for inner in sections_in(field.annotation)]
    return found


def key_names(section):
    """The keys of a section as a spec writes them."""
    return [field.alias or name for name, field in section.model_fields.items()]


# From a location of pydantic's to a key path.


def _problem(error, root):
    """Follows the annotations along the location, which also names the members of unions."""
    path, rest, here, section, expected = [], list(error["loc"]), root, root, None
    while rest:
        members = _members(here)
        if len(members) > 1:
            rest.pop(0)  # the name of the member
        if not rest:
            break
        part = rest.pop(0)
        if part == "[key]":
            break
        path.append(part)
        section = next((member for member in members if isinstance(member, type) and issubclass(member, Section)), section)
        here = next((below for member in members if (below := _below(member, part)) is not None), Any)
        expected = _expectation(here)
    to_blame = getattr(error.get("ctx", {}).get("error"), "path", ())
    return _Problem((*path, *to_blame), expected, section, error, here)


def _below(member, part):
    """The annotation of an item of a list, or of a key, or None."""
    if isinstance(member, type) and issubclass(member, Section):
        field = next((field for name, field in member.model_fields.items() if part in (name, field.alias)), None)
        return None if field is None else Annotated[field.annotation, *field.metadata, None]
    arguments = get_args(member)
    if get_origin(member) in (list, tuple) and isinstance(part, int):
        return arguments[min(part, len(arguments) - 1)]
    return arguments[1] if get_origin(member) is dict and isinstance(part, str) else None


def _members(annotation):
    """The types of a union but None, or the one type, without what annotates them."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for argument in get_args(annotation) if argument is not NoneType for member in _members(argument)]
    return [annotation]


def _expectation(annotation):
    """The text of the `Expected` of an annotation, its own or, of an optional value, that of its only type."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        own = next((note.text for note in notes if isinstance(note, Expected)), None)
        return own or _expectation(inner)
    if get_origin(annotation) in (Union, UnionType):
        found = {text for argument in get_args(annotation) if (text := _expectation(argument))}
        return found.pop() if len(found) == 1 else None
    return None
