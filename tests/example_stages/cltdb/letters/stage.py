"""Stage `letters`: the most frequent first letters of the model's tokens. Writes: tables `letter_counts` and `metrics`."""

from collections import Counter

from cltdb.letters.settings import Letters

from cltdb.engine.closing import named, table
from cltdb.engine.integrity import checked
from cltdb.engine.stage import Stage, reads
from cltdb.engine.workspace import read_json, write_parquet
from cltdb.metrics import write_metrics
from cltdb.train.trained import dict_id


def run(job):
    import polars as pl

    model_id = read_json(checked(job.inputs["model"] / "model.json"))["model_id"]
    strings = table(job.inputs["model"], "vocabulary")["string"].to_list()
    counts = Counter(string.strip()[:1].lower() for string in strings if string.strip()[:1].isalpha())
    chosen = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: job.settings.top]
    rows = [{"model_id": model_id, "letter": letter, "tokens": n} for letter, n in chosen]
    write_parquet(job.directory / "tables/letter_counts/counts.parquet", pl.DataFrame(rows))
    share = sum(n for _, n in chosen) / len(strings)
    path = job.directory / "tables/metrics/letters.parquet"
    write_metrics(path, dict_id=dict_id(job.inputs["train"]), stage="letters", rows=[(0, None, "letter_share", share)])


def lines(made):
    counts = table(made["letters"], "letter_counts")
    return [f"  {named(made['letters'])}: most tokens begin with {counts['letter'][0]!r}"]


STAGE = Stage(
    "letters",
    version=1,
    run=run,
    section=Letters,
    inputs=reads("model", "train"),
    optional=True,
    tables=("letter_counts", "metrics"),
    lines=lines,
)
