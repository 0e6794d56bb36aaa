"""Numbers, shares, durations and tokens as people read them, in pages and in notebooks."""

import math

UNKNOWN = "–"
MAX_TOKEN_CHARS = 48
SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


def is_number(value):
    """True for a finite number."""
    return value is not None and not isinstance(value, str) and math.isfinite(value)


def number(value):
    """Three significant digits, thousands separated; a dash where nothing is known, `not a number` as such."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if isinstance(value, int) or abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif value != 0 and abs(value) < 1e-3:
        text = f"{value:.1e}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−", 1) if value < 0 else text


def percent(value):
    """A share (0 to 1) in percent."""
    if not is_number(value):
        return number(value)
    if value != 0 and abs(value) < 1e-6:
        return f"{value * 100:.1e} %"
    return f"{value * 100:.3g} %"


def with_interval(row, name, said=number):
    """A value with its 95 % interval, columns name, name_low and name_high of a row; the value alone where it has none."""
    if not is_number(row[f"{name}_low"]):
        return said(row[name])
    low, high = (said(round(row[f"{name}_{end}"], 9)) for end in ("low", "high"))  # without what rounding makes of 0
    return f"{said(row[name])} ({low} to {high})"


def seconds(value):
    """A duration in the unit one would say it in."""
    if not is_number(value):
        return UNKNOWN
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(n_bytes):
    """A number of bytes in the unit one would say it in."""
    if not is_number(n_bytes):
        return UNKNOWN
    unit, per = next(
        ((unit, per) for unit, per in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if n_bytes >= per), ("B", 1)
    )
    return f"{n_bytes / per:.3g} {unit}"


def visible(text):
    """The text with characters that would not show, or that would move what stands beside them, as signs or escapes: line breaks, other
    control characters, marks of writing direction, spaces other than the plain one."""
    if text.isprintable():  # as nearly all are
        return text
    return "".join(one if one.isprintable() else SIGNS.get(one) or one.encode("unicode_escape").decode() for one in text)


def token_text(string, *, limit=MAX_TOKEN_CHARS):
    """A token's string, `visible` and cut to `limit` characters; `∅` where it is empty or unknown."""
    if not string:
        return "∅"
    text = visible(string[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_spaced(strings):
    """True where the tokens carry no spaces of their own, as of a word-level tokenizer."""
    return not any(string and string[0] in " ▁Ġ" for string in strings)
