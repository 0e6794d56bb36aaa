"""The words for a rule: at most MOST_WORDS, fewer where a short text says enough. What does not fit is named by examples ("words such as
'Paris' or 'Rome'", "'is' or others") or said to be left out ("and elsewhere"): a text may be shorter than its rule, but says nothing that
the rule does not."""

from functools import cached_property

import numpy as np

from cltdb.explain.rules.grammar import CLASSES

MOST_WORDS, WANTED_WORDS = 20, 12
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
SIZES = ((4, 3), (3, 3), (3, 2), (2, 2), (2, 1), (1, 1))
"""How many tokens of a clause and of a condition are named, the most telling first."""
KIND_MEMBERS = 3
NOTHING = "no regularity found"
OF_CLASS = {
    "number": ("numbers", "a number"),
    "capitalised": ("capitalised words", "a capitalised word"),
    "lower-case": ("lower-case words", "a lower-case word"),
    "sentence end": ("the ends of sentences", "the end of a sentence"),
    "punctuation": ("punctuation", "punctuation"),
    "other": ("signs", "a sign"),
}


def describe(rule, lexicon):
    """One line."""
    clauses = [_Named(clause, lexicon) for clause in rule["clauses"]]
    if not clauses:
        return NOTHING
    shorter = [(n, size) for n in range(len(clauses) - 1, 0, -1) for size in SIZES]
    for most, ways in (
        (WANTED_WORDS, [(len(clauses), size) for size in SIZES[:-1]]),
        (MOST_WORDS, [(len(clauses), size) for size in SIZES] + shorter),
    ):
        for n_told, size in ways:
            text = "fires " + "; or ".join(clause.text(*size) for clause in clauses[:n_told])
            text += "; and elsewhere" if n_told < len(clauses) else ""
            if len(text.split()) <= most:
                return text
    return f"fires {clauses[0].text(*SIZES[-1], n_conditions=1)}, at times"


def describe_tokens(tokens, strings):
    """'a', 'b' or 'c'."""
    return _listed(list(dict.fromkeys(_name(strings[token]) for token in tokens)))


def _listed(names):
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _name(string):
    return "'" + ("_".join(string.split()) or repr(string)[1:-1].replace(" ", "_")) + "'"


class _Named:
    """A clause whose tokens have names."""

    def __init__(self, clause, lexicon):
        tokens, conditions = clause["tokens"], clause["conditions"]
        kinds = [condition["kind"] for condition in conditions]
        self.subject = None if tokens is None else _Some(tokens, lexicon)
        self.instead = "on any token"
        if tokens is None and "repeated" in kinds:
            self.instead = "on repeated tokens"
            conditions = [condition for condition in conditions if condition["kind"] != "repeated"]
        elif tokens is None and (kind := [one for one in conditions if one["kind"] == "class" and one["back"] == 0]):
            self.instead = f"on {OF_CLASS[kind[0]['class']][0]}"
            conditions = [condition for condition in conditions if condition not in kind]
        elif tokens is None and "previous" in kinds:
            self.instead = ""
            conditions = sorted(conditions, key=lambda condition: condition["kind"] != "previous")
        self.conditions = [_condition(condition, lexicon) for condition in conditions]

    def text(self, n_tokens, n_earlier, n_conditions=None):
        subject = self.instead if self.subject is None else f"on {self.subject.text(n_tokens)}"
        told, is_after = [subject], False
        for words, some in self.conditions[:n_conditions]:
            told += ["and"] if is_after and "after" in words else []
            told += [words, some.text(n_earlier)] if some else [words]
            is_after = "after" in words
        return " ".join(filter(None, told))


class _Some:
    """Tokens, of which a text names all where they are few, else a kind of word by its commonest members, or the first tokens."""

    def __init__(self, tokens, lexicon):
        self.strings, self.tokens, self.kind = lexicon.strings, tokens, None
        if len(tokens) <= 2:
            return
        groups = lexicon.groups[lexicon.index[tokens]]
        group = int(np.bincount(groups)[1:].argmax()) + 1 if groups.any() else 0
        members = lexicon.members[group]
        if (lexicon.classes[tokens] == CLASSES.index("number")).all():
            self.kind = "numbers"
        elif group and len(members) >= 3 and 2 * len(members) >= len(tokens) and np.isin(members, tokens).all():
            self.tokens = [*members, *(token for token in tokens if token not in members)]
            are_words = all(lexicon.strings[token].strip()[:1].isalpha() for token in members[:KIND_MEMBERS])
            self.kind = "words" if are_words else "tokens"

    def text(self, n_named):
        names = self.names[:n_named]
        if len(self.names) <= n_named:
            return _listed(names)
        return f"{self.kind} such as {_listed(names[:KIND_MEMBERS])}" if self.kind else f"{', '.join(names)} or others"

    @cached_property
    def names(self):
        """Of the first tokens, each once, one more than a text names."""
        names = {}
        for token in self.tokens:
            names[_name(self.strings[token])] = None
            if len(names) > SIZES[0][0]:
                break
        return list(names)


def _condition(condition, lexicon):
    """(words, `_Some` that follow them or None)."""
    kind = condition["kind"]
    if kind == "previous":
        back = condition["back"]
        return "after" if back == 1 else f"{NUMBERS[back]} tokens after", _Some(condition["tokens"], lexicon)
    if kind == "class":
        name = OF_CLASS[condition["class"]]
        return f"among {name[0]}" if condition["back"] == 0 else f"after {name[1]}", None
    if kind in ("in_sentence", "in_window"):
        place = "earlier in the sentence" if kind == "in_sentence" else "somewhere before"
        return f"with {_name(lexicon.strings[condition['token']])} {place}", None
    if kind == "label":
        return f"in {_name(condition['label'])} text", None
    return "seen before" if kind == "repeated" else "that followed the same token earlier", None
