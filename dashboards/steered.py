"""Interventions as the pages of a graph and of a feature show them: the fields that say what would be set, and what the model then said. Pure functions
of rows."""

from collections import defaultdict

from dash import dcc, html

from cltdb.database.display.words import is_number, number, percent, token_text, visible
from dashboards import work

OPERATIONS = {
    "ablate": ("ablate", "set", 0.0),
    "negate": ("turn around (times −1)", "scale", -1.0),
    "double": ("double", "scale", 2.0),
    "scale": ("multiply by …", "scale", None),
    "set": ("set to …", "set", None),
}
"""{name in the form: (what it is called, operation, value)}; value None: as written beside it."""
MODES = {
    "free": "all of the model",
    "iterative": "the replacement model",
    "frozen_attention": "the model, attention held",
    "constrained": "nothing: direct effects",
}
HIDES_VALUE = "function (operation) { return operation !== 'scale' && operation !== 'set'; }"
"""In the browser: whether the field of the value is hidden."""
N_TOKENS, N_FEATURES = 6, 10
SMALL_PROBABILITY, SMALL_CHANGE = 1e-3, 1e-5
"""Smaller probabilities are shown as such; smaller numbers, beside the largest of their kind, as 0."""
MAX_TEXT_CHARS = 70


def fields(ids, *, operation="ablate", value=None, generate=0):
    """The fields of a form that say how a feature is set, who responds and how far the text goes on. ids: of how, value, its label, mode, generate."""
    how, of_value, label, mode, of_generate = ids
    operations = [{"label": text, "value": name} for name, (text, *_) in OPERATIONS.items()]
    modes = [{"label": text, "value": name} for name, text in MODES.items()]
    return [
        html.Label(["How", dcc.Dropdown(operations, operation, id=how, clearable=False)], className="wide"),
        html.Label(
            ["Value", dcc.Input(value, id=of_value, type="number", step="any")],
            id=label,
            hidden=operation in ("ablate", "negate", "double"),
        ),
        html.Label(["Who responds", dcc.Dropdown(modes, "free", id=mode, clearable=False)], className="wide"),
        html.Label(
            ["Continue by tokens", dcc.Input(generate, id=of_generate, type="number", min=0, max=work.MAX_GENERATED, step=1)]
        ),
    ]


def done(operation, value):
    """(operation, value) of a setting, of what the form says."""
    _, kind, fixed = OPERATIONS[operation]
    return kind, value if fixed is None else fixed


def said(setting):
    """What is done to a feature, as a person says it."""
    *_, operation, value = setting
    if value == 0:
        return "ablated"
    return f"times {number(value)}" if operation == "scale" else f"set to {number(value)}"


def settings_of(row):
    """[[layer, feature, position, operation, value]] of a row of graph_interventions."""
    return [[one["layer"], one["feature"], one["position"], one["operation"], one["value"]] for one in row["settings"]]


def grouped(settings):
    """[[layer, feature, positions, operation, value]] of settings, one for all positions at which the same is done to a feature."""
    positions = defaultdict(list)
    for layer, feature, position, *how in settings:
        positions[layer, feature, *how].append(position)
    return [[layer, feature, positions[layer, feature, *how], *how] for layer, feature, *how in sorted(positions)]


def where(positions):
    """At which positions, in words."""
    if None in positions:
        return "at all positions"
    first, last = min(positions), max(positions)
    if len(positions) == 1:
        return f"at position {first}"
    together = last - first + 1 == len(positions)
    return f"at positions {first} to {last}" if together else f"at {len(positions)} positions"


def intervention(row, features, named, *, title, changes, is_open):
    """One intervention. row: of named query graph_interventions or page_steered; features: rows of intervention_features; named: (layer, feature,
    position) to (what it is called, a link); title, changes: what was set, in a line and in full."""
    return html.Details(
        [
            html.Summary([title, html.Small(f"{row['mode'].replace('_', ' ')} · {_answer(row['logits'] or [])}")]),
            changes,
            tokens((row["logits"] or [])[:N_TOKENS]),
            _continuation(row),
            _changed(features, named),
        ],
        open=is_open,
        className="intervention",
    )


def _answer(logits):
    """What the answer was before, and what it is after."""
    known = [row for row in logits if is_number(row["probability_before"]) and is_number(row["probability_after"])]
    if not known:
        return ""
    then = max(known, key=lambda row: row["probability_before"])
    now = max(known, key=lambda row: row["probability_after"])
    fell = f"{token_text(then['string'])} {percent(then['probability_before'])} → {percent(then['probability_after'])}"
    return fell if now is then else f"{fell}, now {token_text(now['string'])} {percent(now['probability_after'])}"


def tokens(logits):
    """Tokens whose logit was measured: probabilities before and after, the logit's change beside what the graph predicts."""
    if not logits:
        return None
    changes_of = [row[name] - row["before"] for row in logits for name in ("after", "predicted") if is_number(row[name])]
    scale = max([abs(change) for change in changes_of], default=0.0)
    columns = ("after", "predicted") if any(is_number(row["predicted"]) for row in logits) else ("after",)
    head = html.Tr([html.Th(text, scope="col") for text in ("token", "probability", *("logit", "predicted")[: len(columns)])])
    body = [
        html.Tr([html.Th(html.Bdi(token_text(row["string"])), scope="row"), _probabilities(row), *_deltas(row, scale, columns)])
        for row in logits
    ]
    return html.Table([html.Thead(head), html.Tbody(body)], className="effects-of")


def _probabilities(row):
    shares = [row["probability_before"], row["probability_after"]]
    bars = [
        html.Span(className=f"probability {when}", style={"--share": f"{share:.4f}"})
        for when, share in zip(("before", "after"), shares, strict=True)
        if is_number(share)
    ]
    title = " → ".join(percent(share) for share in shares)
    return html.Td([" → ".join(map(_share, shares)), *bars], title=title)


def _share(probability):
    return "<0.1 %" if is_number(probability) and probability < SMALL_PROBABILITY else percent(probability)


def _deltas(row, scale, columns):
    for column in columns:
        if not is_number(row[column]):
            yield html.Td("–", title="the graph was not asked, or cannot say")
            continue
        change = _cleaned(row[column] - row["before"], scale)
        tone, share = "promotes" if change >= 0 else "suppresses", abs(change) / scale if scale else 0.0
        text = f"{'+' if change > 0 else ''}{number(change)}"
        yield html.Td(text, className=f"cell {tone}", style={"--share": f"{share:.3f}"})


def _cleaned(value, scale):
    return 0.0 if abs(value) <= SMALL_CHANGE * scale else value


def _continuation(row):
    if row["text_without"] is None:
        return None
    texts = {"without": row["text_without"], "with": row["text_with"]}
    return html.Dl(
        [part for name, text in texts.items() for part in (html.Dt(name), html.Dd(html.Bdi(visible(text))))],
        className="continued",
    )


def _changed(features, named):
    """The features that an intervention changed most."""
    if not features:
        return None
    scale = max(abs(row["after"] - row["before"]) for row in features)
    items = [_feature(row, named, scale) for row in features[:N_FEATURES]]
    return html.Div([html.H3("Features that changed most"), html.Ol(items, className="edge-list changed")])


def _feature(row, named, scale):
    _, link = named(row["layer"], row["feature"], row["position"])
    before, after = _cleaned(row["before"], scale), _cleaned(row["after"], scale)
    predicted = f" (predicted {number(_cleaned(row['predicted'], scale))})" if is_number(row["predicted"]) else ""
    text = visible(row["text"] or "")
    short = text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
    return html.Li(
        [
            html.Span([link, html.Span(f"{number(before)} → {number(after)}{predicted}", className="value")], className="what"),
            html.Small(short, title=text),
        ],
        className="promotes" if after >= before else "suppresses",
        style={"--share": f"{abs(after - before) / scale if scale else 0:.3f}"},
    )
