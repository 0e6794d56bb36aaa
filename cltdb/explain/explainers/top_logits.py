"""The tokens that the feature's decoders promote: side `output`. No call. Named are those that a language model is shown, every second one."""

from cltdb.explain.explainers import llm_output
from cltdb.explain.judges import Explanation
from cltdb.explain.rules import describe_tokens

SIDE = "output"
shortage = llm_output.shortage


def explain(subjects):
    """An `Explanation` of each subject, with its rule: the token ids that it names."""
    named = [subject.promoted[::2] for subject in subjects]
    vocabulary = subjects[0].all.vocabulary
    return [Explanation("promotes " + describe_tokens(tokens, vocabulary), {"promotes": tokens}) for tokens in named]
