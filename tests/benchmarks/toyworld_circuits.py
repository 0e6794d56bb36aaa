"""Faithfulness on the toy world, where the circuits are known: paths, swapped countries, and influence against ablations, with controls.

    cltdb run experiments/quickstart.yaml
    python tests/benchmarks/toyworld_circuits.py artifacts/train/KEY

Strongest path: to the answer, or to the answer less another country's capital, of three kinds: the strongest of the most influential
word's, which `cltdb attribute` prints first; the strongest of all words', whose shares have the largest product; and the one that takes,
from the answer backwards, each node's strongest edge from a feature or a word.
A country feature of a prompt fires there at least 1.5 times as strongly as at the same place on average over the 30 countries.
Swap: features that the pruned graphs of both prompts name take the values they have in the other's prompt; right where the likeliest
answer becomes the other's capital. Its control sets as many random features of the same layers and positions to the same values.
Spearman: over all features with influence, one ablation each. Controls: "any feature" pairs each influence with the effect of a random
feature of the same graph; "stand-in" subtracts, at the same place and as strongly, what another feature writes.
"""

import argparse
import random
import statistics
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import polars as pl
import torch

import cltdb
from cltdb.attribution.ablation import ablate, most_influential
from cltdb.model.transcoder import Dictionary
from cltdb.replacement.interventions import Setting
from cltdb.replacement.responses import respond
from cltdb.toyworld import tasks, text
from cltdb.toyworld.facts import COUNTRIES, LANGUAGES

COUNTRY_RATIO = 1.5
THRESHOLDS = (0.8, 0.98)


def country_position(lm, number, language):
    """Where the word of country `number` stands in its prompt."""
    tokens, others = (lm.prompt_tokens(text.capital_prompt(COUNTRIES[n], language)) for n in (number, number - 1))
    from_the_end = next(i for i in range(1, len(tokens)) if tokens[-i] != others[-i])
    return len(tokens) - from_the_end


def of_words(graph):
    """Its strongest paths from words, the most influential word first: [(influence of the word, strength, node ids)]."""
    return [row for row in graph.strongest_paths(len(graph.index)) if graph.index.kind(row[2][0]) == "embedding"]


def followed_back(graph):
    """The path from a word to the (only) target, of each node's strongest incoming edge, errors left out."""
    path = [len(graph.index) - 1]
    while graph.index.kind(path[0]) != "embedding":
        incoming = graph.edges.filter(pl.col("target_id") == path[0]).sort(pl.col("weight").abs(), descending=True)
        path.insert(0, next(node for node in incoming["source_id"].to_list() if graph.index.kind(node) != "error"))
    return path


def paths_row(lm, graphs, language):
    """(prompts; of each kind of path those that begin at the country's word, and those with a country feature)."""

    def place(graph, node):
        layer, position, feature = graph.index.place(node)
        return layer, position - graph.index.n_positions, feature

    activations = [
        {place(graph, node): float(graph.feature_activations[node]) for node in range(graph.index.features.stop)}
        for graph in graphs
    ]

    def is_of_the_country(number, node):
        at = place(graphs[number], node)
        return activations[number][at] >= COUNTRY_RATIO * statistics.mean(one.get(at, 0.0) for one in activations)

    counts = Counter()
    for number, graph in enumerate(graphs):
        found = of_words(graph)
        for kind, path in enumerate((found[0][2], max(found, key=lambda row: row[1])[2], followed_back(graph))):
            counts[2 * kind] += graph.index.place(path[0])[1] == country_position(lm, number, language)
            counts[2 * kind + 1] += any(is_of_the_country(number, node) for node in path[1:-1])
    return len(graphs), *(counts[column] for column in range(6))


def named(graph, last_layer):
    """{(layer, feature, position): activation} of the features of the pruned graph up to a layer."""
    rows = graph.prune(*THRESHOLDS).nodes.filter(pl.col("kind") == "feature", pl.col("layer") <= last_layer)
    return {tuple(row[:3]): row[3] for row in rows.select("layer", "feature", "position", "activation").iter_rows()}


def swaps_row(graphs, last_layer, mode, rng, *, at_random=False):
    """(pairs, right answers, median number of features set)."""
    features, right, sizes = [named(graph, last_layer) for graph in graphs], [], []
    for one, graph in enumerate(graphs):
        n_features = graph.replacement.dictionary.n_features
        for other, goal in enumerate(graphs):
            if one == other:
                continue
            values = {place: features[other].get(place, 0.0) for place in {**features[one], **features[other]}}
            if at_random:
                values = {(layer, rng.randrange(n_features), at): value for (layer, _, at), value in values.items()}
            settings = [Setting(layer, feature, at, "set", value) for (layer, feature, at), value in values.items()]
            answer = int(respond(graph.replacement, settings, mode=mode).logits.argmax())
            right.append(answer == goal.targets.tokens[0])
            sizes.append(len(settings))
    return len(right), sum(right), statistics.median(sizes)


def spearman(a, b):
    return pl.DataFrame({"a": a, "b": b}).select(pl.corr("a", "b", method="spearman")).item()


def shuffled(dictionary, seed):
    """The dictionary with the features' decoders exchanged within each layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: getattr(dictionary, name) for name in ("W_enc", "b_enc", "b_dec", "threshold", "W_skip")}
    W_dec = [W[torch.randperm(len(W), generator=generator)] for W in dictionary.W_dec]
    return Dictionary(kind=dictionary.kind, activation=dictionary.activation, k=dictionary.k, W_dec=W_dec, **tensors)


def agreement(lm, dictionary, prompt, rng):
    """{name: Spearman's correlation or score} of one prompt."""
    graph = cltdb.attribute(lm, dictionary, prompt)
    others = cltdb.attribute(lm, shuffled(dictionary, rng.randrange(2**31)), prompt)
    nodes = most_influential(graph, len(graph.index))
    influence = graph.influence[nodes].tolist()
    iterative, free, stand_in = (
        [one.effect for one in ablate(which, nodes, mode=mode)]
        for which, mode in ((graph, "iterative"), (graph, "free"), (replace(others, targets=graph.targets), "free"))
    )
    return {
        "influence and ablation, replacement model (iterative)": spearman(influence, iterative),
        "influence and ablation, the model itself (free)": spearman(influence, free),
        "control, any feature (iterative)": spearman(influence, rng.sample(iterative, len(iterative))),
        "control, stand-in (free)": spearman(influence, stand_in),
        "replacement score": graph.replacement_score,
        "replacement score, decoders exchanged": others.replacement_score,
        "features": len(nodes),
    }


def prompts_of_all_tasks(n, seed):
    """n prompts, drawn from the tasks in turn."""
    rng = random.Random(seed)
    kinds = [rng.sample(task.prompts, len(task.prompts)) for task in tasks.tasks(seed)]
    return [kinds[i % len(kinds)][i // len(kinds)].text for i in range(n)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", type=Path)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lm, dictionary, rng = cltdb.load_model("toyworld"), cltdb.load_dictionary(options.dictionary), random.Random(options.seed)
    print(
        "| one-hop prompts | explained | prompts | most influential word's path: begins at the country | has a country feature |"
        " strongest of all: begins | has | followed back: begins | has |\n|---|---|---|---|---|---|---|---|---|"
    )
    graphs = {}
    for language, with_foil in product(LANGUAGES, (False, True)):
        made = graphs[language, with_foil] = [
            cltdb.attribute(
                lm,
                dictionary,
                text.capital_prompt(country, language),
                target=country.capital[language],
                foil=COUNTRIES[number - 1].capital[language] if with_foil else None,
            )
            for number, country in enumerate(COUNTRIES)
        ]
        what = "less another capital" if with_foil else "the capital"
        print(f"| {language} | {what} | {' | '.join(map(str, paths_row(lm, made, language)))} |", flush=True)
    print("\n| swapped | mode | features set, median | pairs | the other's capital |\n|---|---|---|---|---|")
    for last_layer, mode, at_random in (
        (0, "free", False),
        (0, "iterative", False),
        (lm.n_layers - 1, "free", False),
        (0, "free", True),
        (lm.n_layers - 1, "free", True),
    ):
        n, right, size = swaps_row(graphs["en", False], last_layer, mode, rng, at_random=at_random)
        what = ("layer 0" if last_layer == 0 else "all layers") + (", random features" if at_random else "")
        print(f"| {what} | {mode} | {size:.0f} | {n} | {100 * right / n:.1f} % |", flush=True)
    rows = [agreement(lm, dictionary, prompt, rng) for prompt in prompts_of_all_tasks(options.prompts, options.seed)]
    print(f"\n| over {len(rows)} prompts of all tasks | mean | lowest | highest |\n|---|---|---|---|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} | {statistics.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |")


if __name__ == "__main__":
    main()
