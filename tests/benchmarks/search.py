"""How good a search is: questions to the features of a finished quickstart, asked in five ways.

    cltdb run experiments/quickstart.yaml
    python tests/benchmarks/search.py cltdb.duckdb

Prints a table for RESULTS.md: questions with a right feature among the first five, and the share of right ones among the first five, for the
questions that chose the settings, for those that did not, and for those with words for kinds of things (tests/worlds/questions.py); then the same of
`cltdb search` for plain questions and those of relations and positions (tests/worlds/placed_questions.py).
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from worlds.placed_questions import drawn, placed_windows
from worlds.questions import CHOSEN_BY, JUDGED_BY, KINDS, LATER_KINDS, N_FIRST, answered, strongest_windows

from cltdb.database import Database
from cltdb.database.named_queries import named_query, named_query_params

SUBSTRING = """
SELECT layer, feature FROM feature_cards WHERE contains(lower(text), lower($text))
ORDER BY score DESC NULLS LAST, layer, feature LIMIT 5
"""
BM25 = """
WITH asked AS (SELECT unnest($words::VARCHAR[]) AS word), size AS (SELECT count(*) AS n FROM best_explanations),
weights AS (
    SELECT word, ln(1 + ((SELECT n FROM size) - count(*) + 0.5) / (count(*) + 0.5)) AS idf
    FROM explanation_words SEMI JOIN asked USING (word) GROUP BY word
)
SELECT layer, feature, sum(idf * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * length / (SELECT mean_length FROM word_statistics)))) AS score
FROM explanation_words JOIN weights USING (word) GROUP BY ALL ORDER BY score DESC, layer, feature LIMIT 5
"""


def ways(database):
    """{name: function of a text that gives the first five features}."""
    query = named_query("feature_search")
    literal = query.sql.replace("FROM neighbours WHERE likeness > 0", "FROM neighbours WHERE false")
    assert literal != query.sql, "the query turns neighbours in meaning off elsewhere now"

    def of(sql, params):
        return lambda text: database.sql(sql, params(text)).select("layer", "feature").rows()

    asked = lambda text: named_query_params(query, {"text": text, "limit": N_FIRST})  # noqa: E731
    return {
        "explanations that contain the text, by score": of(SUBSTRING, lambda text: {"text": text}),
        "BM25 of explanations": of(BM25, lambda text: {"words": re.findall(r"\w+", text.lower())}),
        "`cltdb search` without neighbours in meaning": of(literal, asked),
        "`cltdb search` without its glossary": of(query.sql, lambda text: asked(text) | {"glossary": []}),
        "`cltdb search`": of(query.sql, asked),
    }


def counted(name, found):
    missed = ", ".join(text for text, right in found.items() if not any(right))
    print(f"{name}: missed {missed or 'none'}", file=sys.stderr)
    return (
        f"{sum(map(any, found.values()))} of {len(found)}",
        f"{100 * sum(map(sum, found.values())) / (N_FIRST * len(found)):.0f} %",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    database = Database(parser.parse_args().database)
    windows = strongest_windows(database)
    print(
        "| way | ten that chose settings: answered | right of first 5 | ten others: answered | right of first 5 "
        "| thirty kinds: answered | right of first 5 | twenty kinds: answered | right of first 5 |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, search in ways(database).items():
        cells = []
        for questions in (CHOSEN_BY, JUDGED_BY, KINDS, LATER_KINDS):
            cells += counted(name, answered(search, windows, questions))
        print(f"| {name} | {' | '.join(cells)} |")
    windows = placed_windows(database)
    print("\n| questions | answered | right of first 5 |\n|---|---|---|")
    for name, questions in drawn(windows).items():
        print(f"| {name} | {' | '.join(counted(name, answered(search, windows, questions)))} |")


if __name__ == "__main__":
    main()
