"""A language model that reads which tokens the feature makes more and less likely: side `output`. Of the promoted tokens it sees every second
one; scorer pick_one asks about the others."""

SIDE, PROMPT = "output", "llm_output"
LEAST = 4


def shortage(subject):
    n = len(subject.promoted)
    return None if n >= LEAST else f"{n} tokens that it promotes, at least {LEAST} needed"


def slots(subject):
    strings = [[subject.all.vocabulary[token] for token in tokens[::2]] for tokens in (subject.promoted, subject.suppressed)]
    return dict(zip(("raises", "lowers"), strings, strict=True))
