"""A word that the tokenizer has no token for makes another prompt: it is an error wherever a prompt is given, and a warning of `cltdb encode`."""

import json

import pytest
from worlds import dictionaries, models, projects

from cltdb.attribution.intervene import DictionarySizes, check_request
from cltdb.errors import CltdbError
from cltdb.harvest.encode import encode
from cltdb.model.loading import load_model, load_sizes_and_tokens
from cltdb.replacement.replacement_model import prompt_token_ids
from cltdb.spec import load

SAID = "found 'Zanzibar', '!', which toyworld has no token for; expected words of its vocabulary"


@pytest.fixture(scope="module")
def lm():
    return load_sizes_and_tokens("toyworld", revision="main", model_id="toyworld")


def test_the_words_are_named(lm):
    for ask in (
        lm.known_prompt,
        lambda text: prompt_token_ids(lm, text),
        lambda text: check_request(
            lm, DictionarySizes(4, 8, 128), text, ["0:1@1=0"], mode="free", until_layer=None, n_generated=0
        ),
    ):
        with pytest.raises(CltdbError, match=f"^prompt: {SAID}"):
            ask("The capital of Zanzibar ! is Zanzibar")
    with pytest.raises(CltdbError, match="found 'b0', 'b1', 'b2', 'b3', 'b4', …, which"):
        lm.known_prompt(" ".join(f"b{n}" for n in range(6)))
    with pytest.raises(CltdbError, match="found 'france', which .*do this: did you mean France"):
        lm.known_prompt("The capital of france is")
    for text in ("The capital of France is", "<bos> The capital of France is"):
        assert lm.known_prompt(text) == lm.prompt_tokens(text) == [lm.bos_token_id, *lm.text_tokens("The capital of France is")]


def test_an_unknown_token_that_is_written_is_meant(lm, monkeypatch):
    monkeypatch.setattr(lm, "special_tokens_in_text", True)
    assert lm.known_prompt("The <unk> is")[2] == lm.tokenizer.unk_token_id
    with pytest.raises(CltdbError, match="found 'Zanzibar', which"):
        lm.known_prompt("The <unk> of Zanzibar is")


def test_tokenizers_that_spell_words_know_them_all():
    lm = models.language_model()
    assert lm.known_prompt("Zanzibar ☃") == lm.prompt_tokens("Zanzibar ☃")


@pytest.mark.parametrize("special", [False, True])
def test_an_unknown_token_that_is_bos_as_that_of_gpt2_is_no_unknown_word(special):
    lm = models.language_model()
    plain = lm.prompt_tokens("The snowman ☃")
    lm.tokenizer.unk_token, lm.special_tokens_in_text = "<bos>", special
    assert lm.tokenizer.unk_token_id == lm.bos_token_id
    assert lm.known_prompt("The snowman ☃") == lm.known_prompt("<bos>The snowman ☃") == plain
    assert (lm.bos_token_id in lm.known_prompt("The <bos>☃")[1:]) == special


def test_specs_are_refused_before_a_run(tmp_path):
    rows = [
        {"concept": name, "label": label, "text": f"The {name} ! of Zanzibar is", "target": "Paris"}
        for name in ("capital", "city", "country")
        for label in ("en", "fr")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = "name: small\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}], context: 64}\n"
    for section, where in (
        ("attribute: {prompts: [{id: one, text: The capital of Zanzibar ! is}]}", "attribute.prompts one"),
        ("groups: {prompts: {file: rows.jsonl}}", "groups.prompts capital, en, prompt"),
        ("evaluate: {isolation: {facts: {file: rows.jsonl}}}", "evaluate.isolation.facts capital, en, prompt"),
    ):
        loaded = load(projects.new(tmp_path, f"{text}{section}\n") / "small.yaml")
        with pytest.raises(CltdbError, match=f"^{where}: found .*Zanzibar.*which toyworld has no token for"):
            loaded.experiment.stages[section.split(":")[0]].preflight(loaded.experiment, loaded.project)


def test_encode_says_how_it_reads_them(caplog):
    lm = load_model("toyworld", device="cpu")
    dictionary = dictionaries.random(n_layers=lm.n_layers, d_model=lm.d_model, n_features=4)
    found = encode(lm, dictionary, "The capital of Zanzibar is")
    assert found.strings[4] == "<unk>" and "'Zanzibar' is read as <unk>: toyworld has no token for it" in caplog.text
