"""A language model that reads windows in which the feature fires beside near misses: windows with the same tokens or in which similar features
fire, in which it is silent. Source: the contrastive explainer of Paulo et al. (2024)."""

from cltdb.explain.examples import RANDOM
from cltdb.explain.prompts import shown, window_text
from cltdb.explain.subjects import windows_shortage

SIDE, PROMPT = "input", "llm_contrastive"
shortage = windows_shortage
FIRING, NEAR = 15, 15


def slots(subject):
    examples, vocabulary = subject.examples, subject.all.vocabulary
    silent = examples.training_negatives
    near = silent.tokens[silent.kinds != RANDOM][:NEAR]
    return {
        "fires": shown(examples.training_positives, vocabulary, FIRING),
        "near_misses": [window_text(tokens, vocabulary) for tokens in near],
    }
