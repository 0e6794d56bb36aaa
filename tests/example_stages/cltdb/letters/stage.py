"""Stage `letters`: the most frequent first letters of the model's tokens. Writes: tables `letter_counts` and `metrics`."""

from collections import Counter

from cltdb.letters.settings import Letters

from cltdb.engine.closing import named, table
from cltdb.engine.integrity import checked
from cltdb.engine.stage import Stage, reads
from cltdb.engine.workspace import read_json, write_json, write_parquet
from cltdb.metrics import write_metrics
from cltdb.train.trained import dict_id

PIECE = 50


def run(job):
    import polars as pl

    model_id = read_json(checked(job.inputs["model"] / "model.json"))["model_id"]
    strings = table(job.inputs["model"], "vocabulary")["string"].to_list()
    looked_at, counts = strings[: job.settings.max_tokens], Counter()
    for first in range(0, len(looked_at), PIECE):
        counts.update(_counted(job, first, looked_at[first : first + PIECE]))
    is_cut = len(looked_at) < len(strings)
    write_json(job.directory / "ended.json", {"max_tokens": job.settings.max_tokens if is_cut else None})
    chosen = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: job.settings.top]
    rows = [{"model_id": model_id, "letter": letter, "tokens": n} for letter, n in chosen]
    write_parquet(job.directory / "tables/letter_counts/counts.parquet", pl.DataFrame(rows))
    share = sum(n for _, n in chosen) / len(looked_at)
    path = job.directory / "tables/metrics/letters.parquet"
    write_metrics(path, dict_id=dict_id(job.inputs["train"]), stage="letters", rows=[(0, None, "letter_share", share)])


def _counted(job, first, strings):
    """{letter: tokens} of some tokens, a unit that any artifact of this model uses."""
    key = f"{job.input_keys['model']}/{first}-{len(strings)}"
    found = job.units.get("letters", key)
    if found is None:
        letters = (string.strip()[:1].lower() for string in strings if string.strip()[:1].isalpha())
        found = {"counts": Counter(letters)}
        job.units.put("letters", key, found)
    return found["counts"]


def wants_more(experiment, directory):
    before, now = read_json(checked(directory / "ended.json"))["max_tokens"], experiment.letters.max_tokens
    if before is None or now is not None and now <= before:
        return None
    return f"was ended by max_tokens {before}, now {now or 'without'}"


def lines(made):
    counts = table(made["letters"], "letter_counts")
    return [f"  {named(made['letters'])}: most tokens begin with {counts['letter'][0]!r}"]


STAGE = Stage(
    "letters",
    version=1,
    run=run,
    section=Letters,
    inputs=reads("model", "train"),
    wants_more=wants_more,
    optional=True,
    tables=("letter_counts", "metrics"),
    lines=lines,
)
