"""What users make in the browser: pinned nodes, groups, names, labels, notes, lists. No torch, no database.

Each graph, and the features of each dictionary, have a log: `<workspace>/annotations/graphs/*.jsonl` and `…/features/*.jsonl`, to which
events are appended and in which nothing is ever changed. A state is what a pure function makes of the events (`state.py`), so several
browsers can work at once and nothing that any of them did is lost. The rows of the database are made from the logs.
"""
