"""What a synthetic experiment measured: rows of the tables metrics, explanations, scores and requests."""

from datetime import datetime

import numpy as np
import polars as pl
from benchmarks.synthetic_text import LABELS

MADE = datetime(2026, 11, 1)


def explain_tables(layer, feature, text, *, every, rng):
    """Frames of the tables explanations and scores, each with the number of its feature (`row`). One feature in a hundred failed or had too few
    contexts; every `every`th has the baselines too."""
    n = len(layer)
    status = pl.Series(rng.choice(["ok", "failed", "too_few_contexts"], n, p=[0.98, 0.01, 0.01]))
    own = pl.DataFrame({"row": np.arange(n), "layer": layer, "feature": feature, "text": text, "status": status}).with_columns(
        side=pl.lit("input"),
        explainer=pl.lit("llm"),
        text=pl.when(status == "ok").then(pl.col("text")),
        model=pl.lit("openai/some-model"),
        prompt_tokens=rng.integers(600, 1400, n),
        completion_tokens=rng.integers(10, 60, n),
        cost_usd=rng.uniform(1e-4, 5e-4, n),
        error=pl.when(status == "failed")
        .then(pl.lit("no reply"))
        .when(status != "ok")
        .then(pl.lit("9 contexts, at least 20 needed")),
        created_at=pl.lit(MADE),
    )
    answered = own.filter(status == "ok")
    with_baselines = answered.gather_every(every).with_columns(
        prompt_tokens=pl.lit(0, pl.Int64), completion_tokens=pl.lit(0, pl.Int64), cost_usd=pl.lit(0.0)
    )
    baselines = [
        with_baselines.with_columns(explainer=pl.lit(f"baseline:{name}")) for name in ("shuffled", "other_feature", "top_tokens")
    ]
    explained = pl.concat([own, *(part.select(own.columns) for part in baselines)])
    judged = explained.filter(pl.col("status") == "ok").select("row", "layer", "feature", "side", "explainer")
    scores = pl.concat([_scores(judged, scorer, rng) for scorer in ("detection", "fuzzing")])
    return explained, scores.sort("row", "explainer", "scorer")


def _scores(judged, scorer, rng):
    """A row of table scores for each explanation: about 0.8, baselines 0.5, from 60 windows."""
    n_half = 30
    good = ~judged["explainer"].str.starts_with("baseline:").to_numpy()
    right = [rng.binomial(n_half, np.clip(rng.normal(np.where(good, mean, 0.5), 0.1), 0, 1)) for mean in (0.85, 0.75)]
    score = (right[0] + right[1]) / (2 * n_half)
    wide = 1.96 * np.sqrt(score * (1 - score) / (2 * n_half))
    numbers = {"tpr": right[0] / n_half, "tnr": right[1] / n_half, "prompt_tokens": rng.integers(900, 1500, len(score))}
    detail = ['{"judge": "language model", "n_pos": 30, "n_neg": 30, ']
    for name in numbers:
        detail += [f'"{name}": ', pl.col(name), ", "]
    detail += ['"negatives": {"random": 15, "same_tokens": 8, "similar_decoder": 7}, "completion_tokens": 61, "error": null}']
    detail = pl.concat_str(*(pl.lit(part) if isinstance(part, str) else part for part in detail))
    return judged.with_columns(
        scorer=pl.lit(scorer),
        score=score,
        n=pl.lit(2 * n_half),
        n_failed=pl.lit(0),
        ci_low=np.maximum(score - wide, 0),
        ci_high=np.minimum(score + wide, 1),
        detail=pl.DataFrame(numbers).select(detail.alias("detail"))["detail"],
    )


def requests(explained, scores, rng):
    """Rows of table requests: what each explanation by a model, and each of its scores, was asked for."""
    is_asked = pl.col("explainer") == "llm"
    asked = pl.concat(
        [
            explained.filter(is_asked & (pl.col("status") != "too_few_contexts")).select("row", purpose=pl.lit("explain:llm")),
            scores.filter(is_asked).select("row", purpose="scorer"),
        ]
    )
    n = len(asked)
    failed = rng.random(n) < 0.01
    digits = rng.bytes(32 * n).hex()
    return asked.with_columns(
        request_id=pl.Series([digits[64 * number : 64 * number + 64] for number in range(n)]),
        model=pl.lit("openai/some-model"),
        prompt_tokens=rng.integers(600, 1500, n),
        completion_tokens=rng.integers(10, 61, n),
        cost_usd=rng.uniform(1e-4, 5e-4, n),
        seconds=rng.gamma(2, 0.6, n),
        attempts=rng.geometric(0.95, n),
        status=np.where(failed, "failed", "ok"),
        error=pl.when(pl.Series(failed)).then(pl.lit("no reply")),
        reused=pl.lit(False),
        created_at=pl.lit(MADE),
    ).sort("row", maintain_order=True)


def training_curves(sizes, scale, rng):
    """Rows of table metrics: every 50 steps of 10,000, falling towards what the sparsity allows."""
    steps, layers = np.arange(0, 10_001, 50), np.arange(-1, sizes.n_layers)
    step, layer = (part.ravel() for part in np.meshgrid(steps, layers, indexing="ij"))
    fall = np.exp(-step / 2000)
    values = {
        "fvu": 0.15 / scale**0.5 + 0.8 * fall,
        "l0": 32 * scale * (1 + fall),
        "dead_frac": 0.02 + 0.1 * fall,
        "loss_mse": 0.4 + 2 * fall,
    }
    noise = 1 + 0.02 * rng.standard_normal((len(values), len(step)))
    rows = [
        (step, layer, np.full(len(step), name), _pooled(name, column * noise[number], len(layers)))
        for number, (name, column) in enumerate(values.items())
    ]
    pooled = layer == -1
    for name, value in (("loss", 0.5 + 2 * fall), ("lr", 1e-3 * (1 - step / 10_001)), ("grad_norm", 1 + 5 * fall)):
        rows.append((step[pooled], layer[pooled], np.full(pooled.sum(), name), value[pooled]))
    return _metric_rows(rows)


def evaluation(sizes, scale, rng):
    """Rows of table metrics of the finished dictionary: of all text and MLPs, with the MLP of one layer replaced, of the text of each label."""
    layers = np.arange(-1, sizes.n_layers)
    per_layer = {
        "fvu": 0.15 / scale**0.5,
        "fvu_model_units": 0.1 / scale**0.5,
        "l0": 32 * scale,
        "dead_frac": 0.02,
        "dense_frac": 0.01,
    }
    pooled = {
        "ce_original": 3.1,
        "ce_replacement": 3.1 + 0.4 / scale,
        "ce_zero": 11.0,
        "ce_mean": 8.0,
        "ce_recovered": 1 - 0.4 / scale / (11.0 - 3.1),
    }
    pooled |= {"kl_nats": 0.3 / scale, "top1_agreement": 1 - 0.3 / (1 + scale), "top1_agreement_confident": 0.97}
    zeros = np.zeros(len(layers), dtype=np.int64)
    rows = [
        (zeros, layers, np.full(len(layers), name), _pooled(name, value * rng.uniform(0.8, 1.2, len(layers)), len(layers)))
        for name, value in per_layer.items()
    ]
    rows += [(zeros[:1], layers[:1], np.array([name]), np.array([value])) for name, value in pooled.items()]
    spliced = [
        (zeros[1:], layers[1:], np.full(len(layers) - 1, name), value * np.ones(len(layers) - 1))
        for name, value in pooled.items()
    ]
    of_labels = [*rows, (zeros[:1], layers[:1], np.array(["tokens"]), np.array([100_000.0]))]
    return pl.concat(
        [
            _metric_rows(rows).with_columns(variant=pl.lit(None, pl.String), label=pl.lit(None, pl.String)),
            _metric_rows(spliced).with_columns(variant=pl.lit("single"), label=pl.lit(None, pl.String)),
            *(_metric_rows(of_labels).with_columns(variant=pl.lit(None, pl.String), label=pl.lit(label)) for label in LABELS),
        ]
    )


def _pooled(name, values, n):
    """The values of n places, pooled and layer by layer, over and over; what is a mean over layers as that of these."""
    values = values.reshape(-1, n)
    if name in ("l0", "dead_frac"):
        values[:, 0] = values[:, 1:].mean(axis=1)
    return values.ravel()


def _metric_rows(rows):
    columns = dict(zip(("step", "layer", "name", "value"), map(np.concatenate, zip(*rows, strict=True)), strict=True))
    frame = pl.DataFrame(columns).sort("step", "layer", "name")
    return frame.with_columns(layer=pl.when(pl.col("layer") >= 0).then("layer"))
