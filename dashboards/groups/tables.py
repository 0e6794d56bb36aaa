"""Tables of what labels share and what tells them apart. Heat maps are tables too: each cell says its number on a ground as deep as that."""

from itertools import groupby

from dash import dcc, html

from cltdb.database.display.words import is_number, number, percent, visible, with_interval
from dashboards.components import table
from dashboards.drawn import drawn
from dashboards.feature.contexts import windows
from dashboards.urls import feature_url

N_WINDOWS = 2
ALL_PAIRS = "all pairs"
FEATURE_COLUMNS = {
    "contrast": (
        "contrast",
        number,
        "influence on the label's answers less that on answers of the others; by this they are ordered",
    ),
    "effect": ("effect", number, "what it adds to the logit of the label's answer less the mean of all labels' answers"),
    "recurrence": ("recurs in", percent, "share of the label's prompts in which it is among the most influential"),
    "auc": ("AUC", number, "how well it tells the label's held-out text from that of another label: 0.5 nothing, 1 always"),
    "auc_matched": ("at equal frequency", number, "the same on equally many tokens of each frequency"),
    "embedding_share": ("from tokens", percent, "share of its input that comes straight from token embeddings"),
    "probe_cosine": ("probe", number, "cosine with a logistic probe of the label on early residuals"),
}
"""{column of label_features: (name, how it is said, what it is)}."""


def heat(corner, columns, rows, *, said, least=0.0, most=1.0, titles=None, best=()):
    """A heat map as a table. corner: what its rows and columns are; rows: [(name, values)]; said: a value in words; least, most: the values of no
    heat and of full heat; titles: {(row name, column): hint}; best: such places that stand out."""

    def cell(name, column, value):
        share = min(1.0, max(0.0, (value - least) / ((most - least) or 1.0))) if is_number(value) else 0.0
        title = (titles or {}).get((name, column))
        classes = "heat best" if (name, column) in best else "heat"
        return html.Td(said(value), className=classes, style={"--heat-share": f"{share:.3f}"}, title=title)

    body = [
        html.Tr([html.Th(visible(name), scope="row"), *(cell(name, *one) for one in zip(columns, values, strict=True))])
        for name, values in rows
    ]
    head = html.Thead(html.Tr([html.Th(corner), *(html.Th(visible(str(column)), scope="col") for column in columns)]))
    return html.Div(html.Table([head, html.Tbody(body)], className="numbers heat-map"), className="scrolls", tabIndex=0)


def overlaps(rows):
    """The numbers of the figure. rows: dicts of overlap_by_layer."""
    names = ("layer", "overlap", "same label", "other label", "less chance", "pairs")
    columns = ("overlap", "same_label", "other_label", "corrected")
    return table(names, [[row["layer"], *(with_interval(row, name) for name in columns), number(row["n"])] for row in rows])


def labels(answers, metrics):
    """What the model and the dictionary do on each label. answers: dicts of group_list; metrics: {label: dict of metrics_by_label}."""
    names = [
        "label", "prompts", "tokens", "answered", "probability", "replacement score", "FVU", "L0", "cross-entropy", "replaced", "KL",
    ]  # fmt: skip
    rows = []
    for row in answers:
        of_text = metrics.get(row["label"], {})
        rows.append(
            [
                html.Bdi(visible(row["label"])), number(row["n_concepts"]), number(row["mean_tokens"]), percent(row["accuracy"]),
                percent(row["probability"]), number(row["replacement_score"]),
                *(number(of_text.get(name)) for name in ("fvu", "l0", "ce_original", "ce_replacement", "kl_nats")),
            ]
        )  # fmt: skip
    return table(names, rows)


def errors(rows):
    """Label by layer: what errors have of the influence on answers. rows: dicts of group_layers."""
    layers = sorted({row["layer"] for row in rows})
    most = max((row["error_share"] for row in rows if is_number(row["error_share"])), default=0.0)
    by_label = [
        (label, [row["error_share"] for row in of_label]) for label, of_label in groupby(rows, key=lambda row: row["label"])
    ]
    return heat("label, layer", layers, by_label, most=most, said=percent)


def label_shares(rows):
    """The numbers of the figure. rows: dicts of label_layers."""
    names = ("layer", "features that fire", "specific", "of them at equal frequency", "shared", "mean entropy")
    return table(
        names,
        [
            [
                row["layer"], number(row["n_features"]), _counted(row["n_specific"], row["specific_frac"]), number(row["n_matched"]),
                _counted(row["n_shared"], row["shared_frac"]), number(row["mean_entropy"]),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _counted(n, share):
    return f"{number(n)} ({percent(share)})"


def results(rows):
    """From label to label: the share of right answers at the best point. rows: dicts of substitution_results."""
    names = sorted({row[end] for row in rows for end in ("label_from", "label_to")})
    right = {(row["label_from"], row["label_to"]): row for row in rows}
    values = [(name, [right.get((name, to), {}).get("right") for to in names]) for name in names]
    titles = {pair: f"95 %: {percent(row['right_low'])} to {percent(row['right_high'])}" for pair, row in right.items()}
    return heat("from, to", names, values, said=percent, titles=titles)


def controls(rows):
    """The same beside its controls. rows: dicts of substitution_results."""
    names = (
        "from", "to", "right", "untouched, right", "random, right", "reverse, right", "of that label", "untouched", "random", "reverse",
        "KL", "random, KL", "concepts", "set",
    )  # fmt: skip
    return table(
        names,
        [
            [
                html.Bdi(visible(row["label_from"])), html.Bdi(visible(row["label_to"])), with_interval(row, "right", percent),
                percent(row["untouched_right"]), _of_draws(row), percent(row["reverse_right"]),
                *(percent(row[name]) for name in ("label", "untouched_label", "random_label", "reverse_label")), number(row["kl_nats"]),
                number(row["random_kl_nats"]), number(row["n"]), _point(row),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _of_draws(row):
    """The rate of random features: the mean over draws and the largest."""
    said = percent(row["random_right"])
    return said if row["n_random"] < 2 else f"{said}, at most {percent(row['random_right_most'])}"


def _point(row):
    held, put = (row["n_features"] if row[name] is None else row[name] for name in ("n_suppressed", "n_boosted"))
    if is_moved(row):
        change = "mean change" if row["set_to"] == "shifted" else "change"
        return f"{number(held + put)} moved by ×{number(row['boost'])} of their {change}, {row['positions']}"
    return f"{number(held)} at ×{number(row['suppress'])}, {number(put)} at ×{number(row['boost'])}, {row['positions']}"


def is_moved(row):
    """Whether features are moved, by what the other label's last token changes, and not set to multiples of their range."""
    return row["set_to"] in ("exchanged", "shifted")


def grid(rows):
    """All points of one pair: features and positions by multiples. rows: dicts of substitution_grid, of one pair."""
    columns = sorted({(row["suppress"], row["boost"]) for row in rows})
    lines = sorted({(row["n_features"], row["positions"]) for row in rows})
    found = {(row["n_features"], row["positions"], row["suppress"], row["boost"]): row for row in rows}
    heads = {of: f"×{number(of[1])}" if is_moved(rows[0]) else f"×{number(of[0])}, ×{number(of[1])}" for of in columns}
    names = {line: f"{line[0]}, {line[1]}" for line in lines}
    values = [(names[line], [found[*line, *column]["rate_right"] for column in columns]) for line in lines]
    places = {(names[row["n_features"], row["positions"]], heads[row["suppress"], row["boost"]]): row for row in rows}
    titles = {place: _grid_title(row) for place, row in places.items()}
    best = {place for place, row in places.items() if row["is_best"]}
    return heat("features, positions", list(heads.values()), values, said=percent, titles=titles, best=best)


def _grid_title(row):
    best = "the best point; " if row["is_best"] else ""
    return f"{best}answers of the label {percent(row['rate_label'])}, KL {number(row['kl_nats'])} nats"


def together(rows):
    """How well the features of each label tell its text together, None without rows. rows: dicts of label_scores, of one first layer."""
    if not rows:
        return None
    of_label = {label: {row["n_features"]: row for row in of} for label, of in groupby(rows, key=lambda row: row["label"])}
    sizes = sorted(set.intersection(*map(set, of_label.values())) - {max(of) for of in of_label.values()})
    columns = [*sizes, "all"]
    found = {(label, size): of[max(of) if size == "all" else size] for label, of in of_label.items() for size in columns}
    values = [(label, [found[label, size]["auc"] for size in columns]) for label in of_label]
    titles = {place: _score_title(row) for place, row in found.items()}
    return heat("label, features", columns, values, said=number, least=0.5, titles=titles)


def _score_title(row):
    n = f"{number(row['n_features'])} features, {number(row['n_pieces'])} pieces of text"
    fitted = f"with fitted weights {number(row['fitted_auc'])}, at equal token frequency {number(row['fitted_auc_matched'])}"
    return f"{n}; at equal token frequency {number(row['auc_matched'])}; {fitted}"


def label_features(rows, contexts, *, dict_id):
    """The features of a label, each with its strongest windows. rows: dicts of label_features; contexts: {(layer, feature): dicts of
    feature_contexts}."""
    heads = [
        html.Th("feature", scope="col"),
        *(html.Th(name, scope="col", title=what) for name, _, what in FEATURE_COLUMNS.values()),
    ]
    bodies = [_label_feature(row, contexts.get((row["layer"], row["feature"]), []), dict_id) for row in rows]
    return html.Div(
        html.Table([html.Thead(html.Tr(heads)), *bodies], className="numbers label-features"), className="scrolls", tabIndex=0
    )


def _label_feature(row, contexts, dict_id):
    name = f"{row['layer']}:{row['feature']}"
    link = dcc.Link(name, href=feature_url(dict_id, row["layer"], row["feature"]))
    kept = f"matching keeps {percent(row['matched_share'])} of a piece's tokens"
    hints = {"auc_matched": None if row["matched_share"] is None else kept}
    numbers = [html.Td(said(row[column]), title=hints.get(column)) for column, (_, said, _) in FEATURE_COLUMNS.items()]
    scale = max((one["max_activation"] for one in contexts if is_number(one["max_activation"])), default=0.0)
    shown = drawn("snippets", {"windows": windows(contexts, scale=scale, most=N_WINDOWS)}, name=f"strongest windows of {name}")
    return html.Tbody(
        [
            html.Tr([html.Th(link, scope="row"), *numbers]),
            html.Tr(
                html.Td(
                    [html.P(html.Bdi(visible(row["text"] or "not explained")), className="quiet"), shown],
                    colSpan=len(numbers) + 1,
                )
            ),
        ]
    )
