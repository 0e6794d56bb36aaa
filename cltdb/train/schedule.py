"""What changes over a run: learning rate, sparsity coefficients, and the controller that steers them to the target l0.

Pure functions of the step. The controller's coefficients are the exception: checkpoints store them.
"""

import torch

CONTROLLER_GAIN = 0.03  # a layer's coefficient changes by at most this share per step
CONTROLLER_START = 0.01
CONTROLLER_FRAC = 0.2  # share of the run over which the controller's target falls from init_l0 to l0


def learning_rate(settings, *, step, n_steps):
    """Linear warm-up, constant, linear decay to zero over the last decay_frac of n_steps. Fine-tuning comes after these and has its own."""
    if step >= n_steps:
        return settings.kl.learning_rate * (1 - (step - n_steps) / settings.kl.steps)
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return settings.learning_rate * warm * min(1.0, (n_steps - step) / max(1.0, settings.decay_frac * n_steps))


def first_coefficient(settings, n_layers):
    """[n_layers]: the tanh penalty's coefficients before the first step, before any ramp."""
    return torch.full((n_layers,), settings.sparsity.coefficient if settings.sparsity else CONTROLLER_START)


def ramped(settings, coefficient, *, step, n_steps):
    """The tanh penalty's coefficients at a step [n_layers]: ramped when fixed, the controller's otherwise."""
    return coefficient * min(1.0, step / max(1.0, settings.ramp_frac * n_steps)) if settings.sparsity else coefficient


def target_l0(settings, *, step, n_steps):
    """The l0 that the controller steers towards: it falls geometrically from init_l0 to l0; of a dictionary that is finished it is l0."""
    if settings.start:
        return settings.l0
    done = min(1.0, step / max(1.0, CONTROLLER_FRAC * n_steps))
    start = max(settings.init_l0, settings.l0)
    return start * (settings.l0 / start) ** done


def has_controller(settings):
    """Whether a controller steers the coefficients towards l0."""
    return settings.activation in ("relu", "jumprelu") and not settings.sparsity


def controlled(settings, coefficient, l0, *, step, n_steps):
    """The coefficients after a step that had l0 [n_layers]: higher where more features fired than wanted, lower where fewer did."""
    if not has_controller(settings):
        return coefficient
    excess = (l0.cpu().clamp(min=1e-3) / target_l0(settings, step=step, n_steps=n_steps)).log()
    return coefficient * (CONTROLLER_GAIN * excess.clamp(-1, 1)).exp()
