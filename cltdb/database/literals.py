"""Values as literals of SQL, and names, where a statement takes no parameters."""

import re


def quoted(value):
    """The value as a text."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(*names):
    """A name, within those before it, such as its schema."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def path_literal(path, pattern=""):
    """The path of a file to read, in which brackets, stars and question marks are no pattern; `pattern`: what follows and is one."""
    return quoted(re.sub(r"([*?\[])", r"[\1]", str(path)) + pattern)
