"""The words for a rule: at most MOST_WORDS, fewer where a short text says enough. What does not fit is named by examples ("words such as
'Paris' or 'Rome'", "'is' or others") or said to be left out ("and elsewhere"): a text may be shorter than its rule, but says nothing that
the rule does not."""

import numpy as np

from cltdb.explain.rules.grammar import CLASSES

MOST_WORDS, WANTED_WORDS = 20, 12
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
SIZES = ((4, 3), (3, 3), (3, 2), (2, 2), (2, 1), (1, 1))
"""How many tokens of a clause and of a condition are named, the most telling first."""
NOTHING = "no regularity found"
OF_CLASS = {
    "number": ("numbers", "a number"),
    "capitalised": ("capitalised words", "a capitalised word"),
    "lower-case": ("lower-case words", "a lower-case word"),
    "sentence end": ("the end of a sentence", "the end of a sentence"),
    "punctuation": ("punctuation", "punctuation"),
    "other": ("signs of no word", "a sign of no word"),
}


def describe(rule, lexicon):
    """One line."""
    clauses = rule["clauses"]
    if not clauses:
        return NOTHING
    wanted = [(size, clauses, "") for size in SIZES[:-1]]
    shorter = [(size, clauses[:n], "; and elsewhere") for n in range(len(clauses) - 1, 0, -1) for size in SIZES]
    for most, ways in ((WANTED_WORDS, wanted), (MOST_WORDS, [(size, clauses, "") for size in SIZES] + shorter)):
        for size, told, end in ways:
            text = "fires " + "; or ".join(_clause(clause, size, lexicon) for clause in told) + end
            if len(text.split()) <= most:
                return text
    first = clauses[0] | {"conditions": clauses[0]["conditions"][:1]}
    return f"fires {_clause(first, SIZES[-1], lexicon)}, at times"


def describe_tokens(tokens, strings):
    """'a', 'b' or 'c'."""
    names = [_name(strings[token]) for token in tokens]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _name(string):
    return "'" + ("_".join(string.split()) or repr(string)[1:-1].replace(" ", "_")) + "'"


def _some(tokens, n_named, lexicon):
    """All tokens where they are few, else a kind of word with its commonest members, or the first ones and others."""
    if len(tokens) <= n_named:
        return describe_tokens(tokens, lexicon.strings)
    if set(lexicon.classes[tokens]) == {CLASSES.index("number")}:
        return f"numbers such as {describe_tokens(tokens[:n_named], lexicon.strings)}"
    groups = lexicon.groups[lexicon.index[tokens]]
    group = int(np.argmax(np.bincount(groups)[1:])) + 1 if groups.any() else 0
    members = lexicon.members[group]
    if group and len(members) >= 3 and 2 * len(members) >= len(tokens) == len(set(tokens) | set(members)):
        return f"words such as {describe_tokens(members[:n_named], lexicon.strings)}"
    return f"{', '.join(_name(lexicon.strings[token]) for token in tokens[:n_named])} or others"


def _clause(clause, size, lexicon):
    conditions = list(clause["conditions"])
    kinds = [condition["kind"] for condition in conditions]
    if clause["tokens"] is not None:
        subject = "on " + _some(clause["tokens"], size[0], lexicon)
    elif "repeated" in kinds:
        subject = "on repeated tokens"
        conditions = [condition for condition in conditions if condition["kind"] != "repeated"]
    elif "previous" in kinds:
        subject = ""
        conditions.sort(key=lambda condition: condition["kind"] != "previous")
    else:
        subject = "on any token"
    return " ".join(filter(None, [subject, *(_condition(condition, size[1], lexicon) for condition in conditions)]))


def _condition(condition, n_named, lexicon):
    kind = condition["kind"]
    if kind == "previous":
        tokens, back = _some(condition["tokens"], n_named, lexicon), condition["back"]
        return f"after {tokens}" if back == 1 else f"{NUMBERS[back]} tokens after {tokens}"
    if kind == "class":
        name = OF_CLASS[condition["class"]]
        return f"among {name[0]}" if condition["back"] == 0 else f"after {name[1]}"
    if kind == "in_sentence":
        return f"with {describe_tokens([condition['token']], lexicon.strings)} earlier in the sentence"
    if kind == "in_window":
        return f"with {describe_tokens([condition['token']], lexicon.strings)} somewhere before"
    if kind == "label":
        return f"in {_name(condition['label'])} text"
    return "seen before" if kind == "repeated" else "that followed the same token earlier"
