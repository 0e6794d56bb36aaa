"""The five tokens on which the feature fires most often: a baseline that knows no context."""

from cltdb.explain.explainers.single_token import by_tokens
from cltdb.explain.subjects import windows_shortage

SIDE = "input"
shortage = windows_shortage
TOKENS = 5


def explain(subjects):
    """An `Explanation` of each subject, with its rule."""
    return [by_tokens(subject, TOKENS) for subject in subjects]
