"""Section `database` of cltdb.yaml."""

from typing import Annotated

from pydantic import Field

from cltdb.engine.section import Expected, Place, Processes, Section

Size = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})? ?(MB|GB|TB)$"), Expected("a size such as 8GB or 500MB")]


class Database(Section):
    """Where the database is, and what each process that asks it may take; neither changes an answer."""

    path: Place = "cltdb.duckdb"
    """The DuckDB file, relative to cltdb.yaml."""
    memory_limit: Size | None = None
    """Most memory that the questions of a process take, such as 8GB; larger sorts and joins go through the disk. Default 4GB, or half of the
    machine's memory where that is less."""
    threads: Processes | None = None
    """Threads that answer the questions of a process; default one per core."""
