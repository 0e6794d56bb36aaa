"""The rule grammar, its learner and the bootstrap, on windows small enough to check by hand."""

import numpy as np
import pytest
from explain.rules_by_hand import holds
from worlds.planted import TOLD_BY_RULES, VOCABULARY, write_harvest

from cltdb.explain.examples import HarvestedWindows, Windows
from cltdb.explain.rules.grammar import TokenView, token_classes
from cltdb.explain.rules.learner import (
    GROUP_PRICE,
    MAX_BACK,
    MIN_SHARE,
    MISPLACED_WEIGHT,
    SURE,
    TOKEN_PRICE,
    _Search,
    explain_by_rules,
    learn_rule,
)
from cltdb.explain.rules.lexicon import Lexicon, token_groups
from cltdb.explain.rules.text import MOST_WORDS, describe

CLASSES = token_classes(VOCABULARY)
NO_GROUPS = np.zeros(len(VOCABULARY) + 1, dtype=np.intp)
LEXICON = Lexicon(
    VOCABULARY, CLASSES, ["en", "fr"], np.arange(len(VOCABULARY) + 1), np.arange(len(VOCABULARY)), CLASSES, NO_GROUPS, [[]]
)
PARIS, ROME, IS, STOP = (VOCABULARY.index(word) for word in ("Paris", "Rome", "is", "."))


def view(rows, labels=None):
    return TokenView(np.array(rows, dtype=np.int32), np.array(labels or [None] * len(rows), dtype=object), CLASSES)


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "previous", "back": 2, "tokens": [1, 4]},
        {"kind": "class", "back": 0, "class": "number"},
        {"kind": "class", "back": 1, "class": "number"},
        {"kind": "in_window", "token": 3},
        {"kind": "in_sentence", "token": 3},
        {"kind": "label", "label": "fr"},
        {"kind": "repeated"},
        {"kind": "repeated_pair"},
    ],
    ids=lambda c: c["kind"],
)
def test_every_condition_against_plain_python(condition):
    rng = np.random.default_rng(0)
    tokens = rng.choice([0, 1, 2, 3, 4, 40, 41, STOP], (50, 9))
    labels = ["fr" if index % 3 else None for index in range(50)]
    wanted = [
        [holds(condition, row.tolist(), place, label) for place in range(9)] for row, label in zip(tokens, labels, strict=True)
    ]
    assert np.array_equal(view(tokens, labels).holds(condition), wanted)


def test_nothing_matches_after_the_end_of_a_window():
    short = view([[1, 3, -1, -1]], ["fr"])
    rule = {"clauses": [{"tokens": None, "conditions": []}, {"tokens": None, "conditions": [{"kind": "label", "label": "fr"}]}]}
    assert short.matches(rule).tolist() == [[True, True, False, False]]
    assert not short.repeated()[:, 2:].any()


def test_text_of_a_rule():
    rule = {
        "clauses": [
            {
                "tokens": [PARIS, ROME],
                "conditions": [{"kind": "previous", "back": 1, "tokens": [IS]}, {"kind": "label", "label": "en"}],
            },
            {"tokens": list(range(9)), "conditions": [{"kind": "previous", "back": 3, "tokens": [STOP]}]},
        ]
    }
    assert (
        describe(rule, LEXICON)
        == "fires on 'Paris' or 'Rome' after 'is' in 'en' text; or on 'w0', 'w1' or others three tokens after '.'"
    )


def learned(fires, *, n=400, seed=0, labels=None):
    """The rule learned for a predicate fires(tokens, place), and the share of fresh windows it gets right."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 30, (2 * n, 12)).astype(np.int32)
    labels = np.array(labels or ["en", "fr"] * n, dtype=object)
    activations = np.array(
        [[float(fires(row.tolist(), place, label)) for place in range(12)] for row, label in zip(tokens, labels, strict=True)]
    )
    windows = Windows(
        tokens,
        (labels == "fr").astype(np.int16),
        activations,
        np.arange(2 * n),
        np.where(activations.any(axis=1), "positive", "random"),
    )
    fires = activations.any(axis=1)
    rule = learn_rule(windows.take(np.flatnonzero(fires[:n])), windows.take(np.flatnonzero(~fires[:n])), LEXICON)
    matched = view(tokens[n:], labels[n:].tolist()).matches(rule)
    return rule, (matched == (activations[n:] > 0)).mean()


def test_a_token_set_is_found_exactly():
    rule, accuracy = learned(lambda t, i, label: t[i] in (4, 5))
    assert [sorted(clause.pop("tokens")) for clause in rule["clauses"]] == [[4, 5]] and rule == {"clauses": [{"conditions": []}]}
    assert accuracy == 1


@pytest.mark.parametrize(
    "fires",
    [
        lambda t, i, label: i > 0 and t[i] in (4, 5, 6, 7) and t[i - 1] in (8, 9, 10, 11),
        lambda t, i, label: t[i] in (4, 5, 6, 7) and label == "fr",
        lambda t, i, label: t[i] in (4, 5, 6) and 7 in t[:i],
        lambda t, i, label: i > 2 and t[i] < 15 and t[i - 3] in (8, 9, 10) and label == "en",
        lambda t, i, label: t[i] == 4 or (i > 0 and t[i - 1] == 9 and t[i] < 10),
    ],
    ids=["bigram", "label", "seen before", "three conditions", "disjunction"],
)
def test_contexts_are_found(fires):
    assert learned(fires)[1] > 0.985


def test_nothing_is_learned_from_noise():
    rng = np.random.default_rng(1)
    rule, _ = learned(lambda t, i, label: rng.random() < 0.02)
    assert len(rule["clauses"]) <= 8


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """{name: (rule, text, Examples)} of the features that rules can tell."""
    directory = write_harvest(tmp_path_factory.mktemp("planted"), features=TOLD_BY_RULES, n_windows=2000)
    windows = HarvestedWindows(directory, seed=0)
    examples = [(0, feature, windows.examples(0, feature)) for feature in range(len(TOLD_BY_RULES))]
    told = explain_by_rules(examples, Lexicon.learnt(windows, VOCABULARY))
    return {name: (rule, text, one) for name, (text, rule), (_, _, one) in zip(TOLD_BY_RULES, told, examples, strict=True)}


def detected(rule, examples):
    """(truth, answer) of every test window."""
    answers = [
        TokenView(part.tokens, np.array(["en", "fr"], dtype=object)[part.labels], CLASSES).matches(rule).any(axis=1)
        for part in (examples.test_positives, examples.test_negatives)
    ]
    return np.arange(sum(map(len, answers))) < len(answers[0]), np.concatenate(answers)


def balanced_accuracy(truth, answer):
    return (answer[truth].mean() + (~answer[~truth]).mean()) / 2


@pytest.mark.parametrize("name", [name for name in TOLD_BY_RULES if name != "noisy"])
def test_planted_features_are_told_by_rules(planted, name):
    rule, text, examples = planted[name]
    assert examples.shortage is None
    assert balanced_accuracy(*detected(rule, examples)) >= 0.98, text
    assert len(text.split()) <= MOST_WORDS


def test_texts_of_planted_features_say_what_was_planted(planted):
    texts = {name: text for name, (_, text, _) in planted.items()}
    assert texts["repeated"] == "fires on repeated tokens"
    assert texts["one language"] == "fires on any token in 'fr' text"
    assert texts["any token after"] in ("fires after 'w11' or 'w12'", "fires after 'w12' or 'w11'")
    assert texts["tokens of one language"].endswith(" in 'fr' text") and "'w30'" in texts["tokens of one language"]
    assert texts["number after a word"] == "fires on numbers after a lower-case word"


def test_a_noisy_feature_scores_what_the_closed_form_says(planted):
    """The rule is right on every window in which it fires, and wrong on the silent ones that hold one of the tokens left out."""
    rule, _, examples = planted["noisy"]
    assert [sorted(clause["tokens"]) for clause in rule["clauses"]] == [[21, 22, 23]]
    fooled = np.isin(examples.test_negatives.tokens, (21, 22, 23)).any(axis=1)
    assert fooled.sum() >= 5
    assert balanced_accuracy(*detected(rule, examples)) == pytest.approx(1 - fooled.mean() / 2, abs=1e-12)


def test_rules_are_at_chance_where_the_labels_are_shuffled(planted):
    rng = np.random.default_rng(0)
    scores = []
    for rule, _, examples in planted.values():
        truth, answer = detected(rule, examples)
        scores += [balanced_accuracy(rng.permutation(truth), answer) for _ in range(50)]
    error = 0.5 / np.sqrt(60)  # of one balanced accuracy of 30 and 30 windows, at most
    assert abs(np.mean(scores) - 0.5) < 3 * error / np.sqrt(len(scores))
    assert np.mean(np.abs(np.array(scores) - 0.5) < 1.96 * 1.25 * error) > 0.9


def search(planted, name="tokens of one language"):
    _, _, examples = planted[name]
    some = [part.take(slice(40)) for part in (examples.training_positives, examples.training_negatives)]
    groups = np.append(np.arange(len(VOCABULARY)) // 5, 0)  # the first five have none
    members = [np.flatnonzero(groups[:-1] == group) for group in range(groups.max() + 1)]
    return _Search(*some, LEXICON._replace(groups=groups, members=members))


def test_the_worth_of_sets_against_plain_python(planted):
    made = search(planted)
    rows = made.inside[::2]
    net = np.round(np.random.default_rng(0).normal(size=len(rows)), 2) * 2
    totals, chosen = made._best_sets(np.arange(len(made.inside))[::2], net)
    flat = made.padded.ravel()
    seen = [{int(flat[made.place[row] - back]) for row in made.targets} - {len(VOCABULARY)} for back in range(7)]
    for back in range(7):
        worth, whole = {}, {}
        for row, value in zip(rows, net, strict=True):
            token = int(flat[made.place[row] - back])
            worth[token] = worth.get(token, 0) + (value if token in seen[back] else 0)
            group = int(made.lexicon.groups[token])
            whole[group] = whole.get(group, 0) + value
        expected, tokens = 0.0, set()
        for group, members in enumerate(made.lexicon.members):
            good = {token for token in members.tolist() if worth.get(token, 0) > TOKEN_PRICE}
            listed = sum(worth[token] - TOKEN_PRICE for token in good if worth[token] > SURE[back > 0])
            may = group > 0 and (back > 0 or len(seen[0] & set(members.tolist())) > 1)
            if may and whole.get(group, 0) - GROUP_PRICE > listed:
                expected, tokens = expected + whole[group] - GROUP_PRICE, tokens | set(members.tolist())
            else:
                expected, tokens = expected + listed, tokens | good
        assert totals[back] == pytest.approx(expected)
        for total, found in ((totals[back], chosen(back)), made._best_set(back, np.arange(len(made.inside))[::2], net)):
            allowed = made.values[made.start[back] : made.start[back + 1]][found.values].tolist()
            for group in np.flatnonzero(found.groups):
                allowed += made.lexicon.members[group].tolist()
            assert set(allowed) == tokens and total == pytest.approx(expected)


def test_every_condition_is_seen_by_the_learner_as_it_is_applied(planted):
    made = search(planted)
    windows = view(
        np.where(made.padded < len(VOCABULARY), made.padded, -1)[:, MAX_BACK:], [["en", "fr"][one] for one in made.labels]
    )
    kinds = set()
    for condition, flagged in made.flags:
        expected = np.zeros(made.padded.shape, dtype=bool)
        expected[:, MAX_BACK:] = windows.holds(condition)
        assert np.array_equal(flagged, expected.ravel()[made.place]), condition
        kinds.add(condition["kind"])
    assert kinds >= {"label", "class", "repeated", "repeated_pair", "in_sentence", "in_window"}


@pytest.mark.parametrize("name", ["after", "number after a word", "tokens of one language"])
def test_the_gain_of_every_candidate_against_its_rule_window_by_window(planted, name):
    made = search(planted, name)
    tokens = np.where(made.padded[:, MAX_BACK:] < len(VOCABULARY), made.padded[:, MAX_BACK:], -1)
    windows = view(tokens, [["en", "fr"][label] for label in made.labels])
    fires = np.zeros(made.padded.shape, dtype=bool)
    fires.ravel()[made.place[made.targets]] = True
    fires = fires[:, MAX_BACK:]
    candidates = [clause for clauses in made._candidates() for clause in clauses]
    assert len(candidates) >= 6
    for clause in candidates:
        matched = windows.matches({"clauses": [made._as_value(clause)]})
        expected = -clause.price
        for window in range(len(tokens)):
            wrong = matched[window] & ~fires[window]
            expected += made.uncovered[window] * (matched[window] & fires[window]).any() - made.unhit[window] * wrong.any()
            if fires[window].any():
                expected -= MISPLACED_WEIGHT * wrong.sum() / max(1, (~fires[window] & (tokens[window] >= 0)).sum())
        assert made.gain(clause) == pytest.approx(expected)


def test_no_clause_covers_less_than_its_share_of_the_firings(planted):
    for rule, _, examples in planted.values():
        part = examples.training_positives
        windows = TokenView(part.tokens, np.array(["en", "fr"], dtype=object)[part.labels], CLASSES)
        fires = part.activations > 0
        for clause in rule["clauses"]:
            assert (windows.matches({"clauses": [clause]}) & fires).sum() >= MIN_SHARE * fires.sum()


def test_groups_are_tokens_that_stand_in_the_same_places():
    """Tokens 0 to 9 stand before 20, tokens 10 to 19 after it."""
    rng = np.random.default_rng(0)
    text = np.stack([rng.integers(0, 10, 3000), np.full(3000, 20), rng.integers(10, 20, 3000)], axis=1)
    groups, counts = token_groups(text, 21)
    assert len(set(groups[:10])) == len(set(groups[10:20])) == 1 and groups[0] != groups[10] and groups[21] == 0
    assert counts.sum() == 9000


def test_texts_are_short_and_leave_out_no_word_of_what_they_say():
    many = {"tokens": list(range(30)), "conditions": [{"kind": "previous", "back": 2, "tokens": list(range(20))}]}
    assert describe({"clauses": [many]}, LEXICON) == "fires on 'w0', 'w1' or others two tokens after 'w0' or others"
    assert describe({"clauses": [many] * 4}, LEXICON).endswith("; and elsewhere")
    groups = NO_GROUPS.copy()
    groups[:4] = 1
    named = LEXICON._replace(groups=groups, members=[[], [2, 0, 1, 3]])
    assert (
        describe({"clauses": [{"tokens": [0, 1, 2, 3, 7], "conditions": []}]}, named)
        == "fires on words such as 'w2', 'w0' or 'w1'"
    )
    numbers = [{"tokens": [40, 41], "conditions": [{"kind": "class", "back": 1, "class": "lower-case"}, {"kind": "repeated"}]}]
    assert describe({"clauses": numbers}, LEXICON) == "fires on '12' or '7' after a lower-case word seen before"
    twice = [{"kind": "previous", "back": back, "tokens": [back]} for back in (1, 3)]
    assert (
        describe({"clauses": [{"tokens": [9], "conditions": twice}]}, LEXICON)
        == "fires on 'w9' after 'w1' and three tokens after 'w3'"
    )
    assert describe({"clauses": []}, LEXICON) == "no regularity found"
    pair = [{"tokens": None, "conditions": [{"kind": "repeated_pair"}]}]
    assert describe({"clauses": pair}, LEXICON) == "fires on any token that followed the same token earlier"
