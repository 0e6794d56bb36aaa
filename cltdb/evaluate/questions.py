"""Facts that are asked, of the toy world or of a file: what an exchange of concepts needs (facts.py)."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from cltdb.engine.json_lines import json_lines
from cltdb.engine.spec_errors import spec_error
from cltdb.errors import CltdbError, shown
from cltdb.evaluate.settings import Question

EXAMPLE = '{"concept": "Japan", "label": "en", "text": "The capital of Japan is", "target": "Tokyo"}'


class Fact(NamedTuple):
    """A prompt about a concept, asked in one way (label); tokens: ids, BOS first; answer: the id of the right next token."""

    concept: str
    label: str
    tokens: tuple
    answer: int


def questions(section, root):
    """The `Question`s of a section `Facts`. CltdbError names a line of a file that is none."""
    if section.toyworld:
        from cltdb.toyworld.tasks import translations

        return [
            Question(concept=concept.removeprefix("capital of "), label=language, text=prompt.text, target=prompt.answers[0])
            for kind, concept, language, prompt in translations()
            if kind == "capital"
        ]
    path, found = Path(root) / section.file, {}
    for where, row in json_lines(path, key="evaluate.isolation.facts.file", example=EXAMPLE):
        try:
            own = {name: row[name] for name in Question.model_fields if name in row} if isinstance(row, dict) else row
            question = Question.model_validate(own)
        except ValidationError as error:
            raise spec_error(error, Question, place=lambda _, where=where: where, whole="the line") from error
        if (question.concept, question.label) in found:
            twice = f"concept {shown(question.concept)} with label {shown(question.label)} twice"
            raise CltdbError(
                where, found=twice, expected="each concept once under a label", do="drop the line, or change its label"
            )
        found[question.concept, question.label] = question
    if len({concept for concept, _ in found}) < 2:
        raise CltdbError(str(path), found="fewer than two concepts", expected=f"lines such as {EXAMPLE}", do="add some")
    return list(found.values())


def facts_of(lm, asked):
    """The `Fact`s of `Question`s; CltdbError for one that the model cannot read. lm: a model or its tokens alone."""
    found = []
    for one in asked:
        try:
            tokens = lm.known_prompt(one.text)
            whole = lm.prompt_tokens(one.text + ("" if one.target.startswith(" ") else " ") + one.target)
        except CltdbError as error:
            where = f"evaluate.isolation.facts {one.concept}, {one.label}, {error.where}"
            raise CltdbError(where, found=error.found, expected=error.expected, do=error.do) from error
        if whole[: len(tokens)] != tokens or len(whole) == len(tokens) or whole[len(tokens)] == lm.tokenizer.unk_token_id:
            where, said = f"evaluate.isolation.facts {one.concept}, {one.label}", f"{shown(one.target)} after {shown(one.text)}"
            expected = "a target that begins with a token of its own"
            raise CltdbError(
                where, found=said, expected=expected, do="end the text where a word ends, and choose a word that the model has"
            )
        found.append(Fact(one.concept, one.label, tuple(tokens), whole[len(tokens)]))
    return found
