"""HTML and SVG without a risk: what is not `Markup` already is text, made visible and escaped. No scripts, no style sheet, no classes:
looks are in style attributes, colours are the notebook's own or mid tones that read on light and dark paper."""

import html

from cltdb.database.display.words import is_number, number, visible

QUIET = "opacity:.7"
FONT = "font:13px/1.5 system-ui,'Segoe UI','Liberation Sans',sans-serif;max-width:960px"


class Markup(str):
    """A string that is HTML."""


def escaped(text):
    """Text as `Markup`, with characters that would not show or that move others made visible."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(str(text))))


def element(name, *children, **attributes):
    """An element; children that are None are left out, attributes that are None too; a name's `_` stands for `-`."""
    given = "".join(f' {key.replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children):
    """Children one after the other."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def isolated(text):
    """A text from outside whose direction of writing does not reach what stands around it."""
    return element("bdi", text)


def folded(title, *children, is_open=False):
    """A part that unfolds on a click."""
    summary = element("summary", title, style="cursor:pointer;font-weight:600;margin-top:.5em")
    return element("details", summary, *children, open="" if is_open else None)


def score(value):
    """A score (0 to 1) on a ground as strong as it is high; None where there is none."""
    if not is_number(value):
        return None
    ground = f"background:rgba(42,157,143,{0.1 + 0.4 * max(0.0, min(1.0, value)):.2f})"
    return element(
        "span",
        number(value),
        style=f"{ground};border-radius:3px;padding:0 5px;font-size:12px;font-weight:400",
        title="score, 0 to 1",
    )


def figures(pairs):
    """Labelled numbers in a row that wraps: (label, text) pairs."""
    cell = "display:inline-block;margin-right:1.6em"
    return element(
        "div",
        *(
            element(
                "span", element("span", label, style=f"{QUIET};font-size:11px"), Markup("<br>"), element("b", text), style=cell
            )
            for label, text in pairs
        ),
        style="margin:.4em 0",
    )
