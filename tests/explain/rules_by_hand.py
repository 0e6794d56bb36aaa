"""Rules over the planted vocabulary, applied in plain Python."""

from worlds.planted import VOCABULARY

CLASS_OF = {
    "number": str.isdigit,
    "capitalised": lambda word: word[0].isupper(),
    "lower-case": lambda word: word[0].islower(),
    "sentence end": lambda word: word == ".",
    "punctuation": lambda word: False,
    "other": lambda word: False,
}


def holds(condition, tokens, place, label):
    """A condition at one position, in plain Python."""
    kind, before = condition["kind"], tokens[:place]
    if kind == "previous":
        return place >= condition["back"] and tokens[place - condition["back"]] in condition["tokens"]
    if kind == "class":
        return place >= condition["back"] and CLASS_OF[condition["class"]](VOCABULARY[tokens[place - condition["back"]]])
    if kind == "in_window":
        return condition["token"] in before
    if kind == "in_sentence":
        ends = [index for index, token in enumerate(before) if VOCABULARY[token] == "."]
        return condition["token"] in before[ends[-1] + 1 if ends else 0 :]
    if kind == "label":
        return label == condition["label"]
    if kind == "repeated_pair":
        return place > 0 and (tokens[place - 1], tokens[place]) in zip(before, before[1:], strict=False)
    return tokens[place] in before


def matches(rule, tokens, place, label):
    """Whether a rule matches at one position."""
    return any(
        (clause["tokens"] is None or tokens[place] in clause["tokens"])
        and all(holds(condition, tokens, place, label) for condition in clause["conditions"])
        for clause in rule["clauses"]
    )
