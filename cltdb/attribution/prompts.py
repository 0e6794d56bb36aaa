"""The prompts of section `attribute`: those of the spec, or of a .jsonl file."""

import hashlib
import json
import re
from pathlib import Path

from pydantic import ValidationError

from cltdb.attribution.settings import Prompt
from cltdb.engine.json_lines import json_lines
from cltdb.engine.spec_errors import spec_error


def prompts_of(section, root):
    """The prompts of an attribute section, each with an id."""
    prompts = section.prompts if isinstance(section.prompts, list) else _prompts_of_file(Path(root) / section.prompts.file)
    named = []
    for prompt in prompts:
        named.append(prompt if prompt.id else prompt.model_copy(update={"id": prompt_slug(prompt_text(prompt))}))
    return named


def prompt_text(prompt):
    """The text of a prompt of the spec, a chat as JSON."""
    return prompt.text if prompt.text is not None else json.dumps(prompt.messages, ensure_ascii=False)


def prompt_slug(text):
    """The id of a prompt without one: its first words and a hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _prompts_of_file(path):
    """The prompts of a .jsonl file. CltdbError names a line that is no prompt."""
    prompts = []
    example = '{"id": "france", "text": "The capital of France is"}'
    for where, value in json_lines(path, key="attribute.prompts.file", example=example):
        try:
            prompts.append(Prompt.model_validate(value))
        except ValidationError as error:
            raise spec_error(error, Prompt, place=lambda _, where=where: where, whole="the prompt") from error
    return prompts
