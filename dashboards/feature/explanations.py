"""The explanations of one feature: a row each with its scores beside chance, baselines below."""

from dash import html

from cltdb.database.display.words import is_number, number, visible
from dashboards.components import score_badge

STATUS_TEXT = {
    "failed": "the explainer failed",
    "skipped_budget": "skipped: the budget was spent",
    "too_few_contexts": "too few contexts to explain it",
}


def explanations(rows):
    """Rows of named query page_explanations as a table: a row per explanation, a column per scorer."""
    if not rows:
        return html.P(
            ["Not explained. Raise ", html.Code("explain.features.limit"), " in the spec and run it again."], className="quiet"
        )
    chance = {row["scorer"]: row["chance"] for row in rows if row["scorer"]}
    named = {}
    for row in rows:
        named.setdefault((row["side"], row["explainer"]), []).append(row)
    return html.Div(
        html.Table(
            [
                html.Thead(html.Tr([html.Th("Explanation", scope="col"), *(_heading(*item) for item in chance.items())])),
                html.Tbody([_row(scored, chance) for scored in named.values()]),
            ],
            className="explanations",
        ),
        className="scrolls",
        tabIndex=0,
        role="region",
        **{"aria-label": "explanations and their scores"},
    )


def _heading(scorer, chance):
    return html.Th([scorer, html.Small(f"chance {number(chance)}") if is_number(chance) else None], scope="col")


def _row(scored, chance):
    first, by_scorer = scored[0], {row["scorer"]: row for row in scored}
    is_baseline = first["explainer"].startswith("baseline:")
    text = first["text"] or STATUS_TEXT.get(first["status"], first["status"])
    return html.Tr(
        [
            html.Th(
                [
                    html.P(html.Bdi(visible(text)), title=visible(text) if is_baseline else None),
                    html.P(_source(first), className="quiet"),
                    html.P(visible(first["error"]), className="error") if first["error"] else None,
                ],
                scope="row",
            ),
            *(html.Td(_score(by_scorer[scorer], chance[scorer]) if scorer in by_scorer else "–") for scorer in chance),
        ],
        className="baseline" if is_baseline else None,
    )


def _source(row):
    return " · ".join(part for part in (row["explainer"], f"{row['side']} side", row["model"]) if part)


def _score(row, chance):
    """A score with its interval and how many questions it is from; a mark at chance on the bar of its interval."""
    told = [f"n {number(row['n'])}"]
    told += [f"{row['n_failed']} failed"] if row["n_failed"] else []
    told += ["judged by its words"] if row["judge"] == "words" else []
    interval = None
    if is_number(row["ci_low"]) and is_number(row["ci_high"]):
        places = {"--low": row["ci_low"], "--high": row["ci_high"], "--chance": chance if is_number(chance) else -1}
        interval = html.Span(
            className="interval",
            style={name: f"{100 * max(-0.05, min(1.0, value)):.1f}%" for name, value in places.items()},
        )
        told.insert(0, f"{number(row['ci_low'])} to {number(row['ci_high'])}")
    return [score_badge(row["score"]) or "–", interval, html.Small(", ".join(told))]
