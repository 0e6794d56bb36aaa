"""Section `activations` of a spec, and the sources of text that other sections name too."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cltdb.engine.section import (
    Expected,
    Fraction,
    Launch,
    Neutral,
    Place,
    Positive,
    Processes,
    Section,
    Sequences,
    Tokens,
    Word,
    real,
    whole,
)

Context = whole(2, 1_048_576, "no model reads more at once")
TokenId = whole(0, 2**31 - 1, "no vocabulary has more")
TokenText = Annotated[str, Field(min_length=1, max_length=1000), Expected("a token's text of 1 to 1,000 characters")]


class TextSource(Section):
    dataset: Place | None = None
    """Hugging Face dataset: Hub id or local directory."""
    config: Word | None = None
    """Configuration name of the dataset."""
    revision: Annotated[str | None, Neutral] = None
    """Branch, tag or commit of a Hub dataset, default its main branch; the commit that it stands for enters the key."""
    split: Word = "train"
    """Split of the dataset."""
    column: Word = "text"
    """Column that holds the text, of a dataset or of any file but .txt; dotted where it is nested: `meta.body`."""
    tokens_column: Word | None = None
    """Column that holds lists of token ids of this model instead of text."""
    streaming: bool = False
    """Read the dataset as a stream, in its own order, instead of downloading and shuffling it."""
    files: Annotated[list[Place], Field(min_length=1), Expected("a list of one path or more")] | None = None
    """Paths or globs, relative to cltdb.yaml, of .txt (documents between blank lines), .jsonl, .json, .csv, .tsv, .parquet and
    .arrow files, also compressed (.gz, .bz2, .xz, .zst, .lz4). Or URIs in object storage such as s3://bucket/text/*.jsonl; in the
    stage key their size and time stand for their content. A name that is a file is that file, even with brackets in it."""
    toyworld: bool = False
    """The generated text of the toy world: endless, in English, French and German."""
    weight: real(1e-6, 1e6, "relative to the other weights") = 1.0
    """Share of the tokens that come from this source, relative to the other weights."""
    label: Word | None = None
    """A word kept with every token, such as a language code. Where the text names labels (a label_column, or sources with different
    labels), harvest and evaluate also count each label on its own."""
    label_column: Word | None = None
    """Column that holds the label of each document, dotted where it is nested; empty values are no label. `language` with toyworld: true,
    whose documents with sentences in all three languages have no label then."""

    @model_validator(mode="after")
    def _one_kind(self):
        if sum((self.dataset is not None, self.files is not None, self.toyworld)) != 1:
            raise ValueError("expected exactly one of dataset, files, toyworld: true")
        if self.label is not None and self.label_column is not None:
            raise ValueError(f"expected label or label_column, found label {self.label} and label_column {self.label_column}")
        if self.tokens_column is not None and self.column != "text":
            raise ValueError(
                f"expected column or tokens_column, found column {self.column} and tokens_column {self.tokens_column}"
            )
        if self.toyworld and self.tokens_column is not None:
            raise ValueError("expected no tokens_column with toyworld: true, whose text is generated")
        if self.toyworld and self.label_column not in (None, "language"):
            raise ValueError(f"expected label_column: language with toyworld: true, found {self.label_column}")
        return self


class Loader(Section):
    shuffle_tokens: Positive = 32_768
    """Tokens that are shuffled among themselves, from blocks all over the cache; enters the key of stage train."""
    memory_mb: Positive = 16_384
    """Most memory that reading training batches may take, in 10^6 bytes, whatever the size of the cache. Two shuffle pools and a
    few batches are held, or one pool where two do not fit."""
    threads: Processes = 2
    """Threads that read and decode."""
    read_ahead: whole(1, 10_000, "more do not fit into memory") = 2
    """Batches that are decoded before they are needed."""


class Activations(Section):
    """Its text, and how activations are cached."""

    text: Annotated[list[TextSource], Field(min_length=1)]
    """One or several sources, mixed by weight."""
    context: Context = 256
    """Tokens per sequence, BOS included."""
    special_tokens_in_text: bool = False
    """Whether control tokens that are written out in texts and prompts, such as <|endoftext|>, become these tokens. If not, they
    are text like any other, except that a BOS at the front of a text is left out. Chat templates write control tokens in any
    case."""
    max_bad_documents: Annotated[Fraction, Neutral] = 0.001
    """Share of the documents of a text that may be left out because they are NULL, empty, of another type or no Unicode. A single
    one may always be, unless this is 0. More stop the run."""
    train_tokens: Tokens = 1_000_000
    """Tokens of training text, rounded up to whole sequences. Only the ordinary ones are trained on (exclude_tokens)."""
    heldout_tokens: Tokens = 50_000
    """Tokens of documents that are never trained on."""
    exclude_tokens: Annotated[list[TokenId | TokenText], Field(max_length=10_000_000)] | None = None
    """Tokens (texts or ids) that are neither trained nor measured on, wherever they stand: in norms, training, FVU, l0, harvest
    and evaluation. Default: BOS and the tokenizer's other special tokens. []: none. Whatever stands at position 0 is always left
    out."""
    mode: Literal["cache", "stream"] = "cache"
    """cache: shards on disk. stream: no disk, the model runs while training."""
    codec: Literal["float32", "bfloat16", "int8", "int4"] = "int8"
    """How cached values are stored."""
    compression: Literal["zstd", "lz4", "none"] = "none"
    """Compression of the shards; int8 values gain little from it."""
    shard_tokens: whole(1, 10**8, "a shard is made in memory") = 65_536
    """Tokens per shard, the unit that a killed run does not repeat."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences per forward pass."""
    storage: Annotated[Place | None, Neutral] = None
    """Where the shards go instead of the workspace: a folder relative to cltdb.yaml, or object storage such as s3://bucket/folder."""
    loader: Annotated[Loader, Neutral] = Loader()
    """How training batches are read."""
    launch: Annotated[Launch, Neutral] = Launch()
    """In how many processes the cache is written."""

    @property
    def heldout_frac(self):
        """Share of the documents that is held out: that of the tokens, and a third more so that the training text never waits for
        it."""
        return min(0.5, 4 / 3 * self.heldout_tokens / (self.train_tokens + self.heldout_tokens))
