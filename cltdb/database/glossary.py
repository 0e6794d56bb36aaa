"""What words for kinds of things mean to a search: `glossary.txt`, and a project's own glossary, which `database.search.glossary` names.

A line of a glossary says `kind, another name for it: instances`. Texts and explanations have the instances ("monday"); people ask for the kind
("weekdays"). Own lines come before those of cltdb, and what is said of a kind there stands in place of what cltdb says.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import product
from pathlib import Path

from cltdb.database.project import asked_section
from cltdb.database.stems import stem
from cltdb.errors import CltdbError

SHIPPED = Path(__file__).parent / "glossary.txt"
WORD = re.compile(r"\w+")
APOSTROPHE = re.compile(r"(\w)['’](s\b)?")
FORM = "kind, another name for it: instances"


def meant(text, path=None):
    """["weekdays monday", ...]: the words of a text that name kinds of things, each with an instance, as parameter $glossary of query
    feature_search; None where it names none. path: the database or exported folder that is asked, whose project may have a glossary of its own."""
    kinds = _kinds(path)
    words, longest = _words(text), max(map(len, kinds))
    pairs, first = {}, 0
    while first < len(words):
        for end in range(min(len(words), first + longest), first, -1):
            found = [kinds[kind] for kind in dict.fromkeys(product(*map(_singular, words[first:end]))) if kind in kinds]
            if found:
                forms = [form for some in found for instance in some for form in _forms(instance)]
                pairs |= {f"{word} {form}": None for word in words[first:end] for form in forms}
                break
        first = end
    return [*pairs] or None


def _forms(instance):
    """An instance, and what its plural has as its stem: itself without -ing is the verb, which need be no instance."""
    return [instance, f"{instance}s" if instance.endswith("ing") else stem(instance)]


def _words(text):
    """The words of a text, as query feature_search has them."""
    text = _plain(text)
    return WORD.findall(APOSTROPHE.sub(r"\1 ", text) if "'" in text or "’" in text else text)


def _plain(text):
    """In lower case and without accents, as words of the database are."""
    if text.isascii():
        return text.lower()
    marked = unicodedata.normalize("NFD", text.lower())
    return unicodedata.normalize("NFC", "".join(sign for sign in marked if unicodedata.category(sign) != "Mn"))


def _singular(word):
    """What a word may be a form of: itself, without -s, -es, -ies or -ing, as the stems of words are, and with an e in place of these."""
    found = [word]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        found += [word[:-1], *([word[:-2]] if word.endswith("es") else []), *([f"{word[:-3]}y"] if word.endswith("ies") else [])]
    if len(word) > 5 and word.endswith("ing"):
        found += [word[:-3], f"{word[:-3]}e"]
    return found


def _kinds(path):
    """{words of a kind: its instances}"""
    folder, section = (path and asked_section(path)) or (None, None)
    own = section and section.search.glossary
    if not own:
        return _read(SHIPPED, None)
    place = folder / own
    try:
        made = place.stat().st_mtime_ns
    except OSError as error:
        raise CltdbError(
            "database.search.glossary",
            found=f"no file {place}",
            expected=f"a text file with lines `{FORM}`",
            do="write it, or take the setting out of cltdb.yaml",
        ) from error
    return _read(SHIPPED, None) | _read(place, made)


@lru_cache(maxsize=8)
def _read(place, _made):
    """{words of a kind: its instances} of a glossary. A kind that several lines name has the instances of all."""
    known, own = {} if place == SHIPPED else _read(SHIPPED, None), {}
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CltdbError(str(place), found="a file that cannot be read", expected="a text in UTF-8", do="mend it") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        names, colon, said = line.partition(":")
        if not colon or not WORD.search(names):
            raise CltdbError(f"{place}:{number}", found=repr(line), expected=f"`{FORM}`", do="put a colon after the kind")
        instances = dict.fromkeys(_instances(said, own, known, f"{place}:{number}"))
        for name in filter(str.strip, names.split(",")):
            kind = tuple(_words(name))
            own[kind] = tuple({**dict.fromkeys(own.get(kind, ())), **instances})
    return own


def _instances(said, own, known, where):
    for word in _plain(said).split():
        if word[0] != "@" or not WORD.match(word, 1):
            yield word
            continue
        kind = tuple(_words(word))
        if kind not in own and kind not in known:
            raise CltdbError(where, found=word, expected="a kind that a line above names", do="correct it")
        yield from own.get(kind, known.get(kind))
