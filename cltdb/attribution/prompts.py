"""The prompts of section `attribute`: those of the spec, or of a .jsonl file."""

import hashlib
import json
import re
from pathlib import Path

from pydantic import ValidationError

from cltdb.attribution.settings import Prompt
from cltdb.engine.spec_errors import spec_error
from cltdb.errors import CltdbError, shown


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
    for where, value in prompt_lines(path, key="attribute.prompts.file", example=example):
        try:
            prompts.append(Prompt.model_validate(value))
        except ValidationError as error:
            raise spec_error(error, Prompt, place=lambda _, where=where: where, whole="the prompt") from error
    return prompts


def prompt_lines(path, *, key, example):
    """(where it stands, JSON value) of each line of a .jsonl file that is not blank. key: that of the spec which names the file; example: an
    object as it is expected. CltdbError for a file that cannot be read and a line that is no JSON."""
    if not path.is_file():
        expected = "a .jsonl file, relative to cltdb.yaml"
        raise CltdbError(f"{key} ({path})", found="no such file", expected=expected, do="mend the path")
    for number, line in enumerate(_text_of(path, key).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                fault, expected = shown(str(error), quoted=False), f"a JSON object such as {example}"
                raise CltdbError(where, found=fault, expected=expected, do="mend the line") from error
            yield where, value


def _text_of(path, key):
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CltdbError(f"{key} ({path})", found=str(error), expected="a UTF-8 file", do="convert it") from error
