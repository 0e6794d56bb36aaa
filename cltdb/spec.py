"""The experiment as frozen models: the reference for every key of a spec, its unit and its default.

`load` reads cltdb.yaml and a spec, lays one over the other and validates. Parsing is pure: nothing is opened, nothing computed.
Fields marked `RESULT_NEUTRAL` cannot change a result and stay out of stage keys.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cltdb.engine.section import (
    RESULT_NEUTRAL,
    Conflict,
    Count,
    Device,
    Expected,
    Fraction,
    Layer,
    Name,
    Neutral,
    Number,
    Place,
    Positive,
    PositiveNumber,
    Processes,
    Section,
    Sequences,
    Steps,
    Tokens,
    Word,
    real,
    sections_in,
    whole,
)
from cltdb.interchange import FORMATS
from cltdb.train.deepspeed_settings import DeepSpeed

Context = whole(2, 1_048_576, "no model reads more at once")
Positions = whole(1, 1_048_576, "no model reads more at once")
TokenId = whole(0, 2**31 - 1, "no vocabulary has more")
TokenText = Annotated[str, Field(min_length=1, max_length=1000), Expected("a token's text of 1 to 1,000 characters")]
Width = whole(1, 2**27, "no dictionary has more per layer")
ActiveFeatures = real(1e-3, 2**27, "no dictionary has more features per layer")
Contexts = whole(0, 10_000, "more do not fit into memory")
FeaturePlace = Annotated[
    str, Field(pattern=r"^[0-9]{1,4}:[0-9]{1,9}@-?[0-9]{1,7}$"), Expected("LAYER:FEATURE@POSITION, such as 3:120@-1")
]
Beta = real(0, 1, "a mean that decays", below=True)


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


Betas = Annotated[
    tuple[Beta, Beta], BeforeValidator(_as_tuple), Expected("a list of two numbers, from 0 and below 1 (means that decay)")
]


class Model(Section):
    id: Place
    """Hub id, local directory (relative to cltdb.yaml), or `toyworld`, the embedded model."""
    revision: Annotated[Word, Neutral] = "main"
    """Branch, tag or commit of a Hub model; the commit that it stands for enters the key."""
    dtype: Literal["float32", "bfloat16", "float16", "float64", "auto"] = "float32"
    """Number type the model runs in; auto is the one it was saved in."""
    mlp_input: Literal["normed", "residual"] = "normed"
    """What features read: the MLP's normed input, or the residual stream before that norm."""
    device: Annotated[Device, Neutral] = "auto"
    """cpu, cuda, cuda:N, or auto: cuda where there is one."""


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
    """Paths or globs of .txt (documents between blank lines), .jsonl, .json, .csv, .tsv, .parquet and .arrow files, also compressed (.gz, .bz2,
    .xz, .zst, .lz4), relative to cltdb.yaml, or URIs in object storage such as s3://bucket/text/*.jsonl (their size and time stand for their
    content in the stage key). What names a file as it stands is that file, though brackets are in it."""
    toyworld: bool = False
    """The generated text of the toy world: endless, in English, French and German."""
    weight: real(1e-6, 1e6, "relative to the other weights") = 1.0
    """Share of the tokens that come from this source, relative to the other weights."""
    label: Word | None = None
    """A word kept with every token, such as a language code."""
    label_column: Word | None = None
    """Column that holds the label of each document, dotted where it is nested; empty values are no label."""

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
        if columns := [name for name in ("tokens_column", "label_column") if getattr(self, name) is not None and self.toyworld]:
            raise ValueError(f"expected no {columns[0]} with toyworld: true, whose text is generated")
        return self


class Launch(Section):
    processes: Processes = 1
    """Processes per node; more than one are started by DeepSpeed's launcher."""
    nodes: whole(1, 10_000, "no cluster has more") = 1
    """Machines."""
    hostfile: Place | None = None
    """DeepSpeed hostfile, relative to cltdb.yaml; the workspace must be on a file system that all machines share."""


class TrainLaunch(Launch):
    feature_parallel: Processes = 1
    """Processes that share the features of one dictionary; the others have other tokens."""


class Loader(Section):
    shuffle_tokens: Positive = 32_768
    """Tokens that are shuffled among themselves, from blocks all over the cache; enters the key of stage train."""
    memory_mb: Positive = 16_384
    """Most memory that reading training batches may take, whatever the size of the cache (10^6 bytes); it takes what two shuffle pools
    and a few batches need, or one pool where two do not fit."""
    threads: Processes = 2
    """Threads that read and decode."""
    read_ahead: whole(1, 10_000, "more do not fit into memory") = 2
    """Batches that are decoded before they are needed."""


class Activations(Section):
    text: Annotated[list[TextSource], Field(min_length=1)]
    """One or several sources, mixed by weight."""
    context: Context = 256
    """Tokens per sequence, BOS included."""
    special_tokens_in_text: bool = False
    """Whether control tokens that are written out in texts and prompts, such as <|endoftext|>, become these tokens; else they are text like any
    other, but for a BOS that a text brings at its front, which is left out. Chat templates write control tokens in any case."""
    max_bad_documents: Annotated[Fraction, Neutral] = 0.001
    """Share of the documents that may be left out because they are NULL, empty, of another type or no Unicode, at least one unless it is 0; of
    every text that is read. More stop the run."""
    train_tokens: Tokens = 1_000_000
    """Tokens of training text, rounded up to whole sequences; trained on are the ordinary ones (exclude_tokens)."""
    heldout_tokens: Tokens = 50_000
    """Tokens of documents that are never trained on."""
    exclude_tokens: Annotated[list[TokenId | TokenText], Field(max_length=10_000_000)] | None = None
    """Tokens (texts or ids) that are neither trained nor measured on wherever they stand, as whatever stands at position 0 is not: in norms,
    training, FVU, l0, harvest and evaluation. Default BOS and the tokenizer's other special tokens; []: position 0 alone."""
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


class Sparsity(Section):
    coefficient: Number
    """Final coefficient of the tanh penalty (sum over features and layers, mean over tokens)."""


class FineTuning(Section):
    """Steps after the others, through the model whose MLPs the dictionary replaces, errors compounding."""

    steps: Steps = 200
    """Optimizer steps; the last state is exported, not the best on held-out activations."""
    batch_seqs: Sequences = 4
    """Sequences per step."""
    coefficient: PositiveNumber = 1.0
    """Weight of KL(model || replaced model), nats per token, beside the loss of the other steps."""
    learning_rate: PositiveNumber = 2e-4
    """First learning rate, falling linearly to zero."""


class Published(Section):
    format: Literal[tuple(FORMATS)]
    """Whose files they are."""
    path: Place
    """A directory relative to cltdb.yaml, or hf://owner/name, with @revision and /folder as needed."""
    hook_normalized: Literal["after", "before"] | None = None
    """Of features that read ln2.hook_normalized: whether it lies after the norm's gain and bias (TransformerLens up to 2, LayerNorm) or before
    them (since 3.0, and every RMSNorm); default: before for an RMSNorm, measured on a little text for a LayerNorm."""


class Train(Section):
    published: Published | None = Field(default=None, alias="from")
    """A published dictionary instead of training, in the spec `from: {format: …, path: …}`; no other key of train has a use then."""
    kind: Literal["clt", "plt"] = "clt"
    """Cross-layer or per-layer transcoder."""
    skip: bool = False
    """Adds an affine path from MLP input to MLP output of each layer."""
    n_features: Width = 4096
    """Features per layer."""
    layers: Annotated[list[Layer], Field(min_length=1), Expected("a list of one layer or more")] | None = None
    """Only these layers, in rising order: features read and write there, the other MLPs stay as they are; default all."""
    decoder_span: whole(1, 10_000, "no model is deeper") | None = None
    """Features of a clt write only to this many layers (of those trained), their own first; default to all later ones."""
    activation: Literal["batchtopk", "topk", "jumprelu", "relu"] = "batchtopk"
    """batchtopk keeps the l0 largest per token of each batch, with a fixed threshold at inference; topk those of each token, at inference
    too; jumprelu and relu are steered towards l0 by a controller."""
    l0: ActiveFeatures = 10.0
    """Target active features per layer and token."""
    sparsity: Sparsity | None = None
    """A fixed coefficient instead of the target l0 (jumprelu and relu)."""
    batch_tokens: whole(1, 10**8, "a batch is held in memory") = 1024
    """Tokens per optimizer step."""
    epochs: real(1e-9, 10**6, "more would not end") = 1.0
    """Passes over the training tokens."""
    optimizer: Literal["adam", "adam8bit"] = "adam"
    """adam8bit keeps Adam's moments in 8 bits (bitsandbytes, `pip install cltdb[adam8bit]`): 10 bytes per weight instead of 16; in
    float32, at ZeRO stage 0, without feature_parallel."""
    learning_rate: PositiveNumber = 2e-3
    """Peak learning rate of Adam. The default is the best of four at d_model 192 (tests/benchmarks/RESULTS.md); wider models want less."""
    betas: Betas = (0.9, 0.999)
    """Decay rates of Adam's moments."""
    warmup_steps: whole(0, 10**9, "more steps would not end") = 50
    """Steps of linear warm-up."""
    decay_frac: Fraction = 0.3
    """Share of the run, at its end, over which the learning rate falls linearly to zero."""
    gradient_clip: PositiveNumber = 1.0
    """Largest global gradient norm."""
    init_l0: ActiveFeatures = 100.0
    """Active features per layer and token that the encoder bias is calibrated to at the start."""
    threshold_init: PositiveNumber = 0.03
    """First JumpReLU threshold, in training units (inputs of norm sqrt(d_model))."""
    bandwidth: PositiveNumber = 1.0
    """Width of JumpReLU's straight-through window, in training units."""
    tanh_c: PositiveNumber = 4.0
    """Steepness of the tanh penalty."""
    ramp_frac: Fraction = 0.7
    """Share of the run over which the sparsity coefficient rises linearly (with a fixed coefficient)."""
    preact_coefficient: Number = 1e-5
    """Coefficient of the pre-activation penalty (jumprelu)."""
    dead_window_tokens: Tokens | None = None
    """Tokens without firing after which training treats a feature as dead; default 2 % of the run's tokens, at least 20,000."""
    revive_rate: Number = 0.02
    """By how much a dead feature's pre-activation is raised per step until it fires, in training units."""
    aux_coefficient: Number = 0.0
    """Coefficient of an auxiliary loss that lets dead features model the error that is left; revive_rate alone does better."""
    aux_features: Width = 64
    """Dead features per layer and token that the auxiliary loss uses."""
    kl: FineTuning | None = None
    """Fine-tuning of the replaced model's predictions; without feature_parallel."""
    log_every_steps: Annotated[Steps, Neutral] = 10
    """Steps between metric rows."""
    checkpoint_every_steps: Annotated[Steps, Neutral] = 200
    """Steps between checkpoints, the unit that a killed run does not repeat."""
    keep_checkpoints: Annotated[Steps, Neutral] = 1
    """The last so many checkpoints are kept until the run ends, and the best held-out one."""
    heldout_every_steps: Steps = 500
    """Steps between held-out checks; a checkpoint is made at each, and the best at the target l0 is exported."""
    early_stop_checks: Steps | None = None
    """Ends the run when the held-out FVU has not got better for this many checks; default never."""
    wandb: Annotated[Word | None, Neutral] = None
    """A project of Weights & Biases that gets the metrics too (`pip install cltdb[wandb]`); WANDB_MODE=offline keeps them in ./wandb."""
    launch: Annotated[TrainLaunch, Neutral] = TrainLaunch()
    """In how many processes training runs."""
    deepspeed: DeepSpeed = DeepSpeed()
    """Keys of DeepSpeed's configuration (train/deepspeed_settings.py); those of ZeRO and offload stay out of the stage key."""

    @model_validator(mode="after")
    def _published_or_trained(self):
        fields = type(self).model_fields.items()
        others = [name for name, field in fields if name != "published" and getattr(self, name) != field.default]
        if self.published and others:
            raise ValueError(
                f"expected no other key beside train.from, whose dictionary is trained already, found {', '.join(others)}"
            )
        return self

    @model_validator(mode="after")
    def _launch_fits(self):
        world_size, n_shards = self.launch.processes * self.launch.nodes, self.launch.feature_parallel
        if world_size % n_shards:
            raise ValueError(f"expected launch.feature_parallel to divide the {world_size} processes, found {n_shards}")
        if self.n_features % n_shards:
            raise ValueError(f"expected launch.feature_parallel to divide n_features {self.n_features}, found {n_shards}")
        parts = world_size // n_shards * self.deepspeed.gradient_accumulation_steps
        if self.batch_tokens % parts:
            raise ValueError(f"expected batch_tokens that the {parts} parts of a batch share evenly, found {self.batch_tokens}")
        if self.kl and self.kl.batch_seqs % parts:
            raise ValueError(f"expected kl.batch_seqs that the {parts} parts of a batch share evenly, found {self.kl.batch_seqs}")
        if self.kl and n_shards > 1:
            raise ValueError(f"expected no train.kl with launch.feature_parallel, found {n_shards}")
        return self

    @model_validator(mode="after")
    def _optimizer_fits(self):
        stage, half = self.deepspeed.zero_optimization.stage, self.deepspeed.half
        others = (
            [f"ZeRO stage {stage}"] * bool(stage)
            + [half] * bool(half)
            + ["feature_parallel"] * (self.launch.feature_parallel > 1)
        )
        if self.optimizer == "adam8bit" and others:
            raise ValueError(
                f"expected optimizer adam with {others[0]}, whose states are divided or kept in float32, found adam8bit"
            )
        return self

    @model_validator(mode="after")
    def _sparsity_fits(self):
        if self.sparsity and self.activation in ("batchtopk", "topk"):
            raise ValueError(f"expected no sparsity.coefficient with activation {self.activation}, whose l0 is exact")
        at_once = self.batch_tokens // self.deepspeed.gradient_accumulation_steps
        if self.activation == "batchtopk" and self.l0 * at_once < 1:
            raise Conflict(f"expected at least one active feature in {at_once} tokens of a batch, found l0 {self.l0}", "l0")
        if self.activation == "topk" and self.l0 != round(self.l0):
            raise ValueError(f"expected a whole l0 with activation topk, found {self.l0}")
        if self.layers and self.layers != sorted(set(self.layers)):
            raise ValueError(f"expected train.layers in rising order, each once, found {self.layers}")
        if self.kind == "plt" and self.decoder_span not in (None, 1):
            raise ValueError(f"expected no decoder_span with kind plt, which writes to its own layer, found {self.decoder_span}")
        if self.l0 > self.n_features:
            raise ValueError(f"expected l0 at most n_features, found {self.l0} of {self.n_features}")
        return self


class Evaluate(Section):
    text: Annotated[list[TextSource], Field(min_length=1)] | None = None
    """Text to evaluate on instead of the held-out documents of the activations' text: all of it but documents that the dictionary was trained
    on, word for word. What a published dictionary was trained on is not known here."""
    tokens: Tokens | None = None
    """Tokens to evaluate on; default all of activations.heldout_tokens."""
    dense_above: Fraction = 0.1
    """Density above which a feature counts as dense."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences per forward pass."""


class Harvest(Section):
    text: Annotated[list[TextSource], Field(min_length=1)] | None = None
    """Text to read, all of its documents; default the activations' text without its held-out documents."""
    tokens: Tokens = 1_000_000
    """Tokens to read; fewer than 200,000 are too few to call a feature dead."""
    top: whole(1, 10_000, "more do not fit into memory") = 20
    """Contexts of highest activation per feature."""
    per_quantile: whole(1, 10_000, "more do not fit into memory") = 5
    """Contexts sampled per quantile of a feature's activations."""
    n_quantiles: whole(1, 1_000, "more do not fit into memory") = 5
    """Quantiles; the highest is the last."""
    window: whole(2, 65_536, "more do not fit into memory") = 32
    """Tokens per context; a window never crosses documents."""
    pool_windows: whole(1, 10**7, "more do not fit into memory") = 4000
    """Random windows kept with all their activations: negatives for scoring."""
    feature_edges: Contexts = 10
    """Edges to features of other layers kept per feature and direction, the strongest by |TWERA|, and half as many by |virtual weight|
    alone; 0: none."""
    coactivation_tokens: Tokens = 200_000
    """Ordinary tokens, drawn uniformly, over which co-activation is summed exactly. It takes 12 bytes of disk per firing at them until the pass
    ends, and time that grows with the tokens times the square of the features active per token."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences per forward pass."""
    launch: Annotated[Launch, Neutral] = Launch()
    """Processes that share the text; at most 32 are of use."""


class Features(Section):
    top_by: Literal["density", "max_activation", "layer"] = "density"
    """Order in which features are explained."""
    limit: Positive | None = None
    """At most this many features; default all live ones."""


class Explain(Section):
    model: Word = "cltdb-rules/v1"
    """A litellm model, or `cltdb-rules/v1`: deterministic rules, no network, no language model."""
    features: Features = Features()
    """Which features."""
    scorers: Annotated[list[Literal["detection", "fuzzing"]], Field(min_length=1)] = ["detection", "fuzzing"]
    """How explanations are scored."""
    max_cost_usd: Annotated[real(0, 10**6, "US dollars") | None, Neutral] = None
    """Budget for replies that this artifact has to ask for; those that are there cost nothing again. What is left over gets the status
    skipped_budget, or a score of NULL; raised, with `--force explain`, the rest is done."""

    @model_validator(mode="after")
    def _each_once(self):
        if len(set(self.scorers)) < len(self.scorers):
            raise ValueError(f"expected each scorer once, found {', '.join(self.scorers)}")
        return self


class Prompt(Section):
    id: Name | None = None
    """Short name: letters, digits, dot, dash, underscore; default a slug of the text and a hash."""
    text: str | None = None
    """The prompt; BOS is put in front."""
    messages: list[dict[str, str]] | None = None
    """A chat instead, through the tokenizer's chat template."""
    target: (
        Annotated[
            str
            | Annotated[list[str], Field(min_length=1), Expected("one word or more")]
            | Annotated[dict[str, PositiveNumber], Field(min_length=1), Expected("one word or more, each with its weight")],
            Expected("a word (quoted, where it looks like something else), a list of them, or {word: weight}"),
        ]
        | None
    ) = None
    """The token whose logit is explained, or several, instead of the most probable ones. As `{" Paris": 2, " Rome": 1}` with their weights
    in influence, which count relative to their sum; else these are the model's probabilities."""
    foil: str | None = None
    """With one target: explain the difference of the two logits."""
    position: whole(-(2**20), 2**20, "no model reads more at once") | None = None
    """Where the target is read instead of the prompt's end: 1, 2, … (0 is BOS), or counted from the end where negative."""
    target_feature: FeaturePlace | None = None
    """An active feature to explain instead of logits: LAYER:FEATURE@POSITION, such as `3:120@-1`."""

    @model_validator(mode="after")
    def _one_kind(self):
        if (self.text is None) == (self.messages is None):
            raise ValueError("expected exactly one of text, messages")
        for message in self.messages or []:
            if not {"role", "content"} <= message.keys():
                raise ValueError(f"expected a role and a content in every message, found {message}")
        if self.messages == []:
            raise ValueError("expected one message or more, found none")
        if self.foil is not None and not isinstance(self.target, str):
            raise ValueError("expected one target beside the foil")
        if self.target_feature is not None and (self.target is not None or self.position is not None):
            raise ValueError("expected target_feature alone, without target, foil or position")
        if self.foil is not None and self.foil == self.target:
            raise ValueError(f"expected a foil other than the target, found {self.foil!r} twice")
        if self.text is not None and not self.text.strip():
            raise ValueError("expected a prompt with some text, found an empty prompt")
        return self


class PromptFile(Section):
    file: Place
    """A .jsonl file, one prompt per line, relative to cltdb.yaml."""


class Attribute(Section):
    prompts: Annotated[list[Prompt] | PromptFile, Expected("a list of prompts, or {file: FILE}")] = []
    """The prompts to explain."""
    max_features: Positive | None = None
    """Features whose incoming edges are computed, by influence; default all."""
    max_edges: whole(1, 10**11, "they are held in memory") = 200_000_000
    """Edges of a graph that are held at once, 12 bytes each; of more, the strongest are kept and the rest is their target's dropped mass, which
    the scores count as error."""
    node_threshold: Fraction = 0.8
    """Share of influence that the kept nodes make up."""
    edge_threshold: Fraction = 0.98
    """Share of influence that the kept edges make up."""
    check_edges: Count = 0
    """Edges per graph that are compared with real interventions."""
    ablations: Count = 20
    """Features per graph that are ablated, most influential first, in the replacement model (graphs.ablation_spearman compares influence
    with what that does) and in the model itself (named query compare_graphs)."""
    sweep: list[Fraction] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    """Further node thresholds at which each graph is pruned: table prune_curves."""
    supernode_similarity: Fraction = 0.4
    """How similar, on average, the kept features of one group are that share a token position (geometric mean of the cosines of what they
    write and of their edges): table supernodes; 0: no groups."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type in which graphs are computed: float32 (float64 where the model is), or bfloat16, with half the memory and three digits:
    README says how far its graphs differ."""
    constant_positions: Positions = 1
    """The first so many positions of a prompt (BOS, or a chat's prefix that all chats share: 4 for Gemma 3 -it) are constants of the prompt:
    embeddings but neither features nor errors, in graphs and interventions; their MLP outputs are booked in `bias`."""
    launch: Annotated[Launch, Neutral] = Launch()
    """Processes that share the prompts."""


class Database(Section):
    path: Place = "cltdb.duckdb"
    """The DuckDB file, relative to cltdb.yaml."""


class ProjectPaths(Section):
    """Where things are: what cltdb.yaml says beside defaults for every experiment."""

    workspace: Place = "artifacts"
    """The folder of every artifact, relative to cltdb.yaml."""
    database: Database = Database()
    """Where the database is."""


class Experiment(Section):
    elsewhere = {"workspace": "write it in cltdb.yaml", "database": "write it in cltdb.yaml"}

    name: Name
    """Short name: letters, digits, dot, dash, underscore."""
    seed: whole(0, 2**63 - 1, "what 64 bits hold") = 0
    """Seed of everything random."""
    model: Model
    """The language model."""
    activations: Activations
    """Its text, and how activations are cached."""
    train: Train = Train()
    """The dictionary and its training."""
    evaluate: Evaluate = Evaluate()
    """How well the dictionary stands for the model."""
    harvest: Harvest = Harvest()
    """Where features fire: contexts, statistics, edges."""
    explain: Explain = Explain()
    """What features mean, in words with scores."""
    attribute: Attribute = Attribute()
    """Graphs of how prompts are answered."""
    sweep: dict[str, Any] = {}
    """Lists of values per key, such as `{train.l0: [5, 10]}`: the grid of experiments to run instead of one (sweeps.py)."""

    @model_validator(mode="after")
    def _half_precision_fits(self):
        if self.train.deepspeed.half == "fp16" and self.model.device == "cpu":
            raise Conflict("expected a GPU for float16 (on a CPU bf16), found model.device cpu", "train", "deepspeed", "fp16")
        return self

    @model_validator(mode="after")
    def _windows_fit(self):
        most = max(self.activations.context, Harvest().window)  # the default is cut to shorter sequences
        if self.harvest.window > most:
            raise Conflict(
                f"expected at most {most}, as a window never leaves its sequence (activations.context), found {self.harvest.window}",
                "harvest",
                "window",
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_cache_for_a_published_dictionary(cls, values):
        """Without training nothing reads cached activations."""
        train, activations = (values.get(name) for name in ("train", "activations")) if isinstance(values, dict) else (None, None)
        if isinstance(train, dict) and train.get("from") and isinstance(activations, dict):
            return {**values, "activations": {"mode": "stream", **activations}}
        return values

    def own_text(self, stage):
        """The text that stage evaluate or harvest reads instead of the activations' text, or None."""
        text = getattr(self, stage).text
        return None if text == self.activations.text else text


class ProjectFile(ProjectPaths, Experiment):
    """All keys of cltdb.yaml."""

    elsewhere = {}


def result_settings(section):
    """A section as JSON values without the fields that cannot change a result: what enters a stage key."""
    neutral = {name for name, field in type(section).model_fields.items() if (field.json_schema_extra or {}).get(RESULT_NEUTRAL)}
    settings = {}
    for name, field in type(section).model_fields.items():
        if name not in neutral:
            settings[field.alias or name] = _plain(getattr(section, name))
    if isinstance(section, Train):
        settings["deepspeed"] = section.deepspeed.result_settings()
    if isinstance(section, Attribute):
        if section.dtype == "float32":
            del settings["dtype"]  # graphs from before there was a choice keep their keys
        if section.max_features is not None:
            settings["expansion"] = 2  # how the most influential features are found; raised when others would be
    return settings


def _plain(value):
    if isinstance(value, Section):
        return result_settings(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def docstring(path, section=Experiment):
    """What the docstring of a key says, on one line; None where it has none. path: keys and indices from a section on."""
    text = None
    for key in path:
        if isinstance(key, str):
            fields = {field.alias or name: field for name, field in section.model_fields.items()} if section else {}
            field = fields.get(key)
            text = field.description if field else None
            section = next(sections_in(field.annotation), None) if field else None
    return text and " ".join(text.split())
