"""Parallel prompts: every concept once under each label."""

import json
from collections import Counter
from pathlib import Path

from pydantic import ValidationError, model_validator

from cltdb.engine.json_lines import json_lines
from cltdb.engine.section import Section, Word
from cltdb.engine.spec_errors import spec_error
from cltdb.errors import CltdbError, shown

OWN_KEYS = {"concept", "kind", "text", "target"}
EXAMPLE = '{"concept": "hot", "label": "fr", "text": "Le contraire de chaud est", "target": "froid"}'
LEAST_CONCEPTS = 3
"""Of each kind. Fewer have no interval."""


class ParallelPrompt(Section):
    concept: Word
    """What is asked, the same under all labels."""
    label: Word
    """The group, such as a language."""
    text: str
    """The prompt; BOS is put in front."""
    target: Word | None = None
    """The right next token."""
    kind: Word | None = None
    """The kind of question, such as capitals. Chance is what concepts of one kind share."""

    @model_validator(mode="after")
    def _has_text(self):
        if not self.text.strip():
            raise ValueError("expected a prompt with some text, found an empty prompt")
        return self


def parallel_prompts(section, root):
    """The prompts of a section `groups`, by concept in order of appearance, then by label in order of the alphabet. CltdbError names what
    is wrong."""
    if section.prompts.toyworld:
        where, prompts = "groups.prompts.toyworld", _of_toyworld(section.by)
    else:
        path = Path(root) / section.prompts.file
        where, prompts = f"groups.prompts.file ({path})", _of_file(path, section.by)
    _check_parallel(prompts, where)
    order = {concept: place for place, concept in enumerate(dict.fromkeys(prompt.concept for prompt in prompts))}
    return sorted(prompts, key=lambda prompt: (order[prompt.concept], prompt.label))


def labels_of(prompts):
    """The labels, sorted."""
    return sorted({prompt.label for prompt in prompts})


def _of_toyworld(by):
    from cltdb.toyworld.tasks import translations

    if by != "label":
        raise CltdbError("groups.by", found=by, expected="label, of the toy world the language", do="leave by out")
    return [
        ParallelPrompt(concept=concept, label=language, text=prompt.text, target=prompt.answers[0], kind=kind)
        for kind, concept, language, prompt in translations()
    ]


def _of_file(path, by):
    prompts, keys = [], {}
    for where, row in json_lines(path, key="groups.prompts.file", example=EXAMPLE):
        if not isinstance(row, dict):
            raise CltdbError(where, found=shown(json.dumps(row)), expected=f"a JSON object such as {EXAMPLE}", do="mend the line")
        keys[where] = row.keys() - OWN_KEYS
        prompts.append(_prompt(row, by, where))
        _check_same_labels(where, keys)
    return prompts


def _prompt(row, by, where):
    """The prompt of a line; a label may be a number, such as a year."""
    for name, what in (("concept", "what is asked"), (by, "the label (groups.by)"), ("text", "the prompt")):
        if name not in row:
            found = f"the keys {', '.join(map(shown, row))}" if row else "no keys"
            do = "add it" + ", or set groups.by" * (name == by)
            raise CltdbError(where, found=found, expected=f"the key {name}, which holds {what}", do=do)
    label = row[by]
    label = str(label) if isinstance(label, int | float) and not isinstance(label, bool) else label
    try:
        return ParallelPrompt.model_validate({name: row[name] for name in OWN_KEYS & row.keys()} | {"label": label})
    except ValidationError as error:
        raise spec_error(error, ParallelPrompt, place=lambda _: where, whole="the prompt") from error


def _check_same_labels(where, keys):
    """CltdbError where a line has other keys than the first, beside those of every prompt: one of them is misspelt. keys: {where a line
    stands: its keys}."""
    first = next(iter(keys))
    if unlike := sorted(keys[first] ^ keys[where]):
        there, missing = (where, first) if unlike[0] in keys[where] else (first, where)
        raise CltdbError(
            there,
            found=f"the key {shown(unlike[0])}, which line {missing.rpartition(' ')[2]} lacks",
            expected="concept, text, target and the same labels in every line",
            do="mend the key, or write it everywhere",
        )


def _check_parallel(prompts, where):
    labels, pairs = labels_of(prompts), Counter((prompt.concept, prompt.label) for prompt in prompts)
    concepts = dict.fromkeys(prompt.concept for prompt in prompts)
    kinds = {prompt.concept: prompt.kind for prompt in prompts}
    counts = [("label", "", len(labels), 2), ("concept", "", len(concepts), LEAST_CONCEPTS)]
    counts += [("concept", f" of kind {shown(kind)}", n, LEAST_CONCEPTS) for kind, n in Counter(kinds.values()).items() if kind]
    for what, which, n, least in counts:
        if n < least:
            found, expected = f"{n} {what}{'s' * (n != 1)}{which}", f"{least} {what}s{which} or more"
            raise CltdbError(where, found=found, expected=expected, do="add prompts")
    for concept in concepts:
        for label in labels:
            if n := pairs[concept, label] - 1:
                found = f"{'no' if n < 0 else n + 1} prompt{'s' * (n > 0)} of concept {shown(concept)} with label {shown(label)}"
                raise CltdbError(
                    where, found=found, expected="one prompt of every concept with every label", do="add or drop prompts"
                )
    _check_concepts_differ(prompts, where)
    for name in ("target", "kind"):
        if 0 < (n := sum(getattr(prompt, name) is None for prompt in prompts)) < len(prompts):
            found, expected = f"{n} of {len(prompts)} prompts without a {name}", f"a {name} in all or none"
            raise CltdbError(where, found=found, expected=expected, do="add them")
    for prompt in prompts:
        if prompt.kind != kinds[prompt.concept]:
            found = f"concept {shown(prompt.concept)} of two kinds, {shown(prompt.kind)} and {shown(kinds[prompt.concept])}"
            raise CltdbError(where, found=found, expected="one kind of each concept", do="mend one of them")


def _check_concepts_differ(prompts, where):
    """CltdbError for two concepts that ask the same under every label, which would count twice. Under some labels they may: homographs do."""
    asked, first = {}, {}
    for prompt in prompts:
        asked.setdefault(prompt.concept, {})[prompt.label] = prompt.text
    for concept, texts in asked.items():
        other = first.setdefault(tuple(sorted(texts.items())), concept)
        if other != concept:
            found = f"concepts {shown(other)} and {shown(concept)} with the same prompt under every label"
            raise CltdbError(where, found=found, expected="another prompt under one label at least", do="drop one of them")
