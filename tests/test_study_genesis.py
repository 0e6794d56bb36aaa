"""The study experiments/genesis: verses are found again in wrapped translations, prompts are cut where they should be, its tables are right."""

import json
import random
import re
import runpy
import sys
import textwrap

import pytest
from command_line import ROOT, cltdb
from worlds import capitals_experiment as world
from worlds import compared_labels
from worlds import tables as of

from cltdb.database.load import load_artifacts, save_records

FOLDER = ROOT / "experiments/genesis"
TEXTS, MODEL = ROOT.parent / "shared/data/genesis", ROOT.parent / "shared/models/mixed-gpt2"
prepare, figures = (runpy.run_path(str(FOLDER / f"{name}.py")) for name in ("prepare", "figures"))
NAMES = ("Noah", "Abraham", "Egypt", "Joseph", "Jacob")


def verse(dice, n_words):
    """A sentence of words, sometimes with a name."""
    words = ["".join(dice.choices("abcdefghij", k=dice.randrange(2, 9))) for _ in range(n_words)]
    if dice.random() < 0.5:
        words[n_words // 2] = dice.choice(NAMES)
    return " ".join(words) + "."


def test_verses_are_found_again_in_a_translation_that_is_wrapped():
    dice = random.Random(0)
    verses = [verse(dice, dice.randrange(4, 40)) for _ in range(120)]
    others, lines = [], []
    for one in verses:
        [*name] = re.findall(r"\b[A-Z]\w+", one)
        n_words = max(2, round(len(one.split()) * dice.uniform(0.8, 1.2)))
        other = " ".join([*verse(dice, n_words)[:-1].split(), "and", *name]) + "."
        others.append(other)
        lines += textwrap.wrap(other, 60)
    found = prepare["align"](verses, lines)
    assert " ".join(found) == " ".join(others)
    assert sum(one == other for one, other in zip(found, others, strict=True)) > 0.9 * len(verses)


class Words:
    """A tokenizer: a token per word with the space before it; words longer than five letters are two tokens."""

    def __init__(self):
        self.ids = {}

    def __call__(self, text, **_):
        pieces = [piece for word in re.findall(r" ?[^ ]+", text) for piece in (word[:6], word[6:]) if piece]
        return {"input_ids": [self.ids.setdefault(piece, len(self.ids)) for piece in pieces]}

    def decode(self, ids):
        return "".join(list(self.ids)[one] for one in ids)


def test_a_prompt_is_a_verse_without_its_last_word_whose_first_token_is_the_target():
    tokenizer = Words()
    assert prepare["cut"]("God saw the firmament.", tokenizer) == ("God saw the", " firma")
    assert prepare["cut"]("Alone", tokenizer) is None
    verses = {
        "en": ["He went home.", "It was so.", "He saw the sea.", "word " * 40 + "end."],
        "de": ["Er ging heim.", "Es ward so.", "Er sah das Meer.", "Wort " * 40 + "aus."],
    }
    rows = list(prepare["prompts"](verses, tokenizer))
    assert [(row["concept"], row["label"], row["target"]) for row in rows] == [
        ("verse 1", "en", " home."), ("verse 1", "de", " heim."), ("verse 3", "en", " sea."), ("verse 3", "de", " Meer."),
    ]  # fmt: skip
    assert rows[3]["text"] == "Er sah das"
    documents = list(prepare["documents"]({"en": [f"verse {i}" for i in range(6)]}))
    assert [one["text"].count("verse") for one in documents] == [4, 2] and {one["label"] for one in documents} == {"en"}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Two seeds of the study's sweep with the same made-up comparison, and one that is no part of it."""
    root = tmp_path_factory.mktemp("genesis")
    artifacts, experiments = [], []
    for name in ("genesis-seed_0", "genesis-seed_1", "other"):
        dict_id = f"{name}-clt-1"
        trained = world.dictionary_tables(dict_id, "clt", scale=1.0, experiment=name)
        trained["metrics"] += compared_labels.label_metrics(dict_id)
        found = compared_labels.tables(dict_id, dict_id, world.N_LAYERS)
        for rows in found.values():
            rows[:] = [row | {"groups_id": f"{name}-groups-1"} for row in rows if row["groups_id"] == compared_labels.WHOLE]
        artifacts.append(of.write_artifact(root, name, trained | found))
        sweep = {"sweep": "genesis"} if name != "other" else {}
        experiments.append(
            {"experiment": name, "spec_hash": name, "spec_yaml": "", "created_at": "2026-01-01T00:00:00+00:00"} | sweep
        )
    load_artifacts(root / "cltdb.duckdb", artifacts)
    save_records(root / "cltdb.duckdb", experiments=experiments, stage_runs=[])
    return root / "cltdb.duckdb"


def test_tables_are_of_the_seeds_of_the_study(database, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["figures.py", str(database)])
    figures["main"]()
    printed = capsys.readouterr().out
    assert printed.startswith("2 seeds\n") and "nan" not in printed
    assert "| de | 1.125 (1.125 to 1.125) | 3.000 (3.000 to 3.000) |" in printed
    assert (
        "| 1 | 0.600 (0.600 to 0.600) | 0.300 (0.300 to 0.300) | 0.150 (0.150 to 0.150) | 0.450 (0.410 to 0.500), 0.450"
        in printed
    )
    assert "[6, 6] pairs of each seed" in printed and "| random_right | 0.05 (0.05 to 0.05) |" in printed


def test_values_of_seeds_are_said_with_the_lowest_and_the_highest():
    assert figures["said"]([0.1, 0.3]) == "0.200 (0.100 to 0.300)" and figures["said"]([None]) == "–"
    assert figures["said"]([0.25], 1, percent=True) == "25.0 %"


@pytest.mark.slow
@pytest.mark.skipif(not (TEXTS.exists() and MODEL.exists()), reason="needs the texts and a model that reads them")
def test_the_study_runs_small(tmp_path, monkeypatch, capsys):
    """A minute or two: one seed, little text, four verses; its values are no result."""
    (tmp_path / "cltdb.yaml").write_text("workspace: artifacts\ndatabase: {path: cltdb.duckdb}\nmodel: {device: cpu}\n")
    (tmp_path / "spec.yaml").write_text((FOLDER / "spec.yaml").read_text())
    (tmp_path / "genesis").mkdir()
    monkeypatch.setitem(prepare["prompts"].__globals__, "N_CONCEPTS", 6)
    monkeypatch.setattr(sys, "argv", ["prepare.py", str(TEXTS), str(MODEL), str(tmp_path / "genesis")])
    prepare["main"]()
    rows = [json.loads(line) for line in (tmp_path / "genesis/parallel.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 6 * 7 and rows[0]["text"] == "In the beginning God created the heaven and the"
    small = {
        "model.id": str(MODEL),
        "activations.train_tokens": 15_000,
        "activations.heldout_tokens": 6000,
        "train.n_features": 64,
        "harvest.tokens": 6000,
        "explain.features.sample": 4,
        "groups.substitute": "{features: [1], suppress: [0], boost: [1], positions: [all], new_tokens: 1}",
        "sweep": "{seed: [0]}",
    }
    ran = cltdb(tmp_path, "run", "spec.yaml", *(word for key, value in small.items() for word in ("--set", f"{key}={value}")))
    assert ran.returncode == 0, ran.stderr
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path / "cltdb.duckdb")])
    figures["main"]()
    printed = capsys.readouterr().out
    assert "1 seeds" in printed and "| english-kjv |" in printed and "[42] pairs of each seed" in printed
