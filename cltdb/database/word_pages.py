"""Where a search finds the words of a text in each dictionary: table word_pages, made from table words.

Of table words a search needs the rows of some hundred hashes, which lie anywhere among a dictionary's thousands of words, and reads and tests all
hashes, places and shares for them. A page has them of the words whose hashes begin with the same byte, one after the other: of 72 dictionaries a
search for one word reads 16 MB in place of 70.
"""

from struct import Struct

PAGES = """
SELECT dict_id, (word_hash >> 56)::UTINYINT AS page,
       unhex(string_agg(hex(word_hash::BIT::BLOB) || hex(place::BIT::BLOB) || hex(if(coalesce(reaches, true), share, -share)::FLOAT::BIT::BLOB), ''
                        ORDER BY word_hash)) AS words
FROM {words} GROUP BY ALL
"""
"""The rows of table word_pages. words: the rows of table words, as what follows FROM."""
ENTRY = Struct(">QQf")


def page_of(word_hash):
    """The number of the page on which a word is, from 0 to 255."""
    return word_hash >> 56


def found_on(words, word_hash):
    """(place, share, reaches) of a word, as in table words, from column words of its page; None where it is not there."""
    hashed = word_hash.to_bytes(8)
    at = words.find(hashed)
    while at % ENTRY.size and at >= 0:  # within other words' numbers
        at = words.find(hashed, at + 1)
    if at < 0:
        return None
    _, place, share = ENTRY.unpack_from(words, at)
    return place, abs(share), share > 0
