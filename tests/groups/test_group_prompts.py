"""Parallel prompts: what is read, and one error for each thing that can be wrong with them."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from worlds import projects
from worlds.models import language_model as byte_model

from cltdb.activations.reading import packed_own
from cltdb.errors import CltdbError
from cltdb.groups.answers import check_answers, check_prompts
from cltdb.groups.prompts import ParallelPrompt, parallel_prompts
from cltdb.groups.settings import Groups, ParallelPrompts
from cltdb.model.source import sizes_and_tokens
from cltdb.spec import load, load_points
from cltdb.toyworld.facts import COUNTRIES, LANGUAGES, OPPOSITES

FROM_FILE = Groups(prompts=ParallelPrompts(file="parallel.jsonl"))
ROWS = [
    {"concept": concept, "label": label, "text": f"{label} {concept}", "target": f"{concept}{label}"}
    for concept in ("hot", "big", "old")
    for label in ("fr", "de")
]


def read(folder, rows, section=FROM_FILE):
    (folder / "parallel.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return parallel_prompts(section, folder)


def test_prompts_come_by_concept_and_label(tmp_path):
    prompts = read(tmp_path, ROWS[::-1])
    assert [(one.concept, one.label) for one in prompts] == [(c, g) for c in ("old", "big", "hot") for g in ("de", "fr")]
    assert prompts[0] == ParallelPrompt(concept="old", label="de", text="de old", target="oldde")


def test_lines_may_have_several_labels_and_these_may_be_numbers(tmp_path):
    rows = [row | {"year": 1900 + number % 2} for number, row in enumerate(ROWS)]
    prompts = read(tmp_path, rows, FROM_FILE.model_copy(update={"by": "year"}))
    assert [one.label for one in prompts] == ["1900", "1901"] * 3


def test_the_toy_worlds_translations():
    prompts = parallel_prompts(Groups(prompts=ParallelPrompts(toyworld=True)), ".")
    assert len(prompts) == (len(COUNTRIES) + len(OPPOSITES["en"])) * len(LANGUAGES)
    of_poland = [(one.label, one.text, one.target) for one in prompts if one.concept == "capital of Poland"]
    assert of_poland == [
        ("de", "Die Hauptstadt von Polen ist", "Warschau"),
        ("en", "The capital of Poland is", "Warsaw"),
        ("fr", "La capitale de la Pologne est", "Varsovie"),
    ]
    assert {one.concept.split()[0] for one in prompts if one.kind == "capital"} == {"capital"}
    assert {one.kind for one in prompts} == {"capital", "opposite"}


WRONG = {
    "no JSON": ([*ROWS, "{"], "line 7: found no JSON (Expecting property name enclosed in double quotes, column 2)"),
    "no object": ([*ROWS, "[1]"], "line 7: found '[1]'; expected a JSON object such as"),
    "an empty file": ([" "], "found an empty file; expected lines with a JSON object each, such as {"),
    "no keys": (["{}"], "line 1: found no keys; expected the key concept, which holds what is asked; do this: add it"),
    "no concept": (
        [{"label": "fr", "text": "x"}],
        "line 1: found the keys 'label', 'text'; expected the key concept, which holds what is asked",
    ),
    "no prompt": (
        [{"concept": "hot", "label": "fr"}],
        "line 1: found the keys 'concept', 'label'; expected the key text, which holds the prompt",
    ),
    "null for a concept": ([ROWS[0] | {"concept": None}], "line 1): found null; expected a word"),
    "no label": ([{"concept": "hot", "text": "x"}], "line 1: found the keys 'concept', 'text'; expected the key label"),
    "no text": ([ROWS[0] | {"text": " "}], "line 1): found an empty prompt"),
    "a target that is a number": ([ROWS[0] | {"target": 3}], "target ("),
    "a misspelt key": (
        [*ROWS[:5], {("taget" if k == "target" else k): v for k, v in ROWS[5].items()}],
        "line 6: found the key 'taget', which line 1 lacks",
    ),
    "a key more": ([*ROWS[:5], ROWS[5] | {"autor": "x"}], "line 6: found the key 'autor', which line 1 lacks"),
    "one label": (ROWS[::2], "found 1 label; expected 2 labels or more"),
    "two concepts": (ROWS[:4], "found 2 concepts; expected 3 concepts or more"),
    "a missing prompt": (ROWS[:5], "found no prompt of concept 'old' with label 'de'"),
    "a prompt twice": ([*ROWS, ROWS[0]], "found 2 prompts of concept 'hot' with label 'fr'"),
    "a concept under two names": (
        [*ROWS, *({**row, "concept": "heat"} for row in ROWS[:2])],
        "found concepts 'hot' and 'heat' with the same prompt under every label; expected another prompt under one label at least",
    ),
    "a kind of two concepts": (
        [row | {"kind": "size" if row["concept"] == "big" else "heat"} for row in ROWS],
        "found 2 concepts of kind 'heat'; expected 3 concepts of kind 'heat' or more",
    ),
    "two kinds of a concept": ([row | {"kind": row["label"]} for row in ROWS], "concept 'hot' of two kinds, 'fr' and 'de'"),
    "some without a kind": (
        [ROWS[0] | {"kind": "heat"}, *ROWS[1:]],
        "found 5 of 6 prompts without a kind; expected a kind in all",
    ),
    "some without a target": (
        [{**row, "target": None} if row is ROWS[2] else row for row in ROWS],
        "found 1 of 6 prompts without a target",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(tmp_path, what):
    rows, said = WRONG[what]
    with pytest.raises(CltdbError) as caught:
        read(tmp_path, rows)
    assert said in str(caught.value) and "parallel.jsonl" in str(caught.value)


def test_a_missing_file_and_a_key_that_the_toy_world_has_not(tmp_path):
    with pytest.raises(CltdbError, match="no such file"):
        parallel_prompts(FROM_FILE, tmp_path)
    with pytest.raises(CltdbError, match="groups.by: found language"):
        parallel_prompts(Groups(prompts=ParallelPrompts(toyworld=True), by="language"), tmp_path)


def test_the_prompt_that_the_model_cannot_read_is_named():
    lm = byte_model()
    prompts = [ParallelPrompt(concept="hot", label="fr", text="chaud", target="f")]
    check_prompts(lm, prompts)
    with pytest.raises(CltdbError, match="groups.prompts hot, de, target: found 'kalt', which is 4 tokens"):
        check_prompts(lm, [*prompts, ParallelPrompt(concept="hot", label="de", text="x", target="kalt")])
    with pytest.raises(CltdbError, match="groups.prompts hot, de, prompt: found"):
        check_prompts(lm, [ParallelPrompt(concept="hot", label="de", text="x" * 100)])


def test_answers_that_are_the_same_under_all_labels_are_refused_before_a_run():
    lm = byte_model()
    prompts = [
        ParallelPrompt(concept=concept, label=label, text="x", target=word)
        for concept, words in {"hot": "aab", "big": "ccc", "old": "eee"}.items()
        for label, word in zip("xyz", words, strict=True)
    ]
    with pytest.raises(
        CltdbError, match="groups.label_features: found 1 of 3 concepts with different answers under different labels"
    ):
        check_answers(lm, prompts)
    assert check_answers(lm, [*prompts[:-1], prompts[-1].model_copy(update={"target": "f"})]) is None


def test_a_spec_says_where_its_prompts_are_and_goes_with_transcoders_alone(tmp_path):
    sae = "train: {kind: sae, n_features: 8, l0: 2}\ngroups: {prompts: {toyworld: true}}\n"
    text = "name: small\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}]}\n"
    projects.new(tmp_path, text + sae)
    with pytest.raises(
        CltdbError,
        match="groups .*: found sae; expected a train.kind that explains how .* beside groups; do this: leave groups out",
    ):
        load(tmp_path / "small.yaml")
    projects.new(tmp_path, text + "sweep: {train.kind: [clt, sae]}\ngroups: {prompts: {toyworld: true}}\n")
    assert ["groups" in point.experiment.present for point in load_points(tmp_path / "small.yaml")] == [True, False]
    for section, message in (
        ("substitute: {features: []}", "groups.substitute.features .*: found \\[\\]; expected a list of 1 or more"),
        ("substitute: {features: [0]}", "found 0; expected an integer from 1 to 1,000; do"),
        ("substitute: {features: [2000]}", "expected an integer from 1 to 1,000 \\(no label has so many\\)"),
        ("resamples: true", "groups.resamples .*: found true; expected an integer from 100 to 1,000,000"),
    ):
        projects.new(tmp_path, text + f"groups: {{prompts: {{toyworld: true}}, label_features: {{}}, {section}}}\n")
        with pytest.raises(CltdbError, match=message):
            load(tmp_path / "small.yaml")
    projects.new(tmp_path, text + "groups: {prompts: {}}\n")
    with pytest.raises(CltdbError, match="expected exactly one of file, toyworld: true"):
        load(tmp_path / "small.yaml")
    loaded = load(projects.new(tmp_path, text + "groups: {prompts: {toyworld: true}}\n") / "small.yaml")
    assert list(loaded.experiment.present)[-3:] == ["attribute", "groups", "database"]
    assert (
        check_prompts(sizes_and_tokens(loaded.experiment, loaded.project), parallel_prompts(loaded.experiment.groups, tmp_path))
        is None
    )
    assert "groups" not in load(projects.new(tmp_path, text) / "small.yaml").experiment.present


def test_tokens_and_layers_that_the_model_lacks_are_refused_before_a_run(tmp_path):
    text = "name: small\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}], context: 64}\n"
    for section, message in (
        (
            "groups: {prompts: {toyworld: true}, label_features: {}, substitute: {first_layer: 4}}",
            "first_layer: found 4; expected .*at most 3",
        ),
        (
            "groups: {prompts: {toyworld: true}, label_features: {}, substitute: {last_layer: 4}}",
            "last_layer: found 4; expected .*at most 3",
        ),
        ("harvest: {lens_tokens: [Paries]}", "harvest.lens_tokens: found 'Paries'.*did you mean Paris"),
    ):
        loaded = load(projects.new(tmp_path, f"{text}{section}\n") / "small.yaml")
        with pytest.raises(CltdbError, match=message):
            loaded.experiment.stages[section.split(":")[0]].preflight(loaded.experiment, loaded.project)


def test_text_that_cannot_have_the_labels_of_the_prompts_is_refused_before_a_run(tmp_path):
    text = "name: small\nmodel: {id: toyworld}\nactivations: {text: [{files: [x.txt], label: de}], context: 64}\n"
    (tmp_path / "x.txt").write_text("x")
    groups = "groups: {prompts: {toyworld: true}, label_features: {}%s}\n"
    for more, message in (
        ("", "activations.text: found no source of label en; expected text of each label of the prompts, de, en, fr"),
        (", text: [{files: [x.txt]}]", "groups.text: found no source of label de"),
        (", text: [{files: [x.txt], label_column: lang}]", None),
        (", text: [{toyworld: true}]", None),
    ):
        loaded = load(projects.new(tmp_path, text + groups % more) / "small.yaml")
        with pytest.raises(CltdbError, match=message) if message else nullcontext():
            loaded.experiment.stages["groups"].check_files(loaded.experiment, loaded.project)
    with pytest.raises(CltdbError, match="groups.tokens .*: found none; expected label_features beside tokens"):
        load(projects.new(tmp_path, text + "groups: {prompts: {toyworld: true}, tokens: 500}\n") / "small.yaml")


def test_errors_of_the_text_of_groups_name_it(tmp_path):
    text = "name: small\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}], context: 64}\n"
    groups = "groups: {prompts: {toyworld: true}, label_features: {}, tokens: 5_000, text: [{files: [x.jsonl], %s}]}\n"
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"text": "The capital of France is Paris .", "lang": "fr"}) + "\n" for _ in range(30))
    )
    for source, message in (
        ("column: z, label_column: lang", "groups.text.column of .*x.jsonl: found 'z'"),
        ("label_column: lang", "groups.text: found text shorter than one context of 64 tokens; expected text for"),
    ):
        loaded = load(projects.new(tmp_path, text + groups % source) / "small.yaml")
        job = SimpleNamespace(experiment=loaded.experiment, project=loaded.project, stage=loaded.experiment.stages["groups"])
        with pytest.raises(CltdbError, match=message):
            packed_own(job, sizes_and_tokens(loaded.experiment, loaded.project), 5_000, note=False)
