"""Values as literals of SQL, where a statement takes no parameters."""

import re


def quoted(value):
    """The value as a text."""
    return "'" + str(value).replace("'", "''") + "'"


def path_literal(path, pattern=""):
    """The path of a file to read, in which brackets, stars and question marks are no pattern; `pattern`: what follows and is one."""
    return quoted(re.sub(r"([*?\[])", r"[\1]", str(path)) + pattern)
