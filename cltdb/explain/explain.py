"""Explains features and scores the explanations. Reads: a harvest. Writes: `tables/explanations`, `tables/scores`, `tables/requests`,
`summary.json`.

Features are worked on in blocks, in their order (`pipeline.py`). A larger limit, another scorer or a killed run make and pay only what is new,
and rows are the same however they come about.

Beside the first explainer of each side stand baselines: the same judgements against shuffled truths (`baseline:shuffled`: what guessing gets),
the explanation of a feature before it in its block (`baseline:other_feature`: would any do?) and the feature's five most frequent tokens
(`baseline:top_tokens`). Beside some of the features stand those of other dictionaries (`cltdb.explain.baselines`).
"""

import asyncio
from pathlib import Path

import polars as pl

from cltdb import log
from cltdb.engine.stage import ALONE
from cltdb.engine.workspace import write_parquet
from cltdb.explain.baselines.compared import Comparison
from cltdb.explain.pipeline import Labelled, Pipeline
from cltdb.explain.requests.client import Client
from cltdb.explain.requests.client import run as run_requests
from cltdb.explain.settings import RULES_MODEL
from cltdb.explain.strata import stratified

BLOCK, PART_BLOCKS = 256, 32
"""Features of a block; blocks of a file."""
BLOCKS_AHEAD = 2
"""Blocks in progress at once, so that requests are in flight while the last of a block are answered."""
PLACE = {"dict_id": pl.String, "layer": pl.Int32, "feature": pl.Int32, "side": pl.String, "explainer": pl.String}
EXPLANATION_SCHEMA = PLACE | {
    "text": pl.String,
    "rule": pl.String,
    "model": pl.String,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "status": pl.String,
    "error": pl.String,
    "created_at": pl.Datetime("us"),
}
SCORE_SCHEMA = PLACE | {
    "scorer": pl.String,
    "score": pl.Float64,
    "n": pl.Int32,
    "n_failed": pl.Int32,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "detail": pl.String,
}
REQUEST_SCHEMA = {
    "dict_id": pl.String,
    "request_id": pl.String,
    "purpose": pl.String,
    "model": pl.String,
    "status": pl.String,
    "error": pl.String,
    "reused": pl.Boolean,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "seconds": pl.Float64,
    "attempts": pl.Int32,
    "created_at": pl.String,
}
SCHEMAS = {"explanations": EXPLANATION_SCHEMA, "scores": SCORE_SCHEMA}


def explain(settings, subjects, *, directory, units, dict_id, share=ALONE, labels=(), baselines=()):
    """Fills `directory`; what `units` (cltdb.engine.units.Units) has is not made again.

    settings: section `Explain`; subjects: `Subjects` of the harvest; share: of the blocks that this process makes; labels: a frame of texts that
    were made elsewhere (`cltdb.explain.labels`) for each of `settings.labels`; baselines: `baselines.harvested.Baseline`s to compare with.
    """
    directory, labels = Path(directory), Labelled(labels)
    wanted = chosen(settings, subjects.windows, labels.places)
    blocks = [wanted[first : first + BLOCK] for first in range(0, len(wanted), BLOCK)][share.rank :: share.world_size]
    client = Client(settings, units) if settings.model != RULES_MODEL else None
    _remove_parts(directory, share)
    compared = [
        Comparison.of(baseline, subjects, wanted, settings.baseline_features) for baseline in baselines if share.rank == 0
    ]
    with log.progress("explain", total=sum(map(len, [*blocks, *(one.pairs for one in compared)])), unit="features") as bar:
        made = dict(units=units, dict_id=dict_id, advance=bar.advance)
        pipeline = Pipeline(settings, subjects, client, labels, **made)
        own = settings.of_baselines()
        beside = [(one, Pipeline(own, one.baseline.subjects, client, Labelled(()), **made)) for one in compared]
        run_requests(_write_all(pipeline, blocks, beside, directory, rank=share.rank))
    if client is not None:
        rows = [(dict_id, *entry) for entry in client.ledger]
        frame = pl.DataFrame(rows, schema=REQUEST_SCHEMA, orient="row").with_columns(
            pl.col("created_at").str.to_datetime(time_unit="us")
        )
        write_parquet(directory / "tables/requests/00000.parquet", frame.sort("request_id"))


def _remove_parts(directory, share):
    """Removes what a killed run left, with whatever number of processes: the parts of the ranks that come down to this one."""
    for table in SCHEMAS:
        for path in (directory / "tables" / table).glob("*.parquet"):
            if int(path.name.partition("-")[0]) % share.world_size == share.rank:
                path.unlink()


async def _write_all(pipeline, blocks, beside, directory, *, rank):
    """Writes the rows of all blocks, then those of comparisons; beside: [(`Comparison`, the pipeline of its dictionary)]."""
    await _write_blocks(pipeline, blocks, directory, rank=rank)
    for comparison, of_baseline in beside:
        rows = await comparison.rows(of_baseline)
        _write_part(
            directory, f"{rank:03d}-{comparison.baseline.name.removeprefix('baseline:')}", dict(zip(SCHEMAS, rows, strict=True))
        )


async def _write_blocks(pipeline, blocks, directory, *, rank):
    """Makes blocks, a few at once, and writes their rows in their order, PART_BLOCKS to a file."""
    slots = asyncio.Semaphore(BLOCKS_AHEAD)

    async def made(block):
        async with slots:
            return await pipeline.block(block)

    tasks = [asyncio.ensure_future(made(block)) for block in blocks]
    for index, first in enumerate(range(0, len(tasks), PART_BLOCKS)):
        parts = await asyncio.gather(*tasks[first : first + PART_BLOCKS])
        rows = [[row for part in parts for row in part[table]] for table in range(len(SCHEMAS))]
        _write_part(directory, f"{rank:03d}-{index:05d}", dict(zip(SCHEMAS, rows, strict=True)))


def _write_part(directory, name, rows):
    for table, listed in rows.items():
        frame = pl.DataFrame(listed, schema=SCHEMAS[table], orient="row")
        frame = frame.sort("layer", "feature", "side", "explainer", maintain_order=True)
        write_parquet(directory / f"tables/{table}/{name}.parquet", frame)


def chosen(settings, windows, labelled=()):
    """[(layer, feature)] of those to explain, in the wanted order; labelled: those that have texts from elsewhere. Where section `Explain` chooses
    none, they come last if they are not live, and are all there is if nobody else explains."""
    features = settings.features
    rows = _chosen_rows(features, windows)
    wanted = list(zip(rows["layer"].to_list(), rows["feature"].to_list(), strict=True))
    is_free = features.only is None and features.limit is None and features.sample is None
    if is_free and not settings.who_explains():
        wanted = [place for place in wanted if place in labelled]
    return wanted + (sorted(set(labelled) - set(wanted)) if is_free else [])


def _chosen_rows(features, windows):
    candidates = windows.live() if features.only is None else windows.named(features.only)
    if features.sample is not None:
        candidates = stratified(candidates, features.sample, features.strata, windows.seed)
    order = {"layer": ["layer", "feature"]}.get(features.top_by, [features.top_by, "layer", "feature"])
    ordered = candidates.sort(order, descending=[column in ("density", "max_activation") for column in order])
    return ordered if features.limit is None else ordered.head(features.limit)
