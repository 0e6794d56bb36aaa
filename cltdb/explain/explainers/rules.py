"""Rules: tokens on which the feature fires, and what stands around them, learnt from its training windows. No call, no language model."""

from cltdb.explain.judges import Explanation
from cltdb.explain.rules import explain_by_rules
from cltdb.explain.subjects import windows_shortage

SIDE = "input"
shortage = windows_shortage


def explain(subjects):
    """An `Explanation` of each subject, with its rule."""
    features = [(subject.layer, subject.feature, subject.examples) for subject in subjects]
    return [Explanation(text, rule) for text, rule in explain_by_rules(features, subjects[0].all.lexicon)]
