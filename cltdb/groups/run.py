"""The work of stage `groups`, each part with its tables: what labels share, label features, substitution."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cltdb.engine.units import Units
from cltdb.groups import text
from cltdb.groups.controls import shortlist, with_randoms
from cltdb.groups.label_features import candidates, encoder_cosines, text_rows
from cltdb.groups.overlap import overlap_rows
from cltdb.groups.prompts import labels_of
from cltdb.groups.settings import Groups
from cltdb.groups.stored import intervention_rows
from cltdb.groups.substitution import Question, substitution_rows
from cltdb.groups.traces import Asked, check_prompts, traces_of
from cltdb.replacement.targets import LabelTarget, token_id


@dataclass(frozen=True)
class Comparison:
    """prompts: `prompts.ParallelPrompt`s by concept and label. key_of(text, target): the key of a trace, target as JSON value; seed(purpose);
    write(table, rows)."""

    settings: Groups
    prompts: list
    lm: Any
    dictionary: Any
    units: Units
    key_of: Callable
    seed: Callable
    write: Callable
    groups_id: str

    @cached_property
    def labels(self):
        return labels_of(self.prompts)

    def overlaps(self):
        """Writes `group_prompts` and `group_overlaps`."""
        check_prompts(self.lm, self.prompts)
        traces = self._traces([(prompt, prompt.target, prompt.target and {prompt.target: 1.0}) for prompt in self.prompts])
        self.write("group_prompts", [_prompt_row(*pair) for pair in zip(self.prompts, traces, strict=True)])
        kinds = [prompt.kind for prompt in self.prompts[:: len(self.labels)]]
        compared = {"n_layers": self.lm.n_layers, "resamples": self.settings.resamples, "seed": self.seed("groups")}
        self.write("group_overlaps", overlap_rows(traces, kinds, self.labels, **compared))

    def label_features(self, sequences):
        """Writes `label_features` and `label_scores`, where asked for also `substitutions` and their interventions.

        sequences: text with the prompts' labels.
        """
        labelled, batch_seqs = text.LabelledText.of(sequences, self.labels), self.settings.batch_seqs
        asked = [(prompt, [prompt.label, words], LabelTarget(words, prompt.label)) for prompt, words in self._with_words()]
        traces = self._traces(asked)
        sizes = {"n_layers": self.lm.n_layers, "n_features": self.dictionary.n_features}
        named = [(prompt.label, trace) for (prompt, *_), trace in zip(asked, traces, strict=True)]
        found = candidates(named, **sizes, settings=self.settings.label_features)
        surveyed = text.survey(self.lm, self.dictionary, labelled, batch_seqs=batch_seqs, seed=self.seed("groups probe"))
        late = self._late(found)
        chosen = sorted({(one.layer, one.feature) for of_label in found.values() for one in of_label})
        partners = shortlist(found, late, surveyed.rate)
        columns = {one: place for place, one in enumerate([*chosen, *partners])}
        scores = text.scores(self.lm, self.dictionary, labelled, chosen, partners, batch_seqs=batch_seqs)
        cosines = encoder_cosines(self.lm, self.dictionary, chosen, surveyed.probe)
        rows, sums = text_rows(found, columns, scores, self.labels, n_layers=self.lm.n_layers, cosines=cosines)
        self.write("label_features", rows)
        self.write("label_scores", sums)
        if self.settings.substitute:
            self._substitute(late, partners, columns, surveyed.rate, scores.high)

    def _late(self, found):
        """The label features that substitution may set."""
        asked = self.settings.substitute
        if asked is None:
            return {}
        late = {label: [one for one in of_label if one.layer >= asked.first_layer] for label, of_label in found.items()}
        return {label: of_label[: max(asked.features)] for label, of_label in late.items()}

    def _substitute(self, late, partners, columns, rate, high):
        """Writes `substitutions`. late: {label: `Candidate`s}; partners [(layer, feature)]: what may stand in their place; columns: {(layer,
        feature): column of high}; rate [n_layers, n_features]; high [n_labels, n_chosen]."""
        asked, settings = defaultdict(dict), self.settings.substitute
        for prompt, words in self._with_words():
            answers = {label: token_id(self.lm, word) for label, word in words.items()}
            asked[prompt.concept][prompt.label] = Question(tuple(self.lm.prompt_tokens(prompt.text)), answers)
        own = {
            label: [
                (*place, float(high[code, columns[place]])) for place in [(one.layer, one.feature) for one in late.get(label, ())]
            ]
            for code, label in enumerate(self.labels)
        }
        others = [(*place, float(high[:, columns[place]].max())) for place in partners]
        norms = [self.dictionary.decoder_norms(layer).norm(dim=-1).tolist() for layer in range(self.lm.n_layers)]
        drawn = {"n_draws": settings.random_draws, "seed": self.seed("groups random features")}
        features, randoms = with_randoms(own, others, rate, norms, **drawn)
        seed = self.seed("groups substitution")
        rows, made = substitution_rows(settings, self.lm, self.dictionary, asked, features, randoms, seed=seed)
        self.write("substitutions", rows)
        stored = [intervention_rows(one, self.lm, groups_id=self.groups_id) for one in made]
        self.write("interventions", [row for rows, _ in stored for row in rows])
        self.write("intervention_effects", [row for _, effects in stored for row in effects])

    def _with_words(self):
        """(prompt, {label: word}) of the prompts whose concept has different words under different labels."""
        for place in range(0, len(self.prompts), len(self.labels)):
            of_concept = self.prompts[place : place + len(self.labels)]
            words = {prompt.label: prompt.target for prompt in of_concept}
            if len({token_id(self.lm, word) for word in words.values()}) > 1:
                yield from ((prompt, words) for prompt in of_concept)

    def _traces(self, asked):
        """asked: [(prompt, target as JSON value, target as of `attribute`)]."""
        entries = [
            Asked(f"{prompt.concept}, {prompt.label}", prompt.text, target, self.key_of(prompt.text, words))
            for prompt, words, target in asked
        ]
        return traces_of(entries, self.lm, self.dictionary, units=self.units, max_features=self.settings.max_features)


def _prompt_row(prompt, trace):
    said = {"concept": prompt.concept, "kind": prompt.kind, "label": prompt.label, "prompt": prompt.text, "target": prompt.target}
    return said | trace.facts
