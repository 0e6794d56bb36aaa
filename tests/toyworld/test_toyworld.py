import itertools
import re

import pytest
import torch

from cltdb.toyworld import MODEL_DIR, train_model
from cltdb.toyworld.facts import COUNTRIES, HELD_OUT_CITIES, LANGUAGES, OPPOSITES
from cltdb.toyworld.tasks import tasks
from cltdb.toyworld.text import documents, two_hop_prompt, words
from cltdb.toyworld.train_model import build_model, build_tokenizer, measure, train


def test_facts_are_one_word_each_and_unambiguous():
    cities = [city for country in COUNTRIES for city in country.cities]
    assert len(COUNTRIES) == 30 and len(set(cities)) == len(cities)
    assert not set(cities) & {capital for country in COUNTRIES for capital in country.capital.values()}
    for language in LANGUAGES:
        every = [word for pair in OPPOSITES[language] for word in pair]
        assert len(set(every)) == len(every), [word for word in every if every.count(word) > 1]


def test_text_repeats_with_its_seed_and_uses_known_words_only():
    first = list(itertools.islice(documents(5), 2000))
    assert first == list(itertools.islice(documents(5), 2000)) != list(itertools.islice(documents(6), 2000))
    assert {label for _, label in first} == set(LANGUAGES)
    tokenizer = build_tokenizer()
    assert tokenizer.unk_token_id not in {token for text, _ in first for token in tokenizer(text)["input_ids"]}
    assert len(words()) + 2 == len(tokenizer)


def test_held_out_facts_never_occur():
    text = " ".join(text for text, _ in itertools.islice(documents(1), 20_000))
    assert not [city for city in HELD_OUT_CITIES if two_hop_prompt(city) in text]
    assert two_hop_prompt("Lyon") in text


def test_answers_are_right_and_foils_are_not():
    for task in tasks(3):
        for prompt in task.prompts:
            assert prompt.answers and prompt.foils and not set(prompt.answers) & set(prompt.foils)
            if task.name == "modular_sum":
                a, b = re.findall(r"\d", prompt.text)[:2]
                assert prompt.answers == (str((int(a) + int(b)) % 10),)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_model_learns_on_its_device_at_the_given_rate(device, capsys, monkeypatch):
    monkeypatch.setattr(train_model, "BATCH_SEQS", 8)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer), d_model=16).to(device)
    begun = model.lm_head.weight.detach().clone()
    train(model, tokenizer, documents(1), n_steps=1, learning_rate=0.0)
    assert torch.equal(model.lm_head.weight, begun)
    train(model, tokenizer, documents(1), n_steps=9, learning_rate=1.0)
    assert model.device.type == device
    losses = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < losses[0] - 0.5


@pytest.fixture(scope="module")
def results():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return measure(AutoModelForCausalLM.from_pretrained(MODEL_DIR).eval(), AutoTokenizer.from_pretrained(MODEL_DIR), seed=77)


@pytest.mark.parametrize("task", ["capital", "opposite", "indirect_object", "modular_sum"])
def test_the_committed_model_answers(results, task):
    assert results[task] >= 0.95


def test_the_card_says_what_is_measured(results):
    card = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|$", (MODEL_DIR / "README.md").read_text(), re.MULTILINE))
    assert set(card) == set(results)
    for task, value in results.items():
        assert float(card[task]) == pytest.approx(value, abs=0.04), task
