"""The figures of the notes, from results.json."""

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))
from panels import Panel, svg  # noqa: E402


def draw_all(results, folder):
    for weighting in ("none", "influence"):
        _draw_overlap(results, weighting, folder / f"overlap-{weighting}.svg")
    _draw_corrected(results, folder / "overlap-corrected.svg")


def _by_layer(results, world, weighting):
    """[layer][seed] of the rows of overlap."""
    each = [of_seed["overlap"][f"free-{weighting}-all"] for of_seed in results["worlds"][world].values()]
    return list(zip(*each, strict=True))


def _draw_corrected(results, path):
    """Overlap less what chance shares by layer, of each seed with its interval over concepts: languages that say the same, and that do not."""
    panels, colours = [], ("#1f5fa8", "#2a8f5b", "#b0472e")
    for weighting, world in itertools.product(("none", "influence"), ("balanced", "shuffled")):
        of_layers = _by_layer(results, world, weighting)
        every = [row for one in ("balanced", "shuffled") for rows in _by_layer(results, one, weighting) for row in rows]
        y = min(row["corrected_low"] for row in every) * 1.1, max(row["corrected_high"] for row in every) * 1.2
        label = "overlap less chance, " + ("active features" if weighting == "none" else "by influence")
        n = len(of_layers)
        panel = Panel(len(panels), world, x=(-0.2, n - 0.8), y=y, x_label="layer", y_label=label)
        panel.ticks({layer: layer for layer in range(n)}, {step * y[1] / 4: f"{step * y[1] / 4:.3f}" for step in range(5)})
        for place, colour in enumerate(colours[: len(of_layers[0])]):
            of_seed = [rows[place] for rows in of_layers]
            panel.line([(layer + (place - 1) * 0.06, row["corrected"]) for layer, row in enumerate(of_seed)], colour)
            for layer, row in enumerate(of_seed):
                panel.bar(layer + (place - 1) * 0.06, row["corrected_low"], row["corrected_high"], colour)
        panels.append(panel)
    panels[0].key([(f"seed {place}", colour, False) for place, colour in enumerate(colours)])
    svg(panels, path)


def _draw_overlap(results, weighting, path):
    """Of each world, overlap by layer beside its nulls: lines are means over seeds, bars each seed's interval over concepts."""
    panels, of = [], {world: _by_layer(results, world, weighting) for world in results["worlds"]}
    highs = ("overlap_high", "same_label_high", "other_label_high")
    top = (
        max(row[name] for of_layers in of.values() for rows in of_layers for row in rows for name in highs) * 1.3
    )  # room for the key
    label = "overlap of active features" if weighting == "none" else "overlap, weighted by influence"
    for world, of_layers in of.items():
        n = len(of_layers)
        panel = Panel(len(panels), world, x=(-0.2, n - 0.8), y=(0, top), x_label="layer", y_label=label)
        panel.ticks({layer: layer for layer in range(n)}, {step * top / 4: f"{step * top / 4:.2f}" for step in range(5)})
        for name, colour in (("same_label", "#e08e0b"), ("other_label", "#888"), ("overlap", "#1f5fa8")):
            means = [(layer, np.mean([row[name] for row in rows])) for layer, rows in enumerate(of_layers)]
            panel.line(means, colour, dashed=name != "overlap")
            for layer, rows in enumerate(of_layers):
                for place, row in enumerate(rows):
                    panel.bar(layer + (place - 1) * 0.05, row[f"{name}_low"], row[f"{name}_high"], colour)
        panels.append(panel)
    keys = (("one concept, two languages", "#1f5fa8", False), ("two concepts, two languages", "#888", True))
    panels[0].key([*keys, ("two concepts, one language", "#e08e0b", True)])
    svg(panels, path)
