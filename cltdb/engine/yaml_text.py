"""YAML 1.2 to plain values with the line of every key; the one place that reads or writes YAML.

PyYAML scans and parses. What differs from its SafeLoader: numbers, booleans and null are those of YAML 1.2's core schema, with `_`
between digits (`010` is 10, `1:30`, `yes` and dates are words), keys are words, and each once. Aliases may not be recursive, nor nesting,
size and numbers beyond any use. Tags that would make anything but plain values are refused.
"""

import itertools
import re
import textwrap
from typing import NamedTuple

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from cltdb.errors import SpecError, shown

UNSHOWN = ("api_key_env", "api_base")
"""Keys in whose value a user may write a secret by mistake."""
MAX_DEPTH, MAX_VALUES, MAX_DIGITS = 50, 200_000, 400
COMMENT_WIDTH = 110
OTHERWISE = re.compile(r"[\t\ufeff%!?]|[|>][-+0-9]*#")
"""What libyaml may take otherwise than PyYAML: tabs between words, byte order marks within a text, directives, tags, words in brackets with a
question mark, a comment right after the sign of a block of text. A text that holds one is left to PyYAML."""
AMBIGUOUS = re.compile(r"^(yes|no|on|off|y|n)$", re.IGNORECASE)
NULL, BOOL, INT, FLOAT, STR, MERGE, SEQUENCE, MAPPING = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "merge", "seq", "map")
)
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_SCHEMA = (
    (NULL, r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    (BOOL, r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    (INT, rf"^(?:[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        FLOAT,
        rf"^(?:[-+]?(?:\.[0-9]+|{_DIGITS}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)

PROBLEMS = (
    (
        "mapping values are not allowed here",
        "': ' where no key can stand",
        "one key in a line, in the column of its section",
        "mend the indentation, put a space after each ':', quote a value that holds ': '",
    ),
    (
        r"expected <block end>, but found '<block \w+ start>'",
        "a line that is indented otherwise than those above it",
        "keys of a section in one column",
        "indent it like its neighbours",
    ),
    ("expected <block end>, but found .*", "more after a value", "a new line", "quote the whole value, or begin a new line"),
    (r"found character '\\t' that cannot start any token", "a tab", "spaces", "indent with spaces"),
    (
        "found character '(.)' that cannot start any token",
        r"'\1' at the beginning of a value",
        "a word, a number, a list or keys",
        "quote the value",
    ),
    ("found unexpected end of stream", "a quote without its end", "a closing quote", "close it"),
    ("could not find expected ':'", "a line without ': '", "key: value", "mend it"),
    (
        r"(?:expected alphabetic or numeric character, but found .*|found undefined alias .*)",
        "a value that begins with * or &, an alias that does not exist",
        "a value",
        "quote it",
    ),
)
"""(what PyYAML says, found, expected, what to do) where its words are those of its parser."""


class Yaml(NamedTuple):
    """What a text says: plain values, and {key path: line} of every key and value."""

    values: object
    lines: dict


class _Composer(Composer):
    """Composes nodes, down to MAX_DEPTH."""

    depth = 0

    def compose_node(self, parent, index):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "values nested too deeply", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(_Composer, yaml.SafeLoader):
    yaml_implicit_resolvers = {}


if yaml.__with_libyaml__:

    class _FastLoader(_Composer, yaml.cyaml.CParser, Resolver):
        """`_Loader` on the parser of libyaml, with a tenth of the time; its words for what is wrong are others."""

        yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

        def __init__(self, text):
            yaml.cyaml.CParser.__init__(self, text)
            Composer.__init__(self)
            Resolver.__init__(self)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or `read` would take for something else than a word."""


for _tag, _pattern, _first in _SCHEMA:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))
_Loader.add_implicit_resolver(MERGE, re.compile(r"^<<$"), ["<"])


def read_file(path, *, bare_words=False):
    """The `Yaml` of a UTF-8 file; SpecError with its line for what it cannot be."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise SpecError(str(path), found=error.strerror, expected="a YAML file that can be read", do="mend the path") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{path}:{line}", found=f"the byte {data[error.start]:#04x}", expected="UTF-8", do="save the file as UTF-8"
        ) from error
    return read(text, place=lambda line: f"{path}:{line}", bare_words=bare_words)


def read(text, *, place, bare_words=False, under=()):
    """The `Yaml` of a text. place(line): how errors name a line; bare_words: whether a bare yes, no, on or off is taken as the word; under: the key
    path at which the text stands, in errors."""
    try:
        node = _root(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = getattr(error, "position", None)  # of a character that YAML excludes
        line = mark.line if mark else text.count("\n", 0, position or 0)
        problem = f"the character {error.character:#06x}" if position is not None else error.problem or error.context
        found, expected, do = _in_words(problem)
        raise SpecError(place(line + 1), found=shown(found, quoted=False), expected=expected, do=do) from error
    reading = _Reading(place, bare_words, under)
    return Yaml(None if node is None else reading.value(node, ()), reading.lines)


def _root(text):
    """The root node of a text. What libyaml refuses is parsed once more by PyYAML's own parser, whose words `PROBLEMS` knows."""
    if yaml.__with_libyaml__ and not OTHERWISE.search(text):
        try:
            return _FastLoader(text).get_single_node()
        except (yaml.YAMLError, UnicodeError):
            pass
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _in_words(problem):
    """(found, expected, what to do) of a problem that PyYAML names in its own words."""
    for pattern, *words in PROBLEMS:
        if match := re.fullmatch(pattern, problem):
            return [match.expand(text) for text in words]
    both = re.fullmatch(r"expected (.*), but (?:got|found) (.*)", problem)
    expected, found = both.groups() if both else ("valid YAML", problem.removeprefix("but ").removeprefix("found "))
    names = {"'<stream end>'": "the end of the text", "the node content": "a value"}
    return names.get(found, found), names.get(expected, expected), "mend it"


def read_keys(path):
    """The `Yaml` of a file of keys and values; an empty file has none."""
    values, lines = read_file(path)
    if values is not None and not isinstance(values, dict):
        found = "a list" if isinstance(values, list) else shown(values)
        raise SpecError(str(path), found=found, expected="keys and values", do="start from `cltdb init NAME`")
    return Yaml(values or {}, lines)


def read_pair(text, *, option, example):
    """(key, value) of the KEY=VALUE of an option; the value is YAML, as in a spec."""
    where, (key, equals, value) = option_place(option, text), text.partition("=")
    if not equals or not key:
        raise SpecError(
            where, found="no key=value", expected="key=value, the value in YAML", do=f"write for example {option} {example}"
        )
    return key, read(value, place=lambda line: where, under=(key,)).values


def option_place(option, text):
    """How errors name an option with its text, without the value where that may hold a secret by mistake."""
    if any(name in text for name in UNSHOWN):
        text = f"{text.partition('=')[0]}=…"
    return f"{option} {shown(text, quoted=False)}"


def dump(values, *, sort_keys=True):
    """The values as YAML; with sorted keys equal values are one text."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True)


def commented(text, about):
    """The YAML text in block style, before each key, the first time, what about(key path) says of it. Values stay as they are written,
    and so do the comments at the head."""
    head = list(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))
    node = _Loader(text).get_single_node()
    return "\n".join([*head, "", *_block(node, (), text, about, set())]) + "\n"


def _block(node, path, text, about, said):
    """Lines of keys with their comments."""
    for key, value in node.value:
        here = (*path, key.value)
        place = tuple(part for part in here if isinstance(part, str))
        comment = None if place in said else about(here)
        said.add(place)
        yield from (f"# {line}" for line in textwrap.wrap(comment or "", COMMENT_WIDTH - 2 * len(place)))
        yield from _value_lines(key.value, value, here, text, about, said)


def _value_lines(name, node, path, text, about, said):
    if isinstance(node, yaml.MappingNode) and node.value:
        yield f"{name}:"
        yield from (f"  {line}" for line in _block(node, path, text, about, said))
    elif isinstance(node, yaml.SequenceNode) and any(isinstance(item, yaml.MappingNode) for item in node.value):
        yield f"{name}:"
        for index, item in enumerate(node.value):
            yield "  -"
            yield from (f"    {line}" for line in _block(item, (*path, index), text, about, said))
    else:
        yield f"{name}: {text[node.start_mark.index : node.end_mark.index]}"


def dotted(path):
    """A key path as errors name it."""
    return ".".join(shown(part, quoted=False) for part in path)


class _Reading:
    """Makes values of nodes, and notes their lines."""

    def __init__(self, place, bare_words, under):
        self.place, self.bare_words, self.under = place, bare_words, under
        self.lines, self.n_values, self.within = {}, 0, set()

    def error(self, node, path, *, found, expected, do):
        where = self.place(node.start_mark.line + 1)
        path = (*self.under, *path)
        return SpecError(f"{dotted(path)} ({where})" if path else where, found=found, expected=expected, do=do)

    def value(self, node, path):
        self.n_values += 1
        if self.n_values > MAX_VALUES:
            raise self.error(node, path, found=f"more than {MAX_VALUES:,} values", expected="fewer", do="write aliases out")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.within:
            raise self.error(node, path, found="an alias within what it stands for", expected="values that end", do="remove it")
        kind = MAPPING if isinstance(node, yaml.MappingNode) else SEQUENCE
        if node.tag != kind:
            raise self.tag_error(node, path)
        self.within.add(id(node))
        if kind == SEQUENCE:
            values = [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            values = self.mapping(node, path)
        self.within.remove(id(node))
        return values

    def mapping(self, node, path):
        values, merged = {}, {}
        for key, item in node.value:
            if key.tag == MERGE:
                for source in reversed(item.value if isinstance(item, yaml.SequenceNode) else [item]):
                    found = self.value(source, path)
                    if not isinstance(found, dict):
                        raise self.error(key, path, found="<< without keys", expected="an alias of keys", do="remove it")
                    merged |= found
                continue
            name = self.key(key, path)
            if name in values:
                raise self.error(key, (*path, name), found="the key twice", expected="each key once", do="remove one")
            self.lines[(*path, name)] = key.start_mark.line + 1
            values[name] = self.value(item, (*path, name))
        return {**values, **{key: merged[key] for key in merged if key not in values}}

    def key(self, node, path):
        name = self.scalar(node, path, key=True) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(name, str):
            kind = {yaml.SequenceNode: "a list", yaml.MappingNode: "keys and values"}.get(type(node)) or shown(name)
            raise self.error(node, path, found=f"{kind} as a key", expected="a word as a key", do="write a word, or quote it")
        return name

    def scalar(self, node, path, *, key=False):
        text, tag, plain = node.value, node.tag, not node.style
        if plain and AMBIGUOUS.match(text) and not (key or self.bare_words):
            do = f'write "{text}" for the word, true or false for the choice'
            raise self.error(node, path, found=f"a bare {text}", expected="true, false or a quoted string", do=do)
        if tag == STR:
            return self.word(node, path)
        pattern = next((pattern for known, pattern, _ in _SCHEMA if known == tag), None)
        if pattern is None or tag == MERGE:
            raise self.tag_error(node, path)
        if tag in (INT, FLOAT) and len(text) > MAX_DIGITS:
            raise self.error(node, path, found=f"a number of {len(text):,} digits", expected="a shorter one", do="mend it")
        if not re.match(pattern, text) and not (tag == FLOAT and re.match(_SCHEMA[2][1], text)):
            raise self.error(node, path, found=shown(text), expected=f"what {tag.rpartition(':')[2]} can be", do="mend it")
        return _number(text, tag) if tag in (INT, FLOAT) else text.lower() == "true" if tag == BOOL else None

    def word(self, node, path):
        try:  # JSON writes some characters as two halves
            return node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError as error:
            found = f"half a character in {shown(node.value)}"
            raise self.error(node, path, found=found, expected="Unicode text", do="mend it") from error

    def tag_error(self, node, path):
        found = f"the tag {shown(node.tag, quoted=False)}"
        return self.error(node, path, found=found, expected="plain values", do="remove the tag")


def _number(text, tag):
    plain = text.replace("_", "").lower()
    if tag == FLOAT:
        return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
    return int(plain, {"0o": 8, "0x": 16}.get(plain[:2], 10))
