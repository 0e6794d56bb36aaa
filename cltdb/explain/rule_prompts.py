"""What the rule explainer is asked and what it answers: windows as JSON, and JSON `{"explanation": text, "rule": {...}}`."""

import json

import numpy as np

from cltdb.explain.learn import learn_rule
from cltdb.explain.rules import describe, token_classes


def rules_prompt(positives, negatives, *, label_names, vocabulary):
    """The messages that ask for a rule; positives, negatives: examples.Windows."""
    tokens = np.concatenate([positives.tokens, negatives.tokens])
    labels = [label_names[code] if code >= 0 else None for code in (*positives.labels, *negatives.labels)]
    seen = [int(token) for token in np.unique(tokens[tokens >= 0])]
    content = {
        "task": "explain a feature by a rule",
        "tokens": tokens.tolist(),
        "labels": labels,
        "kinds": [*positives.kinds.tolist(), *negatives.kinds.tolist()],
        "activations": np.round(positives.activations, 3).tolist(),
        "strings": {str(token): vocabulary[token] for token in seen},
    }
    return [{"role": "user", "content": json.dumps(content, ensure_ascii=False)}]


def answer(question):
    """The rule and its text for the JSON value of a `rules_prompt`."""
    tokens, positive = np.array(question["tokens"], dtype=np.int32), np.array(question["activations"], dtype=np.float32)
    activations = np.zeros(tokens.shape, dtype=np.float32)
    activations[: len(positive)] = positive
    strings = {int(token): string for token, string in question["strings"].items()}
    listed = [strings.get(token, "") for token in range(max(strings) + 1)]
    rule = learn_rule(
        tokens=tokens,
        activations=activations,
        labels=np.array(question["labels"], dtype=object),
        kinds=np.array(question["kinds"]),
        classes=token_classes(listed),
    )
    return {"explanation": describe(rule, strings), "rule": rule}
