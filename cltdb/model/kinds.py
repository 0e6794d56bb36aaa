"""The kinds of dictionaries: what features read, where they write. Needs no torch.

A transcoder reads the MLP input and writes the MLP output; a sparse autoencoder (SAE) reconstructs what it reads. Source: Dunefsky, Chlenski
and Nanda 2024 (arXiv 2406.11944), sections 2 and 3, which compare the two.
"""

from typing import NamedTuple

MLP_INPUT, MLP_OUTPUT, RESIDUAL = "mlp_input", "mlp_output", "residual"
READS = (MLP_INPUT, MLP_OUTPUT, RESIDUAL)
"""What an SAE may read: the MLP's own input (model.mlp_input: normed), the MLP output, or the residual stream that the norm before the MLP
reads (model.mlp_input: residual)."""


class Kind(NamedTuple):
    """spans: features write to all later layers too. reconstructs: they write what they read, instead of the MLP output."""

    spans: bool
    reconstructs: bool

    def n_targets(self, layer, n_layers):
        """How many layers the features of `layer` write to, its own first."""
        return n_layers - layer if self.spans else 1


KINDS = {
    "clt": Kind(spans=True, reconstructs=False),
    "plt": Kind(spans=False, reconstructs=False),
    "sae": Kind(spans=False, reconstructs=True),
}


def input_name(mlp_input):
    """What the features of a transcoder read, one of READS; mlp_input: normed or residual, as in section `model`."""
    return RESIDUAL if mlp_input == "residual" else MLP_INPUT


def reads_of(kind, info):
    """What the features of a dictionary read, one of READS. info: as in `Dictionary`."""
    return info.get("reads", MLP_OUTPUT) if KINDS[kind].reconstructs else input_name(info.get("mlp_input"))


def both_sides(x, y, reads):
    """(what is read, what is to be written) of MLP inputs x and outputs y; reads: of an SAE, one of READS; None of a transcoder."""
    if reads is None:
        return x, y
    return (y, y) if reads == MLP_OUTPUT else (x, x)
