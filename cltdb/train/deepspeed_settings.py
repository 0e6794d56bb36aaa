"""The keys of DeepSpeed's configuration that cltdb passes on: those that have an effect on its training, and no others.

What is left out keeps DeepSpeed's own default. Everything else that DeepSpeed knows is either said by a key of `train`, has no effect
here (logging, since its loggers are silent; activation checkpointing), or has not been tried with cltdb's engine. A test compares names
and types with DeepSpeed's classes; importing this module imports neither DeepSpeed nor torch.
Source: DeepSpeed 0.19, runtime/zero/config.py, runtime/zero/offload_config.py, runtime/precision_config.py.
"""

from typing import Annotated, Literal

from pydantic import model_validator

from cltdb.engine.section import Conflict, Neutral, Place, Section, real, whole

Elements = whole(0, 10**12, "no tensor has more elements")
Buffers = whole(1, 10_000, "more do not fit into memory")


class OffloadParam(Section):
    """ZeRO 3: weights that are not in use."""

    device: Literal["none", "cpu", "nvme"] = "none"
    """Where they are."""
    nvme_path: Place | None = None
    """Folder on a local disk, with device nvme."""
    buffer_count: Buffers | None = None
    """Buffers for reading from nvme."""
    buffer_size: Elements | None = None
    """Elements of such a buffer."""
    max_in_cpu: Elements | None = None
    """Elements kept in memory, with device nvme."""
    pin_memory: bool | None = None
    """Whether memory is page-locked."""

    @model_validator(mode="after")
    def _device_fits(self):
        return _on_its_device(self)


class OffloadOptimizer(Section):
    """Adam's moments and float32 weights."""

    device: Literal["none", "cpu", "nvme"] = "none"
    """Where they are."""
    nvme_path: Place | None = None
    """Folder on a local disk, with device nvme."""
    buffer_count: Buffers | None = None
    """Buffers for reading from nvme."""
    pin_memory: bool | None = None
    """Whether memory is page-locked."""
    pipeline_read: bool | None = None
    """Whether the next part is read from nvme while one is computed."""
    pipeline_write: bool | None = None
    """Whether the last part is written to nvme while one is computed."""

    @model_validator(mode="after")
    def _device_fits(self):
        return _on_its_device(self)


def _on_its_device(offload):
    """Refuses an offload whose keys its device has no use for, or without the one that it needs."""
    if offload.device == "nvme" and offload.nvme_path is None:
        raise Conflict("expected a folder with device nvme, found nothing", "nvme_path")
    for key in offload.model_dump(exclude={"device"}, exclude_none=True):
        if offload.device == "none" or offload.device == "cpu" and key != "pin_memory":
            needed = "cpu or nvme" if key == "pin_memory" else "nvme"
            raise Conflict(f"expected it with device {needed}, found device {offload.device}", key)
    return offload


class Zero(Section):
    """What the processes of a training divide among themselves; no key changes a result by more than rounding."""

    stage: whole(0, 3, "0: nothing, 1: optimizer states, 2: gradients too, 3: weights too") = 0
    """0: nothing is divided, 1: optimizer states, 2: gradients too, 3: weights too."""
    contiguous_gradients: bool | None = None
    """Copies gradients into one buffer as they arise."""
    reduce_scatter: bool | None = None
    """Sums gradients by reduce-scatter instead of all-reduce."""
    reduce_bucket_size: Elements | None = None
    """Elements that are summed at once."""
    allgather_partitions: bool | None = None
    """Collects weights by all-gather instead of broadcasts."""
    allgather_bucket_size: Elements | None = None
    """Elements that are collected at once."""
    overlap_comm: bool | None = None
    """Sums gradients while others are computed."""
    round_robin_gradients: bool | None = None
    """Spreads copying of gradients to the CPU over the processes."""
    sub_group_size: Elements | None = None
    """Elements of which the optimizer makes a step at once (stage 3)."""
    stage3_prefetch_bucket_size: Elements | None = None
    """Elements fetched ahead."""
    stage3_param_persistence_threshold: Elements | None = None
    """Smaller tensors are not divided."""
    stage3_max_live_parameters: Elements | None = None
    """Elements that a process holds whole at once."""
    stage3_max_reuse_distance: Elements | None = None
    """Weights needed again within so many elements are kept."""
    offload_param: OffloadParam | None = None
    """Weights elsewhere (stage 3)."""
    offload_optimizer: OffloadOptimizer | None = None
    """Optimizer states elsewhere (stages 1 to 3)."""


class BFloat16(Section):
    """Weights and arithmetic in bfloat16, float32 weights in the optimizer; ZeRO stage 1 or more."""

    enabled: bool = False
    """Whether it is so."""


class Float16(Section):
    """Weights and arithmetic in float16 on a GPU, float32 weights in the optimizer; ZeRO stage 1 or more."""

    enabled: bool = False
    """Whether it is so."""
    loss_scale: real(0, 2**40, "float16 holds no more") | None = None
    """Factor of the loss; 0: found while training."""
    initial_scale_power: whole(0, 40, "float16 holds no more") | None = None
    """The first factor found is 2 to this power."""
    loss_scale_window: whole(1, 10**9, "more steps would not end") | None = None
    """Steps without overflow after which the factor doubles."""
    hysteresis: whole(1, 10**6, "more steps would not end") | None = None
    """Overflows before the factor is halved."""
    consecutive_hysteresis: bool | None = None
    """Whether a step without overflow starts that count anew."""
    min_loss_scale: whole(0, 2**40, "float16 holds no more") | None = None
    """The least factor."""


class DataTypes(Section):
    """Number types beside those of the weights."""

    grad_accum_dtype: Literal["fp32"] | None = None
    """With bf16: gradients are summed in float32 instead of bfloat16."""


class DeepSpeed(Section):
    """What is left out keeps DeepSpeed's own default."""

    elsewhere = {
        "optimizer": "set train.optimizer, train.learning_rate and train.betas",
        "scheduler": "set train.warmup_steps and train.decay_frac",
        "gradient_clipping": "set train.gradient_clip",
        "train_batch_size": "set train.batch_tokens",
        "train_micro_batch_size_per_gpu": "set train.batch_tokens and gradient_accumulation_steps",
        "steps_per_print": "remove it: metrics are in the database, see train.log_every_steps",
        "wall_clock_breakdown": "remove it: DeepSpeed's loggers are silent here",
        "wandb": "set train.wandb",
        "tensorboard": "remove it: metrics are in the database; train.wandb is the other place",
        "csv_monitor": "remove it: metrics are in the database; train.wandb is the other place",
    }

    zero_optimization: Annotated[Zero, Neutral] = Zero()
    """What processes divide."""
    bf16: BFloat16 = BFloat16()
    """Training in bfloat16."""
    fp16: Float16 = Float16()
    """Training in float16."""
    data_types: DataTypes = DataTypes()
    """Other number types."""
    gradient_accumulation_steps: whole(1, 10**6, "a batch has no more parts") = 1
    """Parts in which a process computes its share of a batch; batchtopk selects within each."""

    @property
    def half(self):
        """bf16, fp16 or None."""
        return "bf16" if self.bf16.enabled else "fp16" if self.fp16.enabled else None

    @property
    def zero_stage(self):
        """The stage that is used: half precision needs one at least, whose float32 weights can be read and set."""
        return max(self.zero_optimization.stage, 1 if self.half else 0)

    def config(self):
        """What DeepSpeed is given, as it writes it."""
        return {**self.model_dump(exclude_none=True), "zero_optimization": self._zero_config()}

    def _zero_config(self):
        return {**self.zero_optimization.model_dump(exclude_none=True), "stage": self.zero_stage}

    def result_settings(self):
        """What changes a result, which enters the key of stage train."""
        settings = {self.half: getattr(self, self.half).model_dump(exclude_none=True)} if self.half else {}
        if self.data_types.grad_accum_dtype:
            settings["data_types"] = self.data_types.model_dump()
        if self.gradient_accumulation_steps > 1:
            settings["gradient_accumulation_steps"] = self.gradient_accumulation_steps
        return settings

    @model_validator(mode="after")
    def _has_an_effect(self):
        """Refuses what DeepSpeed would read and not do."""
        if self.bf16.enabled and self.fp16.enabled:
            raise Conflict("expected one of bf16 and fp16, found both", "fp16")
        if self.data_types.grad_accum_dtype and not self.bf16.enabled:
            raise Conflict("expected grad_accum_dtype with bf16 alone, found no bf16", "data_types", "grad_accum_dtype")
        scaling = self.fp16.model_dump(exclude={"enabled"}, exclude_none=True)
        if scaling and not self.fp16.enabled:
            raise Conflict("expected enabled: true beside it, found fp16 not enabled", "fp16", min(scaling))
        for key in self.zero_optimization.model_dump(exclude={"stage"}, exclude_none=True):
            least = 3 if key.startswith("stage3_") or key in ("offload_param", "sub_group_size") else 1
            if self.zero_stage < least:
                raise Conflict(
                    f"expected it at ZeRO stage {least} or more, found stage {self.zero_stage}", "zero_optimization", key
                )
        return self
