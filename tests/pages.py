"""What README, docs, notes and the heads of scripts show: blocks, spans of code, and the commands in them."""

import ast
import re
import shlex

from command_line import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "experiments/README.md", ROOT / "tests/README.md"])
"""The pages whose snippets are run."""
EVERY = [ROOT / "README.md"] + sorted(
    path for folder in ("cltdb", "dashboards", "docs", "experiments", "tests") for path in (ROOT / folder).rglob("*.md")
)
"""They and all others: notes of studies, figures, READMEs of folders."""
SCRIPTS = sorted(
    path for folder in ("cltdb", "docs", "experiments", "tests/benchmarks") for path in (ROOT / folder).rglob("*.py")
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BASE = "name: base\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}]}\n"
"""What stands around the parts of a spec that pages show."""
USAGE = re.compile(r"^    (?:[A-Z_]+=\S+ )?((?:python|cltdb) .*)", re.MULTILINE)
SHELL = ("while", "done", "mkdir")


def name_of(page):
    return str(page.relative_to(ROOT))


def text_of(page):
    return page.read_text(encoding="utf-8")


def snippets(language, pages=PAGES):
    """(page's name, text) of every block of a language."""
    return [(name_of(page), text) for page in pages for kind, text in FENCE.findall(text_of(page)) if kind == language]


def spans(pages=EVERY):
    """(page's name, code) of what stands between backquotes in running text."""
    for page in pages:
        for code in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", FENCE.sub("", text_of(page))):
            yield name_of(page), " ".join(code.split())


def commands_in(text):
    """The words of every program that lines for a shell start, without the variables set before it."""
    lexer = shlex.shlex(re.sub(r"(^|\s)#\s.*$", "", text, flags=re.MULTILINE), posix=True, punctuation_chars="\n|;&")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words = []
    for word in [*lexer, "\n"]:
        if not set(word) <= set("\n|;&"):
            words.append(word)
        elif words:
            while re.match(r"[A-Z_]+=", words[0]) or words[0] == "do":
                words.pop(0)
            if words[0] not in SHELL:
                yield [part for word in words for part in (("A", "B") if word == "$pair" else (word,))]  # as a shell splits it
            words = []


def usages():
    """(script's name, words) of the lines of a script's docstring that say how it is started."""
    for path in SCRIPTS:
        if not USAGE.search(text := text_of(path)):  # most have no such line anywhere: to parse them takes a second
            continue
        for line in (ast.get_docstring(ast.parse(text)) or "").splitlines():
            if found := USAGE.match(line):
                yield name_of(path), re.sub(r"\[|\]| \.\.\.", "", re.split(r"\s{2,}", found[1])[0]).split()
