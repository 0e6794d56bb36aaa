"""Exchanges of facts: which feature is whose, what an exchange does to the model, what is counted; and the stage with the toy world's facts."""

import json

import polars as pl
import pytest
import torch
from worlds import projects
from worlds.numbers import dictionary, language_model

from cltdb.database.check import check
from cltdb.database.load import load_artifacts
from cltdb.engine.plan import plan
from cltdb.engine.run import run
from cltdb.errors import CltdbError
from cltdb.evaluate import facts
from cltdb.evaluate.facts import (
    Exchange,
    Known,
    Rates,
    concept_features,
    exchanged,
    exchanges,
    known_facts,
    success,
)
from cltdb.evaluate.isolation import decoder_norms
from cltdb.evaluate.questions import Fact, facts_of, questions
from cltdb.evaluate.settings import Facts
from cltdb.evaluate.stage import STAGE
from cltdb.model.source import sizes_and_tokens
from cltdb.replacement.interventions import Setting
from cltdb.replacement.responses import free_logits
from cltdb.spec import load

TEXTS = ((0, 7, 3, 19), (0, 8, 3, 4), (0, 5, 5), (0, 12, 3, 30))


def test_facts_that_the_model_answers_rightly_are_known_with_their_peaks():
    lm, d = language_model(), dictionary()
    tops = [int(lm.logits(torch.tensor([text]))[0, -1].argmax()) for text in TEXTS]
    asked = [Fact(f"c{n}", "one", text, top + (n == 3)) for n, (text, top) in enumerate(zip(TEXTS, tops, strict=True))]
    known = known_facts(lm, d, asked, rows_at_once=2)
    assert {fact.concept for fact in known.facts} == {"c0", "c1", "c2"}
    for row, fact in enumerate(known.facts):
        x = lm.run(torch.tensor([fact.tokens])).mlp_input[0, 1:]
        for layer, peaks in known.peaks.items():
            torch.testing.assert_close(peaks[row], d.encode(x)[:, layer].amax(0))


def test_a_feature_belongs_to_the_concept_that_drives_it_most():
    """Feature 3 fires most for c0 and for c1 as well, whose next best is 5; what fires for all alike is nobody's; a long decoder counts."""
    d = dictionary()
    norms = decoder_norms(d, 0)
    known = Known([Fact(f"c{n % 3}", "en" if n < 3 else "de", (0, 1), n) for n in range(6)], {0: torch.zeros(6, d.n_features)})
    peaks = known.peaks[0]
    peaks[:, 9] = 50
    peaks[0, 3], peaks[3, 3], peaks[1, 3], peaks[4, 5] = 8 / norms[3], 8 / norms[3], 7 / norms[3], 2 / norms[5]
    peaks[2, 6], peaks[2, 7] = 1 / norms[6], 0.9 / norms[7]
    assert concept_features(known, d) == {0: {"c0": 3, "c1": 5, "c2": 6}}
    assert concept_features(known._replace(facts=[Fact("c0", "en", (0, 1), 1)] * 6), d) == {0: {}}


def test_what_rounding_leaves_of_a_contrast_is_none():
    """A feature of a language fires alike on all its questions: the mean over a concept's is the same for all, to the last digits of float32 and of
    sums in another order."""
    d, generator = dictionary(), torch.Generator().manual_seed(0)
    ways, concepts = {"de": 8.941307, "en": 4.9749, "fr": 0.1}, [f"c{n}" for n in range(30)]
    known = Known([Fact(concept, way, (0, 1), n) for n, concept in enumerate(concepts) for way in ways], {})
    peaks = torch.zeros(len(known.facts), d.n_features)
    peaks[:, 4] = torch.tensor(list(ways.values())).repeat(30)
    peaks[:, 5] = peaks[:, 4] * (1 + 3e-7 * torch.randn(90, generator=generator))
    peaks[:, 6] = peaks[:, 4].view(30, 3)[:, [2, 0, 1]].flatten()
    assert peaks[:, 5].unique().numel() > 3
    known.peaks[0] = peaks
    assert concept_features(known, d) == {0: {}}
    peaks[3, 5] += 0.01
    assert concept_features(known, d) == {0: {"c1": 5}}


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_an_exchange_is_an_intervention_wherever_the_old_feature_fires(kind):
    lm, d = language_model(), dictionary(kind, activation="topk")
    text, n_set = TEXTS[3], 0
    activations = d.encode(lm.run(torch.tensor([text])).mlp_input[0])
    for layer in range(3):
        old = int(((activations[1:, layer] > 0).sum(0) == 2).int().argmax())  # at two of three positions
        new = (old + 1) % d.n_features
        settings = []
        for position in (activations[1:, layer, old] > 0).nonzero()[:, 0].tolist():
            settings += [Setting(layer, old, position + 1, "set", 0.0), Setting(layer, new, position + 1, "set", 2.5)]
        n_set += len(settings)
        asked = Exchange(Fact("c", "en", text, 0), old, new, 2.5, 1.0, 1)
        found = exchanged(lm, d, layer, [asked, asked._replace(value=0.5)])
        torch.testing.assert_close(found[0], free_logits(lm, d, list(text), settings, 1).log_softmax(-1))
        assert not torch.allclose(found[0], found[1])
    assert n_set == 12


def test_exchanges_are_of_known_facts_whose_feature_fires(monkeypatch):
    """A fake model that always answers 7 + multiple: what is counted for the dropped and for the included feature."""
    asked = [Fact(c, way, (0, n), 10 * n + (way == "de")) for n, c in enumerate("abc") for way in ("en", "de")]
    asked[5] = asked[5]._replace(answer=asked[1].answer)  # c and a have one answer in German
    peaks = torch.ones(6, 9)
    peaks[2, 5] = 0  # b's feature does not fire on its English prompt
    known, highs = Known(asked, {0: peaks}), {(0, 4): 2.0, (0, 5): 3.0, (0, 6): 1.0}
    found = exchanges(known, 0, {"a": 4, "b": 5, "c": 6}, highs, multiples=[1.0, 3.0], pairs=9, seed=0)
    assert {(one.fact.concept, one.fact.label, one.included) for one in found} == {
        *(("a", "en", 5), ("a", "en", 6), ("a", "de", 5), ("b", "de", 4), ("b", "de", 6)),
        *(("c", "en", 4), ("c", "en", 5), ("c", "de", 5)),
    }
    assert {(one.included, one.multiple, one.value) for one in found} == {
        (f, m, m * highs[0, f]) for f in (4, 5, 6) for m in (1, 3)
    }
    assert {one.new_answer for one in found if (one.fact.concept, one.included) == ("b", 4)} == {asked[1].answer}
    one_each = exchanges(known, 0, {"a": 4, "b": 5, "c": 6}, highs, multiples=[1.0], pairs=1, seed=0)
    assert len(one_each) == 5 and len({(one.fact.concept, one.fact.label) for one in one_each}) == 5

    def fake(lm, dictionary, layer, group):
        tops = torch.tensor([one.new_answer if one.multiple == 3 and one.included == 5 else one.fact.answer for one in group])
        return torch.nn.functional.one_hot(tops, 60)

    monkeypatch.setattr(facts, "exchanged", fake)
    rates = success(None, None, 0, found, rows_at_once=3)
    assert rates[5, 3.0] == Rates(2, 0.0, 4, 1.0) and rates[5, 1.0] == Rates(2, 0.0, 4, 0.0)
    assert rates[4, 3.0] == Rates(3, 2 / 3, 2, 0.0) and rates[6, 3.0] == Rates(3, 2 / 3, 2, 0.0)


def test_a_run_measures_isolation_with_the_toy_worlds_facts(tmp_path):
    section = "evaluate: {tokens: 500, isolation: {features: 2, multiples: [1, 3], prompts: 3, prompt_tokens: 8, facts: {toyworld: true, pairs: 1}}}\n"
    folder = projects.with_dictionary(tmp_path, section, n_features=60)
    loaded = load(folder / "small.yaml")
    made = {result.stage: result.directory for result in run(loaded, wanted={"model", "train", "evaluate"})}
    rows = pl.read_parquet(made["evaluate"] / "tables/isolation/*.parquet")
    assert rows.filter("is_sampled").group_by("layer").len()["len"].to_list() == [4] * 4 and set(rows["multiple"]) == {1.0, 3.0}
    of_concepts = rows.filter(pl.col("concept").is_not_null())
    assert "Poland" in of_concepts["concept"].to_list() and of_concepts["n_drop"].sum() == of_concepts["n_include"].sum() > 0
    assert of_concepts["success_drop"].max() <= 1 and rows.filter(pl.col("concept").is_null())["n_drop"].null_count() > 0
    first = STAGE.lines(made)[-1]
    assert "8 features raised by 1 of their scale: leakage" in first and "leakage" in STAGE.compared(made["evaluate"], None)
    load_artifacts(tmp_path / "of-isolation.duckdb", [(directory.name, directory) for directory in made.values()])
    assert check(tmp_path / "of-isolation.duckdb", full=True) == []


def test_a_spec_that_cannot_be_measured_is_refused(tmp_path):
    for isolation, said in (
        ("{prompt_tokens: 33}", "prompt_tokens: found 33; expected at most the 32 of activations.context"),
        ("{multiples: [0]}", "expected a number other than 0"),
        ("{multiples: [1, 1.0]}", r"found \[1.0, 1.0\]; expected each multiple once"),
        ("{facts: {toyworld: false}}", "expected exactly one of file, toyworld: true"),
        ("{facts: {file: none.jsonl}}", "evaluate.isolation.facts.file .*no such file"),
    ):
        folder = projects.with_dictionary(tmp_path, f"evaluate: {{tokens: 500, isolation: {isolation}}}\n")
        with pytest.raises(CltdbError, match=said):
            loaded = load(folder / "small.yaml")
            STAGE.check_files(loaded.experiment, loaded.project)


def test_the_work_grows_with_what_is_raised(tmp_path):
    for isolation, extra in (
        ("{}", 1000 + 4 * 32 * 3 * 32 * 16),
        ("{features: 2, multiples: [1], prompts: 8}", 1000 + 4 * 2 * 8 * 16),
    ):
        folder = projects.with_dictionary(tmp_path, f"evaluate: {{tokens: 1000, isolation: {isolation}}}\n")
        loaded = load(folder / "small.yaml")
        assert STAGE.work(loaded.experiment, loaded.project) == ((5000 + extra) // 5, "tokens")


def toy_tokens(folder):
    loaded = load(projects.with_dictionary(folder, "") / "small.yaml")
    return sizes_and_tokens(loaded.experiment, loaded.project)


def test_the_toy_worlds_facts_are_its_capitals_in_three_languages(tmp_path):
    lm = toy_tokens(tmp_path)
    found = facts_of(lm, questions(Facts(toyworld=True), tmp_path))
    assert len(found) == 90 and {fact.label for fact in found} == {"en", "fr", "de"}
    [poland] = [fact for fact in found if (fact.concept, fact.label) == ("Poland", "fr")]
    assert lm.token_text(poland.answer).strip() == "Varsovie" and list(poland.tokens) == lm.prompt_tokens(
        "La capitale de la Pologne est"
    )


LINES = [
    {"concept": country, "label": "en", "text": f"The capital of {country} is", "target": city}
    for country, city in (("Japan", "Tokyo"), ("Peru", "Lima"), ("Greece", "Athens"))
]


def test_facts_of_a_file_are_read_and_enter_the_key(tmp_path):
    folder = projects.with_dictionary(tmp_path, "evaluate: {tokens: 500, isolation: {facts: {file: facts.jsonl}}}\n")

    def key():
        return {item.stage: item.key for item in plan(load(folder / "small.yaml"))}["evaluate"]

    def write(rows):
        (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))

    write(LINES)
    lm, before = toy_tokens(tmp_path / "toy"), key()
    found = facts_of(lm, questions(Facts(file="facts.jsonl"), folder))
    assert [(fact.concept, fact.label, lm.token_text(fact.answer).strip()) for fact in found][:2] == [
        ("Japan", "en", "Tokyo"),
        ("Peru", "en", "Lima"),
    ]
    write(LINES[:2])
    assert key() != before
    for wrong, said in (
        ([*LINES, LINES[0]], "line 4.*concept 'Japan' with label 'en' twice"),
        (LINES[:1], "fewer than two concepts"),
        ([*LINES, {"concept": "Chad"}], "line 4"),
        (LINES[:2] + [LINES[2] | {"target": "Nowhere"}], "Greece, en: found 'Nowhere' after"),
        (LINES[:2] + [LINES[2] | {"text": " "}], "Greece, en"),
    ):
        write(wrong)
        with pytest.raises(CltdbError, match=said):
            facts_of(lm, questions(Facts(file="facts.jsonl"), folder))
