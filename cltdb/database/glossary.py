"""What words for kinds of things mean to a search: `glossary.txt`, and a project's own glossary, which `database.search.glossary` names.

A line of a glossary says `kind, another name for it: instances`. Texts and explanations have the instances ("monday"); people ask for the kind
("weekdays"). Own lines come before those of cltdb, and what is said of a kind there stands in place of what cltdb says.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import product
from pathlib import Path

from cltdb.database.project import asked_section
from cltdb.database.stems import stem
from cltdb.database.word_order import NOT_ASKED, PART, SENTENCE, order
from cltdb.database.world_words import LANGUAGES, cities, into_english, into_others
from cltdb.errors import CltdbError

SHIPPED = Path(__file__).parent / "glossary.txt"
WORD = re.compile(r"\w+")
APOSTROPHE = re.compile(r"(\w)['’](s\b)?")
FORM = "kind, another name for it: instances"
FUNCTION_WORDS = frozenset(
    "a about an and are as at be been being by did do does for from had has have how if in into is it its of on or than that the their then these"
    " they this those to was were what when where which who whose with".split()
)
PASSED_OVER = FUNCTION_WORDS | frozenset("feature features token tokens word words".split())
"""Words that query feature_search passes over beside others; a test compares them with those that it holds."""
NAMES = frozenset("name names word words token tokens kinds kind type types list".split())
"""Beside a kind they say that its instances are meant: country names, words for colours."""
AS_KIND = {(word,): ("end", word) for word in SENTENCE}
"""What a part of a text names where it stands beside something: before or after a sentence is the end of one."""
MOST_PASSED_OVER = 2
IRREGULAR = {
    "women": ("woman",),
    "men": ("man",),
    "children": ("child",),
    "feet": ("foot",),
    "mice": ("mouse",),
    "wives": ("wife",),
}
"""Plurals, each with what it is of."""


def meant(text, path=None):
    """["weekdays monday", ...]: the words of a text that name kinds of things, each with an instance, and words that other languages have, each with
    its translation, as parameter $glossary of query feature_search; None where there are none. A mark says how sure that is:

        sentence . +            several words of the text name it together, or a plural, or it is in the language that the text names
        comma , =               the word is the name of a sign or number
        hot chaud ~ french      a translation, which counts where text is labelled with its language
        months janvier * french that of an instance

    path: the database or exported folder that is asked, whose project may have a glossary of its own."""
    placed, words = in_order(text), _words(text)
    kinds, parts = _kinds(path), _parts(placed) or [words]
    words = [word for part in parts for word in part]
    # each part of a text with words of order means the instances of its kind: a comma, any country
    named = [
        ([name for name in names if name in words], instances, is_whole or bool(placed))
        for part in parts
        for names, instances, is_whole in _named([*AS_KIND.get(tuple(part), part)] if placed else part, kinds)
    ]
    language = _language_beside(words, named)
    pairs, others = _instances_meant(named, language), _translations_meant(words, named, language)
    if language and any(mark == " +" for mark in (pairs | others).values()):  # the words of a language are then no answer
        pairs = {pair: mark for pair, mark in pairs.items() if pair.split(" ")[0] not in {language, *NAMES}}
    pairs |= {pair: mark for pair, mark in others.items() if language or pair not in pairs}
    return [pair + mark for pair, mark in pairs.items()] or None


def in_order(text):
    """["capital before", ...]: words of a text with words of order, each with where it stands, as parameter $order of query feature_search; None where
    the text has none."""
    placed = order(PART.findall(_readable(text)), PASSED_OVER)
    return placed and [f"{word} {stands}" for word, stands in placed]


def _parts(placed):
    """The words of each part of a text with words of order, which name kinds by themselves."""
    parts = {}
    for word, stands in (pair.split(" ") for pair in placed or ()):
        if stands != NOT_ASKED:
            parts.setdefault(stands, []).append(word)
    return [*parts.values()]


def _language_beside(words, named):
    """The language that a text names beside something else (German for early, French adjectives), None where there is none."""
    for language in words:
        in_phrase = any(
            is_whole and language in names and not {language, *NAMES}.issuperset(names) for names, _, is_whole in named
        )
        if language in (*LANGUAGES, "english") and not in_phrase and set(_content(words)) - {language} - NAMES - PASSED_OVER:
            return language
    return None


def _instances_meant(named, language):
    """{"word instance": mark} of the kinds that a text names, in the language that it names."""
    n_naming = Counter(instance for _, instances, _ in named for instance in instances)
    pairs = {}
    for names, instances, is_whole in named:
        abroad = (
            [other for instance in instances for other, _ in into_others(instance, language)]
            if language not in (None, *names)
            else ()
        )
        for instance in abroad or instances:
            sure = abroad or is_whole or n_naming[instance] > 1
            mark = " +" if sure else " =" if instances[instance] else ""
            pairs |= {f"{word} {form}": mark for word in names for form in _forms(instance) if not pairs.get(f"{word} {form}")}
    return pairs


def _translations_meant(words, named, language):
    """{"word translation": mark} of the words of a text, in the language that it names, and of the instances of its kinds where it names none."""
    in_kinds, pairs = {word for names, *_ in named for word in names}, {}
    if not language and not in_kinds.intersection(LANGUAGES):
        for names, instances, is_whole in named:
            for instance in filter(lambda one: one not in FUNCTION_WORDS, instances):
                of_kind = any(instance in _singular(name) for name in names)
                mark = "~" if of_kind else "+" if is_whole else "*"
                for other, its_language in into_others(instance):
                    for word in names:
                        pairs.setdefault(f"{word} {other}", f" {mark} {its_language}")
    for word in words:
        if word not in in_kinds and word not in PASSED_OVER:
            for form in _singular(word):
                for other, its_language in into_others(form, language) or ([] if language else into_english(form)):
                    pairs.setdefault(f"{word} {other}", " +" if language else f" ~ {its_language or ''}".rstrip())
    return pairs


def _named(words, kinds):
    """(words of a text that name a kind, {its instances: whether it is the name of nothing but signs and numbers}, whether the words are a phrase or
    a plural, which means the instances) from the first to the last, the longest phrases first. A word such as `sadness` names `sad` where it names no kind."""
    longest, first = max(map(len, kinds)) + MOST_PASSED_OVER, 0
    while first < len(words):
        for end in range(min(len(words), first + longest), first, -1):
            if found := _instances_of(words[first:end], kinds):
                instances = {}
                for some in found:
                    instances |= dict.fromkeys(some, not any(map(str.isalpha, "".join(some)))) | instances
                is_plural = (
                    (words[first].endswith("s") or words[first] in IRREGULAR)
                    and (words[first],) not in kinds
                    and len(instances) > 3
                )
                yield _content(words[first:end]), instances, end - first > 1 or is_plural
                break
        else:
            if base := _base(words[first]):
                yield [words[first]], {base: False}, False
        first = end


def _instances_of(words, kinds):
    """The instances of each kind that words name, by a name of it or by `names of` and that."""
    content = _content(words)
    names = [_name(words)]
    if len(content) > 1:
        names += [content[1:]] if content[0] in NAMES else [content[:-1]] if content[-1] in NAMES else []
    for name in names:
        if found := [kinds[kind] for kind in dict.fromkeys(product(*map(_singular, name))) if kind in kinds]:
            return found
    return []


def _name(words):
    """The name of a kind without function words where two words are left, so that `end of sentence` is `the end of a sentence`, too."""
    content = _content(words)
    return tuple(content if len(content) > 1 else words)


def _content(words):
    """Words without function words, all where there is no other."""
    return [word for word in words if word not in FUNCTION_WORDS] or words


def _forms(instance):
    """An instance, and what its plural has as its stem: itself without -ing is the verb, which need be no instance."""
    return [instance, f"{instance}s" if instance.endswith("ing") else stem(instance)]


def _words(text):
    """The words of a text, as query feature_search has them."""
    return WORD.findall(_readable(text))


def _readable(text):
    """A text as words are found in it: without an apostrophe after a letter."""
    text = _plain(text)
    return APOSTROPHE.sub(r"\1 ", text) if "'" in text or "’" in text else text


def _plain(text):
    """In lower case and without accents, as words of the database are."""
    if text.isascii():
        return text.lower()
    marked = unicodedata.normalize("NFD", text.lower())
    return unicodedata.normalize("NFC", "".join(sign for sign in marked if unicodedata.category(sign) != "Mn"))


def _singular(word):
    """What a word may be a form of: itself, without -s, -es, -ies or -ing, as the stems of words are, and with an e in place of these."""
    found = [word, *IRREGULAR.get(word, ())]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        found += [word[:-1], *([word[:-2]] if word.endswith("es") else []), *([f"{word[:-3]}y"] if word.endswith("ies") else [])]
    if len(word) > 5 and word.endswith("ing"):
        found += [word[:-3], f"{word[:-3]}e"]
    return found


def _base(word):
    """The adjective of which a word is the noun in -ness or the adverb in -ly; None where it is neither."""
    for ending, shortest in (("ness", 3), ("ly", 4)):  # no ear in early
        base = word.removesuffix(ending)
        if base != word and len(base) >= shortest and word != "witness":
            return f"{base[:-1]}y" if base.endswith("i") else base
    return None


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
    known, own = ({}, dict(cities())) if place == SHIPPED else (_read(SHIPPED, None), {})
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
            kind = _name(_words(name))
            own[kind] = tuple({**dict.fromkeys(own.get(kind, ())), **instances})
    return own


def _instances(said, own, known, where):
    for word in _plain(said).split():
        if word[0] != "@" or not WORD.match(word, 1):
            yield word
            continue
        kind = _name(_words(word))
        if kind not in own and kind not in known:
            raise CltdbError(where, found=word, expected="a kind that a line above names", do="correct it")
        yield from own.get(kind, known.get(kind))
