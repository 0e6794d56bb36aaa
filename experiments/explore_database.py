"""A tour of a database in cells: open it in Jupyter or VS Code, or run `python experiments/explore_database.py [cltdb.duckdb]`.

It asks the database of the quickstart, or of any other experiment, and writes a page, a drawing and figures into the folder `explored`.
"""

# %% The database: every call connects, asks and lets go, so a run may go on meanwhile.
import sys
from pathlib import Path

import polars as pl

import cltdb

db = cltdb.open(sys.argv[1] if sys.argv[1:] and sys.argv[1].endswith(".duckdb") else "cltdb.duckdb")
out = Path("explored")
out.mkdir(exist_ok=True)

# %% What is in it: dictionaries, and how good they are on held-out text.
dictionaries = db.dictionaries().select("dict_id", "kind", "activation", "n_layers", "n_features")
print(dictionaries)
dict_id = dictionaries["dict_id"][0]
pooled = pl.col("layer").is_null() & pl.col("name").is_in(["fvu", "l0", "dead_frac", "ce_recovered"])
print(db.metrics(dict_id, stage="evaluate").filter(pooled).select("name", "value"))

# %% Training and evaluation as figures.
db.plot.frontier().write_html(out / "frontier.html", include_plotlyjs="directory")
curve = db.plot.curve("fvu")
curve.write_html(out / "fvu.html", include_plotlyjs="directory")
curve

# %% Features whose explanation holds best, the most frequent first. A lazy frame reads no more of the table than this needs.
cards = db.scan("feature_cards").filter(pl.col("dict_id") == dict_id, pl.col("text").is_not_null())
best = cards.sort("score", "density", "layer", "feature", descending=[True, True, False, False], nulls_last=True).head(10)
best = best.select("layer", "feature", "text", "score", "density").collect()
print(best)

# %% The first of them, with its contexts, its histogram and its neighbours.
layer, index = best.select("layer", "feature").row(0) if best.height else db.features(dict_id).select("layer", "feature").row(0)
feature = db.feature(dict_id, layer, index)
(out / "feature.html").write_text("<meta charset=utf-8>" + feature._repr_html_(), encoding="utf-8")
print(feature)
feature

# %% On how many tokens it is how active.
db.plot.histogram(layer, index, dict_id).write_html(out / "histogram.html", include_plotlyjs="directory")

# %% How its contexts are spread over the labels of the text. Only the columns that are named are read.
contexts = db.scan("contexts").filter(pl.col("dict_id") == dict_id, pl.col("layer") == layer, pl.col("feature") == index)
print(contexts.group_by("band", "label").agg(pl.len(), pl.col("max_activation").max()).sort("band", "label").collect())

# %% The first attribution graph: its scores, its strongest paths, its drawing.
for graph_id, prompt in db.graphs(dict_id).select("graph_id", "prompt").head(1).iter_rows():
    print(prompt)
    print(db.strongest_paths(graph_id, n=5).select("strength", "path"))
    drawing = db.draw(graph_id)
    (out / "graph.svg").write_text(drawing.svg, encoding="utf-8")
    (out / "graph.html").write_text("<meta charset=utf-8>" + drawing._repr_html_(), encoding="utf-8")
    print(drawing)

# %% All windows of the dictionary, larger than memory if need be: the tokens that peaks stand on most often.
with db.session() as session:
    words = session.sql(
        "SELECT string, count(*) AS peaks FROM windows JOIN dictionaries AS d USING (dict_id)"
        " JOIN vocabulary AS v ON v.model_id = d.model_id AND v.token = peak_token WHERE dict_id = $dict_id GROUP BY ALL",
        {"dict_id": dict_id},
    )
print(words.sort("peaks", "string", descending=[True, False]).head(10))
n_windows = sum(
    batch.num_rows for batch in db.arrow("SELECT band, rank FROM windows WHERE dict_id = $dict_id", {"dict_id": dict_id})
)
print(f"{n_windows:,} windows")
