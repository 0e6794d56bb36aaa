"""What the notes report: from the transcoders that spec.yaml trained to `results.json` beside this file, and to the figures.

    cltdb run experiments/greater-than/spec.yaml
    python experiments/greater-than/circuit.py [cltdb.duckdb] [artifacts] [FOLDER]

Features and neurons are ranked on one half of the prompts. Everything else is measured on the other half. Five minutes of one core.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from figures import draw_all

import cltdb
from cltdb.replacement.holding import Features, Neurons, run_all, run_held
from cltdb.toyworld.tasks import tasks

HERE = Path(__file__).parent
SIZES, K = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), 16
N_PROMPTS, N_FOR_RANKING, N_CANDIDATES, N_DRAWS, N_BOOTSTRAP, SEED = 400, 48, 64, 20, 2000, 18
YEARS = "[0-9][0-9]"


class Prompts(NamedTuple):
    """tokens [prompt, pos], start [prompt]: the year in which the event began."""

    tokens: torch.Tensor
    start: torch.Tensor

    def part(self, which):
        return Prompts(self.tokens[which], self.start[which])

    def is_later(self):
        """[prompt, year]."""
        return torch.arange(100) > self.start[:, None]


def year_prompts(lm):
    """Different prompts of the task."""
    (task,) = (task for task in tasks(SEED, n_prompts=N_PROMPTS) if task.name == "greater_than")
    texts = [*dict.fromkeys(prompt.text for prompt in task.prompts)]
    return Prompts(
        torch.tensor([lm.prompt_tokens(text) for text in texts]), torch.tensor([int(text.split()[7]) for text in texts])
    )


def masses(logits, prompts, years):
    """(probability of later years, that less the probability of the others) [prompt]."""
    p = logits.double().softmax(-1)[:, years]
    valid = (p * prompts.is_later()).sum(1)
    return valid, 2 * valid - p.sum(1)


class Setup:
    """Units of one model, ranked on some prompts and measured on others. norms [n_layers, n_units]: of what a unit writes. mean [pos, n_layers,
    n_units]: at which units are held. full, empty: `masses` with all units responding, and with none."""

    def __init__(self, units, norms, halves, years):
        self.units, self.norms, (self.ranking, self.measuring), self.years = units, norms, halves, years
        self.some = self.ranking.part(slice(N_FOR_RANKING))
        self.values = run_all(units, self.ranking.tokens).values
        self.mean = self.values.mean(0)
        self.some_full = masses(run_all(units, self.some.tokens).logits, self.some, years)[1]
        self.full = masses(run_all(units, self.measuring.tokens).logits, self.measuring, years)
        self.empty = self.keeping([])

    def mask(self, kept):
        """[n_layers, n_units] of unit ids."""
        mask = torch.zeros(self.units.n_layers * self.units.n_units, dtype=torch.bool)
        mask[torch.as_tensor(kept, dtype=torch.long)] = True
        return mask.view(self.units.n_layers, self.units.n_units)

    def keeping(self, kept):
        """`masses` with the units `kept` responding and all others held."""
        return masses(run_held(self.units, self.measuring.tokens, self.mask(kept), self.mean).logits, self.measuring, self.years)

    def missed(self, mask):
        """How far the metric is from that with all units responding, with those of a mask: mean distance over the prompts that rank."""
        metric = masses(run_held(self.units, self.some.tokens, mask, self.mean).logits, self.some, self.years)[1]
        return float((metric - self.some_full).abs().mean())

    def strength(self):
        """Mean activation times norm, summed over positions [unit]."""
        return (self.mean[1:].abs().sum(0) * self.norms).flatten()

    def variance(self):
        """Variance over prompts of what a unit writes, summed over positions [unit]."""
        return (self.values[:, 1:].var(0).sum(0) * self.norms**2).flatten()

    def by_ablation(self):
        """Unit ids by what is missed when one alone is held, the most first."""
        lost = torch.full((self.units.n_layers * self.units.n_units,), -torch.inf, dtype=torch.float64)
        for unit in (self.variance() > 1e-9).nonzero()[:, 0].tolist():
            lost[unit] = self.missed(~self.mask([unit]))
        return falling(lost)

    def by_steps(self, candidates):
        """The candidates in the order in which each, added to those before it, leaves least missed; from K on, as many as there are before are
        chosen at once."""
        kept, left = [], list(candidates)
        while left:
            missed = {unit: self.missed(self.mask([*kept, unit])) for unit in left}
            best = sorted(left, key=missed.get)[: 1 if len(kept) < K else len(kept)]
            kept, left = kept + best, [unit for unit in left if unit not in best]
        return kept


def falling(values):
    """The places of `values` by falling value."""
    return values.argsort(descending=True).tolist()


def by_influence(lm, dictionary, setup):
    """Feature ids by their influence in cltdb's graphs, mean over prompts. What a graph explains is the mean logit of later years less that of
    the others, each year with its probability as weight. Of a feature's influence counts the share by which its activation differs from its mean."""
    some, W_U = setup.some, lm.unembedding_weight().detach()[setup.years]
    probabilities = lm.logits(some.tokens)[:, -1].softmax(-1)[:, setup.years]
    total = torch.zeros(setup.mean.shape[1:], dtype=torch.float64)
    for tokens, p, later in zip(some.tokens, probabilities, some.is_later(), strict=True):
        direction = (p * later) @ W_U / (p * later).sum() - (p * ~later) @ W_U / (p * ~later).sum()
        graph = cltdb.attribute(lm, dictionary, tokens.tolist(), target=cltdb.DirectionTarget(direction))
        index = graph.index
        position, layer, feature = (torch.from_numpy(x) for x in (index.feature_position, index.feature_layer, index.feature))
        activation = torch.from_numpy(graph.feature_activations[index.features])
        differs = (activation - setup.mean[position, layer, feature]).abs() / activation
        influence = torch.from_numpy(graph.influence[index.features]).double()
        total.index_put_((layer, feature), influence * differs, accumulate=True)
    return falling(total.flatten())


def like(circuit, setup, strength, generator):
    """As many random units, each of the layer of one of the circuit and one of the 8 there that are nearest to it in strength [unit]; none of
    them of the circuit, none twice."""
    n_units, drawn = setup.units.n_units, []
    for unit in circuit:
        layer = range(unit // n_units * n_units, (unit // n_units + 1) * n_units)
        free = torch.tensor([other for other in layer if other not in circuit and other not in drawn])
        nearest = free[(strength[free] - strength[unit]).abs().argsort()[:8]]
        drawn.append(int(nearest[torch.randint(len(nearest), (1,), generator=generator)]))
    return drawn


def weights_of_resamples(n):
    """How often each of n prompts is drawn in each bootstrap sample [sample, prompt]."""
    drawn = torch.randint(n, (N_BOOTSTRAP, n), generator=torch.Generator().manual_seed(SEED))
    return (
        torch.zeros(N_BOOTSTRAP, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64)) / n
    )


def interval(statistic, weights):
    """[value, low, high], 95 % over prompts. statistic: of weights [..., prompt]."""
    samples = statistic(weights)
    whole = statistic(torch.full_like(weights[:1], 1 / weights.shape[1]))
    return [round(float(x), 4) for x in (whole, *samples.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)))]


def share(setup, metric):
    """A statistic: (metric [prompt] less that with no unit responding) over (metric with all less that with none)."""
    return lambda w: (w @ (metric - setup.empty[1])) / (w @ (setup.full[1] - setup.empty[1]))


def recovered(setup, metric):
    """A statistic: 1 less the mean distance of the metric [prompt] from that with all units responding, over that distance with none."""
    distance = lambda x: (x - setup.full[1]).abs()  # noqa: E731
    return lambda w: 1 - (w @ distance(metric)) / (w @ distance(setup.empty[1]))


def curve(setup, order, weights):
    """{size: share of the effect, prompts recovered, and both masses, with intervals}, up to as many units as are ranked."""
    out = {}
    for k in SIZES:
        if k > len(order):
            break
        valid, metric = setup.keeping(order[:k])
        out[k] = {
            "share": interval(share(setup, metric), weights),
            "recovered": interval(recovered(setup, metric), weights),
            "valid": interval(lambda w, x=valid: w @ x, weights),
            "difference": interval(lambda w, x=metric: w @ x, weights),
        }
    return out


def randoms(setup, circuit, strength):
    """Shares of the effect that random units like the circuit keep, N_DRAWS of them, sorted."""
    generator, n = torch.Generator().manual_seed(SEED), len(setup.measuring.start)
    even = torch.full((n,), 1 / n, dtype=torch.float64)
    draws = [setup.keeping(like(circuit, setup, strength, generator))[1] for _ in range(N_DRAWS)]
    return sorted(round(float(share(setup, metric)(even)), 4) for metric in draws)


def described(lm, dictionary, setup, circuit):
    """A row per feature of the circuit: where the start year moves it most (position), how much of its variance there the start year explains,
    its mean activation by start year, what it writes to the logits of the 100 years directly, and where a step fits that best."""
    lenses = [cltdb.logit_lens(lm, dictionary, layer, YEARS) for layer in range(dictionary.n_layers)]
    rows, start = [], setup.ranking.start
    for unit in circuit:
        layer, feature = divmod(unit, setup.units.n_units)
        values = setup.values[:, :, layer, feature].double()
        explained = explained_by(values, start)
        position = int((explained * values.var(0)).argmax())
        at = values[:, position]
        lens = lenses[layer][feature].double()
        step, of_step = best_step(lens)
        rows.append(
            {
                "layer": layer,
                "feature": feature,
                "position": position,
                "variance_by_start": round(float(explained[position]), 3),
                "mean_start": round(float((at * start).sum() / at.sum()), 1),
                "tuning": {int(year): round(float(at[start == year].mean()), 3) for year in start.unique()},
                "lens": [round(float(x), 3) for x in lens],
                "step": step,
                "step_explains": round(of_step, 3),
            }
        )
    return rows


def explained_by(values, groups):
    """The share of the variance of `values` [prompt, pos] that `groups` [prompt] explain, adjusted for their number [pos]; 0 where nothing
    varies."""
    present, n = groups.unique(), len(values)
    within = sum(((values[groups == group] - values[groups == group].mean(0)) ** 2).sum(0) for group in present)
    total = values.var(0)
    return torch.where(total > 1e-12, 1 - within / max(n - len(present), 1) / total.clamp_min(1e-12), torch.zeros(()).double())


def best_step(values):
    """(first year after the step that fits `values` [year] best, the share of their variance that it explains)."""
    total, found = ((values - values.mean()) ** 2).sum(), []
    for year in range(1, 100):
        low, high = values[:year], values[year:]
        left = ((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum()
        found.append((float(1 - left / total), year))
    explained, year = max(found)
    return year, explained


def written_by_distance(lm, dictionary, setup, circuit):
    """What the circuit's features write at the last position directly to the logit of a year, less its mean over prompts, by the year less the
    start year: {distance: mean}."""
    run = run_all(setup.units, setup.measuring.tokens).values[:, -1] - setup.mean[-1]
    lens = torch.stack([cltdb.logit_lens(lm, dictionary, layer, YEARS) for layer in range(dictionary.n_layers)])
    written = torch.einsum("plu,luy->py", run * setup.mask(circuit), lens)
    distance = torch.arange(100)[None] - setup.measuring.start[:, None]
    return {int(d): round(float(written[distance == d].mean()), 3) for d in distance.unique()}


def both(setup, which, weights):
    """The two masses of `which`, full or empty, with intervals."""
    of = getattr(setup, which)
    return {name: interval(lambda w, x=x: w @ x, weights) for name, x in zip(("valid", "difference"), of, strict=True)}


def study(dictionaries):
    """The results, as JSON values. dictionaries: (dict_id, folder) of each."""
    lm = cltdb.load_model("toyworld", device="cpu")
    prompts, years = year_prompts(lm), [lm.text_tokens(f"{year:02d}")[0] for year in range(100)]
    halves = prompts.part(slice(0, None, 2)), prompts.part(slice(1, None, 2))
    weights = weights_of_resamples(len(halves[1].start))
    norms = torch.stack([lm.family.neurons(block.mlp).W_out.norm(dim=-1) for block in lm.blocks]).detach()
    model = Setup(Neurons(lm), norms, halves, years)
    ablation = model.by_ablation()
    orders = {"steps": model.by_steps(ablation[:N_CANDIDATES]), "ablation": ablation, "variance": falling(model.variance())}
    results = {
        "prompts": {"ranking": len(halves[0].start), "measuring": len(halves[1].start)},
        "model": both(model, "full", weights),
        "neurons": {
            "empty": both(model, "empty", weights),
            "curves": {rule: curve(model, order, weights) for rule, order in orders.items()},
        },
        "seeds": {},
    }
    kept = {}
    for dict_id, path in dictionaries:
        results["seeds"][dict_id], kept[dict_id] = of_dictionary(lm, cltdb.load_dictionary(path), model, weights)
    results["all_seeds"] = {rule: over_seeds([of[rule] for of in kept.values()], weights) for rule in next(iter(kept.values()))}
    return results


def over_seeds(kept, weights):
    """Of the K first units of a rule, with effects and distances summed over seeds. kept: (`Setup`, metric [prompt]) of each."""
    ratio = lambda above, below: lambda w: sum(w @ x for x in above) / sum(w @ x for x in below)  # noqa: E731
    gained, effect = [metric - s.empty[1] for s, metric in kept], [s.full[1] - s.empty[1] for s, _ in kept]
    closer = [effect.abs() - (metric - s.full[1]).abs() for effect, (s, metric) in zip(effect, kept, strict=True)]
    return {
        "share": interval(ratio(gained, effect), weights),
        "recovered": interval(ratio(closer, [x.abs() for x in effect]), weights),
    }


def of_dictionary(lm, dictionary, model, weights):
    """(what is measured of one dictionary as JSON values, {rule: (`Setup`, metric with its K first features)}). model: the `Setup` of the model's
    neurons."""
    norms = torch.stack([dictionary.decoder_norms(layer)[:, 0] for layer in range(dictionary.n_layers)])
    setup = Setup(Features(lm, dictionary), norms, (model.ranking, model.measuring), model.years)
    influence = by_influence(lm, dictionary, setup)
    orders = {
        "steps": setup.by_steps(influence[:N_CANDIDATES]),
        "influence": influence,
        "ablation": setup.by_ablation(),
        "variance": falling(setup.variance()),
    }
    circuit, kept = orders["steps"][:K], {rule: (setup, setup.keeping(order[:K])[1]) for rule, order in orders.items()}
    measured = {
        "full": both(setup, "full", weights),
        "empty": both(setup, "empty", weights),
        "lost": interval(lambda w: w @ (model.full[0] - setup.full[0]), weights),
        "curves": {rule: curve(setup, order, weights) for rule, order in orders.items()},
        "random": {
            "strength": randoms(setup, circuit, setup.strength()),
            "variance": randoms(setup, circuit, setup.variance().sqrt()),
        },
        "circuit": described(lm, dictionary, setup, circuit),
        "written_by_distance": written_by_distance(lm, dictionary, setup, circuit),
    }
    return measured, kept


def dictionaries(database, workspace):
    """(dict_id, folder) of the study's dictionaries, by seed."""
    query = "SELECT dict_id, path FROM dictionaries WHERE starts_with(experiment, 'greater-than-seed_') ORDER BY experiment"
    return [(dict_id, Path(workspace) / path) for dict_id, path in cltdb.open(database).sql(query).rows()]


def main(database="cltdb.duckdb", workspace="artifacts", directory=HERE):
    """Writes results.json and the figures into `directory`."""
    found = study(dictionaries(database, workspace))
    (Path(directory) / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    draw_all(found, Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
