"""The glossary of search: what comes with cltdb, a project's own, what a search makes of both."""

import re
from pathlib import Path
from shutil import copy

import pytest
from command_line import cltdb
from worlds import toy_features

from cltdb.database import glossary
from cltdb.database.api import Database
from cltdb.database.export import export
from cltdb.database.glossary import SHIPPED, in_order, meant
from cltdb.database.named_queries import named_query
from cltdb.errors import CltdbError


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A project with the database of the planted features of the toy world."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "cltdb.yaml").write_text(f"database: {{path: {toy_features.build(folder).name}}}\n")
    return Database(next(folder.glob("*.duckdb")))


@pytest.fixture
def own(toy, tmp_path):
    """A project of its own with that database, and what writes its glossary."""
    (tmp_path / "cltdb.yaml").write_text("database: {path: toyworld.duckdb, search: {glossary: words.txt}}\n")
    copy(toy.path, tmp_path / "toyworld.duckdb")
    return Database(tmp_path / "toyworld.duckdb"), lambda text: (tmp_path / "words.txt").write_text(text, encoding="utf-8")


def instances(text, word, path=None):
    return [pair.split(" ")[1] for pair in meant(text, path) or [] if pair.split(" ")[0] == word]


def test_each_kind_is_found_by_its_names_and_has_instances():
    kinds = glossary._read(SHIPPED, None)
    assert len(kinds) > 500
    for kind, known in kinds.items():
        assert known and len(known) == len(set(known)) <= 192, kind
        assert not any(re.search(r"[\s,]", word) for word in known if len(word) > 1), kind
        found = instances(" ".join(kind), glossary._content([*kind])[0])
        assert set(known) <= set(found), kind


def test_forms_phrases_and_several_meanings():
    days = instances("weekday", "weekday")
    assert days[:2] == ["monday", "tuesday"] and instances("WEEKDAYS", "weekdays") == days
    assert instances("the days of the week", "days") == instances("the days of the week", "week") == days
    for one, other in (("century", "centuries"), ("antonym", "antonyms"), ("university", None), ("past tense", "past tenses")):
        assert (meant(one) is None) == (other is None) and (
            not other or instances(one, one.split()[-1]) == instances(other, other.split()[-1])
        )
    assert {"year", "."} <= set(instances("period", "period")), "both meanings"
    assert "paris" in instances("names of cities", "cities") and "mary" in instances("girls' names", "names")
    assert instances("women’s names", "women") == instances("female names", "female")
    assert meant("") is meant("Lyon zzz '") is meant("whole") is None and instances("news", "news")
    assert meant("sadness")[0] == "sadness sad" and meant("happily")[0] == "happily happy" and "early ear" not in meant("early")


def test_function_words_are_passed_over_and_words_that_mean_one_thing_together_say_so():
    assert (
        meant("the end of a sentence")
        == meant("end of sentence")
        == [f"{word} {sign} +" for sign in ".!?。" for word in ("end", "sentence")]
    )
    assert {"country france +", "europe france +", "country china"} <= set(meant("a country in Europe")), "France is both"
    assert meant("country names")[:2] == ["country country +", "names country +"] and "colors red +" in meant("words for colors")
    assert (
        meant("zero") == ["zero 0 ="] and meant("comma") == ["comma , ="] and "nineteenth 18 +" in meant("the nineteenth century")
    )
    assert not any(" +" in pair for pair in meant("color and number")) and meant("verb to be")[0] == "verb is +"
    held = re.search(r"word IN \(([^()]*)\) AS is_passed_over", named_query("feature_search").sql).group(1)
    assert set(re.findall(r"\w+", held)) == glossary.PASSED_OVER


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what comes right after the word capital", "capital before, comes -, right -, after -"),
        ("article before a country", "article here, country next, before -"),
        ("name followed by ,", "name here, , next, followed -, by -"),
        ("preceded by of", "of before, preceded -, by -"),
        ("year after a year", "year here, year before, after -"),
        ("comma after a name and before a verb", "comma here, name before, verb next, after -, before -"),
        ("the next word is a city", "city next, next -, word -, is -"),
        ("the preceding token is a digit", "digit before, preceding -, token -, is -"),
        ("dash between two cities", "dash here, cities before, cities next, between -, two -"),
        ("comma between A and B", "comma here, a before, b next, between -"),
        ("second person named", "person here, person before, second -, named -"),
        ("repeated mention of a city", "city here, city before, repeated -, mention -"),
        ("to followed by the", "to here, the next, followed -, by -"),
        ("what is before the word of", "of next, before -"),
        ("word before the name of a capital", "capital next, before -"),
        ("first word of a German sentence", "german here, sentence before, first -, word -"),
        ("sentence start", "sentence before, start -"),
        ("name at the end of a sentence", "name here, sentence next, end -"),
        ("second number of a sum", "number here, sum here, number before, second -"),
        ("the end of a sentence", None),
        ("second half of the year", None),
        ("year between 1900 and 2000", None),
        ("difference between hot and cold", None),
        ("capital", None),
        ("after", None),
        ("the word before", None),
        ("following instructions", None),
        ("previous year", None),
        ("second person", None),
    ],
)
def test_words_of_order_say_where_parts_stand(text, expected):
    said = in_order(text)
    assert (said and ", ".join(said)) == expected
    if said:  # its parts mean all instances, which words that only tell the order are none of
        assert all(
            " + " in f"{pair} " for pair in meant(text) or () if pair.count(" ") > 1 and "~" not in pair and "*" not in pair
        )
        assert not {word for word, stands in (pair.split(" ")[:2] for pair in said) if stands == "-"} & {
            pair.split(" ")[0] for pair in meant(text) or ()
        }


def test_parts_of_a_text_with_words_of_order_name_kinds_by_themselves():
    assert not {"token", "word", "words"} & {pair.split(" ")[0] for pair in meant("words that come before the word full stop")}
    assert meant("start of a sentence") == [f"sentence {sign} +" for sign in ".!?。"] and meant("sentence") is None, (
        "after a full stop"
    )


def test_words_of_other_languages():
    assert {"opposite gegenteil ~ german", "dirty sale ~ french", "dirty schmutzig ~ german"} <= set(meant("opposite of dirty"))
    assert meant("froid")[0] == "froid cold ~" and "froid kalt ~ german" in meant("froid")
    assert {"month january", "month janvier * french"} <= set(meant("month"))
    assert {"months january +", "months janvier + french"} <= set(meant("months")), "a plural means the instances"
    assert {"cities paris +", "cities stadt ~ german"} <= set(meant("cities")) and "names stadt ~ german" in meant(
        "city names"
    ), "no instance"
    assert "women anna +" in meant("women") and "child kid" in meant("child")
    in_french = {"big grand +", "big gros +"}
    for text in ("big in French", "French for big", "the French word for big"):
        pairs = set(meant(text))
        assert in_french < pairs and not any(pair.startswith("big ") for pair in pairs - in_french - {"big grande +"}), text
    assert "adjectives kalt +" in meant("German adjectives") and "adjectives good +" in meant("English adjectives")
    assert not any("~" in pair or "*" in pair for pair in meant("French")), "its words are in it already"


def test_cities_of_countries_and_continents():
    assert {"italian naples +", "cities naples +", "cities rome +"} <= set(meant("Italian cities"))
    for text in ("city in Japan", "cities of Japan", "a Japanese city", "towns in Asia", "Asian cities"):
        assert {pair.split(" ")[1] for pair in meant(text)} >= {"tokyo", "osaka"}, text
    assert "capitals nairobi +" in meant("African capitals") and "capitals mombasa +" not in meant("African capitals")


def test_translations_count_where_text_is_labelled_with_their_language(toy):
    search = lambda mark: toy.query("feature_search", text="zzz", glossary=[f"zzz hauptstadt {mark}"])  # noqa: E731
    assert search("~ german")["found_in"][0].startswith("fires on 'Hauptstadt' (glossary: 'zzz', 100 %")
    assert search("~ german").equals(search("~")) and not search("* german").is_empty() and search("~ spanish").is_empty()
    unknown = lambda mark: toy.query("unknown_words", text="zzz", glossary=[f"zzz hauptstadt {mark}"])["word"].to_list()  # noqa: E731
    assert unknown("~ german") == unknown("~") == [] and unknown("~ spanish") == ["zzz"]
    relevance = [search(mark)["relevance"][0] for mark in ("*", "~", "=")]
    assert relevance == sorted(relevance), "an instance, a translation, the name of a sign"


def test_reasons_and_known_words(toy):
    frame = toy.search("antonyms")
    assert frame["found_in"][0].startswith("fires on 'opposite' (glossary: 'antonyms', 100 % of its strongest windows)")
    assert "no word" not in cltdb(toy.path.parent, "search", "antonyms").stderr
    assert "no word of the database is like 'weekdays'" in cltdb(toy.path.parent, "search", "weekdays and antonyms").stderr
    assert toy.query("unknown_words", text="antonyms weekdays")["word"].to_list() == ["weekdays"]
    assert toy.query("unknown_words", text="antonyms", glossary=[])["word"].to_list() == ["antonyms"]


def test_a_word_itself_comes_before_what_the_glossary_says(toy):
    """Of a word that texts have, its instances count less, and what fires on it comes first; a question that names no kind stays as it is."""
    by_word = toy.query("feature_search", text="city", glossary=[])
    frame = toy.search("city")
    key = ["layer", "feature"]
    assert frame.select(key).row(0) == by_word.select(key).row(0) and frame.height > by_word.height
    assert any("(glossary: 'city'" in why for why in frame["found_in"]) and "glossary" not in frame["found_in"][0].split(";")[0]
    for text in ("Naples", "capit"):
        assert toy.search(text).equals(toy.query("feature_search", text=text, glossary=[])), text


def test_an_apostrophe_after_a_letter_is_no_word(toy):
    assert toy.search("Lisbon's").equals(toy.search("Lisbon")) and toy.search("Lisbon’").equals(toy.search("Lisbon"))
    assert toy.search("'")["found_in"][0].startswith("fires on ''' ")


def test_ascii_texts_are_cut_into_words_as_others_are(toy):
    """They have a pattern of their own."""
    text = "zz_q q1(qqq),\t++ -qz- #9999x \x01 [qq] zq's 'qxq'"
    words = toy.query("unknown_words", text=text, glossary=[])["word"].to_list()
    assert [word for word in words if word[-1].isalnum()] == ["zz_q", "q1", "qqq", "qz", "9999x", "qq", "zq", "qxq"], (
        "in the order of the text"
    )
    assert toy.query("unknown_words", text=f"{text} ß日ß", glossary=[])["word"].to_list() == [*words, "ß日ß"]


def test_export_command_and_named_query_ask_the_same(toy, tmp_path):
    export(toy.path, tmp_path / "exported")
    assert Database(tmp_path / "exported").search("antonyms").equals(toy.search("antonyms"))
    by_command = cltdb(tmp_path, "search", "antonyms", "--limit", "50", "--from", "exported").stdout
    assert by_command == cltdb(toy.path.parent, "sql", "--query", "feature_search", "-p", "text=antonyms").stdout


def test_an_own_glossary(own):
    db, write = own
    write(
        "# places\nseat of government, seats: capital @scandinavia\n\nantonym:\nScandinavia: Helsinki\nall of it: @antonym @scandinavia Österreich\n"
    )
    seat = instances("a seat of Government", "seat", db.path)
    assert seat[:6] == ["capital", "sweden", "norway", "denmark", "finland", "iceland"] and "schweden" in seat[6:]
    assert meant("antonyms", db.path) is None and db.search("antonyms").is_empty()
    assert instances("Scandinavia", "scandinavia", db.path) == ["helsinki"]
    assert instances("all of it", "all", db.path) == ["helsinki", "osterreich"]
    assert "(glossary: 'seat'" in db.search("seat of government")["found_in"][0]
    assert "(glossary: 'seat'" in cltdb(db.path.parent, "search", "seat of government").stdout
    write("seat: opposite\n")
    assert "'opposite' (glossary: 'seat'" in db.search("seat")["found_in"][0], "as the file is now"


@pytest.mark.parametrize(
    "text, message",
    [
        ("weekday monday\n", r"words.txt:1: found 'weekday monday'; expected `kind, .*colon"),
        ("# a\n: monday\n", r"words.txt:2: found ': monday'"),
        ("a: b\nb: @nothing\n", r"words.txt:2: found @nothing; expected a kind that a line above names"),
        (b"\xff\xfe".decode("latin-1"), "words.txt:1"),
        (None, r"database.search.glossary: found no file .*words.txt; expected a text file"),
    ],
)
def test_errors_of_an_own_glossary(own, text, message):
    db, write = own
    if text is not None:
        write(text)
    with pytest.raises(CltdbError, match=message):
        db.search("weekday")
    done = cltdb(db.path.parent, "search", "weekday")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1


def test_a_glossary_that_is_no_text(own):
    db, _ = own
    (Path(db.path).parent / "words.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CltdbError, match="found a file that cannot be read; expected a text in UTF-8"):
        db.search("weekday")
