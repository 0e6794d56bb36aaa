"""What explaining by rules costs per feature, step by step, in CPU seconds; how well the rules detect on the other half of the documents; how
long their texts are.

    python tests/benchmarks/rules.py artifacts/harvest/KEY artifacts/model/KEY [--features 1000]

Steps: `read` the harvest's files, `groups` of tokens and `coactivation` of features, once; then per feature `examples`, `learn` the rule, its
`text`, and `match` it with the test windows as detection and fuzzing do. What the stage does besides (intervals, baselines, records,
tables) is not in it: its whole CPU time stands in the closing lines of a run. CPU seconds are those of this process, with one thread;
the load of the machine is printed.
"""

import argparse
import os
import time
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl

from cltdb.explain.examples import RANDOM, HarvestedWindows
from cltdb.explain.rules.grammar import TokenView
from cltdb.explain.rules.learner import learn_rule
from cltdb.explain.rules.lexicon import Lexicon
from cltdb.explain.rules.text import describe

SEED = 0
CPU_S = {}


@contextmanager
def step(name):
    began = time.process_time()
    yield
    CPU_S[name] = CPU_S.get(name, 0) + time.process_time() - began


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("harvest", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--features", type=int, help="so many random live ones (default: all)")
    return parser.parse_args()


def chosen(windows, n):
    live = windows.live().select("layer", "feature").rows()
    rows = np.random.default_rng(1).permutation(len(live))[: n or len(live)]
    return [live[row] for row in sorted(rows)]


def matched(rule, windows, names, classes):
    return TokenView(windows.tokens, names[windows.labels], classes).matches(rule)


def wrong_marks(windows, rng):
    """As many silent tokens of each window as it has firing ones."""
    fires = windows.activations > 0
    key = np.where(fires | (windows.tokens < 0), 2.0, rng.random(fires.shape))
    return (np.argsort(np.argsort(key, axis=1), axis=1) < fires.sum(axis=1, keepdims=True)) & (key < 2)


def scores(rule, examples, names, classes, rng):
    """(detection; the shares of silent windows passed over, random ones and near misses; fuzzing)."""
    positive, negative = (matched(rule, part, names, classes) for part in (examples.test_positives, examples.test_negatives))
    passed, is_random = ~negative.any(axis=1), examples.test_negatives.kinds == RANDOM
    right, wrong = examples.test_positives.activations > 0, wrong_marks(examples.test_positives, rng)
    usable = wrong.any(axis=1)
    hit, fooled = (2 * (positive & marks).sum(axis=1) >= marks.sum(axis=1) for marks in (right, wrong))
    fuzzing = (hit.mean() + 1 - fooled[usable].mean()) / 2 if usable.any() else np.nan
    return (positive.any(axis=1).mean() + passed.mean()) / 2, passed[is_random].mean(), passed[~is_random].mean(), fuzzing


def main():
    options = parsed()
    strings = pl.read_parquet(options.model / "tables/vocabulary/*.parquet").sort("token")["string"].to_list()
    load = os.getloadavg()
    with step("read"):
        windows = HarvestedWindows(options.harvest, seed=SEED)
    with step("groups"):
        lexicon = Lexicon.learnt(windows, strings)
    with step("coactivation"):
        for layer in windows.features["layer"].unique():
            windows.coactivating(layer)
    names, rng = np.array([*windows.label_names, None], dtype=object), np.random.default_rng(SEED)
    rules, texts, found, features = [], [], [], chosen(windows, options.features)
    for layer, feature in features:
        with step("examples"):
            examples = windows.examples(layer, feature)
        if examples.shortage is not None:
            continue
        with step("learn"):
            rules.append(learn_rule(examples.training_positives, examples.training_negatives, lexicon))
        with step("text"):
            texts.append(describe(rules[-1], lexicon))
        with step("match"):
            found.append(scores(rules[-1], examples, names, lexicon.classes, rng))
    n, words = len(rules), np.array([len(text.split()) for text in texts])
    detection, passed_random, passed_near, fuzzing = np.nanmean(found, axis=0)
    print(f"{n:,} of {len(features):,} features explained; load {load[0]:.1f} before, {os.getloadavg()[0]:.1f} after\n")
    print("| step | CPU s | ms per feature |\n|---|---|---|")
    for name, cpu_s in CPU_S.items():
        print(f"| {name} | {cpu_s:.2f} | {1000 * cpu_s / n:.2f} |")
    print(f"| all | {sum(CPU_S.values()):.2f} | {1000 * sum(CPU_S.values()) / n:.2f} |\n")
    good = np.mean([one[0] >= 0.8 for one in found])
    print(f"detection {detection:.4f}, at 0.8 or more {good:.1%}; fuzzing {fuzzing:.4f}")
    print(f"silent windows passed over: random {passed_random:.3f}, near misses {passed_near:.3f}")
    print(
        f"clauses {np.mean([len(rule['clauses']) for rule in rules]):.2f}; words: median {np.median(words):.0f}, most {words.max()}"
    )


if __name__ == "__main__":
    main()
