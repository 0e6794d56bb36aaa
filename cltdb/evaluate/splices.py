"""Which MLPs an evaluation replaces at once."""

from typing import NamedTuple

from cltdb.errors import CltdbError

ALL, SINGLE, ALL_BUT_ENDS = "all", "single", "all_but_ends"


class Splice(NamedTuple):
    """layers: whose MLPs are replaced, rising. variant, layer: as in table metrics; None of the splice of all of them."""

    layers: tuple
    variant: str | None = None
    layer: int | None = None


def splices(asked, trained, n_layers):
    """The `Splice`s of `evaluate.splice`, each once, that of all MLPs first. trained: layers of the dictionary; n_layers: of the model.

    A CltdbError where one replaces nothing, or a layer that was not trained.
    """
    found = {None: Splice(tuple(trained))}
    for name in asked:
        if name == SINGLE:
            found |= {(SINGLE, layer): Splice((layer,), SINGLE, layer) for layer in trained}
        elif name == ALL_BUT_ENDS:
            layers = tuple(layer for layer in trained if 0 < layer < n_layers - 1)
            found[name] = Splice(_some(layers, name, n_layers), ALL_BUT_ENDS)
        elif name != ALL:
            layers = tuple(sorted(set(name)))
            if unknown := [layer for layer in layers if layer not in trained]:
                expected = f"layers of the dictionary ({', '.join(map(str, trained))})"
                raise CltdbError("evaluate.splice", found=f"layer {unknown[0]}", expected=expected, do="leave it out")
            found[layers] = Splice(layers, ",".join(map(str, layers)))
    return list(found.values())


def _some(layers, name, n_layers):
    if not layers:
        found = f"{name} for a dictionary without layers between the first and the last of {n_layers}"
        raise CltdbError("evaluate.splice", found=found, expected="three layers or more", do="leave it out")
    return layers
