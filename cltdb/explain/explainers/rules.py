"""Rules: tokens on which the feature fires, and what stands around them, learnt from its training windows. No call, no language model."""

from cltdb.explain.judges import Explanation
from cltdb.explain.rule_prompts import explain_by_rules
from cltdb.explain.subjects import windows_shortage

SIDE = "input"
shortage = windows_shortage


def explain(subjects):
    """An `Explanation` of each subject, with its rule."""
    everything = subjects[0].all
    made = explain_by_rules(
        [subject.examples for subject in subjects], label_names=everything.windows.label_names, vocabulary=everything.vocabulary
    )
    return [Explanation(text, rule) for text, rule in made]
