"""Section `database` of cltdb.yaml."""

from typing import Annotated

from pydantic import Field

from cltdb.engine.section import Expected, Place, Processes, Section, Server, Variable, Word, whole

Size = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})? ?(MB|GB|TB)$"), Expected("a size such as 8GB or 500MB")]


class Search(Section):
    """How `cltdb search` finds features by meaning, beside words and what is learnt from the database's own text."""

    embeddings: Word | None = None
    """A litellm model of embeddings, such as `openai/text-embedding-3-small`. Explanations are embedded when they are loaded, each text once, and
    what is searched for when it is asked. Default none: nothing is sent anywhere."""
    api_base: Server | None = None
    """Address of a server that speaks OpenAI's protocol, for `embeddings: openai/NAME`."""
    api_key_env: Variable | None = None
    """Environment variable that holds the key. Default: the provider's own, such as OPENAI_API_KEY; with `api_base`, none."""
    dimensions: whole(1, 16_384, "no model has more") | None = None
    """Length of a vector, where the model lets one choose: 4 bytes of the database each. 256 are enough for a million features; default the model's."""

    glossary: Place | None = None
    """Text file, relative to cltdb.yaml, that says what words for kinds of things mean, one kind a line: `weekday, day of the week: monday tuesday`.
    It adds to the glossary that comes with cltdb; a kind that it names has its instances alone, or none."""

    @property
    def model(self):
        """The model of embeddings, as sections that name a language model call it."""
        return self.embeddings

    @property
    def vectors(self):
        """What vectors are known by in the database: other settings give others."""
        more = [f"{self.dimensions} dimensions"] * bool(self.dimensions) + [f"at {self.api_base}"] * bool(self.api_base)
        return ", ".join([self.embeddings, *more])


class Database(Section):
    """Where the database is, what each process that asks it may take, and how it is searched."""

    path: Place = "cltdb.duckdb"
    """The DuckDB file, relative to cltdb.yaml."""
    memory_limit: Size | None = None
    """Most memory that the questions of a process take, such as 8GB; larger sorts and joins go through the disk. Default 3.5GB, or half of the
    machine's memory where that is less."""
    threads: Processes | None = None
    """Threads that answer the questions of a process; default one per core."""
    search: Search = Search()
    """Search by meaning."""
