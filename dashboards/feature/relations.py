"""Where a feature takes part: its connections, the labels of text it fires on, the tokens it reads and writes, what moves when it is raised,
interventions on it, graphs that hold it. Lists of links."""

from dash import dcc, html

from cltdb.database.display.words import is_number, number, percent, token_text, visible
from dashboards.steered import grouped, said, where
from dashboards.urls import feature_url, graph_url, isolation_url, sql_url

MAX_EFFECTS = 10
EFFECT_TITLES = {"driven_by": "driven by", "inhibited_by": "inhibited by", "promoted": "promotes", "suppressed": "suppresses"}
DIRECTIONS = {"from": "reads from", "to": "writes to"}


def token_effects(card, positive, negative, *, nothing):
    """The tokens of two columns of the card side by side, those of `positive` first."""
    raising, lowering = (card[positive] or [])[:MAX_EFFECTS], (card[negative] or [])[:MAX_EFFECTS]
    if not raising and not lowering:
        return html.P(nothing, className="quiet")
    scale = max((abs(effect["value"]) for effect in raising + lowering if is_number(effect["value"])), default=0.0)
    return html.Div(
        [
            html.Div([html.H3(EFFECT_TITLES[positive]), _effects(raising, scale, "promotes")]),
            html.Div([html.H3(EFFECT_TITLES[negative]), _effects(lowering, scale, "suppresses")]),
        ],
        className="pair effects",
    )


def _effects(effects, scale, tone):
    return html.Ol(
        [
            html.Li(
                [
                    html.Span(html.Bdi(token_text(effect["string"])), className="token"),
                    html.Span(number(effect["value"]), className="value"),
                ],
                style={"--share": f"{abs(effect['value']) / scale:.3f}" if is_number(effect["value"]) and scale else "0"},
                title=f"token {effect['token']}",
            )
            for effect in effects
        ],
        className=f"effect-list {tone}",
    )


def label_shares(rows):
    """On which labels of the text it fires, as its rate on each; nothing where the harvest counted no labels. rows: of query label_shares."""
    if not rows:
        return []
    first, more = rows[0], len(rows) - MAX_EFFECTS
    told = (
        f"tells {number(first['label_information_bits'])} bits of the label, {number(first['label_information_matched_bits'])} at equal token"
        f" frequency; entropy {number(first['label_entropy'])} of 1"
    )
    bars = html.Ol(
        [
            html.Li(
                [
                    html.Span(html.Bdi(visible(row["label"])), className="token"),
                    html.Span(percent(row["rate"]), className="value"),
                ],
                style={"--share": f"{row['share']:.3f}"},
                title=f"fires on {row['firings']:,} of {row['tokens']:,} tokens: {percent(row['share'])} if labels had equally many",
            )
            for row in rows[:MAX_EFFECTS]
        ],
        className="effect-list promotes",
    )
    return [
        html.H2("Fires on text labelled"),
        bars,
        html.P(f"and {more} more labels", className="quiet") if more > 0 else None,
        html.P(told, className="quiet"),
    ]


def connections(connected, similar, *, dict_id, layer):
    """Rows of top_neighbours and nearest_features of a feature of `layer` as lists of links."""
    found = {title: [row for row in connected if row["direction"] == name] for name, title in DIRECTIONS.items()}
    lists = [
        html.Div([html.H3(title), html.Ol([_connection(row, dict_id) for row in rows], className="plain")])
        for title, rows in found.items()
        if rows
    ]
    if similar:
        told = [
            _feature(dict_id, layer, row["neighbour"], row["text"], f"cosine of the decoders {number(row['cosine'])}")
            for row in similar
        ]
        lists.append(html.Div([html.H3("writes alike"), html.Ol(told, className="plain")]))
    return html.Div(lists, className="trio") if lists else html.P("No edges to features of other layers.", className="quiet")


def _connection(row, dict_id):
    measured = f"TWERA {number(row['twera'])}, virtual weight {number(row['virtual_weight'])}"
    return _feature(dict_id, row["layer"], row["feature"], row["text"], measured)


def _feature(dict_id, layer, feature, text, measured):
    link = dcc.Link(html.Bdi(visible(text or "Not explained")), href=feature_url(dict_id, layer, feature))
    return html.Li([link, html.Small(f"{layer}:{feature}, {measured}")])


def interventions(rows, *, n, key):
    """Rows of page_feature_interventions: what was set, and what it did to the logit that changed most. n: of all there are; key: of the feature."""
    if not rows:
        return [html.P("None so far.", className="quiet")]
    first = _of_all("page_feature_interventions", f"The newest {len(rows)}", n, key) if n > len(rows) else None
    return [first, html.Ul([_intervention(row) for row in rows], className="plain")]


def _of_all(query, first, n, key):
    """Says that these are the first of `n` rows of a named query, and leads to all."""
    given = {f"p.{name}": value for name, value in {**key, "limit": n}.items()}
    return html.P([f"{first} of {number(n)}: ", dcc.Link("all of them", href=sql_url(query=query, **given))], className="quiet")


def _intervention(row):
    settings = [[None, None, one["position"], one["operation"], one["value"]] for one in row["settings"]]
    done = ", ".join(f"{said(one)} {where(one[2])}" for one in grouped(settings)) + f", mode {row['mode']}"
    if row["n_features"] > 1:
        done += f", with {row['n_features'] - 1} more"
    changed = None
    if is_number(row["after"]):
        predicted = f", predicted {number(row['predicted'])}" if is_number(row["predicted"]) else ""
        logit = html.Bdi(token_text(row["string"]))
        changed = html.Span(["logit of “", logit, f"” {number(row['before'])} → {number(row['after'])}{predicted}"])
    prompt = html.Bdi(visible(row["prompt"] or row["intervention_id"]))
    return html.Li(
        [
            dcc.Link(prompt, href=graph_url(row["graph_id"])) if row["graph_id"] else prompt,
            html.Small([done, ": " if changed else "", changed]),
        ]
    )


def isolation(rows, *, dict_id):
    """What else moved when it was raised, and whether its fact followed it; nothing where that was not measured. rows: of query feature_isolation."""
    if not rows:
        return []
    link = dcc.Link("Isolation", href=isolation_url(dict_a=dict_id))
    return [
        html.H2("When it is raised"),
        html.Ul([_raised(row, dict_id) for row in rows], className="plain"),
        html.P(["the whole dictionary: ", link], className="quiet"),
    ]


def _raised(row, dict_id):
    measured = {"in its layer": row["leakage_same"], "in later layers": row["leakage_later"]}
    leaks = [f"{number(value)} {where}" for where, value in measured.items() if value is not None]
    told = [f"leakage {' and '.join(leaks)}" if leaks else "no leakage to measure"]
    if row["kl_nats"] is not None:
        told.append(f"KL {number(row['kl_nats'])} nats on {number(row['n_unrelated'])} unrelated prompts")
    said = [html.Small(", ".join(told))]
    if row["most_feature"] is not None:
        most = dcc.Link(
            html.Bdi(visible(row["most_text"] or "Not explained")),
            href=feature_url(dict_id, row["most_layer"], row["most_feature"]),
        )
        said.append(html.Small([f"most by {row['most_layer']}:{row['most_feature']}, {number(row['most_change'])}: ", most]))
    if row["concept"] is not None:
        said.append(html.Small(["its concept “", html.Bdi(visible(row["concept"])), f"”: {_exchanged(row)}"]))
    return html.Li([f"by {number(row['multiple'])} × its high, {number(row['high'])}", *said])


def _exchanged(row):
    """How its fact followed it in the exchanges with other concepts' features."""
    asked = (("old answer gone", "success_drop", "n_drop"), ("new one there", "success_include", "n_include"))
    found = [
        f"{what} in {percent(row[share])} of {number(row[n])} exchanges" for what, share, n in asked if row[share] is not None
    ]
    return ", ".join(found) or "no exchanges"


def graphs(rows, *, n, key):
    """Rows of page_feature_graphs: the nodes of graphs that it is; a link selects the node. n: of all there are; key: of the feature."""
    if not rows:
        return [html.P("In no graph so far.", className="quiet")]
    first = _of_all("page_feature_graphs", f"The {len(rows)} nodes of highest influence", n, key) if n > len(rows) else None
    return [first, html.Ul([_graph(row) for row in rows], className="plain")]


def _graph(row):
    told = f"position {row['position']}, activation {number(row['activation'])}, influence {number(row['influence'])}{'' if row['kept'] else ', pruned'}"
    link = dcc.Link(html.Bdi(visible(row["prompt"] or row["graph_id"])), href=graph_url(row["graph_id"], sel=row["node_id"]))
    return html.Li([link, html.Small(told)])
