"""What sections of a spec are made of: strict, frozen models, and numbers and words that say what is expected of them.

Types are strict: `true` is no number, "3" is none either. A whole number may be written as a float without a fraction (`1e6`), a float
without a point (`10`). Every number has bounds, and every bound a reason, which the error tells.

The key of a stage is made of the values of its section (`Section.result_settings`). Fields marked `Neutral` change no number by more than
rounding and stay out of it. Fields marked `Added` came later than their section: at their default they stay out, so that results from before
keep their keys.
"""

import ast
import inspect
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, ClassVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

KEYED = "keyed"
Neutral = Field(json_schema_extra={KEYED: "never"})
Added = Field(json_schema_extra={KEYED: "unless default"})


class Section(BaseModel):
    """Base of every section: unknown keys are errors, types are strict, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        defer_build=True,
    )
    elsewhere: ClassVar[dict[str, str]] = {}
    """Keys that one may look for here, and what to do instead."""

    def __deepcopy__(self, memo):
        """Itself: pydantic would copy the default of every key that is a section, a fifth of the time that a spec takes to be read."""
        return self

    def result_settings(self):
        """{key: JSON value} of what can change a result: what enters the key of the section's stage."""
        settings = {}
        for name, field in type(self).model_fields.items():
            value, keyed = getattr(self, name), keyed_when(field)
            if keyed == "always" or keyed == "unless default" and value != field.get_default(call_default_factory=True):
                settings[field.alias or name] = _plain(value)
        return settings


def keyed_when(field):
    """When a pydantic field of a section enters the key of its stage: always, never, or unless default."""
    return (field.json_schema_extra or {}).get(KEYED, "always")


def _plain(value):
    if isinstance(value, Section):
        return value.result_settings()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def sections_in(annotation):
    """The sections that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


@cache
def documented(section):
    """{name: pydantic field} of a section, where `description` is what stands below the field in the source. pydantic can read it as it makes the
    class (`use_attribute_docstrings`), a quarter of the time that `import cltdb.spec` takes; only who shows it needs it."""
    texts = {}
    for base in (base for base in reversed(section.__mro__) if issubclass(base, Section)):
        with suppress(OSError):  # one that `create_model` made has no source
            [made] = ast.parse(dedent(inspect.getsource(base))).body
            texts |= {
                field.target.id: inspect.cleandoc(below.value.value)
                for field, below in pairwise(made.body)
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            }
    for name, field in section.model_fields.items():
        if field.description is None:
            field.description = texts.get(name)
    return section.model_fields


def docstring(path, section):
    """What the docstring of a key says, on one line; None where it has none. path: keys and indices from a section on."""
    text = None
    for key in path:
        if isinstance(key, str):
            fields = {field.alias or name: field for name, field in documented(section).items()} if section else {}
            field = fields.get(key)
            text = field.description if field else None
            section = next(sections_in(field.annotation), None) if field else None
    return text and " ".join(text.split())


class Conflict(ValueError):
    """What a section's own check finds wrong, "expected …, found …"; path: the key within the section that is to blame; do: what helps."""

    def __init__(self, message, *path, do=None):
        self.path, self.do = path, do
        super().__init__(message)


@dataclass(frozen=True)
class Expected:
    """Stands in an annotation: what errors say that a value should be."""

    text: str


def _without_point(value):
    """A float without a fraction as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


def whole(low, high, why):
    """The type of whole numbers from low to high; why: the reason of the upper bound."""
    expected = Expected(f"an integer from {low:,} to {high:,} ({why})")
    return Annotated[int, Field(ge=low, le=high), BeforeValidator(_without_point), expected]


def real(low, high, why, *, above=False, below=False):
    """The type of numbers from low to high, without low where `above`, without high where `below`; why: the reason of the bounds."""
    bounds = {"gt" if above else "ge": low, "lt" if below else "le": high}
    expected = Expected(
        f"a number {'above' if above else 'from'} {_figures(low)} {'and below' if below else 'to'} {_figures(high)} ({why})"
    )
    return Annotated[float, Field(**bounds), expected]


def _figures(number):
    return f"{number:,.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:g}"


FLOAT32_LEAST, FLOAT32_MOST = 1e-37, 1e38

Positive = whole(1, 10**9, "larger counts would not end")
Count = whole(0, 10**6, "larger counts would not end")
Tokens = whole(1, 10**13, "no text is longer")
Steps = whole(1, 10**9, "more steps would not end")
Sequences = whole(1, 65_536, "more do not fit into memory")
Processes = whole(1, 1024, "no machine has more")
Layer = whole(0, 9_999, "no model is deeper")
Share = real(0, 1, "a share")
Fraction = Share
PositiveNumber = real(FLOAT32_LEAST, FLOAT32_MOST, "what float32 can hold")
Number = real(0, FLOAT32_MOST, "what float32 can hold")

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MAX_NAME = 200
"""Characters of a name; file names, which are made of it, end at 255."""
Name = Annotated[
    str,
    Field(pattern=NAME, max_length=MAX_NAME),
    Expected(f"letters, digits, dot, dash, underscore, a letter or digit first, at most {MAX_NAME} characters"),
]
Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1000), Expected("a word of 1 to 1,000 characters")]
Place = Annotated[
    str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=4000), Expected("a path or address of 1 to 4,000 characters")
]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"), Expected("cpu, cuda, cuda:N or auto")]


def _server(address):
    """An address without anything secret; what is wrong is said without showing it."""
    kept = "the key comes from the environment, through api_key_env"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise ValueError("expected http://HOST:PORT/PATH or https://…, found another kind of address")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"expected an address without user, password, ? or # ({kept}), found one that may hold a secret")
    return address


def _variable(name):
    """The name of an environment variable; another word may be a key by mistake, and is not shown."""
    if not (name.isascii() and name.isidentifier() and name == name.upper() and len(name) <= 100):
        raise ValueError(
            "expected the name of an environment variable in capitals, such as OPENAI_API_KEY (never the key itself), found another word"
        )
    return name


Server = Annotated[str, Field(max_length=1000), AfterValidator(_server), Expected("an address such as http://localhost:8000/v1")]
Variable = Annotated[str, AfterValidator(_variable), Expected("the name of an environment variable, such as OPENAI_API_KEY")]


class Launch(Section):
    processes: Processes = 1
    """Processes per node; more than one are started by DeepSpeed's launcher."""
    nodes: whole(1, 10_000, "no cluster has more") = 1
    """Machines."""
    hostfile: Place | None = None
    """DeepSpeed hostfile, relative to cltdb.yaml; the workspace must be on a file system that all machines share."""
