"""Stage `match`: which features of two dictionaries are the same."""
