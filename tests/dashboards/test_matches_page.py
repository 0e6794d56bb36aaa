"""The page Matches: a random pair of dictionaries in numbers, its links, and what it says where nothing was compared."""

from visit import page_text, show, texts
from worlds import random_experiment
from worlds.random_experiment import DICT, OLD

from dashboards import urls


def test_shares_changes_and_splits_are_shown_with_links_to_the_features(random_database):
    page = show(random_database, urls.MATCHES)
    said, links = texts(page), str(page)
    rows = random_experiment.rows_of()
    assert (
        f"Features of {DICT} assigned one to one to those of {OLD}, by the cosine of their decoders" in said
        and f"{DICT} · {OLD}" in said
    )
    for row in rows["feature_matches"]:
        for side, dict_id in (("a", DICT), ("b", OLD)):
            if row["relation"] != "matched" and row[f"feature_{side}"] is not None:
                assert urls_of(dict_id, row[f"feature_{side}"]) in links, row
    for heading in ("Appeared", "Vanished", "Split", "Merged", "by chance"):
        assert heading in said


def urls_of(dict_id, feature):
    return f"/feature/{dict_id}/0/{feature}"


def test_an_address_names_the_pair_and_an_unknown_one_shows_the_first(random_database):
    one, unknown = (
        page_text(random_database, urls.MATCHES, search) for search in (f"?dict_a={DICT}&dict_b={OLD}", "?dict_a=x&dict_b=y")
    )
    said = "There is no comparison of  x · y  in this database.  Shown is what the choices on this page say. "
    assert said in unknown and unknown.replace(said, "").split() == one.split()


def test_without_a_comparison_the_page_says_how_to_make_one(database):
    assert "cltdb match DICT DICT" in page_text(database, urls.MATCHES)
