"""Label features: candidates of planted traces, their scores on text against loops, and the target that they are candidates for."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from worlds.numbers import N_FEATURES, N_LAYERS, PROMPT, VOCAB, dictionary, language_model

import cltdb
from cltdb.activations.tokens import Sequences
from cltdb.attribution.run import check_prompts
from cltdb.attribution.settings import Prompt
from cltdb.errors import CltdbError, DataError
from cltdb.groups import text
from cltdb.groups.label_features import candidates, encoder_cosines, score_rows
from cltdb.groups.settings import LabelFeatures
from cltdb.groups.traces import Trace


def trace(places, shares=None):
    """places: {(layer, position, feature): influence}."""
    columns = [np.array(column, dtype=np.int64) for column in zip(*places, strict=True)]
    known = [0.5] * len(places) if shares is None else shares
    return Trace(*columns, np.array(list(places.values())), np.array(known), {})


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


def test_pieces_have_enough_tokens_and_a_label_and_every_other_one_is_held_out():
    read = sequences()
    labelled, expected = text.LabelledText.of(read, LABELS), []
    for row, document in product(range(len(read)), (0, 1)):
        places = [p for p in range(1, 12) if read.documents[row, p] == 2 * row + document and read.tokens[row, p] != 3]
        code = int(read.labels[row][read.documents[row] == 2 * row + document][0])
        if code >= 0 and len(places) >= text.LEAST_TOKENS:
            expected.append((LABELS.index(read.label_names[code]), row, places))
    assert labelled.label_of.tolist() == [label for label, *_ in expected] and 10 < len(expected) < 2 * len(read)
    for number, (label, row, places) in enumerate(expected):
        assert np.flatnonzero(labelled.piece[row] == number).tolist() == places and set(labelled.label[row, places]) == {label}
    assert (labelled.piece >= 0).sum() == sum(len(places) for *_, places in expected) == (labelled.label >= 0).sum()
    for label in (0, 1):
        assert labelled.is_held_out[labelled.label_of == label].tolist()[:4] == [False, True, False, True]
    with pytest.raises(DataError, match="groups.text: found 0 pieces of text with label 'en'"):
        text.LabelledText.of(read, ["de", "en"])


def test_a_frequency_feature_tells_labels_only_until_frequencies_are_matched():
    """Label 0 has more of the frequent tokens. A feature that fires on these tells the labels; at equal token frequency each label fires it on
    the same share of its weight."""
    tokens, label = (
        np.array([1] * 40 + [2] * 24 + list(range(10, 18)) * 4),
        np.array([0] * 30 + [1] * 10 + [0] * 18 + [1] * 6 + [0] * 8 + [1] * 24),
    )
    weight = text.matched_weights(tokens, label, 2)
    fires = np.isin(tokens, (1, 2))
    plain = [fires[label == code].mean() for code in (0, 1)]
    matched = [np.average(fires[label == code], weights=weight[label == code]) for code in (0, 1)]
    assert plain[0] > plain[1] + 0.3 and matched[0] == pytest.approx(matched[1])
    octave = np.log2(np.bincount(tokens)[tokens]).astype(int)
    for one in np.unique(octave):
        of_labels = [weight[(octave == one) & (label == code)].sum() for code in (0, 1)]
        assert of_labels == pytest.approx([min((octave[label == code] == one).mean() for code in (0, 1))] * 2)


def test_auc_is_that_of_pairs_of_labels():
    rng = np.random.default_rng(1)
    label, values = rng.integers(0, 3, 60), rng.integers(0, 5, 60).astype(float)
    pairs = [np.isin(label, (1, other)) for other in (0, 2)]
    assert text.auc(values, label, 1) == pytest.approx(np.mean([roc_auc_score(label[two] == 1, values[two]) for two in pairs]))
    values[0] = np.nan
    assert text.auc(values, label, 1) == pytest.approx(text.auc(values[1:], label[1:], 1))
    assert text.auc(values, np.ones(60, dtype=int), 1) is None


def test_scores_and_rates_are_those_of_loops_over_tokens():
    lm, d = language_model(), dictionary()
    labelled, chosen = text.LabelledText.of(sequences(), LABELS), [(0, 3), (1, 3), (2, 7), (0, 5)]
    scores = text.scores(lm, d, labelled, chosen, batch_seqs=3)
    surveyed = text.survey(lm, d, labelled, batch_seqs=5, seed=0)
    seen = lm.run(torch.from_numpy(labelled.sequences.tokens).long(), with_logits=False)
    activations = d.encode(seen.mlp_input).detach().numpy()
    held, firings, rates = [], {}, np.zeros((2, N_LAYERS, N_FEATURES))
    for piece, label in enumerate(labelled.label_of.tolist()):
        row, places = np.nonzero(labelled.piece == piece)
        values = activations[row, places]
        if labelled.is_held_out[piece]:
            weight = labelled.weight[row, places]
            of_chosen = np.stack([values[:, layer, feature] for layer, feature in chosen], axis=1)
            total = (of_chosen * weight[:, None]).sum(0) / weight.sum() if weight.sum() else np.full(4, np.nan)
            held.append((label, of_chosen.mean(0), total))
        else:
            firings.setdefault(label, []).extend(values)
    for label, values in firings.items():
        rates[label] = (np.array(values) > 0).mean(0)
        for column, (layer, feature) in enumerate(chosen):
            above = [value[layer, feature] for value in values if value[layer, feature] > 0]
            assert scores.high[label, column] == pytest.approx(np.quantile(above, 0.99) if above else 0)
    assert scores.label.tolist() == [label for label, *_ in held] and surveyed.rate == pytest.approx(rates.mean(0))
    np.testing.assert_allclose(scores.mean, [mean for _, mean, _ in held])
    np.testing.assert_allclose(scores.matched, [matched for *_, matched in held])
    of_label = found(
        [(label, trace({(0, -1, 3): 0.5, (1, -1, 3): 0.4})) for label in LABELS for _ in (1, 2)]
        + [("fr", trace({(0, -1, 3): 2.0, (1, -1, 3): 1.0}))] * 2
    )
    rows = list(score_rows(of_label, {one: place for place, one in enumerate(chosen)}, scores, LABELS, 2))
    both = [row for row in rows if (row["label"], row["first_layer"], row["n_features"]) == ("fr", 0, 2)]
    summed = scores.mean[:, 0] / scores.high[1, 0] + scores.mean[:, 1] / scores.high[1, 1]
    assert (
        both[0]["auc"] == pytest.approx(roc_auc_score(scores.label == 1, summed))
        and both[0]["n_pieces"] == (scores.label == 1).sum()
    )


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
