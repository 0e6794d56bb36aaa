"""The work of stage `groups`, each part with its tables: what labels share, label features, substitution."""

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import permutations
from typing import Any

from cltdb.engine.units import Units
from cltdb.engine.workspace import digest
from cltdb.groups import text
from cltdb.groups.answers import answers_of, differ
from cltdb.groups.controls import shortlist, with_randoms
from cltdb.groups.label_features import candidates, encoder_cosines, text_rows
from cltdb.groups.overlap import overlap_rows
from cltdb.groups.prompts import labels_of
from cltdb.groups.settings import SUBSTITUTIONS, Groups
from cltdb.groups.stored import intervention_rows
from cltdb.groups.substitution import Question, Substitution
from cltdb.groups.traces import Asked, traces_of
from cltdb.log import progress
from cltdb.replacement.targets import LabelTarget

logger = logging.getLogger(__name__)
WITHOUT = "groups: no label features of %s: none is influential in enough of the prompts, more than under other labels, and raises the answer"
APART = "groups: the text of %s has tokens of no frequency in common with that of %s, so auc_matched compares it with %s"
SUBSTITUTION_TABLES = ("substitutions", "interventions", "intervention_effects")


@dataclass(frozen=True)
class Comparison:
    """prompts: `prompts.ParallelPrompt`s by concept and label. key: of the artifact; key_of(text, target): of a trace, target as JSON value;
    seed(purpose); write(table, rows)."""

    settings: Groups
    prompts: list
    lm: Any
    dictionary: Any
    units: Units
    key: str
    key_of: Callable
    seed: Callable
    write: Callable
    groups_id: str

    @cached_property
    def labels(self):
        return labels_of(self.prompts)

    @cached_property
    def answers(self):
        return answers_of(self.lm, self.prompts)

    def overlaps(self):
        """Writes `group_prompts` and `group_overlaps`."""
        traces = self._traces([(prompt, prompt.target, prompt.target and {prompt.target: 1.0}) for prompt in self.prompts])
        self.write("group_prompts", [_prompt_row(*pair) for pair in zip(self.prompts, traces, strict=True)])
        kinds = [prompt.kind for prompt in self.prompts[:: len(self.labels)]]
        compared = {"n_layers": self.lm.n_layers, "resamples": self.settings.resamples, "seed": self.seed("groups")}
        self.write("group_overlaps", overlap_rows(traces, kinds, self.labels, **compared))

    def label_features(self, labelled):
        """Writes `label_features` and `label_scores`, where asked for also `substitutions` and their interventions.

        labelled: `text.LabelledText` with the prompts' labels.
        """
        batch_seqs, asked = self.settings.batch_seqs, []
        for prompt, words in self._with_words():
            asked.append((prompt, [prompt.label, words], LabelTarget(words, prompt.label)))
        traces = self._traces(asked)
        sizes = {"n_layers": self.lm.n_layers, "n_features": self.dictionary.n_features}
        named = [(prompt.label, trace) for (prompt, *_), trace in zip(asked, traces, strict=True)]
        found = {label: [] for label in self.labels} | candidates(named, **sizes, settings=self.settings.label_features)
        if without := [label for label, of_label in found.items() if not of_label]:
            logger.warning(WITHOUT, ", ".join(without))
        surveyed = text.survey(self.lm, self.dictionary, labelled, batch_seqs=batch_seqs, seed=self.seed("groups probe"))
        late = self._late(found)
        chosen = sorted({(one.layer, one.feature) for of_label in found.values() for one in of_label})
        partners = shortlist(found, late, surveyed.rate)
        columns = {one: place for place, one in enumerate([*chosen, *partners])}
        seed = self.seed("groups matching")
        scores = text.scores(self.lm, self.dictionary, labelled, chosen, partners, batch_seqs=batch_seqs, seed=seed)
        self._warn_of_labels_apart(scores.matched)
        cosines = encoder_cosines(self.lm, self.dictionary, chosen, surveyed.probe)
        rows, sums = text_rows(found, columns, scores, self.labels, n_layers=self.lm.n_layers, cosines=cosines)
        self.write("label_features", rows)
        self.write("label_scores", sums)
        if self.settings.substitute:
            self._substitute(late, partners, columns, surveyed.rate, scores.high)

    def _warn_of_labels_apart(self, matched):
        of_label = defaultdict(list)
        for a, b in matched.apart():
            of_label[a].append(self.labels[b])
            of_label[b].append(self.labels[a])
        for code, others in sorted(of_label.items()):
            left = [name for name in self.labels if name not in (self.labels[code], *others)]
            logger.warning(APART, self.labels[code], ", ".join(others), ", ".join(left) or "none and is NULL")

    def _late(self, found):
        """The label features that substitution may set."""
        asked = self.settings.substitute
        if asked is None:
            return {}
        last = self.lm.n_layers if asked.last_layer is None else asked.last_layer
        late = {label: [one for one in of_label if asked.first_layer <= one.layer <= last] for label, of_label in found.items()}
        return {label: of_label[: max(asked.features)] for label, of_label in late.items()}

    def _substitute(self, late, partners, columns, rate, high):
        """Writes `substitutions`. late: {label: `Candidate`s}; partners [(layer, feature)]: what may stand in their place; columns: {(layer,
        feature): column of high}; rate [n_layers, n_features]; high [n_labels, n_chosen]."""
        settings, asked = self.settings.substitute, {concept: {} for concept in differ(self.answers)}
        for prompt, _ in self._with_words():
            tokens = tuple(self.lm.prompt_tokens(prompt.text))
            asked[prompt.concept][prompt.label] = Question(tokens, self.answers[prompt.concept])
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
        todo = Substitution(settings, self.lm, self.dictionary, asked, features, randoms, seed)
        pairs = []
        for pair in permutations(self.labels, 2):
            if why := todo.lacks(*pair):
                logger.warning("groups: no substitution of %s by %s: %s", *pair, why)
            else:
                pairs.append(pair)
        with progress("groups", total=len(pairs) * todo.n_changes, unit="substitutions") as bar:
            of_pairs = [self._pair(todo, *pair, bar) for pair in pairs]
        for table in SUBSTITUTION_TABLES:
            self.write(table, [row for tables in of_pairs for row in tables[table]])

    def _pair(self, todo, source, target, bar):
        """{table: rows} of a pair of labels, a unit."""
        key = digest([self.key, source, target])
        record = self.units.get(SUBSTITUTIONS, key)
        if record is None:
            rows, made = todo.of_pair(source, target, partial(bar.advance, note=f"{source} to {target}"))
            tables = (rows, *intervention_rows(made, self.lm, groups_id=self.groups_id))
            record = dict(zip(SUBSTITUTION_TABLES, tables, strict=True))
            self.units.put(SUBSTITUTIONS, key, record)
        else:
            bar.advance(todo.n_changes)
        return record

    def _with_words(self):
        """(prompt, {label: word}) of the prompts whose concept has different answers under different labels."""
        words, usable = {}, set(differ(self.answers))
        for prompt in self.prompts:
            words.setdefault(prompt.concept, {})[prompt.label] = prompt.target
        return [(prompt, words[prompt.concept]) for prompt in self.prompts if prompt.concept in usable]

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
