"""What an intervention sets: features set or scaled, directions added; how one is written, and where it stands in a prompt."""

import re
from numbers import Integral
from typing import Any, NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.replacement.constant_positions import from_start, without_features

OPERATIONS = ("set", "scale")
SETTING = re.compile(r"(?P<layer>\d+):(?P<feature>\d+)@(?P<position>-?\d+|\*|-?\d*:(-?\d+)?)=(?P<scale>x?)(?P<value>.+)")


class Setting(NamedTuple):
    """What is done to a feature. position: counted from the end where negative; None for all; or a slice, whose end is not in it.
    operation: set or scale."""

    layer: int
    feature: int
    position: int | slice | None
    operation: str
    value: float


class Addition(NamedTuple):
    """`vector` [d_model] added to the MLP output of `layer`; position as of `Setting`."""

    vector: Any
    layer: int
    position: int | slice | None


def parse_setting(text):
    """`3:120@5=0` sets feature 120 of layer 3 at position 5 to 0, `=2.5` to 2.5, `=x2` doubles it; a position may be
    negative, `*`, or a slice such as `2:5` (2, 3 and 4), `-3:` or `:4`."""
    match = SETTING.fullmatch(text.strip())
    try:
        value = float(match["value"])
    except (TypeError, ValueError):
        value = float("nan")
    if not abs(value) < float("inf"):
        raise CltdbError(
            "--feature",
            found=repr(text),
            expected="LAYER:FEATURE@POS=VALUE, for example 3:120@5=0, 3:120@-1=2.5, 3:120@*=x2 or 3:120@2:5=0",
            do="mend it",
        )
    ends = [int(end) if end else None for end in match["position"].replace("*", "").split(":")]
    position = slice(*ends) if len(ends) == 2 else ends[0]
    return Setting(int(match["layer"]), int(match["feature"]), position, "scale" if match["scale"] else "set", value)


def setting_text(setting):
    """A `Setting` as `parse_setting` reads it."""
    at = setting.position
    if isinstance(at, slice):
        at = ":".join("" if end is None else str(end) for end in (at.start, at.stop))
    scale = "x" if setting.operation == "scale" else ""
    return f"{setting.layer}:{setting.feature}@{'*' if at is None else at}={scale}{float(setting.value)!r}"


def placed(interventions, dictionary, n_positions, n_constant=1):
    """`Setting`s and `Addition`s, one for each position, none of them constant. CltdbError for what the dictionary or the prompt
    has not, for values outside the dictionary's dtype, and for a feature that is set twice at a position."""

    def check(what, found, first, last, note="", given=None):
        if not (isinstance(found, Integral) and first <= found <= last):
            found = found if given is None else given
            raise CltdbError(f"--feature {what}", found=found, expected=f"{first} to {last}{note}", do="choose one of these")

    out, taken = [], set()
    for one in interventions:
        check("layer", one.layer, 0, dictionary.n_layers - 1)
        if isinstance(one, Setting):
            check("feature", one.feature, 0, dictionary.n_features - 1)
            if one.operation not in OPERATIONS:
                raise CltdbError("--feature", found=repr(one.operation), expected=" or ".join(OPERATIONS), do="choose one")
            limit = torch.finfo(dictionary.dtype).max
            if not abs(one.value) <= limit:
                raise CltdbError("--feature value", found=one.value, expected=f"a number up to {limit:.3g}", do="mend it")
        else:
            one = one._replace(vector=_finite_vector(one.vector, dictionary))
        places = range(n_constant, n_positions)
        if isinstance(one.position, slice):
            places = _sliced(one.position, n_positions, n_constant)
        elif one.position is not None:
            places = [from_start(one.position, n_positions, n_constant)]
            note = f" ({without_features(n_constant)}), or counted from the end"
            check("position", places[0], n_constant, n_positions - 1, note, given=one.position)
        for position in places:
            place = (one.layer, one.feature, position) if isinstance(one, Setting) else None
            if place in taken:
                found = f"{one.layer}:{one.feature} set twice at position {position}"
                raise CltdbError("--feature", found=found, expected="each feature once at a position", do="drop one of the two")
            taken |= {place} - {None}
            out.append(one._replace(position=position))
    return out


def _sliced(positions, n_positions, n_constant):
    """A slice of positions as a range; without a start it begins after the constant positions."""
    start, stop = (end if end is None or end >= 0 else end + n_positions for end in (positions.start, positions.stop))
    start, stop = n_constant if start is None else start, n_positions if stop is None else stop
    if positions.step is not None or not n_constant <= start < stop <= n_positions:
        shown = ":".join("" if end is None else str(end) for end in (positions.start, positions.stop))
        first = f"a start from {n_constant} ({without_features(n_constant)})"
        expected = f"{first} below an end up to {n_positions}, or counted from the end"
        raise CltdbError("--feature position", found=shown, expected=expected, do="mend the slice; one end may be left out")
    return range(start, stop)


def _finite_vector(vector, dictionary):
    vector = torch.as_tensor(vector, dtype=dictionary.dtype, device=dictionary.device)
    if vector.shape != (dictionary.d_model,) or not bool(vector.isfinite().all()):
        found = f"shape {list(vector.shape)}" + ("" if vector.isfinite().all() else ", not finite")
        raise CltdbError("intervention, added vector", found=found, expected=f"[{dictionary.d_model}], finite", do="mend it")
    return vector
