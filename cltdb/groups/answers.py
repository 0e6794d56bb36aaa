"""The answers of parallel prompts: what the model has tokens for, and which concepts have different ones under different labels."""

from cltdb.attribution.graph import up_to
from cltdb.errors import CltdbError
from cltdb.replacement.targets import target_tokens, token_id


def check_prompts(lm, prompts):
    """CltdbError, with concept and label, for a prompt that the model cannot read or a target that is no token of it."""
    for prompt in prompts:
        try:
            up_to(lm.known_prompt(prompt.text), None)
            if prompt.target is not None:
                target_tokens(lm, prompt.target, None)
        except CltdbError as error:
            where = f"groups.prompts {prompt.concept}, {prompt.label}, {error.where.removeprefix('attribute ')}"
            raise CltdbError(where, found=error.found, expected=error.expected, do=error.do) from error


def answers_of(lm, prompts):
    """{concept: {label: token id}} of prompts with targets."""
    found = {}
    for prompt in prompts:
        found.setdefault(prompt.concept, {})[prompt.label] = token_id(lm, prompt.target)
    return found


def differ(answers):
    """The concepts of `answers_of` whose answers are not one token under all labels: label features come from their prompts."""
    return [concept for concept, of_label in answers.items() if len(set(of_label.values())) > 1]


def check_answers(lm, prompts):
    """CltdbError where fewer than two concepts have different answers under different labels: nothing can recur, and nothing be chosen on one
    and measured on another."""
    answers = answers_of(lm, prompts)
    if len(differ(answers)) < 2:
        raise CltdbError(
            "groups.label_features",
            found=f"{len(differ(answers))} of {len(answers)} concepts with different answers under different labels",
            expected="two or more",
            do="add prompts whose answers differ, or leave label_features out",
        )
