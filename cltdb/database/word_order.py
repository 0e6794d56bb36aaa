"""Where the words of a question stand to a feature's peak, by the words of order in it: `article before a country` asks for an article at the peak and
a country after it."""

import re

HERE, BEFORE, NEXT, NOT_ASKED = "here", "before", "next", "-"
PART = re.compile(r"\w+|[^\s\w]+")
FOLLOWS = (("after",), ("following",), ("follow",), ("follows",), ("preceded", "by"), ("previous",), ("succeeding",))
"""X after Y: Y stands before the peak."""
PRECEDES = (
    ("before",),
    ("preceding",),
    ("precede",),
    ("precedes",),
    ("followed", "by"),
    ("ahead", "of"),
    ("prior", "to"),
    ("in", "front", "of"),
)
"""X before Y: Y comes after the peak."""
OF_A_WORD = {"previous": BEFORE, "preceding": BEFORE, "next": NEXT, "following": NEXT}
"""Beside `word is`: the next word is a country."""
PREDICTS = {"predict", "predicts", "predicting", "promote", "promotes", "promoting"}
"""At the start of a question: what the feature makes likelier comes next."""
ORDINALS = {"second", "third", "fourth", "repeated"}
NAMED = {"named", "mentioned", "listed", "introduced"}
MENTIONS = {"mention", "occurrence", "appearance", "repetition"}
COUNTED = frozenset("name number digit person city country year token word".split())
"""What `second` of a sum, in a pair, ... counts; not the second half of a year."""
COMPARED = frozenset(
    "difference distance contrast comparison relation relationship similarity link connection choice border war match translation switch".split()
)
"""What is between two things without standing there."""
SENTENCE = frozenset("sentence sentences".split())
STARTS = frozenset("start starts starting beginning opening".split())
ENDS = frozenset("end ends ending".split())
PLACED_AT = frozenset("at in near the".split())
BESIDE_ORDER = frozenset(
    "right directly just immediately soon shortly come comes coming appear appears appearing occur occurs occurring stand stands standing always".split()
)
"""Words beside a word of order that add nothing to it."""
DETERMINERS = frozenset("a an the any".split())
TOKENS = frozenset("word words token tokens".split())
SAY_NOTHING = TOKENS | frozenset("a an the feature features that this these those it what which who whose where when".split())
"""Before a word of order they name no part: what follows a comma."""
SOME = frozenset("two three several some any every both".split())
IS = frozenset("is are was be being".split())


def order(parts, passed_over):
    """[(word, where it stands)] of the parts of a text that has words of order, None where it has none: HERE at the peak, BEFORE it, NEXT after it, or
    NOT_ASKED where it only tells the order. passed_over: words that are asked for where no other is beside them."""
    segments, not_asked = _repeated(parts) or _of_sentence(parts) or _parted(parts)
    placed = []
    for stands, words in segments:
        content = [word for word in words if word not in passed_over]
        if (
            len(content) > 1 and re.fullmatch("names?", content[0]) and words[words.index(content[0]) + 1] == "of"
        ):  # the name of a capital
            content = content[1:]
        if content and content[0] in SOME and len(content) > 1:  # two cities
            content = content[1:]
        if not content:  # to followed by the; not what is before it
            alone = [word for word in words if word not in TOKENS and word not in DETERMINERS] or words[-1:]
            content = alone if len(alone) == 1 and not (stands == HERE and alone[0] in SAY_NOTHING) else []
        placed += [(word, stands) for word in content]
        not_asked = [*not_asked, *(word for word in words if word in SOME and word not in content)]
    if len(segments) < 2 or not any(stands != HERE for _, stands in placed):
        return None
    asked = {word for word, _ in placed}
    return [*dict.fromkeys(placed), *((word, NOT_ASKED) for word in dict.fromkeys(not_asked) if word not in asked)]


def _repeated(parts):
    """What is named a second time stands at the peak and before it: second person named, repeated mention of a city."""
    for at, word in enumerate(parts):
        if word not in ORDINALS:
            continue
        rest = parts[at + 1 :]
        if len(rest) > 1 and rest[0] in MENTIONS and rest[1] == "of":
            about, said = rest[2:], [word, rest[0]]
        elif len(rest) > 2 and rest[0] in COUNTED - TOKENS and rest[1] in ("of", "in"):
            return [(HERE, [*parts[:at], rest[0], *rest[2:]]), (BEFORE, rest[:1])], [word]
        elif named := next((one for one in rest if one in NAMED), None):
            about, said = rest[: rest.index(named)], [word, named]
        else:
            continue
        if about:
            return [(HERE, about), (BEFORE, about)], said
    return None


def _of_sentence(parts):
    """What begins a sentence stands after the end of one, what ends it before that: first word of a German sentence, name at the end of a sentence.
    The end of a sentence by itself is its sign."""
    last = next((n for n, word in enumerate(parts) if word in SENTENCE), 0)
    for at, word in enumerate(parts[:last]):
        is_word = word in ("first", "last") and parts[at + 1] in TOKENS
        of = at + 1 + is_word
        if (is_word or word in STARTS | ENDS) and parts[of] in ("of", "in") and last - of < 5:
            said, here = parts[at:of], parts[:at] + parts[of + 1 : last] + parts[last + 1 :]
            here = [word for word in here if word not in PLACED_AT]
            if word in ENDS and PLACED_AT.issuperset(parts[:at]):
                return None
            return [(HERE, here), (NEXT if word in ENDS or word == "last" else BEFORE, parts[last : last + 1])], said
    if last + 2 == len(parts) and parts[-1] in STARTS:
        return [(HERE, parts[:last]), (BEFORE, parts[last : last + 1])], parts[-1:]
    return None


def _parted(parts):
    """The parts of a text between its words of order, and these."""
    segments, not_asked, at = [(HERE, [])], [], 0
    while at < len(parts):
        stands, n_words = _at(parts, at)
        if parts[at] == "between" and at + 1 < len(parts):
            first, _, second = _cut(parts[at + 1 :], "and")
            if COMPARED.intersection(parts[:at]) or (first and second and all(word.isdigit() for word in (*first, *second))):
                return [], []  # a range of years
            return [*segments, (BEFORE, first), (NEXT, second or first)], [*not_asked, "between"]
        if stands and at + n_words < len(parts):
            segments.append((stands, []))
            not_asked += parts[at : at + n_words]
            at += n_words
        elif (
            parts[at] in BESIDE_ORDER
            and _at(parts, next((n for n in range(at, len(parts)) if parts[n] not in BESIDE_ORDER), at))[0]
        ):
            not_asked.append(parts[at])
            at += 1
        else:
            segments[-1][1].append(parts[at])
            at += 1
    return segments, not_asked


def _cut(words, word):
    at = words.index(word) if word in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


def _at(parts, at):
    """(where what comes after the words of order at a place of the text stands, how many they are); (None, 0) where there are none."""
    word, *rest = parts[at : at + 3] or [""]
    if word in OF_A_WORD and rest and rest[0] in TOKENS and (rest[-1] in IS or word == "next" and at + 2 < len(parts)):
        return OF_A_WORD[word], 3 if rest[-1] in IS else 2
    if word in PREDICTS and at == 0:
        return NEXT, 1
    for phrases, stands in ((FOLLOWS, BEFORE), (PRECEDES, NEXT)):
        for phrase in phrases:
            if phrase == tuple(parts[at : at + len(phrase)]) and (
                at or word not in OF_A_WORD or rest[:1] and rest[0] in DETERMINERS
            ):
                return stands, len(phrase)
    return None, 0
