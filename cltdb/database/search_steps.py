"""The first half of a search in small statements: which words of the database a text means.

Query feature_search finds them in one statement with all else, and is what a search means. What that half costs is planning and patterns more than
rows, of which it has few: here Python weighs words, and the rows of tables are found by lists of values. The second half, which finds features by
these words, is the query's own text. A test compares both.
"""

import re
from collections import defaultdict
from functools import cache
from math import inf, log
from typing import NamedTuple

from cltdb.database.glossary import PASSED_OVER
from cltdb.database.query import BATCH_ROWS
from cltdb.database.stems import stem
from cltdb.database.word_order import BEFORE, HERE, NEXT
from cltdb.database.word_pages import found_on, page_of
from cltdb.database.words import NUMBERS, hashed

FIRST_HALF = re.compile(r"WITH asked AS MATERIALIZED \(\n.*?\n\), said AS \(", re.DOTALL)
CUT, ASKED = (
    re.compile(r"\n\), alike AS .*", re.DOTALL),
    "\n)\nSELECT * EXCLUDE (is_passed_over, in_phrase) FROM asked ORDER BY i",
)
COMMENTS = re.compile(r"^--.*\n", re.MULTILINE)
PLAIN = re.compile(r"[A-Za-z0-9_ ]*")
"""Texts that are cut into words at spaces alone; others by the query's own patterns."""
MOST_ASKED, MOST_ALIKE, MOST_INSTANCES, MOST_NEIGHBOURS = 32, 30, 192, 48
TOKEN, OF_DICTIONARY = 2**26, 2**28
"""As in token_features.place, where the dictionary is a multiple of OF_DICTIONARY."""
ANY_ROLE = ((0, 0), (1, TOKEN), (2, 2 * TOKEN))
ROLES = {None: ANY_ROLE, HERE: ANY_ROLE, BEFORE: (*ANY_ROLE, (3, 3 * TOKEN)), NEXT: (*ANY_ROLE, (4, 3 * TOKEN + TOKEN // 2))}
"""{where a word stands: (role, what it adds to the place)}: fires on, follows, promotes, right after, right before."""
GIVEN = """WITH asked AS MATERIALIZED (
    SELECT unnest($asked::VARCHAR[]) AS word, unnest($parts::VARCHAR[]) AS part, unnest($asked_i::INTEGER[]) AS i
), weighted AS MATERIALIZED (
    SELECT unnest($weighted_dict::VARCHAR[]) AS dict_id, unnest($weighted_d::INTEGER[]) AS d, unnest($weighted_i::INTEGER[]) AS i,
           unnest($weighted_part::DOUBLE[]) AS part, unnest($mean_length::DOUBLE[]) AS mean_length, unnest($mean_effect::DOUBLE[]) AS mean_effect,
           unnest($weighted_stands::VARCHAR[]) AS stands
), forms AS MATERIALIZED (
    SELECT unnest(range(1, 1 + len($form_d))) AS form, unnest($form_dict::VARCHAR[]) AS dict_id, unnest($form_d::INTEGER[]) AS d,
           unnest($form_i::INTEGER[]) AS i, unnest($form_word::VARCHAR[]) AS word, unnest($form_likeness::DOUBLE[]) AS likeness,
           unnest($form_literal::BOOLEAN[]) AS literal, unnest($form_whole::BOOLEAN[]) AS whole, unnest($form_near::VARCHAR[]) AS near,
           unnest($form_labels::VARCHAR[][]) AS labels, unnest($form_place::UBIGINT[]) AS place_said
), token_places AS MATERIALIZED (
    SELECT unnest($token_place::UBIGINT[]) AS place, unnest($token_d::INTEGER[]) AS d, unnest($token_i::INTEGER[]) AS i,
           unnest($token_role::INTEGER[]) AS role, unnest($token::INTEGER[]) AS token, unnest($token_likeness::DOUBLE[]) AS likeness,
           unnest($token_form::BIGINT[]) AS form
), said AS ("""
WORDS = """
SELECT word, word_hash, stem FROM word_forms
WHERE word IN (SELECT unnest($words)) OR stem IN (SELECT unnest($stems)){contains}
"""
SPOKEN = """
SELECT dict_id, word_hash FROM words
WHERE word_hash = {word_hash} AND len(labels) > 0 AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
"""
WHERE_KNOWN = """
SELECT dict_id, page, words FROM word_pages
WHERE page IN (SELECT unnest($pages::UTINYINT[])) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
"""
STATISTICS = """
SELECT dict_id, mean_length, mean_effect, n_vectors FROM word_statistics
WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) ORDER BY dict_id
"""
NEIGHBOURS = """
SELECT place, neighbours, nearness FROM words WHERE word_hash = {word_hash} AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
"""
"""Both of one word, since lists are unpacked wherever one of several values might be: over 56 dictionaries 13 CPU ms for 110 of two words."""
OF_FORMS = "SELECT place, word_hash, tokens, labels FROM words WHERE place IN (SELECT unnest($places::UBIGINT[]))"
THEIR_WORDS = "SELECT word_hash, word FROM word_forms WHERE word_hash IN (SELECT unnest($hashes::UBIGINT[]))"


def in_steps(answered):
    """As `answered`, of query.py, for a statement that holds query feature_search: its first half is asked in small statements."""

    def answer(connection, sql, params, batch_rows=BATCH_ROWS):
        return answered(connection, _second_half(sql), _Search(connection, sql, params).of_second_half(), batch_rows)

    return answer


@cache
def _second_half(sql):
    return COMMENTS.sub("", FIRST_HALF.sub(lambda _: GIVEN, sql, count=1))


@cache
def _asked_of(sql):
    """The statement in it that cuts a text into words."""
    return COMMENTS.sub("", "WITH asked" + CUT.sub(ASKED, sql.split("WITH asked", 1)[1]))


class _Word(NamedTuple):
    """A word that is asked for, as in CTE asked of the query; `part`: what words that hold it have."""

    word: str
    i: int
    stem: str
    part: str
    stands: str | None = None
    """Where it stands beside a peak, where the text says so."""


class _Alike(NamedTuple):
    """A word of the database that is like one that is asked for, as in CTE alike."""

    i: int
    word: str
    word_hash: int
    likeness: float
    whole: bool
    translated: bool = False
    language: str | None = None


class _Literal(NamedTuple):
    """It in a dictionary, as in CTE literal."""

    alike: _Alike
    place: int
    share: float
    reaches: bool


class _Weighted(NamedTuple):
    """What a word that is asked for weighs in a dictionary, as in CTE weighted."""

    stands: str | None
    best: float | None
    weight: float
    has_vector: bool
    rarest: float | None


class _Form:
    """A word of a dictionary by which features are found for one that is asked for, as in CTE forms."""

    def __init__(self, d, dict_id, asked, place):
        self.d, self.dict_id, self.asked, self.place = d, dict_id, asked, place
        self.likeness, self.literal, self.whole, self.glossary = 0.0, False, False, True


class _Search:
    def __init__(self, connection, sql, params):
        self.connection, self.sql, self.params = connection, sql, params
        self.pairs = [[*pair.split(" "), "", "", ""][:4] for pair in params["glossary"] or ()]  # word, instance, mark, language

    def rows(self, sql, **params):
        if "$dict_id" in sql:
            params["dict_id"] = self.params["dict_id"]
        return self.connection.execute(sql, params).fetchall()

    def of_second_half(self):
        """The parameters of the second half."""
        asked = self.asked()
        alike = self.alike(asked) if asked else []
        statistics = {dict_id: known for dict_id, *known in self.rows(STATISTICS)} if asked else {}
        literal = self.literal(alike) if alike else {}
        weighted = {
            dict_id: found
            for dict_id, (_, _, n_vectors) in statistics.items()
            if (found := _weighted({word: literal.get((dict_id, word.i), ()) for word in asked}, n_vectors))
        }
        forms = self.forms(asked, literal, weighted, statistics)
        given = {name: value for name, value in self.params.items() if f"${name}" in _second_half(self.sql)}
        return (
            given
            | {
                "asked": [word.word for word in asked],
                "parts": [word.part for word in asked],
                "asked_i": [word.i for word in asked],
            }
            | _of_weighted(weighted, statistics)
            | forms
        )

    def asked(self):
        """The words that are asked for."""
        text = self.params["text"]
        if not PLAIN.fullmatch(text) or self.params.get("order"):
            of_text = _asked_of(self.sql)
            given = {name: value for name, value in self.params.items() if f"${name}" in of_text}
            found = self.connection.execute(of_text, given)
            names = [name for name, *_ in found.description]
            return [_Word(**dict(zip(names, row, strict=True))) for row in found.fetchall()]
        words = [*dict.fromkeys(text.lower().split())][:MOST_ASKED]
        passed = PASSED_OVER if any(word not in PASSED_OVER for word in words) else ()
        return [
            _Word(word, i, stem(word), word if re.search("(e|^.{1,3}sis)$", word) else stem(word))
            for i, word in enumerate(words, start=1)
            if word not in passed
        ]

    def alike(self, asked):
        """What is like the words that are asked for, the likest first."""
        in_phrase = {word for word, _, mark, _ in self.pairs if mark == "+"}
        instances = defaultdict(list)
        for n, (word, instance, mark, language) in enumerate(self.pairs, start=1):
            instances[instance].append((word, n, mark, language))
        parts = {f"part_{word.i}": word.part for word in asked if len(word.part) > 2 or word.part > "~"}
        known = self.rows(
            WORDS.format(contains="".join(f" OR contains(word, ${name})" for name in parts)),
            words=[*instances, *(word.word for word in asked)],
            stems=[*instances, *(word.stem for word in asked)],
            **parts,
        )
        found = []
        for word in asked:
            holds = f"part_{word.i}" in parts
            for one, word_hash, its_stem in known:
                n, likeness = len(word.part), None
                if one == word.word:
                    likeness = 1.0
                elif its_stem == word.stem:
                    likeness = 0.9
                elif holds and word.part in one:
                    likeness = (7 if one.startswith(word.part) else 4) * n / 10 / len(one)
                if likeness is not None:
                    whole = word.word in in_phrase
                    found.append(_Alike(word.i, one, word_hash, likeness * (0.5 if whole else 1), whole))
        places = defaultdict(list)
        for word in asked:
            places[word.word].append(word.i)
        for one, word_hash, its_stem in known:
            said = defaultdict(list)
            for pair in {*instances.get(one, ()), *instances.get(its_stem, ())}:
                for i in places.get(pair[0], ()):
                    said[i].append(pair[1:])
            for i, pairs in said.items():
                marks, languages = {mark for _, mark, _ in pairs}, {language for *_, language in pairs if language}
                first = -float(min(n for n, *_ in pairs))
                found.append(
                    _Alike(i, one, word_hash, first, not marks.isdisjoint("+="), "~" in marks, min(languages, default=None))
                )
        return sorted(found, key=lambda one: (-one.likeness, one.word))

    def literal(self, alike):
        """{(dict_id, i): its `_Literal`}"""
        languages = {hashed(one.language): one.language for one in alike if one.language}
        spoken = self.rows("UNION ALL".join(SPOKEN.format(word_hash=one) for one in languages)) if languages else []
        speaks = {(dict_id, languages[word_hash]) for dict_id, word_hash in spoken}
        pages, found = defaultdict(dict), defaultdict(list)
        for dict_id, page, words in self.rows(WHERE_KNOWN, pages=[*{page_of(one.word_hash) for one in alike}]):
            pages[dict_id][page] = words
        for dict_id, of_dictionary in pages.items():
            for one in alike:
                known = found_on(of_dictionary.get(page_of(one.word_hash), b""), one.word_hash)
                if known and (one.language is None or (dict_id, one.language) in speaks):
                    place, share, reaches = known
                    if one.likeness > 0 or (share < 0.9 and reaches):
                        found[dict_id, one.i, one.likeness > 0].append(_Literal(one, place, share, reaches))
        literal = defaultdict(list)
        for (dict_id, i, of_letters), rows in found.items():
            least = 0.5 * rows[0].alike.likeness if of_letters else -inf
            rows = rows[: MOST_ALIKE if of_letters else MOST_INSTANCES]
            literal[dict_id, i] += [one for one in rows if one.alike.likeness >= least]
        return literal

    def neighbours(self, n_asked, literal, weighted, statistics):
        """(dict_id, i, place, likeness) of the neighbours in meaning of those words with a vector which are most like the words asked for."""
        origins = defaultdict(list)
        for dict_id, words in weighted.items():
            n_vectors = statistics[dict_id][2]
            for i, word in words.items():
                if n_vectors and word.best is not None and word.best >= 0.9:
                    with_vector = [
                        one for one in literal[dict_id, i] if one.alike.likeness > 0 and one.place % NUMBERS < n_vectors
                    ]
                    if with_vector:
                        first = min(with_vector, key=lambda one: (-one.alike.likeness, one.alike.word))
                        origins[first.place].append((dict_id, i, word.best, first.alike.word_hash))
        if not origins:
            return
        hashes = {word_hash for of_place in origins.values() for *_, word_hash in of_place}
        cap = max(8, min(MOST_NEIGHBOURS, 2 * MOST_NEIGHBOURS // max(1, n_asked)))
        for place, numbers, nearness in self.rows("UNION ALL".join(NEIGHBOURS.format(word_hash=one) for one in hashes)):
            mean = sum(nearness or ()) / MOST_NEIGHBOURS
            for dict_id, i, best, _ in origins.get(place, ()):
                for number, near in zip((numbers or ())[:cap], (nearness or ())[:cap], strict=True):
                    if near > mean:
                        yield dict_id, i, place // NUMBERS * NUMBERS + number, 0.6 * best * (near - mean) / (1 - mean)

    def forms(self, asked, literal, weighted, statistics):
        """The parameters that say forms and token_places."""
        forms, number, asked_for = (
            {},
            {dict_id: d for d, dict_id in enumerate(weighted, start=1)},
            {word.i: word for word in asked},
        )
        for dict_id, words in weighted.items():
            for i, word in words.items():
                for one in literal.get((dict_id, i), ()):
                    form = forms.setdefault((dict_id, i, one.place), _Form(number[dict_id], dict_id, asked_for[i], one.place))
                    of_letters = one.alike.likeness > 0
                    form.likeness = max(form.likeness, one.alike.likeness if of_letters else _of_glossary(one, word))
                    form.literal |= of_letters
                    form.glossary &= not of_letters
                    form.whole |= one.alike.whole
        for dict_id, i, place, likeness in self.neighbours(len(asked), literal, weighted, statistics):
            form = forms.setdefault((dict_id, i, place), _Form(number[dict_id], dict_id, asked_for[i], place))
            form.likeness, form.glossary = max(form.likeness, likeness), False
        places = {place for *_, place in forms}
        of_place = {place: known for place, *known in self.rows(OF_FORMS, places=[*places])} if forms else {}
        hashes = {word_hash for word_hash, *_ in of_place.values()}
        word_of = dict(self.rows(THEIR_WORDS, hashes=[*hashes])) if hashes else {}
        rows = [
            (form, word_of[of_place[form.place][0]], *of_place[form.place][1:])
            for form in forms.values()
            if form.place in of_place and of_place[form.place][0] in word_of
        ]
        rows.sort(key=lambda row: (row[0].d, row[0].asked.i, row[1]))
        return _of_forms(rows) | _of_tokens(rows)


def _weighted(literal, n_vectors):
    """{i: `_Weighted`} of the words that count in a dictionary. literal: {word: its `_Literal`} of all that are asked for."""
    found = {}
    for word, rows in literal.items():
        instances = [one for one in rows if one.alike.likeness < 0]
        best = max((one.alike.likeness for one in rows), default=None)
        if best is None:
            weight = 9.0
        elif instances and best < 0.9:
            weight = max(1.4, -log(min(1, sum(one.share for one in instances))))
        else:
            first = min(rows, key=lambda one: (-one.alike.likeness, one.alike.word))
            reaches = any(one.reaches and one.alike.likeness > 0 for one in rows)
            weight = min(99.0 if reaches else 3.0, max(0.05, -log(first.share)))
        has_vector = n_vectors is not None and any(one.alike.likeness >= 0.9 and one.place % NUMBERS < n_vectors for one in rows)
        found[word.i] = _Weighted(
            word.stands, best, weight, has_vector, max((-log(one.share) for one in instances), default=None)
        )
    rarest = max((0.0 if word.best is None else word.weight for word in found.values()), default=0.0)
    return {
        i: word
        for i, word in found.items()
        if word.rarest is not None or word.stands or (word.weight >= 0.3 * rarest and (word.weight >= 1.4 or rarest < 1.4))
    }


def _of_glossary(one, word):
    """Likeness of what is known by the glossary."""
    sure = 0.85 if one.alike.whole else 0.6 if one.alike.translated else 0.2 if word.has_vector else 0.5
    return sure * max(0.5, min(1, -2 * log(one.share) / word.rarest))


def _of_weighted(weighted, statistics):
    """The parameters that say weighted."""
    rows = []
    for d, (dict_id, words) in enumerate(weighted.items(), start=1):
        of_part = defaultdict(float)
        for word in words.values():
            of_part[word.stands] += word.weight
        for i, word in words.items():
            part = word.weight / of_part[word.stands] / len(of_part)
            rows.append((dict_id, d, i, part, *statistics[dict_id][:2], word.stands))
    return _columns(
        ("weighted_dict", "weighted_d", "weighted_i", "weighted_part", "mean_length", "mean_effect", "weighted_stands"), rows
    )


def _of_forms(rows):
    def near(form):
        if form.literal and form.likeness >= (0.45 if form.whole else 0.9):
            return None
        return f"{'glossary: ' if form.glossary else 'near '}'{form.asked.word}'"

    names = ("dict", "d", "i", "word", "likeness", "literal", "whole", "near", "labels", "place")
    return _columns(
        [f"form_{name}" for name in names],
        [
            (
                *(form.dict_id, form.d, form.asked.i, word, form.likeness, form.literal, form.whole, near(form), labels),
                hashed(f"{form.dict_id} {word}"),
            )
            for form, word, _, labels in rows
        ],
    )


def _of_tokens(rows):
    best, first, stands = {}, {}, {form.asked.i: form.asked.stands for form, *_ in rows}
    for number, (form, _, tokens, _) in enumerate(rows, start=1):
        if form.dict_id not in first:
            first[form.dict_id] = hashed(form.dict_id) // OF_DICTIONARY * OF_DICTIONARY
        for token in tokens or ():
            key = first[form.dict_id] + (token & (TOKEN - 1)), form.d, form.asked.i, token
            known = best.get(key)
            worth = form.likeness - 1e-9 * number
            if known is None:
                best[key] = form.likeness, worth, number
            else:
                best[key] = max(known[0], form.likeness), *max(known[1:], (worth, number))
    return _columns(
        ("token_place", "token_d", "token_i", "token_role", "token", "token_likeness", "token_form"),
        [
            (place + beyond, d, i, role, token, likeness, number)
            for (place, d, i, token), (likeness, _, number) in best.items()
            for role, beyond in (ROLES[stands[i]] if likeness >= 0.5 else ROLES[None][:1])
        ],
    )


def _columns(names, rows):
    """{name: values} of rows."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}
