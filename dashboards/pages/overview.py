"""Overview: experiments with their stages, dictionaries with headline numbers, curves of every metric."""

import dash
from dash import Input, Output, callback, dcc, html

from cltdb.database.display import figures
from cltdb.database.display.words import is_number, number, percent, seconds
from dashboards import data
from dashboards.components import notice, stat, stats
from dashboards.urls import FRONTIER, OVERVIEW, address, graph_url, search_url

dash.register_page(__name__, path=OVERVIEW, name="Overview", title="Overview · cltdb", order=0)
QUERIES = (
    "experiments_overview", "page_dictionaries", "page_in_training", "graph_list", "page_metric_names", "metrics_curve",
)  # fmt: skip

DICT_SELECT, METRIC_SELECT = "overview-dictionary", "overview-metric"
TICK, REFRESH_MS = "overview-tick", 10_000
TRAIN_FIGURE, EVALUATE_FIGURE = "overview-train-figure", "overview-evaluate-figure"
FIRST_METRIC = "fvu"


def layout(**_):
    """The page, from what the database holds now."""
    with data.session():
        runs, dictionaries = data.query("experiments_overview"), data.query("page_dictionaries")
        training, graphs = data.query("page_in_training"), data.query("graph_list")
    if runs.is_empty() and dictionaries.is_empty() and training.is_empty():
        return notice(
            "This database is empty", "Run `cltdb run experiments/quickstart.yaml`; results appear here as stages finish."
        )
    parts = [html.H1("Overview")]
    if not training.is_empty():
        parts += [html.H2("In training"), html.Div([training_card(row) for row in training.to_dicts()], className="cards")]
    if not dictionaries.is_empty():
        parts += [html.H2("Dictionaries"), html.Div([dictionary_card(row) for row in dictionaries.to_dicts()], className="cards")]
    elif training.is_empty():
        parts.append(notice("No dictionary yet", "The stage `train` makes one; `cltdb status` says how far it is."))
    if dictionaries.height > 1:
        parts.append(html.P(dcc.Link("Compare them: FVU against L0", href=address(FRONTIER))))
    shown = [*training["dict_id"], *dictionaries["dict_id"]]
    if shown:
        parts.append(curves(shown, live=not training.is_empty()))
    if not graphs.is_empty():
        parts += [html.H2("Attribution graphs"), graph_list(graphs.head(12), n_graphs=graphs.height)]
    if not runs.is_empty():
        parts += [html.H2("Experiments"), *experiments(runs)]
    return html.Main(parts, className="overview")


def dictionary_card(row):
    """One dictionary: what it is and how good."""
    what = [row["kind"], row["activation"], row["model_id"]]
    size = f"{number(row['n_layers'])} layers × {number(row['n_features'])} features"
    return html.Article(
        [
            html.H3(row["dict_id"]),
            html.P(" · ".join([part for part in what if part] + [size]), className="quiet"),
            stats(
                stat("FVU", number(row["fvu"]), hint="share of the MLP outputs' variance left unexplained, pooled"),
                stat("L0", number(row["l0"]), hint="active features per layer and token"),
                stat("dead", percent(row["dead_frac"]), hint="share of features that never fire"),
                stat("CE recovered", percent(row["ce_recovered"]), hint=_baselines(row)),
                stat("top-1", percent(row["top1_agreement"]), hint="the replacement model's first token is the model's"),
                stat(
                    "top-1 confident",
                    percent(row["top1_agreement_confident"]),
                    hint="the same where the model's own top probability is at least 0.5",
                ),
            ),
            html.P(
                [
                    dcc.Link(f"{number(row['n_explained'])} explained features", href=search_url(dict_id=row["dict_id"])),
                    f", mean score {number(row['mean_score'])}" if is_number(row["mean_score"]) else "",
                    f" · {number(row['n_graphs'])} graphs" if row["n_graphs"] else "",
                ],
                className="foot",
            ),
        ],
        className="card",
    )


TRAINING_STATUS = {
    "running": "in training",
    "done": "trained; its stage database has not run",
    "failed": "training failed",
    "killed": "training was ended; run it again to continue",
}


def training_card(row):
    """A training without a dictionary yet: how far it is."""
    status = TRAINING_STATUS.get(row["status"], "not finished")
    return html.Article(
        [
            html.H3(row["dict_id"]),
            html.P(f"{status} · step {number(row['step'])}", className="quiet"),
            stats(
                stat("FVU", number(row["fvu"]), hint="of the last training batch on record, pooled"),
                stat("L0", number(row["l0"]), hint="active features per layer and token"),
                stat("dead", percent(row["dead_frac"]), hint="share of features that have not fired for long"),
            ),
            html.P(row["error"], className="error") if row["error"] else None,
        ],
        className="card training",
    )


def _baselines(row):
    names = {"ce_original": "model", "ce_replacement": "replacement", "ce_mean": "mean-ablated", "ce_zero": "zero-ablated"}
    return "cross-entropy in nats: " + ", ".join(f"{label} {number(row[name])}" for name, label in names.items())


def curves(dict_ids, *, live=False):
    """The curves with their two choices; callbacks fill them, again and again while something is in training (`live`)."""
    return html.Section(
        [
            dcc.Interval(id=TICK, interval=REFRESH_MS, disabled=not live),
            html.Div(
                [
                    html.H2("Metrics"),
                    html.Label(
                        [
                            "Dictionary",
                            dcc.Dropdown(dict_ids, dict_ids[0] if dict_ids else None, id=DICT_SELECT, clearable=False),
                        ],
                        className="wide",
                    ),
                    html.Label(["Metric", dcc.Dropdown([FIRST_METRIC], FIRST_METRIC, id=METRIC_SELECT, clearable=False)]),
                ],
                className="controls",
            ),
            html.Div(
                [
                    _figure("Training", TRAIN_FIGURE),
                    _figure("Evaluation, on held-out text", EVALUATE_FIGURE),
                ],
                className="pair",
            ),
        ],
        className="metrics",
    )


def _figure(title, component_id):
    return html.Figure(
        [html.Figcaption(title), dcc.Graph(id=component_id, config=figures.GRAPH_CONFIG, style={"height": figures.HEIGHT})]
    )


def graph_list(graphs, *, n_graphs):
    """Graphs as rows that lead to their pages."""
    rows = [
        html.Li(
            [
                dcc.Link(row["prompt"] or row["graph_id"], href=graph_url(row["graph_id"])),
                html.Span(f"→ {row['top_logit'] or '?'} {percent(row['top_probability'])}", className="accent"),
                html.Span(f"completeness {number(row['completeness_score'])}", className="quiet"),
            ]
        )
        for row in graphs.to_dicts()
    ]
    more = n_graphs - len(rows)
    return html.Ul(
        [*rows, html.Li(f"and {more:,} more on the graph page", className="quiet") if more > 0 else None], className="rows"
    )


def experiments(runs):
    """A block per experiment: its stages in order with status and seconds, errors spelled out."""
    blocks = []
    for (name, spec_hash), stages in runs.group_by("experiment", "spec_hash", maintain_order=True):
        stages = stages.to_dicts()
        errors = [html.P([html.B(f"{s['stage']}: "), s["error"]], className="error") for s in stages if s["error"]]
        chips = html.Ol([_stage(stage) for stage in stages], className="stages")
        blocks.append(html.Article([html.H3([name, html.Small(spec_hash[:8])]), chips, *errors], className="card"))
    return blocks


def _stage(row):
    took = seconds(row["seconds"]) if row["status"] == "done" else row["status"]
    hint = f"{row['status']} · {row['device'] or 'device unknown'} · key {row['key']}"
    return html.Li([html.B(row["stage"]), html.Span(took)], className=f"stage {row['status']}", title=hint)


@callback(Output(METRIC_SELECT, "options"), Output(METRIC_SELECT, "value"), Input(DICT_SELECT, "value"))
def offer_metrics(dict_id):
    names = sorted(set(data.query("page_metric_names", dict_id=dict_id or "")["name"]))
    return names, FIRST_METRIC if FIRST_METRIC in names or not names else names[0]


@callback(
    Output(TRAIN_FIGURE, "figure"),
    Output(EVALUATE_FIGURE, "figure"),
    Input(DICT_SELECT, "value"),
    Input(METRIC_SELECT, "value"),
    Input(TICK, "n_intervals"),
)
def draw(dict_id, name, _ticks):
    with data.session():
        train, evaluate = (
            data.query("metrics_curve", dict_id=dict_id or "", name=name or "", stage=stage) for stage in ("train", "evaluate")
        )
    return figures.training_curve(train, name=name), figures.evaluation_bars(evaluate, name=name)
