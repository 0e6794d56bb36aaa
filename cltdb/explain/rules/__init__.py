"""Explanations without a language model: rules over the tokens of a window, learnt from examples, and the words for them."""

from cltdb.explain.rules.grammar import TokenView, token_classes
from cltdb.explain.rules.learner import explain_by_rules
from cltdb.explain.rules.lexicon import Lexicon
from cltdb.explain.rules.text import describe_tokens

__all__ = ["Lexicon", "TokenView", "describe_tokens", "explain_by_rules", "token_classes"]
