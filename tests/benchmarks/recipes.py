"""Quality of training: codecs of the cache, kinds and activations, and a grid over learning rates and sparsity coefficients.

The last 5 % of each text file is held out; the rest is cached, once per codec, and every run is trained from a cache by
`cltdb.train`, with defaults but for what its name says. FVU (pooled), L0: the exported dictionary on all held-out float32
activations. Dead: silent in the first 204,800 training tokens. Seconds: of training, on one thread.

A run is done once: its result stays in FOLDER/results, so that a killed benchmark goes on, and several processes share the work.

    python tests/benchmarks/recipes.py FOLDER --model MODEL --text TEXT.txt [TEXT.txt ...] --tables codecs kinds grid
    python tests/benchmarks/recipes.py FOLDER --show
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from replay import Replay

from cltdb.activations.cache import write_cache
from cltdb.activations.loader import open_source
from cltdb.activations.settings import Activations, Loader, TextSource
from cltdb.activations.shards import SIDES
from cltdb.activations.tokens import Sequences
from cltdb.evaluate.reconstruction import Reconstruction
from cltdb.memory import keep_freed_memory
from cltdb.model.loading import load_model
from cltdb.model.transcoder import load_dictionary
from cltdb.train.loop import train
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Train

CONTEXT, HELDOUT_FRAC, DEAD_TOKENS = 256, 0.05, 204_800
CODECS = ("float32", "int8", "int4")
LEARNING_RATES = (1e-3, 2e-3, 4e-3)
COEFFICIENTS = (0.125, 0.25, 0.5, 1.0, 1.5, 2.0)  # each learning rate meets l0 10 between two of them
ACTIVATIONS = ("batchtopk", "topk", "jumprelu", "relu")


def runs(table, seeds):
    """(codec, seed, settings) of the runs of a table."""
    settings = {
        "codecs": [(codec, {"learning_rate": 1e-3}) for codec in CODECS],
        "kinds": [
            ("int8", {"kind": kind, "learning_rate": 1e-3} | more)
            for kind, more in product(("plt", "clt"), [*({"activation": name} for name in ACTIVATIONS), {"skip": True}])
        ],
        "grid": [
            *(("int8", {"activation": name, "learning_rate": rate}) for name in ACTIVATIONS[:2] for rate in LEARNING_RATES),
            *(
                ("int8", {"activation": "jumprelu", "learning_rate": rate, "sparsity": {"coefficient": coefficient}})
                for coefficient, rate in product(COEFFICIENTS, LEARNING_RATES)
            ),
        ],
    }[table]
    return [(codec, seed, chosen) for codec, chosen in settings for seed in (range(1) if table == "grid" else range(seeds))]


def changed(settings):
    """The settings that are not the default, so that two tables share a run."""
    return {name: value for name, value in settings.items() if value != json.loads(Train().model_dump_json())[name]}


def name_of(codec, seed, settings):
    words = [
        f"{name}={value['coefficient'] if isinstance(value, dict) else value}"
        for name, value in sorted(changed(settings).items())
    ]
    return "-".join([codec, f"seed={seed}", *words])


def text_sequences(lm, paths):
    """{part: Sequences}: each file cut at 95 % of its characters, each part in sequences begun by BOS; the last tokens are dropped."""
    rows = {"train": [], "heldout": []}
    for path in paths:
        text = Path(path).read_text(encoding="utf-8")
        cut = int((1 - HELDOUT_FRAC) * len(text))
        for part, piece in (("train", text[:cut]), ("heldout", text[cut:])):
            tokens = lm.text_tokens(piece)
            starts = range(0, len(tokens) - CONTEXT + 2, CONTEXT - 1)
            rows[part] += [[lm.bos_token_id, *tokens[start : start + CONTEXT - 1]] for start in starts]
    parts = {}
    for part, tokens in rows.items():
        documents = np.arange(len(tokens))[:, None].repeat(CONTEXT, 1)
        parts[part] = Sequences(np.array(tokens, np.int32), documents, np.full(documents.shape, -1, np.int16), [])
    return parts


def prepare(folder, options):
    """Caches and held-out activations in `folder`, where they are not there yet."""
    if (folder / "ready").exists():
        return
    lm = load_model(options.model, device="cpu")
    parts = text_sequences(lm, options.text)
    both = Sequences(*(np.concatenate([getattr(part, name) for part in parts.values()]) for name in Sequences._fields[:3]), [])
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        replay = Replay(lm, both, directory=Path(scratch))
        for side in SIDES:
            np.save(
                folder / f"heldout_{side}.npy", replay.sides[side][len(parts["train"]) :, 1:].reshape(-1, lm.n_layers, lm.d_model)
            )
        for codec in CODECS:
            (folder / codec).mkdir(exist_ok=True)
            write_cache(Activations(text=[TextSource(toyworld=True)], codec=codec), replay, parts, directory=folder / codec)
    (folder / "ready").touch()


def measure(folder, codec, seed, chosen, options):
    """Trains and measures one run."""
    source, heldout = (
        open_source(folder / codec, part=part, seed=seed, options=Loader(threads=1)) for part in ("train", "heldout")
    )
    batch_tokens = Train().batch_tokens
    settings = Train(
        n_features=options.features,
        l0=options.l0,
        epochs=(options.steps - 0.5) * batch_tokens / source.n_rows,
        checkpoint_every_steps=options.steps,
        **chosen,
    )
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        start = time.perf_counter()
        run = TrainingRun(settings, source=source, heldout=heldout, seed=seed, device="cpu")
        train(run, directory=scratch, dict_id="d", experiment="recipes")
        seconds = time.perf_counter() - start
        dictionary = load_dictionary(scratch)
    return {"steps": options.steps, "seconds": seconds, **quality(dictionary, folder, source)}


@torch.no_grad()
def quality(dictionary, folder, source):
    """{fvu, l0, dead}."""
    x, y = (np.load(folder / f"heldout_{side}.npy", mmap_mode="r") for side in SIDES)
    sums = Reconstruction(dictionary.n_layers, dictionary.n_features, dictionary.d_model)
    for first in range(0, len(x), 2048):
        inputs, outputs = (torch.from_numpy(side[first : first + 2048].copy()) for side in (x, y))
        sums.add_all(dictionary, inputs, outputs)
    fired = sum((dictionary.encode(batch.x) > 0).sum(0) for batch in source.batches(0, DEAD_TOKENS // 1024, 1024))
    found = pooled(dictionary, sums)
    return {"fvu": found["fvu"], "l0": found["l0"], "dead": (fired == 0).double().mean().item()}


def pooled(dictionary, sums):
    return {name: value for layer, name, value in sums.rows(list(dictionary.layers), dense_above=1) if layer is None}


def work(folder, options):
    """Makes the runs that no other process has begun."""
    (folder / "results").mkdir(exist_ok=True)
    for table in options.tables:
        for codec, seed, chosen in runs(table, options.seeds):
            name = name_of(codec, seed, chosen)
            result, claim = folder / "results" / f"{name}.json", folder / "results" / f"{name}.claimed"
            if result.exists() or claim.exists():
                continue
            claim.touch()
            try:
                facts = measure(folder, codec, seed, chosen, options)
                result.write_text(json.dumps(facts))
                print(name, facts, flush=True)
            finally:
                claim.unlink()


def show(folder, options):
    """Prints what is done of each table; FVU with several seeds is their mean, then lowest and highest."""
    for table in ("codecs", "kinds", "grid"):
        found = {}
        for codec, seed, chosen in runs(table, options.seeds):
            path = folder / "results" / f"{name_of(codec, seed, chosen)}.json"
            if path.exists():
                found.setdefault(json.dumps([codec, chosen]), []).append(json.loads(path.read_text()))
        print(f"\n{table}\n\n| codec | settings | seeds | FVU | L0 | dead, % | seconds |\n|---|---|---|---|---|---|---|")
        for key, facts in found.items():
            codec, chosen = json.loads(key)
            fvu, l0, dead, seconds = ([fact[name] for fact in facts] for name in ("fvu", "l0", "dead", "seconds"))
            words = ", ".join(
                f"{name} {value['coefficient'] if isinstance(value, dict) else value}" for name, value in chosen.items()
            )
            spread = f" ({min(fvu):.4f} to {max(fvu):.4f})" if len(fvu) > 1 else ""
            row = [codec, words or "default", len(facts), f"{statistics.mean(fvu):.4f}{spread}", f"{statistics.mean(l0):.2f}"]
            row += [f"{100 * max(dead):.2f}", f"{statistics.median(seconds):.0f}"]
            print("| " + " | ".join(map(str, row)) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="toyworld")
    parser.add_argument("--text", nargs="+", default=[])
    parser.add_argument("--tables", nargs="+", default=["codecs", "kinds", "grid"])
    parser.add_argument("--features", type=int, default=3072)
    parser.add_argument("--l0", type=float, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--show", action="store_true", help="print the tables of what is done")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    if not options.show:
        keep_freed_memory()
        logging.disable(logging.WARNING)
        prepare(options.folder, options)
        torch.set_num_threads(1)
        work(options.folder, options)
    show(options.folder, options)


if __name__ == "__main__":
    main()
