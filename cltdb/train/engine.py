"""DeepSpeed's engine around the transcoder: set-up without a compiler, and state by logical tensor.

Source: DeepSpeed 0.19, `deepspeed.initialize` and `deepspeed.utils.safe_get_full_…`.
"""

import logging
import os

import torch

logger = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")


def initialize(module, settings, *, device):
    """The DeepSpeed engine of `module` with torch's fused Adam; one process. settings: `spec.Train`."""
    deepspeed = _import_deepspeed(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=True)
    config = {
        "train_micro_batch_size_per_gpu": settings.batch_tokens,
        "gradient_clipping": settings.gradient_clip,
        "zero_optimization": {"stage": 0},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        **settings.deepspeed,
    }
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    if engine.world_size == 1 and engine.zero_optimization_stage() == 0:
        engine.enable_backward_allreduce = False  # an all-reduce among one process would only copy
    return engine


def _import_deepspeed(device):
    """deepspeed, quiet, on the wanted device, its process group set up, its C++ shared-memory op not compiled for one process."""
    if not device.startswith("cuda"):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    launched = "WORLD_SIZE" in os.environ
    os.environ.setdefault("LOCAL_RANK", "0")  # the engine reads it
    import deepspeed
    from deepspeed import ops
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel(logging.ERROR)
    if os.environ.get("WORLD_SIZE", "1") == "1":
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
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


def state(engine):
    """{name: tensor} of every parameter and optimizer moment, whole, whatever the ZeRO stage."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    tensors = {}
    for name, parameter in engine.module.named_parameters():
        sharded = _is_managed(parameter)
        tensors[name] = (safe_get_full_fp32_param(parameter) if sharded else parameter.detach()).clone()
        for moment in MOMENTS:
            value = (
                safe_get_full_optimizer_state(parameter, moment)
                if sharded
                else engine.optimizer.state.get(parameter, {}).get(moment)
            )
            if value is not None:
                tensors[f"{name}/{moment}"] = value.clone()
    return tensors


def load_state(engine, tensors, *, step):
    """Puts `state` back. `step` is the number of optimizer steps made."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    for name, parameter in engine.module.named_parameters():
        if _is_managed(parameter):
            safe_set_full_fp32_param(parameter, tensors[name])
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, tensors[f"{name}/{moment}"], moment)
            continue
        with torch.no_grad():
            parameter.copy_(tensors[name])
        engine.optimizer.state[parameter] = {
            "step": torch.tensor(float(step), device=parameter.device),
            **{moment: tensors[f"{name}/{moment}"].to(parameter.device).clone() for moment in MOMENTS},
        }


def gradient_norm(engine):
    """The global gradient norm before clipping, between backward and step."""
    from deepspeed.utils import safe_get_full_grad

    gradients = [
        safe_get_full_grad(parameter) if _is_managed(parameter) else parameter.grad for parameter in engine.module.parameters()
    ]
    return torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None]).item()


def _is_managed(parameter):
    """True where a DeepSpeed optimizer holds the parameter's full-precision values, rather than the parameter itself."""
    return hasattr(parameter, "ds_id") or getattr(parameter, "_hp_mapping", None) is not None
