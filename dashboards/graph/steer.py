"""What the graph page says of interventions: what would be set, what was set, what the model then said. Pure functions of rows and frames."""

from dash import html

from cltdb.database.display.words import is_number, number, percent, token_text, visible
from dashboards.graph.names import link, name

OPERATIONS = {
    "ablate": ("set", 0.0),
    "negate": ("scale", -1.0),
    "double": ("scale", 2.0),
    "scale": ("scale", None),
    "set": ("set", None),
}
"""{name in the form: (operation, value)}; value None: as written beside it."""
N_TOKENS, N_FEATURES, N_NAMED = 6, 10, 4
SMALL_PROBABILITY, SMALL_CHANGE = 1e-3, 1e-5
"""Smaller probabilities are shown as such; smaller numbers, beside the largest of their kind, as 0."""
MAX_TEXT_CHARS = 70


def targets(state, nodes):
    """What can be set: [(name, label, ids of its nodes)] of the selection, of what is pinned, and of each group. nodes: {node id: row}."""
    if not state:
        return []
    chosen = [("selection", "the selection", [*([] if state["selected"] is None else [state["selected"]]), *state["also"]])]
    chosen.append(("pinned", "what is pinned", state["pinned"]))
    chosen += [(f"group {group['id']}", f"group “{visible(group['name'])}”", group["nodes"]) for group in state["groups"]]
    found = [(name, label, _features(ids, nodes)) for name, label, ids in chosen]
    return [one for one in found if one[2]]


def _features(ids, nodes):
    return [node_id for node_id in dict.fromkeys(ids) if node_id in nodes and nodes[node_id]["kind"] == "feature"]


def settings(node_ids, operation, value, nodes):
    """[[layer, feature, position, operation, value]] of `work.intervene` for features of a graph."""
    kind, fixed = OPERATIONS[operation]
    rows = [nodes[node_id] for node_id in node_ids]
    return [[row["layer"], row["feature"], row["position"], kind, value if fixed is None else fixed] for row in rows]


def merged(earlier, later):
    """Two lists of settings as one; where both set a feature at a position, the later one counts."""
    places = {tuple(one[:3]): one for one in [*(earlier or []), *later]}
    return list(places.values())


def said(setting):
    """What is done to a feature, as a person says it."""
    *_, operation, value = setting
    if value == 0:
        return "ablated"
    return f"times {number(value)}" if operation == "scale" else f"set to {number(value)}"


def _by_place(nodes):
    return {(row["layer"], row["feature"], row["position"]): row for row in nodes.values() if row["kind"] == "feature"}


def changes(chosen, nodes):
    """The settings that would be run, each feature a link. chosen: list of settings; nodes: of `names.named`."""
    by_place = _by_place(nodes)
    items = [_change(setting, by_place) for setting in chosen[:N_NAMED]]
    more = html.Li(f"and {len(chosen) - N_NAMED} more", className="quiet") if len(chosen) > N_NAMED else None
    return html.Ul([*items, more] if more else items, className="changes")


def _change(setting, by_place):
    layer, feature, position = setting[:3]
    node = by_place.get((layer, feature, position))
    named = link(node) if node else f"{layer}:{feature} @ position {'all' if position is None else position}"
    return html.Li([named, f" {said(setting)}"])


def intervention(row, features, nodes, *, is_open):
    """One intervention. row: of named query graph_interventions; features: rows of intervention_features; nodes: of `names.named`."""
    chosen = [[one["layer"], one["feature"], one["position"], one["operation"], one["value"]] for one in row["settings"]]
    logits = (row["logits"] or [])[:N_TOKENS]
    return html.Details(
        [
            html.Summary(
                [_title(chosen, nodes), html.Small(f"{row['mode'].replace('_', ' ')} · {_answer(row['logits'] or [])}")]
            ),
            changes(chosen, nodes),
            tokens(logits),
            _continuation(row),
            _changed(features, nodes),
        ],
        open=is_open,
        className="intervention",
    )


def _title(chosen, nodes):
    layer, feature, position, *_ = chosen[0]
    node = _by_place(nodes).get((layer, feature, position))
    others = f" and {len(chosen) - 1} more" if len(chosen) > 1 else ""
    return html.Bdi(f"{name(node) if node else f'{layer}:{feature}'}{others} {said(chosen[0])}")


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
    head = html.Tr([html.Th(text, scope="col") for text in ("token", "probability", "logit", "predicted")])
    body = [
        html.Tr([html.Th(html.Bdi(token_text(row["string"])), scope="row"), _probabilities(row), *_deltas(row, scale)])
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


def _deltas(row, scale):
    for column in ("after", "predicted"):
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


def _changed(features, nodes):
    """The features that an intervention changed most."""
    if not features:
        return None
    scale = max(abs(row["after"] - row["before"]) for row in features)
    items = [_feature(row, nodes, scale) for row in features[:N_FEATURES]]
    return html.Div([html.H3("Features that changed most"), html.Ol(items, className="edge-list changed")])


def _feature(row, nodes, scale):
    node = nodes.get(row["node_id"])
    named = link(node) if node else f"{row['layer']}:{row['feature']} @ position {row['position']}"
    before, after = _cleaned(row["before"], scale), _cleaned(row["after"], scale)
    predicted = f" (predicted {number(_cleaned(row['predicted'], scale))})" if is_number(row["predicted"]) else ""
    text = visible(row["text"] or "")
    short = text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
    return html.Li(
        [
            html.Span([named, html.Span(f"{number(before)} → {number(after)}{predicted}", className="value")], className="what"),
            html.Small(short, title=text),
        ],
        className="promotes" if after >= before else "suppresses",
        style={"--share": f"{abs(after - before) / scale if scale else 0:.3f}"},
    )


def ablations(rows, nodes):
    """The ablations of stage attribute, rows of named query graph_interventions: each in a line."""
    if not rows:
        return None
    by_place, items = _by_place(nodes), []
    for row in rows:
        setting = row["settings"][0]
        node, logits = by_place.get((setting["layer"], setting["feature"], setting["position"])), row["logits"]
        if node and logits:
            first = max(logits, key=lambda one: abs(one["after"] - one["before"]))
            predicted = f", predicted {number(first['predicted'] - first['before'])}" if is_number(first["predicted"]) else ""
            effect = f"{token_text(first['string'])} {number(first['after'] - first['before'])}{predicted}"
            items.append(html.Li([link(node), html.Span(f" {row['mode']}: {effect}", className="quiet")]))
    return html.Details([html.Summary(f"{len(items)} ablations that stage attribute made"), html.Ul(items)], className="more")
