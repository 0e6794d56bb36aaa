"""The lines of a .jsonl file that a spec names, and what is said of one that cannot be read."""

import json

from cltdb.errors import CltdbError, shown


def json_lines(path, *, key, example):
    """(where it stands, JSON value) of each line of a .jsonl file that is not blank. key: that of the spec which names the file; example: an
    object as it is expected. CltdbError for a file that cannot be read and a line that is no JSON."""
    if not path.is_file():
        expected = "a .jsonl file, relative to cltdb.yaml"
        raise CltdbError(f"{key} ({path})", found="no such file", expected=expected, do="mend the path")
    lines = [(number, line) for number, line in enumerate(_text_of(path, key).split("\n"), start=1) if line.strip()]
    if not lines:
        expected = f"lines with a JSON object each, such as {example}"
        raise CltdbError(f"{key} ({path})", found="an empty file", expected=expected, do="add lines")
    for number, line in lines:
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            fault = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            found, expected = f"no JSON ({shown(fault, quoted=False)})", f"a JSON object such as {example}"
            raise CltdbError(where, found=found, expected=expected, do="mend the line") from error
        yield where, value


def _text_of(path, key):
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CltdbError(f"{key} ({path})", found=error.strerror, expected="a file that can be read", do="mend it") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"the byte {error.object[error.start]:#04x} in line {line}"
        raise CltdbError(f"{key} ({path})", found=found, expected="UTF-8", do="save the file as UTF-8") from error
