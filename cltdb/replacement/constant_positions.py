"""The constant positions of a prompt: the first ones, which have neither features nor errors.

Position 0 (BOS, or whatever stands there) always is one. Of a chat, more can be: the prefix that all chats share
(`attribute.constant_positions`). The model's own MLP outputs there are constants of the prompt. This file alone says what follows
from that: what is masked, which positions can be named, and how a message calls them.
"""

import torch

from cltdb.errors import CltdbError


def blank(x, n_constant, *, dim=0):
    """x with zeros at the constant positions; dim: the axis of positions."""
    return x.masked_fill(_is_constant(x, n_constant, dim), 0)


def with_constant(x, constant, n_constant, *, dim=0):
    """x with `constant`, of its shape, at the constant positions."""
    return torch.where(_is_constant(x, n_constant, dim), constant, x)


def _is_constant(x, n_constant, dim):
    """The mask of the constant positions, of a shape that x takes."""
    shape = [1] * x.ndim
    shape[dim] = -1
    return (torch.arange(x.shape[dim], device=x.device) < n_constant).view(shape)


def check_constant(constant_positions, n_positions):
    """CltdbError where a prompt of `n_positions` has no position after the constant ones."""
    if not 1 <= constant_positions < n_positions:
        raise CltdbError(
            "attribute.constant_positions",
            found=f"{constant_positions} of a prompt's {n_positions} tokens",
            expected=f"1 to {n_positions - 1}, so that something is left to explain",
            do="lower it, or lengthen the prompt",
        )


def from_start(position, n_positions, n_constant):
    """A position, counted from the end where negative, counted from the start; None where it is constant or outside of the
    prompt."""
    place = position + n_positions if position < 0 else position
    return place if n_constant <= place < n_positions else None


def without_features(n_constant):
    """What a message says of the constant positions."""
    return "position 0 has no features" if n_constant == 1 else f"positions 0 to {n_constant - 1} are constant, without features"
