"""Windows of text with the heat of an activation, as assets/contexts.js draws them: trimmed around their peak, each text once."""

from itertools import groupby, islice
from operator import itemgetter

from cltdb.database.display.words import is_number, is_spaced, number, token_text
from dashboards.drawn import drawn

BEFORE, AFTER = 10, 5
"""Tokens that are shown before and after a peak; the others unfold."""
LONGEST = 400
"""Characters of a token that its hint shows."""
BAND_TITLES = {"top": "Strongest"}


def contexts(rows, *, scale):
    """The windows of named query feature_contexts by band, the first band open. scale: the activation of full heat."""
    bands = [
        {
            "title": BAND_TITLES.get(band, f"Quantile band {band}"),
            "n": len(of_band),
            "peaks": _range([row["max_activation"] for row in of_band]),
            "windows": windows(of_band, scale=scale),
        }
        for band, of_band in ((band, list(of_band)) for band, of_band in groupby(rows, key=itemgetter("band")))
    ]
    return drawn("contexts", {"bands": bands})


def _range(values):
    """The lowest and the highest of numbers; None where none is known."""
    ends = [number(end(known)) for end in (min, max) if (known := [value for value in values if is_number(value)])]
    return " to ".join(dict.fromkeys(ends)) or None


def snippets(rows, *, scale):
    """A few windows (rows of feature_contexts) without bands and numbers."""
    return drawn("snippets", {"windows": windows(rows, scale=scale)})


def text_with_heat(strings, activations, *, scale):
    """A text as a whole, its strongest token underlined. activations: None at tokens that do not count."""
    active = [value or 0.0 for value in activations]
    peak = active.index(max(active)) if any(value > 0 for value in active) else None
    window = {**heat(strings, activations, scale=scale), "first": 0, "end": len(strings), "start": 0, "peak": peak}
    return drawn("snippets", {"windows": [window]})


def windows(rows, *, scale, most=None):
    """What is drawn of windows, in their order, of the first `most` of them. Those whose trimmed text and label are the same are one: the first, with
    how many there are (`n`) and the lowest of their peaks."""
    alike = {}
    for row in rows:
        strings, (first, peak, end) = _strings(row), _trimmed(row)
        shown = tuple(token_text(string) for string in strings[first:end])
        alike.setdefault((shown, peak - first, row["label"]), []).append(row)
    return [_window(same, scale) for same in islice(alike.values(), most)]


def _strings(row):
    return row["strings"] or [None] * len(row["tokens"] or [])


def _trimmed(row):
    """(first token that is shown, peak, after the last one)."""
    peak = max(0, (row["position"] or 0) - (row["start"] or 0))
    return max(0, peak - BEFORE), peak, min(len(_strings(row)), peak + AFTER + 1)


def _window(same, scale):
    """What is drawn of windows that look the same."""
    row = same[0]
    strings, (first, peak, end) = _strings(row), _trimmed(row)
    place = {name: row[name] for name in ("document", "sequence", "position") if row.get(name) is not None}
    return {
        **heat(strings, row["activations"] or [None] * len(strings), scale=scale),
        "first": first,
        "end": end,
        "peak": peak,
        "start": row["start"] or 0,
        "value": number(row["max_activation"]),
        "lowest": number(same[-1]["max_activation"]) if len(same) > 1 else None,
        "n": len(same),
        "label": row["label"],
        "where": " · ".join(f"{name} {value:,}" for name, value in place.items()),
    }


def heat(strings, activations, *, scale):
    """What is drawn of tokens: their strings, the heat behind each (0 to 1), the activations in words, and what a cut string is in full."""
    whole = {i: token_text(string, limit=LONGEST) for i, string in enumerate(strings)}
    cut = [token_text(string) for string in strings]
    return {
        "strings": cut,
        "heat": [_share(value, scale) for value in activations],
        "activations": [f"{value:.6g}" if is_number(value) else number(value) for value in activations],
        "whole": {i: text for i, text in whole.items() if text != cut[i]},
        "spaced": is_spaced(strings),
    }


def _share(value, scale):
    return round(min(1.0, value / scale), 3) if is_number(value) and value > 0 and is_number(scale) and scale > 0 else 0
