"""Where in a model the layers of a dictionary are: `layer`, everywhere in cltdb, is the index of a site.

The sites of a language model are implied: layer n is block n, there is one stream, the hook point is the input of its MLP. A dictionary of
another model names its sites in `dictionary.json`. The step of a diffusion model is no part of a site: it is a property of an occurrence,
as position is, never of a feature.
"""

from typing import NamedTuple

from cltdb.errors import CltdbError


class Site(NamedTuple):
    """block: index of the transformer block, 0 first. stream: the tokens that are read where blocks have several kinds of them, such as img
    and txt of a diffusion transformer; None where there is one kind. hook: the hook point that features read, by TransformerLens's name."""

    block: int
    stream: str | None
    hook: str


def implied_sites(n_layers, hook):
    """The sites of a language model: one for each block."""
    return tuple(Site(block, None, hook) for block in range(n_layers))


def sites_of(info, n_layers):
    """The `Site` of each layer of a dictionary, from its `info`: those it states, else those of a language model."""
    stated = info.get("sites")
    if stated is None:
        return implied_sites(
            n_layers,
            "hook_mlp_out"
            if info.get("reads") == "mlp_output"
            else info.get("input_hook") or ("hook_resid_mid" if info.get("mlp_input") == "residual" else "mlp.hook_in"),
        )
    if not isinstance(stated, list) or len(stated) != n_layers or not all(map(_is_site, stated)):
        raise CltdbError(
            "dictionary sites",
            found=repr(stated)[:200],
            expected=f'a list of {n_layers}, one for each layer, such as {{"block": 0, "stream": "img", "hook": "mlp.hook_in"}}',
            do="restore dictionary.json; the MLPs of a language model need no sites",
        )
    return tuple(Site(**site) for site in stated)


def _is_site(stated):
    if not isinstance(stated, dict) or stated.keys() != set(Site._fields):
        return False
    block, stream, hook = (stated[name] for name in Site._fields)
    return type(block) is int and block >= 0 and (stream is None or isinstance(stream, str)) and isinstance(hook, str)
