"""The stem of a word, by which a search finds its plural and its form in -ing: as SQL of a column `word`, and of a Python string.

Its rules are few, and what they make need be no word: only forms of one word must meet, and other words should not. So `house` loses its e, since of
`houses` nothing tells whether an s or es is the ending; `news` is no plural of `new`, and `string` has no verb before -ing.
"""

import re

IES = "brown calor cook hipp mov prair rook self smooth zomb".split()
"""What stands before -ies of words whose singular ends in -ie."""
STEM = f"""CASE WHEN word IN ('news', 'these') THEN word
     WHEN regexp_matches(word, '^({"|".join(IES)})ies$') THEN word[:-2]
     WHEN length(word) > 4 AND word LIKE '%ies' THEN word[:-4] || 'y'
     WHEN length(word) > 4 AND word LIKE '%sis' THEN word[:-3]
     WHEN regexp_matches(word, '(ss|us|is)$') THEN word
     WHEN length(word) > 4 AND regexp_matches(word, '(s|x|z|ch|sh)es$') OR length(word) > 5 AND word LIKE '%oes' THEN word[:-3]
     WHEN length(word) > 3 AND regexp_matches(word, '(s|x|z|ch|sh)e$') OR length(word) > 4 AND word LIKE '%oe' THEN word[:-2]
     WHEN length(word) > 6 AND regexp_matches(word, '[aeiouy].*ings$') THEN word[:-5]
     WHEN length(word) > 5 AND regexp_matches(word, '[aeiouy].*ing$') THEN word[:-4]
     WHEN length(word) > 3 AND word LIKE '%s' THEN word[:-2]
     ELSE word END"""
"""Queries hold the same text; a test compares them."""


def stem(word):
    """The same of a word in lower case."""
    n = len(word)
    if word in ("news", "these"):
        return word
    if word.endswith("ies") and word[:-3] in IES:
        return word[:-1]
    if n > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if n > 4 and word.endswith("sis"):
        return word[:-2]
    if word.endswith(("ss", "us", "is")):
        return word
    if (n > 4 and word.endswith(("ses", "xes", "zes", "ches", "shes"))) or (n > 5 and word.endswith("oes")):
        return word[:-2]
    if (n > 3 and word.endswith(("se", "xe", "ze", "che", "she"))) or (n > 4 and word.endswith("oe")):
        return word[:-1]
    for ending in ("ings", "ing"):
        if word.endswith(ending) and n > len(ending) + 2 and re.search("[aeiouy]", word.removesuffix(ending)):
            return word.removesuffix(ending)
    return word[:-1] if n > 3 and word.endswith("s") else word
