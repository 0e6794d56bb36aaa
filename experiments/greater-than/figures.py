"""Draws results.json as SVG: `python experiments/greater-than/figures.py`. Needs nothing beyond Python."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from panels import LEFT, WIDTH, Panel, svg  # noqa: E402

COLOURS = {"steps": "#1f5fa8", "influence": "#2a9d8f", "ablation": "#e08e0b", "variance": "#b23a48"}
SEEDS = ("#1f5fa8", "#e08e0b", "#2a9d8f")


def draw_curves(results, path):
    """Share of the effect, and the metric itself, by number of units kept. Of features the mean over seeds, bars from the lowest to the highest;
    of neurons bars are intervals over prompts."""
    seeds, neurons = list(results["seeds"].values()), results["neurons"]["curves"]
    sizes = list(neurons["variance"])
    panels = []
    for which, title, low, high, step in (
        ("share", "share of the effect kept", -0.5, 1.75, 0.25),
        ("difference", "P(later) less P(not later)", 0.5, 0.9, 0.1),
    ):
        panel = Panel(
            len(panels),
            title,
            x=(0, len(sizes) - 1),
            y=(low, high),
            x_label="features (full lines) or neurons (dashed) kept",
            y_label=which,
        )
        marks = [low + step * n for n in range(round((high - low) / step) + 1)]
        panel.ticks(dict(enumerate(sizes)), {mark: f"{mark:.2f}" for mark in marks})
        within = lambda value, low=low, high=high: min(max(value, low), high)  # noqa: E731
        for rule, colour in COLOURS.items():
            curves = [[seed["curves"][rule][size][which][0] for size in sizes if size in seed["curves"][rule]] for seed in seeds]
            columns = list(zip(*curves, strict=True))
            panel.line([(index, within(sum(values) / len(values))) for index, values in enumerate(columns)], colour)
            for index, values in enumerate(columns):
                panel.bar(index, within(min(values)), within(max(values)), colour)
        for rule, curve in neurons.items():
            rows = list(enumerate(row[which] for row in curve.values()))
            panel.line([(index, within(row[0])) for index, row in rows], COLOURS[rule], dashed=True)
            for index, (_, least, most) in rows:
                panel.bar(index + 0.08, within(least), within(most), COLOURS[rule])
        panels.append(panel)
    panels[0].key([(f"by {rule}", colour, False) for rule, colour in COLOURS.items()])
    whole = results["model"]["difference"][0]
    panels[1].line([(0, whole), (len(sizes) - 1, whole)], "#888", width=1)
    panels[1].text(WIDTH + LEFT + 6, panels[1].at(0, whole)[1] - 4, "the model")
    svg(panels, path)


def draw_steps(results, path):
    """What the circuit writes to a year's logit directly, by the year's distance from the start."""
    panel = Panel(
        0,
        "written at the last position by the circuit",
        x=(-60, 60),
        y=(-6, 6),
        x_label="year less start year",
        y_label="logit, less its mean over prompts",
    )
    panel.ticks({mark: mark for mark in range(-60, 61, 20)}, {mark: mark for mark in (-6, -4, -2, 0, 2, 4, 6)})
    panel.line([(0, -6), (0, 6)], "#999", width=1)
    rows = []
    for (dict_id, seed), colour in zip(results["seeds"].items(), SEEDS, strict=False):
        points = [(int(d), value) for d, value in seed["written_by_distance"].items() if -60 <= int(d) <= 60]
        panel.line([(d, max(-6, min(6, value))) for d, value in points], colour)
        rows.append((dict_id, colour, False))
    panel.key(rows)
    svg([panel], path)


def draw_features(results, path, *, n=4):
    """Of the first seed: the features at the last position that vary most with the start year: when they fire, and what they write."""
    circuit = next(iter(results["seeds"].values()))["circuit"]
    last = max(row["position"] for row in circuit)
    rows = sorted((row for row in circuit if row["position"] == last), key=lambda row: -row["step_explains"])[:n]
    rows.sort(key=lambda row: row["mean_start"])
    panels, colours = [], [*COLOURS.values()]
    for title, name, label in (
        ("mean activation at the last position", "tuning", "start year"),
        ("written to each year's logit", "lens", "year"),
    ):
        lines = [[(int(x), y) for x, y in (row[name].items() if name == "tuning" else enumerate(row[name]))] for row in rows]
        values = [y for line in lines for _, y in line]
        low, high = min(0, *values), max(values)
        panel = Panel(
            len(panels),
            title,
            x=(0, 99),
            y=(low, high),
            x_label=label,
            y_label="activation" if name == "tuning" else "logit per unit",
        )
        panel.ticks({mark: mark for mark in range(0, 100, 20)}, {mark: f"{mark:.1f}" for mark in (low, 0, high)})
        for line, colour in zip(lines, colours, strict=False):
            panel.line(line, colour)
        panels.append(panel)
    panels[0].key([(f"{row['layer']}:{row['feature']}", colour, False) for row, colour in zip(rows, colours, strict=False)])
    svg(panels, path)


def draw_all(results, directory):
    results = json.loads(json.dumps(results))  # keys as they are read from the file
    draw_curves(results, directory / "curves.svg")
    draw_steps(results, directory / "steps.svg")
    draw_features(results, directory / "features.svg")


if __name__ == "__main__":
    draw_all(json.loads((HERE / "results.json").read_text()), HERE)
