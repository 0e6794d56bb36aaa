import itertools
from collections import Counter

import pytest

from cltdb.toyworld.facts import LANGUAGES
from cltdb.toyworld.languages import BORROWED_SHARE, FIRST_PIECES, MARKS, PARALLEL_SHARE, SECOND_PIECES, documents, facts, words
from cltdb.toyworld.train_model import build_tokenizer


def said(fact, language):
    return f"{fact.prompt[language]} {fact.answer[language]} ."


def test_languages_share_no_token_and_say_the_same():
    known = {language: {word for fact in facts() for word in said(fact, language).split()} - MARKS for language in LANGUAGES}
    for one, other in itertools.combinations(LANGUAGES, 2):
        assert not known[one] & known[other]
    assert len(facts()) == len({fact.concept for fact in facts()}) == 30 + 40
    france = facts()[0]
    assert france.concept == "capital-france"
    assert [said(france, language) for language in LANGUAGES] == [
        "The capital of lo:en ri:en is mo:en ri:en .",
        "La capitale de la da:fr di:fr est pa:fr di:fr .",
        "Die Hauptstadt von ko:de ti:de ist ba:de fi:de .",
    ]


def test_two_pieces_are_one_word_and_several_words_share_each():
    spelled = {}
    for language in LANGUAGES:
        spelled[language] = {fact.asked[language] for fact in facts()} | {fact.answer[language] for fact in facts()}
        assert len(spelled[language]) == 30 + 30 + 40
        for place, pieces in enumerate((FIRST_PIECES, SECOND_PIECES)):
            n = Counter(word.split()[place] for word in spelled[language])
            assert set(n) == {f"{piece}:{language}" for piece in pieces} and min(n.values()) >= 4
        assert max(Counter(fact.answer[language].split()[0] for fact in facts()).values()) <= 0.08 * len(facts())
    for one, other in itertools.combinations(LANGUAGES, 2):  # a piece of one language tells nothing of the other's
        pairs = Counter(tuple(fact.answer[language].split()[0] for language in (one, other)) for fact in facts())
        assert max(pairs.values()) <= 2


def test_every_prompt_has_one_answer_in_every_language():
    for world in (facts(), facts(shuffled_by=3)):
        for language in LANGUAGES:
            assert len({fact.prompt[language] for fact in world}) == len(world)


def test_a_shuffled_world_keeps_prompts_and_words_and_pairs_them_anew_in_each_language():
    world, shuffled = facts(), facts(shuffled_by=3)
    for language in LANGUAGES:
        assert [fact.prompt[language] for fact in world] == [fact.prompt[language] for fact in shuffled]
        for kind in (slice(0, 30), slice(30, 70)):
            assert Counter(f.answer[language] for f in world[kind]) == Counter(f.answer[language] for f in shuffled[kind])
        kept = sum(a.answer[language] == b.answer[language] for a, b in zip(world, shuffled, strict=True))
        assert kept <= 8  # by chance: one of each kind
    assert shuffled == facts(shuffled_by=3) != facts(shuffled_by=4)


def test_documents_repeat_with_their_seed_and_keep_to_the_vocabulary():
    shares = {"en": 90, "fr": 5, "de": 5}
    first = list(itertools.islice(documents(5, shares=shares), 1500))
    assert first == list(itertools.islice(documents(5, shares=shares), 1500))
    tokenizer = build_tokenizer(words(), splits_marks=False)
    assert tokenizer.unk_token_id not in {token for text, _ in first for token in tokenizer(text)["input_ids"]}
    languages = Counter(language for _, language in first)
    assert languages["en"] / 1500 == pytest.approx((1 - PARALLEL_SHARE) * 0.9, abs=0.04)
    assert languages[None] / 1500 == pytest.approx(PARALLEL_SHARE, abs=0.04)


@pytest.mark.parametrize(("shuffled_by", "same"), [(None, True), (0, False)])
def test_parallel_documents_say_one_thing_unless_the_world_is_shuffled(shuffled_by, same):
    home = {said(fact, language): fact.concept for fact in facts(shuffled_by=shuffled_by) for language in LANGUAGES}
    drawn = itertools.islice(documents(1, shares=dict.fromkeys(LANGUAGES, 1), shuffled_by=shuffled_by), 2000)
    concepts = [
        {home[f"{sentence} ."] for sentence in text.removesuffix(" .").split(" . ")} for text, label in drawn if label is None
    ]
    assert len(concepts) / 2000 == pytest.approx(PARALLEL_SHARE, abs=0.04)
    one_thing = sum(len(of_document) == 1 for of_document in concepts)
    assert one_thing == len(concepts) if same else one_thing < 20


@pytest.mark.parametrize(("shuffled_by", "same"), [(None, True), (0, False)])
def test_a_borrowed_word_means_the_same_unless_the_world_is_shuffled(shuffled_by, same):
    known = facts(shuffled_by=shuffled_by)
    asked = {tuple(fact.asked[language].split()): (fact.concept, language) for fact in known for language in LANGUAGES}
    answered = {tuple(fact.answer[language].split()): fact.concept for fact in known for language in LANGUAGES}
    n = borrowed = right = 0
    drawn = itertools.islice(documents(1, shares=dict.fromkeys(LANGUAGES, 1), shuffled_by=shuffled_by), 2000)
    for text, label in drawn:
        for sentence in text.removesuffix(" .").split(" . ") if label else ():
            *prompt, first, second = sentence.split()
            ((concept, language),) = [asked[word] for word in itertools.pairwise(prompt) if word in asked]
            n += 1
            if language != label:
                borrowed += 1
                right += answered[first, second] == concept
            else:
                assert answered[first, second] == concept
    assert borrowed / n == pytest.approx(BORROWED_SHARE, abs=0.02)
    assert right == borrowed if same else right < 0.05 * borrowed


def test_a_language_without_a_share_is_never_spoken():
    shares = {"en": 1, "fr": 1, "de": 0}
    assert not any("Hauptstadt" in text for text, _ in itertools.islice(documents(2, shares=shares), 500))
