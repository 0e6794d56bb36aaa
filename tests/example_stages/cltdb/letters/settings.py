"""Section `letters` of a spec."""

from typing import Annotated

from cltdb.engine.section import Neutral, Positive, Section


class Letters(Section):
    """Which letters begin the tokens of the vocabulary."""

    top: Positive = 5
    """So many letters, the most frequent ones."""
    max_tokens: Annotated[Positive | None, Neutral] = None
    """At most so many tokens are looked at. With a larger number a finished artifact is continued."""
