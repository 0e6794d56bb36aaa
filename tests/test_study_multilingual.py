"""The study experiments/multilingual: its figures are those of its results, its trends are right on made-up values, and the whole runs small."""

import importlib
import json
import shutil
import sys
from collections import Counter
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import torch
from command_line import ROOT, cltdb
from worlds import numbers

from cltdb.spec import load_points

FOLDER = ROOT / "experiments/multilingual"
SCRIPTS = ("shifted", "exchanged", "ceilings", "narrow", "figures", "drawings", "tables", "make_models")
FIGURES = ("overlap-none.svg", "overlap-influence.svg", "overlap-corrected.svg")


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script of the study as it is when run."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in SCRIPTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def test_the_spec_has_every_model_with_the_text_of_its_facts(script):
    make_models = script("make_models")
    points = [loaded.experiment for loaded in load_points(FOLDER / "spec.yaml")]
    assert {point.model.id for point in points} == {
        f"multilingual-models/{world}-{seed}" for world in make_models.SHARES for seed in make_models.SEEDS
    }
    widths = Counter((point.model.id.split("/")[1].split("-")[0], point.train.n_features) for point in points)
    every = {(world, 256): 3 for world in make_models.SHARES}
    assert widths == every | {("balanced", 128): 3, ("balanced", 512): 3, ("shuffled", 128): 3}
    for point in points:
        facts = "shuffled" if "shuffled" in point.model.id else "balanced"
        (text,) = point.activations.text
        assert text.files == [f"multilingual-models/text-{facts}.jsonl"] and text.label_column == "language"
        assert point.groups.text[0].files == [f"multilingual-models/labelled-{facts}.jsonl"]
        assert point.groups.prompts.file == f"multilingual-models/prompts-{facts}.jsonl"


def test_every_question_stands_once_in_every_language_and_a_pair_of_opposites_in_one_concept(script, tmp_path):
    make_models = script("make_models")
    for world in ("balanced", "shuffled"):
        make_models.write_prompts(tmp_path, world)
        rows = [json.loads(line) for line in (tmp_path / f"prompts-{world}.jsonl").read_text().splitlines()]
        assert len(rows) == 3 * (30 + 20) == len({(row["concept"], row["label"]) for row in rows})
        asked = {row["concept"] for row in rows if row["kind"] == "opposite"}
        assert len(asked) == 20 and "opposite-hot" in asked and "opposite-cold" not in asked


def test_the_figures_are_those_of_the_results(script, tmp_path):
    results, figures = json.loads((FOLDER / "results.json").read_text()), script("figures")
    figures.draw_all(results, tmp_path)
    for name in FIGURES:
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text(), name
    assert figures.trends(results) == results["trends"]


def test_models_of_one_seed_count_once_over_several_mixtures(script):
    results, tables = json.loads((FOLDER / "results.json").read_text()), script("tables")
    results["worlds"] |= dict.fromkeys(tables.MIXTURES, results["worlds"]["balanced"])
    rows = tables.of_humps(results).strip().splitlines()
    of_one, of_three = (
        [row for row in rows if row.startswith(f"| {name} |")] for name in ("balanced", ", ".join(tables.MIXTURES))
    )
    assert [row.split(" | ")[-1] for row in of_three] == [row.split(" | ")[-1] for row in of_one] and len(of_one) == 4


def test_a_feature_that_is_set_at_several_positions_counts_once(script):
    figures = script("figures")
    fact = figures.facts()[0]
    settings = [{"layer": layer, "feature": feature} for layer, feature in ((1, 7), (0, 5), (0, 5), (0, 3), (0, 3))]
    row = {"intervention_id": "g-en-fr-x-1", "prompt": fact.prompt["en"], "text_with": fact.answer["fr"], "settings": settings}
    db = SimpleNamespace(
        query=lambda name, **parameters: pl.DataFrame({"groups_id": ["g"]}), sql=lambda text, parameters: pl.DataFrame([row])
    )
    assert figures.best_points(db, "d", "balanced, narrow") == {"en-fr": {"whole": 1.0, "set_layers": [0, 0, 1]}}


def tables_of(text):
    return {block for block in text.split("\n\n") if block.startswith("|")}


def test_the_notes_have_the_tables_of_narrow_dictionaries(script):
    narrow, notes = script("narrow"), (FOLDER / "notes.md").read_text()
    settings, again = (json.loads((FOLDER / name).read_text()) for name in ("settings.json", "made-again.json"))
    for made in (narrow.of_settings(settings), narrow.of_pairs(again), narrow.of_late(again), narrow.of_six(again, settings)):
        assert made.strip() in tables_of(notes)


def test_what_is_put_at_the_last_word_is_what_models_do_with_it(script, tmp_path):
    """Of a random model whose words are numbers. The first MLP's output on the prompt whose last word is another language's, put in place, is that of a run
    in which it stands there; nothing added is the untouched model; means, partners and maps give shares for all pairs."""
    ceilings, lm, d = script("ceilings"), numbers.language_model(), numbers.dictionary()
    rng = np.random.default_rng(0)
    asked = [
        {
            "concept": f"c{number}",
            "label": label,
            "target": str(10 * place + number % 8),
            "text": " ".join([*words, str(30 + place)]),
        }
        for number in range(8)
        for place, label in enumerate(ceilings.LANGUAGES)
        for words in [map(str, rng.integers(1, 30, 2 + place % 2))]
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    prompts = ceilings.Prompts(lm, d, tmp_path / "prompts.jsonl")
    concepts = prompts.concepts
    plain = [int(lm.logits(torch.tensor([prompts.tokens[concept, "en"]]))[0, -1].argmax()) for concept in concepts]
    assert prompts.answers(concepts, "en", {}) == plain
    added = {0: prompts.written(concepts, "en", "fr") - prompts.written(concepts, "en")}
    for concept, said in zip(concepts, prompts.answers(concepts, "en", added), strict=True):
        own, other = (
            torch.tensor([[*prompts.tokens[concept, "en"][:-1], prompts.tokens[concept, last][-1]]]) for last in ("en", "fr")
        )
        put = lm.run(other, with_logits=False).mlp_output[:, -1:, 0]
        with lm.replaced_mlps(lambda layer, x, y, put=put: torch.cat([y[:, :-1], put], dim=1) if layer == 0 else y):
            assert said == int(lm.logits(own)[0, -1].argmax())
    prompts.answer = {**prompts.answer, **{(concept, "fr"): said for concept, said in zip(concepts, plain, strict=True)}}
    assert prompts.right(concepts, "en", "fr", {}) == 1
    assert prompts.right(concepts, "en", "fr", {}, of=concepts[1:] + concepts[:1]) == np.mean(np.roll(plain, -1) == plain)
    label_features = {
        language: [(3 * place + number, 2.0) for number in range(3)] for place, language in enumerate(ceilings.LANGUAGES)
    }
    found = ceilings.ceilings(lm, d, tmp_path / "prompts.jsonl", label_features)
    pairs = {f"{a}-{b}" for a in ceilings.LANGUAGES for b in ceilings.LANGUAGES if a != b}
    assert len(found) == 12 and all(set(of_pairs) == pairs for of_pairs in found.values())
    assert all(0 <= share <= 1 for of_pairs in found.values() for shares in of_pairs.values() for share in shares)


def test_partners_take_over_what_correlates_in_units_of_their_own_range(script):
    """Features 0 and 1 are the source's, 2 and 3 the target's: 3 goes with 0, 2 with 1; feature 4 is none."""
    ceilings = script("ceilings")
    a, b = torch.rand(2, 9).double()
    source = torch.stack([a, b, 0 * a, 0 * a, a], dim=1)
    given = {"en": source, "fr": torch.stack([0 * a, 0 * a, 5 * b, 3 * a, a], dim=1)}
    prompts = SimpleNamespace(activations=lambda concepts, language: given[language].clone())
    taken = ceilings._partners(prompts, None, "en", "fr", {"en": [(0, 2.0), (1, 4.0)], "fr": [(2, 8.0), (3, 1.0)]})(None)
    assert torch.allclose(taken, torch.stack([0 * a, 0 * a, b / 4 * 8, a / 2, a], dim=1))


def test_the_notes_have_the_tables_of_exchanged_values(script):
    exchanged, notes = script("exchanged"), (FOLDER / "notes.md").read_text()
    found = json.loads((FOLDER / "exchanged.json").read_text())
    models = found["models"]
    made = (exchanged.of_late(models), exchanged.of_ceilings(models), exchanged.of_settings(**found))
    for one in made:
        assert one.strip() in tables_of(notes)


def test_dictionaries_are_counted_apart_on_models_they_were_chosen_on_and_others_the_studys_first(script):
    exchanged = script("exchanged")

    def model(right, random, fvu):
        pairs = {
            str(place): {"right": share, "whole": share / 2, "random_right": other}
            for place, (share, other) in enumerate(zip(right, random, strict=True))
        }
        return {"substitution": pairs, "heldout_fvu": [fvu, 2 * fvu]}

    models = {"balanced-2": model([1.0, 0.6], [0, 0], 0.5), "balanced-3": model([0.8, 0.79], [0.06, 0.05], 0.1)} | {
        "en60-0": model([0.0, 0.0], [1, 1], 1)
    }
    wide = {"train": {"n_features": 64, "l0": 4.0}}
    settings = [
        {"model": "balanced-3"} | wide | model([1.0, 0.9], [0.1, 0.2], 0.25),
        {"model": "balanced-4"} | wide | model([0.5, 0.8], [0, 0], 0.75),
    ]
    assert exchanged.of_settings(models, settings).splitlines()[2:] == [
        "| balanced, chosen on | 256 | 8 | 1 of 2 | 0.795 (0.79) | 0.398 | 0.055 (0.06) | 1 | 0.1000 | 0.2000 |",
        "| balanced, chosen on | 64 | 4 | 3 of 4 | 0.800 (0.50) | 0.400 | 0.075 (0.20) | 2 | 0.5000 | 1.0000 |",
        "| balanced | 256 | 8 | 1 of 2 | 0.800 (0.60) | 0.400 | 0.000 (0.00) | 0 | 0.5000 | 1.0000 |",
    ]


def test_the_notes_have_the_tables_of_shifted_values(script):
    shifted, notes = script("shifted"), (FOLDER / "notes.md").read_text()
    found = json.loads((FOLDER / "shifted.json").read_text())
    for one in (shifted.in_all(found), shifted.of_pairs(found)):
        assert one.strip() in tables_of(notes)


def test_of_each_dictionary_every_pair_is_collected_with_whole_answers(script, monkeypatch):
    shifted = script("shifted")
    monkeypatch.setattr(shifted, "best_points", lambda db, dict_id, world: {"en-fr": {"whole": f"{dict_id} of {world}"}})
    row = dict.fromkeys(shifted.OF_PAIR, 1 / 3) | {
        "label_from": "en",
        "label_to": "fr",
        "set_to": "shifted",
        "n_random": 10,
        "n": 25,
    }
    db = SimpleNamespace(
        sql=lambda text: SimpleNamespace(rows=lambda: [("d", "multilingual-models/balanced-7")]),
        query=lambda name, dict_id: pl.DataFrame([row]),
    )
    [found] = shifted.collect(db)
    pairs = {"en-fr": dict.fromkeys(shifted.OF_PAIR, 0.33333) | {"n": 25, "whole": "d of balanced"}}
    assert found == {"values": "shifted", "model": "balanced-7", "random_draws": 10, "pairs": pairs}


def test_a_pair_counts_on_average_over_the_questions_of_all_models_and_in_each(script):
    shifted = script("shifted")

    def model(seed, right, random):
        rates = {
            "n": 25,
            "right": right,
            "whole": right / 2,
            "random_right": random,
            "random_right_most": 2 * random,
            "reverse_right": 0,
        }
        other = rates | {"right": 0.4, "whole": 0.4, "random_right": 0.0, "random_right_most": 0.0}
        pairs = {pair: other for pair in shifted.PAIRS} | {shifted.PAIRS[0]: rates}
        return {"values": "shifted", "model": f"balanced-{seed}", "random_draws": 10, "pairs": pairs}

    found = [model(2, 0.76, 0.02), model(0, 0.8, 0.04), model(1, 0.84, 0.03), model(8, 1.0, 0.5)]
    assert shifted.in_all(found).splitlines()[2:] == [
        "| looked at before | shifted | 0.467 (0.47, 0.47, 0.46) | 1 of 6 (0.40) | 2 of 18 (0.40) | 0.400 | 0.005 (0.030, 0.04) | 0.00 |",
        "| fresh | shifted | 0.500 (0.50) | 1 of 6 (0.40) | 1 of 6 (0.40) | 0.417 | 0.083 (0.500, 0.50) | 0.00 |",
    ]
    first = shifted.of_pairs(found).splitlines()[2]
    pair = shifted.PAIRS[0].replace("-", " to ")
    assert first == f"| looked at before | shifted | {pair} | 0.80 (0.70 to 0.87) | 0.80, 0.84, 0.76 | 0.030 (0.08) |"


def test_no_lowest_auc_is_said_where_a_language_has_no_late_features(script):
    names = ("auc", "auc_matched", "fitted_auc", "fitted_auc_matched")
    scores = [
        {"label": label, "n_features": 20, **dict.fromkeys(names, value)}
        for label, value in (("en", 0.9), ("fr", 0.8), ("de", 1.0))
    ]
    models = {"balanced-0": {"scores": scores}, "balanced-1": {"scores": scores[:2]}}
    assert script("exchanged").of_late(models).splitlines()[2] == f"| balanced |{4 * ' 0.800, none |'}"


def test_a_setting_counts_pairs_at_080_the_lowest_auc_of_twenty_features_and_humps_in_the_middle(script):
    narrow = script("narrow")

    def model(right, by_influence, *scores):
        pairs = {str(place): {"right": share, "random_right": share / 10} for place, share in enumerate(right)}
        of_labels = [{"label": label, "n_features": n, "auc": auc} for label in ("en", "fr", "de") for n, auc in scores]
        return {
            "train": {"n_features": 9, "l0": 2, "weight_decay": 0.5},
            "heldout_fvu": 0.25,
            "substitution": pairs,
            "corrected": {"free-none": [0.1, 0.2, 0.2, 0.1], "free-influence": by_influence},
            "scores": of_labels,
        }

    tried = [
        model([0.8, 0.79], [0.1, 0.3, 0.2, 0.1], (10, 0.1), (20, 0.9), (30, 0.2)),
        model([1.0, 0.4], [0.1, 0.3, 0.2, 0.3], (5, 0.1), (12, 0.7)),  # as much in the last layer; no twenty features
    ]
    (row,) = narrow.of_settings(tried).splitlines()[2:3]
    assert row == "| 9 | 2 | 0.5 | 2 of 4 | 0.75 (0.40) | 0.075 (0.10) | 0.700 | 2, 1 | 0.250 |"


def test_a_language_without_late_features_has_no_score(script):
    narrow = script("narrow")
    known = {"label": "en", "n_features": 3, "auc": 0.75, "auc_matched": None}
    row = narrow.of_late({"worlds": {"tiny": {"0": {"scores": [known]}}}}).splitlines()[2]
    assert row == "| tiny | 0.750 | none | none | none | none | none |"


def test_a_trend_is_seen_where_its_paired_interval_leaves_zero_out(script, monkeypatch):
    figures = script("figures")
    monkeypatch.setattr(figures, "measures", lambda results: {"risen": ("a",), "noise": ("b",)})
    of = {"balanced": ([1, 5, 9], [1, 2, 3]), "en60": ([1, 1, 1], [0, 0, 0]), "en90": ([2, 6.1, 9.9], [3, 2, 1])}
    worlds = {
        world: {str(seed): {"a": a, "b": b} for seed, (a, b) in enumerate(zip(*both, strict=True))} for world, both in of.items()
    }
    risen, noise = figures.trends({"worlds": worlds})
    half = 4.302652729911275 * np.std([1, 1.1, 0.9], ddof=1) / 3**0.5  # the 97.5 % quantile of 2 degrees of freedom
    assert risen["change"] == pytest.approx([1, 1 - half, 1 + half]) and risen["seen"]
    assert (risen["balanced"], risen["en60"], risen["en90"]) == pytest.approx((5, 1, 6))
    assert noise["change"][0] == 0 and not noise["seen"]


def test_token_shares_count_the_sentences_of_parallel_documents(script):
    shares = script("figures").token_shares("en90")
    assert sum(shares.values()) == pytest.approx(1, abs=0.002)
    assert 0.75 < shares["en"] < 0.8 and shares["fr"] > shares["de"] > 0.08  # 90 / 5 / 5 of the documents in one language


@pytest.mark.slow
def test_the_study_runs_small(script, monkeypatch, tmp_path, capsys):
    """Two minutes: two seeds, models that have hardly learnt; its figures are no result."""
    make_models = script("make_models")
    for name, value in {
        "D_MODEL": 16,
        "N_STEPS": 20,
        "SEEDS": (0, 1),
        "N_DOCUMENTS": 600,
        "N_LABELLED": 100,
        "JOINED": 2,
    }.items():
        monkeypatch.setattr(make_models, name, value)
    monkeypatch.setattr(sys, "argv", ["make_models.py", "--output", str(tmp_path / "multilingual-models")])
    make_models.main()
    for path in (tmp_path / "multilingual-models").glob("prompts-*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:9], *lines[-9:]]))
    (tmp_path / "cltdb.yaml").write_text("workspace: artifacts\ndatabase: {path: cltdb.duckdb}\nmodel: {device: cpu}\n")
    shutil.copy(FOLDER / "spec.yaml", tmp_path)
    models = [f"multilingual-models/{world}-{seed}" for world in ("balanced", "en60", "en90", "shuffled") for seed in (0, 1)]
    small = {
        "activations.train_tokens": 4000,
        "activations.heldout_tokens": 3000,
        "train.epochs": 1,
        "harvest.tokens": 4000,
        "groups.tokens": 3000,
        "groups.substitute": "{features: [2], suppress: [0], boost: [1], continued: false}",
        "sweep": f"[{{model.id: [{', '.join(models)}], train.n_features: [24]}}, "
        f"{{model.id: [{', '.join(models[:2])}], train.n_features: [128]}}]",
    }
    ran = cltdb(tmp_path, "run", "spec.yaml", *(word for key, value in small.items() for word in ("--set", f"{key}={value}")))
    assert ran.returncode == 0, ran.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script("figures"), "MATCH_BATCHES", 1)
    script("figures").main("cltdb.duckdb", "artifacts", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    worlds = (*make_models.SHARES, "balanced, narrow")
    assert {world: list(of) for world, of in results["worlds"].items()} == dict.fromkeys(worlds, ["0", "1"])
    assert "## Trends over the mixtures" in capsys.readouterr().out
    script("narrow").main("cltdb.duckdb", tmp_path)
    again = json.loads((tmp_path / "made-again.json").read_text())
    assert again["worlds"] == results["worlds"] and set(again["models"]) == set(models)
    for name in FIGURES:
        ElementTree.parse(tmp_path / name)
