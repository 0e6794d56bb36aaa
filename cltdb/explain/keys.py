"""Keys of what explains and scores without a call. Imports nothing heavy: `cltdb plan` counts them."""

from cltdb.engine.workspace import digest

VERSION = 4
"""Of the stage: raised when its results change."""


def base_of(harvest_key, seed):
    """What the keys of all units of a harvest's explanations have in common."""
    return digest([harvest_key, seed, VERSION])


def group(base, explainer, scorer=None):
    """What the keys of all explanations of an explainer, or of all their scores by a scorer, have in common."""
    return "-".join(filter(None, [base, explainer.replace(":", "_"), scorer]))
