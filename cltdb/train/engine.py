"""DeepSpeed's engine around the transcoder: set-up without a compiler, clipping, and state by logical tensor.

Source: DeepSpeed 0.19, `deepspeed.initialize` and `deepspeed.utils.safe_get_full_…`.
"""

import atexit
import io
import logging
import os
import warnings
from contextlib import contextmanager, redirect_stdout

import torch

from cltdb.devices import resolved_device
from cltdb.errors import CltdbError, shown
from cltdb.train.parallel import Parallel

logger = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")
SCALING = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What changes of DeepSpeed's loss scaler while it trains; a fixed factor has only the first."""
NO_OVERFLOW = 2.0**-10
"""A factor of the loss at which no gradient overflows float16."""


class Engine:
    """DeepSpeed's engine of one rank, and gradient clipping where no ZeRO optimizer does it.

    DeepSpeed's own clipping passes over every gradient once more. Here the fused optimizer scales them in its own pass.
    """

    def __init__(self, module, settings, *, device, parallel, micro_batch_tokens):
        deepspeed = import_deepspeed(device)
        self.parallel, self.gradient_clip = parallel, settings.gradient_clip
        self.optimizer = _optimizer(settings, _groups(settings, module))
        config = {
            "train_micro_batch_size_per_gpu": micro_batch_tokens,
            "gradient_clipping": settings.gradient_clip,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
            **settings.deepspeed.config(),
        }
        self.is_plain = not settings.deepspeed.zero_stage  # else DeepSpeed's optimizer holds the states and clips
        self.is_scaled = settings.deepspeed.half == "fp16"
        if self.is_plain:
            config["gradient_clipping"] = 0.0
        alone = parallel.world_size == 1
        with _refusals_said(), _prints_logged():
            self.deepspeed, *_ = deepspeed.initialize(
                model=module, optimizer=self.optimizer, config=config, mpu=None if alone else parallel, dist_init_required=False
            )
        if alone and self.is_plain:
            self.deepspeed.enable_backward_allreduce = False  # an all-reduce among one process would only copy
        self.module = self.deepspeed.module

    dtype = property(lambda self: self.module.b_dec.dtype)
    is_fused = property(lambda self: bool(self.optimizer.defaults.get("fused")))  # torch's Adam, which can clip as it goes

    def __call__(self, x, y, **state):
        """The module's `loss.Measured`, through the engine, which gathers what ZeRO 3 has scattered."""
        return self.deepspeed(x, y, **state)

    def set_learning_rate(self, rate):
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rate

    def backward(self, loss):
        self.deepspeed.backward(loss)

    def step(self):
        """Clips and makes the optimizer step; returns the global gradient norm before clipping."""
        if not self.is_plain or not self.deepspeed.is_gradient_accumulation_boundary():
            self.deepspeed.step()
            return float(self.deepspeed.get_global_grad_norm() or 0.0)
        norm = self._gradient_norm()
        excess = norm / self.gradient_clip
        if self.is_fused:
            self.optimizer.grad_scale = excess.clamp(min=1.0)  # it divides each gradient by that as it reads it
        elif excess > 1:
            torch._foreach_div_([p.grad for p in self.module.parameters() if p.grad is not None], excess)
        self.deepspeed.step()
        return norm.item()

    def _gradient_norm(self):
        """Global: over the shards of the features, a parameter that all of them hold counted once."""
        gradients = {True: [], False: []}
        for parameter in self.module.parameters():
            if parameter.grad is not None:
                gradients[getattr(parameter, "model_parallel", False)].append(parameter.grad)
        squares = {own: sum(_square(gradient) for gradient in some) for own, some in gradients.items()}
        return (self.parallel.gather_shards(squares[True]).sum(0) + squares[False]).sqrt()

    def loss_scaling(self):
        """With float16 the present factor of the loss, what will change it, and `skipped_steps`: how many steps changed no weight, as a gradient
        overflowed. With other numbers {}."""
        if not self.is_scaled:
            return {}
        scaler = vars(self.deepspeed.optimizer.loss_scaler)
        return {name: scaler[name] for name in SCALING if name in scaler} | {"skipped_steps": self.deepspeed.skipped_steps}

    def set_loss_scaling(self, state):
        """Puts back what `loss_scaling` gave."""
        if state:
            self.deepspeed.skipped_steps = state["skipped_steps"]
            vars(self.deepspeed.optimizer.loss_scaler).update({name: state[name] for name in SCALING if name in state})

    @contextmanager
    def without_overflow(self):
        """Steps in it are never skipped for a gradient that overflows float16; afterwards the loss scaling is as before."""
        before = self.loss_scaling()
        self.set_loss_scaling(before and {**before, "cur_scale": NO_OVERFLOW})
        yield
        self.set_loss_scaling(before)

    # State by logical tensor, whole in features and in ZeRO partitions.

    def tensors(self, *, moments=True):
        """Yields (name, {"value": …, moments}) per parameter on rank 0, (name, {}) on the others; every rank must go through all of
        it. Values are the float32 master weights where there are some, moments those of the optimizer by its own names."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._link_states()
        for name, parameter in self.module.named_parameters():
            managed = _is_managed(parameter)
            parts = {"value": safe_get_full_fp32_param(parameter) if managed else parameter.detach()}
            if moments and managed:
                parts |= {moment: safe_get_full_optimizer_state(parameter, moment) for moment in MOMENTS}
            elif moments:
                parts |= {name: part for name, part in self.optimizer.state.get(parameter, {}).items() if name != "step"}
            parts = {part: tensor for part, tensor in parts.items() if tensor is not None}
            if getattr(parameter, "model_parallel", False):
                parts = {part: self.parallel.collect_features(tensor) for part, tensor in parts.items()}
            yield name, parts if self.parallel.rank == 0 else {}

    def _link_states(self):
        """Tells the parameters where the optimizer holds their moments. ZeRO 1 and 2 do so after the step of the first group of parameters
        alone, when those of later ones are not made yet, and never again."""
        if getattr(self.deepspeed.optimizer, "_hp_optimizer_states_linked", False):
            self.deepspeed.optimizer._hp_optimizer_states_linked = False
            self.deepspeed.optimizer._lazy_init_hp_params_optimizer_state()

    def load_tensors(self, read, *, step):
        """Puts a state back. read(name) gives the dict of `tensors`; step: optimizer steps made, without skipped ones. A ZeRO optimizer must have made a
        step before, however small, for its states to exist."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._link_states()
        for name, parameter in self.module.named_parameters():
            parts = read(name)
            if getattr(parameter, "model_parallel", False):
                parts = {part: tensor[self.parallel.features(len(tensor))] for part, tensor in parts.items()}
            _set_weights(parameter, parts["value"])
            if _is_managed(parameter):
                safe_set_full_fp32_param(parameter, parts["value"])
                for moment in MOMENTS:
                    safe_set_full_optimizer_state(parameter, parts[moment], moment)
                continue
            self.optimizer.state[parameter] = {
                moment: tensor.to(parameter.device).clone() for moment, tensor in parts.items() if moment != "value"
            }
        for parameter, state in self.optimizer.state.items():
            state["step"] = torch.tensor(float(step), device=parameter.device) if self.is_fused else step


def _groups(settings, module):
    """The parameters as the optimizer takes them: encoders and decoders decay, biases, thresholds and the skip path do not."""
    if not settings.weight_decay:
        return list(module.parameters())
    groups = {True: [], False: []}
    for name, parameter in module.named_parameters():
        groups[name.endswith(("W_enc", "W_dec"))].append(parameter)
    return [{"params": some, "weight_decay": settings.weight_decay * decays} for decays, some in groups.items()]


def _optimizer(settings, groups):
    rates = {"lr": settings.learning_rate, "betas": settings.betas}
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, **rates, fused=True, decoupled_weight_decay=True)
    try:
        import bitsandbytes
    except ImportError as error:
        raise CltdbError(
            "train.optimizer",
            found="adam8bit without bitsandbytes",
            expected="the package bitsandbytes",
            do="pip install 'cltdb[adam8bit]', or set it to adam",
        ) from error
    return bitsandbytes.optim.Adam8bit(groups, **rates)


def _square(gradient):
    """The squared norm, summed row by row: on the CPU this takes two thirds of the time of one norm over everything."""
    return (
        torch.linalg.vector_norm(gradient.flatten(1) if gradient.ndim > 1 else gradient, dim=-1, dtype=torch.float32)
        .square()
        .sum()
    )


@contextmanager
def _refusals_said():
    """DeepSpeed's own refusals of a configuration as CltdbError."""
    from deepspeed.runtime.config import DeepSpeedConfigError

    try:
        yield
    except (AssertionError, ValueError, TypeError, NotImplementedError, DeepSpeedConfigError) as error:
        raise CltdbError(
            "train.deepspeed",
            found=f"settings that DeepSpeed refuses ({shown(error, quoted=False)})",
            expected="settings that it takes on this machine",
            do="remove keys of train.deepspeed, or see --debug for all that it says",
        ) from error


@contextmanager
def _prints_logged():
    """What DeepSpeed prints, which its log level does not rule (memory in use, with bf16), goes to the log: standard output is the caller's."""
    with redirect_stdout(io.StringIO()) as printed:
        yield
    if text := printed.getvalue().strip():
        logger.debug("DeepSpeed: %s", " ".join(text.split()))


@torch.no_grad()
def _set_weights(parameter, value):
    """Sets the weights that the module computes with; the optimizer may hold float32 ones besides."""
    if hasattr(parameter, "ds_tensor"):  # ZeRO 3: this rank's part of the flat tensor
        mine = parameter.ds_tensor
        start = torch.distributed.get_rank(parameter.ds_process_group) * mine.ds_numel
        part = value.flatten()[start : start + mine.ds_numel]
        mine.flatten()[: len(part)].copy_(part)
    if parameter.shape == value.shape:  # there whole
        parameter.copy_(value)


def _is_managed(parameter):
    """True where a DeepSpeed optimizer holds the parameter's full-precision values, rather than the parameter itself."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def begin(device, *, rank=0, world_size=1, n_shards=1):
    """(device of this rank, `Parallel`): sets torch.distributed up, on every rank at once. device: cpu, cuda, cuda:N or auto."""
    device = resolved_device(device)
    if device.startswith("cuda") and world_size > 1:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    import_deepspeed(device)
    return device, Parallel(rank=rank, world_size=world_size, n_shards=n_shards)


def import_deepspeed(device):
    """deepspeed, quiet, on the wanted device, its process group set up, none of its C++ and CUDA ops compiled or looked for."""
    if not device.startswith("cuda"):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    launched = "WORLD_SIZE" in os.environ
    os.environ.setdefault("LOCAL_RANK", "0")  # the engine reads it
    import deepspeed
    from deepspeed import ops
    from deepspeed.accelerator import get_accelerator
    from deepspeed.utils import logger as deepspeed_logger

    used = get_accelerator().device_name()  # for as long as the process lives
    if used != device.partition(":")[0]:
        raise CltdbError(
            "model.device",
            found=f"{device}, in a process whose DeepSpeed computes on {used}",
            expected="one kind of device in a process that trains",
            do="train in a process of its own, without DS_ACCELERATOR in its environment",
        )
    deepspeed_logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # old names of collectives, which DeepSpeed calls
    warnings.filterwarnings("ignore", r"barrier\(\): using the device", UserWarning)  # the right one, as `begin` says
    ops.__compatible_ops__ = {}  # torch.distributed serves; else DeepSpeed would try its compilers
    if not launched and not torch.distributed.is_initialized():
        _group_of_one("nccl" if device.startswith("cuda") else "gloo")
    deepspeed.init_distributed(verbose=False)
    return deepspeed


def _group_of_one(backend):
    """torch.distributed for this process alone, without a port that another run may hold."""
    alone = dict(store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        torch.distributed.init_process_group(backend, **alone)
    except RuntimeError as error:  # no network interface at all, not even loopback, as in some sandboxes
        from torch.testing._internal.distributed import fake_pg  # noqa: F401  registers the backend `fake`, exact for one process

        logger.debug("%s has no network interface (%s)", backend, error)
        torch.distributed.init_process_group("fake", **alone)
    atexit.register(_leave_group)  # NCCL complains on stderr of a group that is left standing


def _leave_group():
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
