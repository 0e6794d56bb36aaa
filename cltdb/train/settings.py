"""Section `train` of a spec."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cltdb.engine.section import (
    Added,
    Conflict,
    Expected,
    Fraction,
    Launch,
    Layer,
    Neutral,
    Number,
    Place,
    PositiveNumber,
    Processes,
    Section,
    Sequences,
    Steps,
    Tokens,
    Word,
    real,
    whole,
)
from cltdb.interchange import FORMATS
from cltdb.model.kinds import KINDS, MLP_OUTPUT, READS
from cltdb.train.deepspeed_settings import DeepSpeed

Width = whole(1, 2**27, "no dictionary has more per layer")
ActiveFeatures = real(1e-3, 2**27, "no dictionary has more features per layer")
Beta = real(0, 1, "a mean that decays", below=True)


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


Betas = Annotated[
    tuple[Beta, Beta], BeforeValidator(_as_tuple), Expected("a list of two numbers, from 0 and below 1 (means that decay)")
]


class TrainLaunch(Launch):
    feature_parallel: Processes = 1
    """Processes that share the features of one dictionary; the others have other tokens."""


class Sparsity(Section):
    coefficient: Number
    """Final coefficient of the tanh penalty (sum over features and layers, mean over tokens)."""


class Orthogonality(Section):
    """A penalty on the mean squared cosine of pairs of decoders (train/orthogonality.py has the definitions)."""

    coefficient: Number = 1.0
    """Its weight, in units of the reconstruction loss: with 1 a mean squared cosine of 0.01 costs as much as an FVU of 0.01."""
    scope: Literal["source", "target"] = "source"
    """Which features are compared: those that read in one layer, by their decoders to all layers they write to, concatenated; or those of
    all layers that write to one, by their decoders to it, as they interfere there. Of a plt and an sae both are the same."""
    sample: whole(2, 2**20, "more would cost more than the rest of a step") = 1024
    """Decoders, one per feature and layer that it writes to, that a step draws of each layer; unbiased whatever their number."""
    weight_by: Literal["none", "coactivation"] = "none"
    """none: all pairs weigh the same. coactivation: as often as both fire on one token of the batch, so that only features that are active
    together have to be orthogonal."""
    normalize: bool = True
    """false: dot products (in training units) instead of cosines, the published form, which smaller decoders satisfy too."""


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
    """Of features that read ln2.hook_normalized: whether that lies after the norm's gain and bias (LayerNorm, TransformerLens up
    to 2) or before them (since 3.0, and every RMSNorm). Default: before for an RMSNorm; for a LayerNorm it is measured on a
    little text."""


class Train(Section):
    """The dictionary and its training."""

    elsewhere = {
        **dict.fromkeys(("lr", "learning_rates"), "write 'learning_rate'"),
        **dict.fromkeys(("k", "top_k", "topk"), "write 'l0': active features per layer and token"),
        **dict.fromkeys(("steps", "n_steps", "max_steps"), "write 'epochs': passes over the training tokens"),
        **dict.fromkeys(
            ("width", "d_sae", "dict_size", "expansion", "expansion_factor"), "write 'n_features': features per layer"
        ),
        **dict.fromkeys(("lambda", "l1", "l1_coefficient", "coefficient"), "write 'sparsity: {coefficient: …}'"),
    }
    published: Published | None = Field(default=None, alias="from")
    """A published dictionary instead of training, in the spec `from: {format: …, path: …}`. No other key of train may stand
    beside it."""
    start: Annotated[Place | None, Neutral] = None
    """A finished dictionary to go on from: its dict_id, an experiment (the last that it has finished), or a folder with dictionary.json,
    relative to cltdb.yaml. Of the same model, kind, activation, layers and sizes. init_l0 and threshold_init have no use then."""
    kind: Literal[tuple(KINDS)] = "clt"
    """Cross-layer transcoder, per-layer transcoder, or a sparse autoencoder per layer, the baseline that transcoders are compared with."""
    reads: Annotated[Literal[READS] | None, Added] = None
    """What an sae reads and reconstructs: mlp_output (the default), or, as model.mlp_input says, mlp_input (normed) or residual. Transcoders
    read the MLP input and write the MLP output."""
    skip: bool = False
    """Adds an affine path from MLP input to MLP output of each layer."""
    n_features: Width = 4096
    """Features per layer."""
    layers: Annotated[list[Layer], Field(min_length=1), Expected("a list of one layer or more")] | None = None
    """Only these layers, in rising order: features read and write there, the other MLPs stay as they are; default all."""
    decoder_span: whole(1, 10_000, "no model is deeper") | None = None
    """Features of a clt write only to this many layers (of those trained), their own first; default to all later ones."""
    activation: Literal["batchtopk", "topk", "jumprelu", "relu"] = "batchtopk"
    """batchtopk keeps in each layer the largest of a batch, l0 per token on average, and has a fixed threshold at inference. topk
    keeps the l0 largest of each token, at inference too. jumprelu and relu are steered towards l0 by a controller."""
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
    """Peak learning rate of Adam. The default is that of a model of d_model 192 (tests/benchmarks/RESULTS.md); wider models want
    less."""
    betas: Betas = (0.9, 0.999)
    """Decay rates of Adam's moments."""
    weight_decay: Annotated[Number | None, Added] = None
    """AdamW's: of encoders and decoders a step takes away this share, times the learning rate. 0 takes nothing, and the last state is exported as with
    any other."""
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
    orthogonality: Annotated[Orthogonality | None, Added] = None
    """A penalty that makes decoders orthogonal."""
    kl: FineTuning | None = None
    """Fine-tuning of the replaced model's predictions; without feature_parallel."""
    log_every_steps: Annotated[Steps, Neutral] = 10
    """Steps between metric rows."""
    checkpoint_every_steps: Annotated[Steps, Neutral] = 200
    """Steps between checkpoints, the unit that a killed run does not repeat."""
    keep_checkpoints: Annotated[Steps, Neutral] = 1
    """How many of the last checkpoints are kept until the run ends, beside the best held-out one."""
    heldout_every_steps: Steps = 500
    """Steps between held-out checks; a checkpoint is made at each, and the best at the target l0 is exported. The last state is the result
    with sparsity, kl, start, weight_decay or orthogonality, whatever their value: also 0."""
    early_stop_checks: Steps | None = None
    """Ends the run when the held-out FVU has not got better for this many checks; default never. Without effect where the last state is
    the result (heldout_every_steps)."""
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
        shards = "launch", "feature_parallel"
        if world_size % n_shards:
            raise Conflict(f"expected a number that divides the {world_size} processes, found {n_shards}", *shards)
        if self.n_features % n_shards:
            raise Conflict(f"expected a number that divides n_features {self.n_features}, found {n_shards}", *shards)
        parts = world_size // n_shards * self.deepspeed.gradient_accumulation_steps
        if self.batch_tokens % parts:
            raise Conflict(
                f"expected tokens that the {parts} parts of a batch share evenly, found {self.batch_tokens}", "batch_tokens"
            )
        if self.kl and self.kl.batch_seqs % parts:
            found = self.kl.batch_seqs
            raise Conflict(
                f"expected sequences that the {parts} parts of a batch share evenly, found {found}", "kl", "batch_seqs"
            )
        if self.kl and n_shards > 1:
            raise Conflict(f"expected 1 with train.kl, which no two processes share, found {n_shards}", *shards)
        return self

    @model_validator(mode="after")
    def _kind_fits(self):
        reconstructs = KINDS[self.kind].reconstructs
        if self.reads and not reconstructs:
            raise Conflict(f"expected kind sae with reads: a {self.kind} reads the MLP input, found {self.reads}", "reads")
        if reconstructs and self.skip:
            raise Conflict("expected no skip with kind sae, which would be reconstructed by it alone, found true", "skip")
        if self.kl and reconstructs and self.place != MLP_OUTPUT:
            raise Conflict(f"expected reads mlp_output with train.kl, which replaces MLP outputs, found {self.place}", "kl")
        return self

    @property
    def exports_last(self):
        """Whether the last state is the result rather than the best held-out one: of a fixed sparsity, which has no target l0, and wherever
        something beside the reconstruction is asked for, which the held-out FVU would undo. Weight decay and orthogonality count at 0
        too: so all points of a sweep over them have one rule."""
        return any((self.sparsity, self.kl, self.orthogonality, self.start)) or self.weight_decay is not None

    @property
    def place(self):
        """What an sae reads and reconstructs, one of `kinds.READS`; None of a transcoder."""
        return (self.reads or MLP_OUTPUT) if KINDS[self.kind].reconstructs else None

    @model_validator(mode="after")
    def _optimizer_fits(self):
        stage, half = self.deepspeed.zero_optimization.stage, self.deepspeed.half
        others = (
            [f"ZeRO stage {stage}"] * bool(stage)
            + [half] * bool(half)
            + ["feature_parallel"] * (self.launch.feature_parallel > 1)
        )
        if self.optimizer == "adam8bit" and others:
            message = f"expected adam with {others[0]}, whose states are divided or kept in float32, found adam8bit"
            raise Conflict(message, "optimizer")
        return self

    @model_validator(mode="after")
    def _sparsity_fits(self):
        if self.sparsity and self.activation in ("batchtopk", "topk"):
            message = f"expected none with activation {self.activation}, whose l0 is exact, found {self.sparsity.coefficient:g}"
            raise Conflict(message, "sparsity", "coefficient", do="remove it, or choose activation jumprelu or relu")
        at_once = self.batch_tokens // self.deepspeed.gradient_accumulation_steps
        if self.activation == "batchtopk" and self.l0 * at_once < 1:
            raise Conflict(f"expected at least one active feature in {at_once} tokens of a batch, found l0 {self.l0}", "l0")
        if self.activation == "topk" and self.l0 != round(self.l0):
            raise Conflict(f"expected a whole number with activation topk, found {self.l0}", "l0")
        if self.layers and self.layers != sorted(set(self.layers)):
            message = f"expected layers in rising order, each once, found {self.layers}"
            raise Conflict(message, "layers", do=f"write {sorted(set(self.layers))}")
        if not KINDS[self.kind].spans and self.decoder_span not in (None, 1):
            message = f"expected none with kind {self.kind}, which writes to its own layer, found {self.decoder_span}"
            raise Conflict(message, "decoder_span", do="remove it")
        if self.orthogonality and self.n_features < 2:
            raise Conflict("expected at least 2 features per layer with orthogonality, found 1", "n_features")
        if self.l0 > self.n_features:
            raise Conflict(f"expected at most the {self.n_features:,} of n_features, found {self.l0:g}", "l0")
        return self
