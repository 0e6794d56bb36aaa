"""What holds of the rows of a sound database across tables: `cltdb db check` asks it, beside the rules of single rows (rules.py).

A question selects the rows that are wrong. What is slow is asked of a
piece of large tables, with `--full` of all.
"""

from cltdb.database import questions_of_features, questions_of_graphs

QUESTIONS = questions_of_features.QUESTIONS + questions_of_graphs.QUESTIONS
"""Questions across tables."""
