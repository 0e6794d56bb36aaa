"""Section `model` of a spec."""

from typing import Annotated, Literal

from cltdb.engine.section import Device, Neutral, Place, Section, Word


class Model(Section):
    """The language model."""

    elsewhere = dict.fromkeys(("name", "path", "model", "model_name", "model_id"), "write 'id'")
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
