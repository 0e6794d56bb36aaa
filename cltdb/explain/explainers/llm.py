"""A language model that reads windows in which the feature fires, and some in which it is silent."""

from cltdb.explain.prompts import shown, window_text
from cltdb.explain.subjects import windows_shortage

SIDE, PROMPT = "input", "llm"
shortage = windows_shortage
FIRING, SILENT = 15, 5


def slots(subject):
    examples, vocabulary = subject.examples, subject.all.vocabulary
    return {
        "fires": shown(examples.training_positives, vocabulary, FIRING),
        "silent": [window_text(tokens, vocabulary) for tokens in examples.training_negatives.tokens[:SILENT]],
    }
