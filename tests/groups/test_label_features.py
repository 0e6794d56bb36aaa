"""Label features: candidates of planted traces, their scores on text against loops, and the target that they are candidates for."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from worlds.numbers import N_FEATURES, N_LAYERS, PROMPT, VOCAB, dictionary, language_model

import cltdb
from cltdb.activations.tokens import Sequences
from cltdb.attribution.run import check_prompts
from cltdb.attribution.settings import Prompt
from cltdb.errors import CltdbError, DataError
from cltdb.groups import matching, text
from cltdb.groups.label_features import Candidate, candidates, encoder_cosines, text_rows
from cltdb.groups.settings import LabelFeatures
from cltdb.groups.traces import Trace


def auc_of(is_label, values):
    from sklearn.metrics import roc_auc_score  # takes seconds, and all processes read this file

    return roc_auc_score(is_label, values)


def trace(places, shares=None, against=()):
    """places: {(layer, position, feature): influence}; against: features whose effect is below 0."""
    columns = [np.array(column, dtype=np.int64) for column in zip(*places, strict=True)]
    known = [0.5] * len(places) if shares is None else shares
    influence = np.array(list(places.values()))
    return Trace(*columns, influence, influence * np.where(np.isin(columns[2], against), -3, 2), np.array(known), {})


def found(traces, **settings):
    return candidates(traces, n_layers=2, n_features=9, settings=LabelFeatures(**settings))


def test_candidates_recur_and_are_ranked_by_contrast():
    """Feature 1 is of French, at two places; 2 of both labels, more in French; 3 of one prompt alone; 4 weak; 5 and 6 of German."""
    french = [
        trace(
            {(0, -1, 1): 0.4, (0, -2, 1): 0.2, (1, -1, 2): 0.5, (0, -1, 3): 0.9, (0, -3, 4): 0.01}, [1.0, 0.0, np.nan, 0.5, 0.5]
        ),
        trace({(0, -1, 1): 0.6, (1, -1, 2): 0.7, (0, -3, 4): 0.01}, [0.5, np.nan, 0.5]),
    ]
    german = [trace({(1, -1, 2): 0.5, (1, -1, 5): 0.1 * n, (1, -2, 6): 0.4}) for n in (1, 2)]
    traces = [*(("fr", one) for one in french), *(("de", one) for one in german)]
    of_label = found(traces, influence=0.95)
    assert [(one.layer, one.feature, one.rank, one.recurrence) for one in of_label["fr"]] == [(0, 1, 1, 1.0), (1, 2, 1, 1.0)]
    one, two = of_label["fr"]
    assert (one.influence, one.contrast) == pytest.approx((0.6, 0.6)) and (two.influence, two.contrast) == pytest.approx(
        (0.6, 0.1)
    )
    assert one.embedding_share == pytest.approx((0.4 * 1 + 0.2 * 0 + 0.6 * 0.5) / 1.2) and two.embedding_share is None
    assert [(one.feature, one.rank) for one in of_label["de"]] == [(6, 1), (5, 2)]
    assert [one.feature for one in found(traces, influence=0.95, top=1)["de"]] == [6]
    assert (
        found(traces, influence=0.2)["fr"] == found(traces, influence=0.2, recurrence=0.6)["fr"] == []
    )  # feature 3 alone, then 2 alone


def test_features_that_work_against_their_label_are_none_of_it():
    """Features 1 and 2 are as influential; 2 lowers the label's answer. Of 3 one place does, the other raises it more."""
    french = [
        trace({(0, -1, 1): 0.4, (0, -1, 2): 0.4, (0, -1, 3): 0.1}, against=(2, 3)),
        trace({(0, -1, 1): 0.4, (0, -1, 2): 0.4, (0, -1, 3): 0.3}, against=(2,)),
    ]
    of_label = found([*(("fr", one) for one in french), *[("de", trace({(0, -1, 5): 1.0}))] * 2], influence=1)
    assert [(one.feature, one.rank) for one in of_label["fr"]] == [(1, 1), (3, 2)]
    assert [one.effect for one in of_label["fr"]] == pytest.approx([0.8, (-0.3 + 0.6) / 2])


def sequences(n=16, context=12, seed=0):
    """Two documents a sequence, of labels fr, de and none; the second one of a sequence has only three tokens in some."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, VOCAB, (n, context)).astype(np.int32)
    tokens[:, 0] = 0
    cut = np.where(np.arange(n) % 4 == 0, context - 3, context // 2)
    second = np.arange(context) >= cut[:, None]
    documents = 2 * np.arange(n)[:, None] + second
    labels = np.where(second, (np.arange(n) // 2 % 3)[:, None] - 1, np.arange(n)[:, None] % 2).astype(np.int16)
    return Sequences(tokens, documents.astype(np.int64), labels, ["fr", "de"], (3,))


LABELS = ["de", "fr"]


def test_pieces_have_enough_tokens_and_a_label_and_those_of_every_other_document_are_held_out():
    read = sequences()
    read.documents[4, read.documents[4] == 8] = 7  # ends what the sequence before began
    labelled, expected = text.LabelledText.of(read, LABELS), []
    for row, document in product(range(len(read)), range(2 * len(read))):
        places = [p for p in range(1, 12) if read.documents[row, p] == document and read.tokens[row, p] != 3]
        code = int(read.labels[row][read.documents[row] == document][0]) if places else -1
        if code >= 0 and len(places) >= text.LEAST_TOKENS:
            expected.append((LABELS.index(read.label_names[code]), row, places, document))
    expected.sort(key=lambda one: (one[1], one[2]))
    assert labelled.label_of.tolist() == [label for label, *_ in expected] and 10 < len(expected) < 2 * len(read)
    for number, (label, row, places, _) in enumerate(expected):
        assert np.flatnonzero(labelled.piece[row] == number).tolist() == places and set(labelled.label[row, places]) == {label}
    assert (labelled.piece >= 0).sum() == sum(len(one[2]) for one in expected) == (labelled.label >= 0).sum()
    for label in (0, 1):
        documents = [document for of, *_, document in expected if of == label]
        odd = {document: place % 2 == 1 for place, document in enumerate(sorted(set(documents)))}
        assert labelled.is_held_out[labelled.label_of == label].tolist() == [odd[document] for document in documents]
    assert len({document for *_, document in expected}) < len(expected)
    with pytest.raises(DataError, match="groups.text: found 0 pieces of 0 documents with label 'en'"):
        text.LabelledText.of(read, ["de", "en"])
    with pytest.raises(
        DataError,
        match="found [0-9]+ pieces of 1 document with label 'fr'; expected two pieces of 4 tokens or more in every other",
    ):
        text.LabelledText.of(read.changed(documents=np.where(read.labels == 0, 0, read.documents)), LABELS)


def planted(rng, n_pieces):
    """(tokens, label, piece): pieces of 12 to 30 tokens. Label 0 has 8 frequent words (tokens 0 to 7) and 20 rare ones, label 1 has 4 (100 to
    103) and 46; each word of a kind is about as frequent in both. Label 0 uses frequent words twice as often, more in some pieces."""
    tokens, label, piece = [], [], []
    for number in range(2 * n_pieces):
        code, n = number % 2, rng.integers(12, 30)
        often = rng.random(n) < rng.choice(((0.9, 0.5, 0.76), (0.32, 0.4))[code])
        words = rng.integers(0, (8, 4)[code], n), rng.integers(10, (30, 56)[code], n)
        tokens.append(100 * code + np.where(often, *words))
        label.append([code] * n)
        piece.append([number] * n)
    return map(np.concatenate, (tokens, label, piece))


def matched_of(label, piece, classes, values, seed=0):
    """The `Matched` of features [n_tokens, n_features]; label [n_tokens]."""
    of_piece = label[np.unique(piece, return_index=True)[1]]
    return matching.Matched.of(of_piece, piece, classes, csr_array(values.astype(np.float32)), seed=seed)


def test_a_frequency_feature_tells_labels_only_until_frequencies_are_matched():
    """A feature of frequent words, of either label, tells the labels; matched it has 0.5. One of a label's words, of all frequencies, has 1;
    one of a label's frequent words tells no less than before."""
    tokens, label, piece = planted(np.random.default_rng(0), 40)
    classes = matching.frequency_classes(tokens, label, 2)
    often, own = classes >= 3, label == 0
    assert (often == (tokens % 100 < 10)).mean() > 0.9
    values = np.stack([often, own, often & own, np.where(often, 0.7, 0.1)], axis=1).astype(np.float32)
    matched = matched_of(label, piece, classes, values)
    plain = text.auc(np.array([values[piece == one].mean(0) for one in range(80)]), matched.label, 0)
    assert plain[0] > 0.9 and plain[3] > 0.9 and plain[1] == 1 and plain[2] > 0.99
    found, kept = matched.auc(0, np.eye(4))
    assert found[[0, 1, 3]] == pytest.approx([0.5, 1, 0.5], abs=1e-12) and found[2] > 0.99
    assert matched.auc(1, np.eye(4))[0][:2] == pytest.approx([0.5, 0], abs=1e-12)
    of_label = [matched.n[matched.label == code] for code in (0, 1)]
    shares = [2 * np.minimum(a, b).sum() / (a.sum() + b.sum()) for a, b in product(*of_label)]
    assert kept == pytest.approx(np.mean(shares)) and 0.3 < kept < 0.7


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("sizes", "often"), [((20, 20), (0.8, 0.2)), ((40, 8), (0.5, 0.5))], ids=["frequencies", "lengths"])
def test_features_that_fire_at_random_tell_no_label_at_equal_frequency(sizes, often, seed):
    """They fire on a twentieth of the frequent tokens, whatever the label, which other frequencies or lengths of pieces tell otherwise. The mean AUC
    of 128 features has a standard error of about 0.002."""
    rng, n_pieces = np.random.default_rng(seed), 300
    label, piece = (
        np.repeat(codes, np.repeat(sizes, n_pieces)) for codes in (np.repeat((0, 1), n_pieces), np.arange(2 * n_pieces))
    )
    classes = (rng.random(len(label)) < np.array(often)[label]).astype(np.int64)
    values = (rng.random((len(label), 128)) < 0.05) & (classes == 1)[:, None]
    matched = matched_of(label, piece, classes, values, seed=seed)
    means = np.stack([values[piece == one].mean(0) for one in range(2 * n_pieces)])
    found, kept = matched.auc(0, np.eye(128))
    assert abs(text.auc(means, matched.label, 0).mean() - 0.5) > 0.1 and 0.2 < kept < 0.5
    assert found.mean() == pytest.approx(0.5, abs=0.008)


def test_matched_auc_is_that_of_loops_over_pairs_of_pieces():
    rng = np.random.default_rng(3)
    piece = rng.permutation(np.repeat(np.arange(30), rng.integers(6, 12, 30)))
    classes, values = rng.choice(5, len(piece), p=[0.5, 0.3, 0.1, 0.1, 0]), rng.integers(0, 4, (len(piece), 3))
    matched, weights = matched_of(piece % 3, piece, classes, values), rng.integers(-1, 3, (3, 40)).astype(float)
    place, drawn, in_order = 0, {}, True
    for one, code in product(range(30), range(4)):
        own = values[(piece == one) & (classes == code)]
        drawn[one, code] = matched.values[place : place + len(own)].toarray()
        place += len(own)
        assert sorted(map(tuple, drawn[one, code])) == sorted(map(tuple, own))
        in_order &= (drawn[one, code] == own).all()
    assert place == len(piece) and not in_order
    for code in range(3):
        of_others, kept_of = [], []
        for other in {0, 1, 2} - {code}:
            won = np.zeros(40)
            kept = 0.0
            for i, j in product(range(code, 30, 3), range(other, 30, 3)):
                least = [min(len(drawn[i, c]), len(drawn[j, c])) for c in range(4)]
                mine, theirs = (sum(drawn[one, c][:n].sum(0) for c, n in enumerate(least)) @ weights for one in (i, j))
                share = 2 * sum(least) / (np.isin(piece, (i, j))).sum()
                won += share * np.where(np.isclose(mine, theirs), 0.5, mine > theirs)
                kept += share
            of_others.append(won / kept)
            kept_of.append(kept / 100)
        found, kept = matched.auc(code, weights)
        assert found == pytest.approx(np.mean(of_others, axis=0), abs=1e-9) and kept == pytest.approx(np.mean(kept_of))


def test_labels_without_a_frequency_in_common_are_left_out_of_each_other():
    """Labels 0 and 1 have class 0, label 2 has class 1 alone."""
    piece, label = np.repeat(np.arange(9), 4), np.repeat([0, 1, 2], 12)
    classes, values = np.where(label == 2, 1, 0), np.random.default_rng(0).random((36, 2))
    matched, two = matched_of(label, piece, classes, values), label < 2
    of_two = matched_of(label[two], piece[two], classes[two], values[two])
    for code in (0, 1):
        (found, kept), (expected, kept_of_two) = matched.auc(code, np.eye(2)), of_two.auc(code, np.eye(2))
        assert found.tolist() == expected.tolist() and (kept, kept_of_two) == (0.5, 1)
    assert matched.auc(2, np.eye(2)) == (None, 0) and matched.apart() == [(0, 2), (1, 2)] and of_two.apart() == []


def test_frequency_is_that_of_texts_of_equal_length():
    """Three times the text of a label changes no class, and words too rare to count are one class."""
    tokens, label = np.array([1] * 32 + [2] * 16 + list(range(3, 19)) + [51] * 64), np.repeat([0, 1], 64)
    classes = matching.frequency_classes(tokens, label, 2)
    assert classes[-1] == 5 and classes[0] == 4 and classes[40] == 3 and set(classes[48:64]) == {0}
    more = matching.frequency_classes(np.concatenate([tokens, tokens[64:], tokens[64:]]), np.repeat([0, 1], [64, 192]), 2)
    assert more[:128].tolist() == classes.tolist()


def test_auc_is_that_of_pairs_of_labels():
    rng = np.random.default_rng(1)
    label, values = rng.integers(0, 3, 60), rng.integers(0, 5, (60, 2)).astype(float)
    pairs = [np.isin(label, (1, other)) for other in (0, 2)]
    expected = [np.mean([auc_of(label[two] == 1, values[two, column]) for two in pairs]) for column in (0, 1)]
    assert text.auc(values, label, 1) == pytest.approx(expected)


def test_scores_and_rates_are_those_of_loops_over_tokens():
    lm, d = language_model(), dictionary()
    labelled, chosen = text.LabelledText.of(sequences(), LABELS), [(0, 3), (1, 3), (2, 7), (0, 5)]
    scores = text.scores(lm, d, labelled, chosen[:3], chosen[3:], batch_seqs=3, seed=0)
    surveyed = text.survey(lm, d, labelled, batch_seqs=5, seed=0)
    seen = lm.run(torch.from_numpy(labelled.sequences.tokens).long(), with_logits=False)
    activations = d.encode(seen.mlp_input).detach().numpy()
    held, firings, rates = [], {}, np.zeros((2, N_LAYERS, N_FEATURES))
    for piece, label in enumerate(labelled.label_of.tolist()):
        row, places = np.nonzero(labelled.piece == piece)
        values = activations[row, places]
        if labelled.is_held_out[piece]:
            of_chosen = np.stack([values[:, layer, feature] for layer, feature in chosen[:3]], axis=1)
            held.append((label, of_chosen.mean(0), of_chosen, labelled.frequency[row, places]))
        else:
            firings.setdefault(label, []).extend(values)
    for label, values in firings.items():
        rates[label] = (np.array(values) > 0).mean(0)
        for column, (layer, feature) in enumerate(chosen):
            above = [value[layer, feature] for value in values if value[layer, feature] > 0]
            assert scores.high[label, column] == pytest.approx(np.quantile(above, 0.99) if above else 0)
    assert scores.label.tolist() == [label for label, *_ in held] and surveyed.rate == pytest.approx(rates.mean(0))
    np.testing.assert_allclose(scores.mean, [mean for _, mean, *_ in held], rtol=1e-6)
    by_label = sorted(range(len(held)), key=lambda place: held[place][0])
    assert scores.matched.label.tolist() == [held[place][0] for place in by_label]
    expected = [held[by_label[piece]][2][held[by_label[piece]][3] == code] for piece, code in np.ndindex(scores.matched.n.shape)]
    assert scores.matched.n.ravel().tolist() == [len(of_class) for of_class in expected]
    starts = np.cumsum([0, *scores.matched.n.ravel()])
    for start, of_class in zip(starts[:-1], expected, strict=True):
        values = scores.matched.values[start : start + len(of_class)].toarray()
        np.testing.assert_allclose(values[np.lexsort(values.T)], of_class[np.lexsort(of_class.T)], rtol=1e-5)
    of_label = found(
        [(label, trace({(0, -1, 3): 0.5, (1, -1, 3): 0.4})) for label in LABELS for _ in (1, 2)]
        + [("fr", trace({(0, -1, 3): 2.0, (1, -1, 3): 1.0}))] * 2
    )
    columns = {one: place for place, one in enumerate(chosen)}
    features, sums = text_rows(of_label, columns, scores, LABELS, n_layers=2, cosines=np.zeros((2, 3)))
    [both] = [row for row in sums if (row["label"], row["first_layer"], row["n_features"]) == ("fr", 0, 2)]
    weights = np.array([1 / scores.high[1, 0], 1 / scores.high[1, 1], 0])
    matched, share = scores.matched.auc(1, np.stack([weights, np.eye(3)[1]], axis=1))
    assert both["auc"] == pytest.approx(auc_of(scores.label == 1, scores.mean @ weights))
    assert both["n_pieces"] == (scores.label == 1).sum() and both["auc_matched"] == pytest.approx(matched[0])
    fit = [pieces for pieces, held_out in enumerate(labelled.is_held_out) if not held_out]
    means = [activations[np.nonzero(labelled.piece == piece)].mean(0) for piece in fit]
    np.testing.assert_allclose(scores.fit_mean, [[mean[place] for place in chosen[:3]] for mean in means], rtol=1e-6)
    assert scores.fit_label.tolist() == labelled.label_of[fit].tolist()
    [one] = [row for row in features if (row["label"], row["layer"]) == ("fr", 1)]
    assert one["auc"] == pytest.approx(auc_of(scores.label == 1, scores.mean[:, 1]))
    assert (one["auc_matched"], one["matched_share"]) == pytest.approx((matched[1], share)) and 0 < share < 1


def scores_of(values, label, is_held_out):
    """The `Scores` of features on pieces of one token: values [n_pieces, n_features]; label, is_held_out [n_pieces]."""
    held, fit = (values[part] for part in (is_held_out, ~is_held_out))
    alone, frequent = np.arange(len(held)), np.zeros(len(held), dtype=np.int64)
    matched = matching.Matched.of(label[is_held_out], alone, frequent, csr_array(held), seed=0)
    return text.Scores(held, label[is_held_out], fit, label[~is_held_out], matched, np.ones((2, values.shape[1])))


def test_fitted_weights_are_those_of_other_pieces_and_take_away_what_a_feature_adds_for_another_label():
    """Feature 0 fires on all pieces of fr, feature 1 on all pieces of both, three times as strongly, with a size that tells nothing. Where feature 0 fires
    under the other label on the pieces that are not held out, weights learn the opposite, so they come from these."""
    rng, label = np.random.default_rng(0), np.arange(400) % 2
    is_held_out, strong = rng.random(400) < 0.5, rng.random(400) * 3
    fr = (label == 1) * rng.uniform(0.5, 1, 400)
    of_label = {"de": [], "fr": [Candidate("fr", 0, feature, feature + 1, *[1.0] * 4, None) for feature in (0, 1)]}
    columns, given = {(0, 0): 0, (0, 1): 1}, {"n_layers": 1, "cosines": np.zeros((2, 2))}
    values = np.stack([fr, strong], axis=1)
    _, sums = text_rows(of_label, columns, scores_of(values, label, is_held_out), LABELS, **given)
    assert [(one["label"], one["n_features"]) for one in sums] == [("fr", 1), ("fr", 2)]
    assert sums[0]["auc"] == sums[0]["fitted_auc"] == sums[0]["fitted_auc_matched"] == 1
    assert sums[1]["auc"] < 0.8 and sums[1]["fitted_auc"] > 0.99 and sums[1]["fitted_auc_matched"] > 0.99
    other = np.where(is_held_out, fr, (label == 0) * rng.uniform(0.5, 1, 400))
    _, sums = text_rows(of_label, columns, scores_of(np.stack([other, strong], axis=1), label, is_held_out), LABELS, **given)
    assert sums[0]["auc"] == 1 and sums[0]["fitted_auc"] == sums[0]["fitted_auc_matched"] == 0


def test_the_probe_reads_what_tells_the_labels_and_encoders_are_compared_in_the_residual_stream():
    """Text of one label has low token ids, that of the other high ones; a feature made of the probe's own direction has cosine 1."""
    lm, read = language_model(), sequences(40)
    low = read.labels == read.label_names.index("fr")
    tokens = np.where(low, 1 + read.tokens % 4, 30 + read.tokens % 4).astype(np.int32)
    tokens[:, 0] = 0
    labelled = text.LabelledText.of(Sequences(tokens, read.documents, read.labels, read.label_names), LABELS)
    probe = text.survey(lm, dictionary(), labelled, batch_seqs=8, seed=0).probe
    assert probe.shape == (2, 24) and probe[0] == pytest.approx(-probe[1])
    d = dictionary()
    gain = lm.blocks[2].mlp_norm.weight.detach()
    d.W_enc[2, 4] = torch.from_numpy(probe[1]).double() / gain
    cosines = encoder_cosines(lm, d, [(2, 4), (0, 1)], probe)
    assert (
        cosines[1, 0] == pytest.approx(1, abs=1e-4) and cosines[0, 0] == pytest.approx(-1, abs=1e-4) and abs(cosines[1, 1]) < 0.9
    )


def test_the_target_is_one_labels_word_less_the_mean_of_all(tmp_path):
    lm, d, words = language_model(), dictionary(), {"en": "4", "fr": "9", "de": "17"}
    graph = cltdb.attribute(lm, d, PROMPT, target=cltdb.LabelTarget(words, "fr"))
    logits = graph.replacement.logits[-1]
    value = graph.effects.pre_activations[graph.index.logits]
    assert value == pytest.approx([float(logits[9] - logits[[4, 9, 17]].mean())]) and graph.targets.weights.tolist() == [1]
    assert graph.index.logit_tokens == (None,)
    for wrong, said in (
        ((words, "es"), "target_label: found 'es'; expected one of en, fr, de"),
        (({"en": "4", "fr": 4}, "fr"), "found the words 4, 4; expected two tokens"),
    ):
        with pytest.raises(CltdbError, match=said):
            cltdb.attribute(lm, d, PROMPT, target=cltdb.LabelTarget(*wrong))


def test_a_spec_names_the_label_beside_its_words():
    prompt = Prompt(id="one", text="7 3", target={"en": "4", "fr": "9"}, target_label="fr")
    assert check_prompts(language_model(), [prompt]) == [[0, 7, 3]]
    for wrong in ({"target_label": "de"}, {"target_label": None}, {"target": "4"}, {"target": {"en": 1.0, "fr": 2.0}}):
        with pytest.raises(ValueError, match="expected a target"):
            Prompt(**{"text": "7 3", "target": {"en": "4", "fr": "9"}, "target_label": "fr", **wrong})
    same = Prompt(id="one", text="7 3", target={"en": "4", "fr": "4"}, target_label="fr")
    with pytest.raises(CltdbError, match="attribute.prompts one, target: found the words 4, 4"):
        check_prompts(language_model(), [same])


def test_a_rare_label_has_its_own_row_of_the_probe(monkeypatch):
    """Of four labels one has eight tokens of thousands: drawn from all together it would often be missing."""
    monkeypatch.setattr(text, "MOST_PROBE_TOKENS", 200)
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(4), (3000, 8, 3000, 3000))
    x = generator.normal(size=(len(label), 6)) * 0.1 + 3 * np.eye(4, 6)[label]
    for seed in range(5):
        read = text._probe(x, label, 4, seed)
        assert read.shape == (4, 6) and (read[:, :4].argmax(axis=1) == np.arange(4)).all()
