"""What matching two dictionaries costs: features of one layer, of which half are the same in both but for noise, and the control beside them.

    OMP_NUM_THREADS=1 python tests/benchmarks/matching.py --features 4096 16384 100000 --d-model 256

Prints a table for RESULTS.md: CPU seconds and peak memory of each, in a process of its own, and the shares that were found.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.measured import cost, load_average


def dictionaries(n_features, d_model):
    """Two PLTs of one layer, in float32. Half of the second's features are the first's, in another order and at an angle whose cosine is about 0.95."""
    import torch

    from cltdb.model.transcoder import Dictionary

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    order, first, second = torch.randperm(n_features, generator=generator), draw(n_features, d_model), draw(n_features, d_model)
    same = order[: n_features // 2]
    second[same] = first[: len(same)] + 0.33 * second[same]
    none = {"W_enc": torch.zeros(1, n_features, d_model), "b_enc": torch.zeros(1, n_features), "b_dec": torch.zeros(1, d_model)}
    return [Dictionary(kind="plt", activation="relu", W_dec=[W[:, None]], **none) for W in (first, second)]


def matched(n_features, d_model):
    def prepare():
        from cltdb.match.matching import match_layer

        a, b = dictionaries(n_features, d_model)

        def run():
            match = match_layer(a, b, 0)
            pairs, chance = match.assignment.similarity, match.control.similarity
            above = [float((of > least).sum() / n_features) for of in (pairs, chance) for least in (0.7, 0.9)]
            return above + [float(match.assignment.highest_first.mean()), float(match.control.highest_first.mean())]

        return run

    return prepare


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--d-model", type=int, default=256)
    options = parser.parse_args()
    print(
        "| features | d_model | CPU s | wall s | peak MB | above 0.7, 0.9 | by chance | highest cosine, by chance |\n|"
        + "---|" * 8
    )
    for n in options.features:
        found = cost(matched(n, options.d_model), repetitions=1)
        a, b, c, d, highest, chance = found.result
        shares = f"{a:.1%}, {b:.1%} | {c:.1%}, {d:.1%} | {highest:.3f}, {chance:.3f}"
        print(
            f"| {n:,} | {options.d_model} | {found.cpu_s:.1f} | {found.wall_s:.1f} | {found.peak_mb:,.0f} | {shares} |",
            flush=True,
        )
    print(f"load {load_average()}")


if __name__ == "__main__":
    main()
