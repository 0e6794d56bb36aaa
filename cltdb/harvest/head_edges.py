"""Circuits that do not depend on the input, through attention: which feature drives which through one head.

The pullback of target j through head h of layer l has for every feature i of the layers below l the virtual weight
    V = <sum of W_dec_i over its target layers before l, A_l W_V W_O B_l r_j>,
with r_j as in feature_edges.py, and A_l, B_l the gains (and centring) of the norm before attention and of the one after it, where there is one.
V is what a unit of i's activation at the position that the head reads adds to j's pre-activation at the position that it writes to, by the
OV circuit of this head alone, where the pattern is 1 and before norms divide by their denominators. Query heads of one group have the same W_V.
Source: Dunefsky, Chlenski and Nanda, "Transcoders find interpretable LLM feature circuits" (2024), section on circuit analysis.
"""

from itertools import product

import numpy as np
import pyarrow as pa
import torch

from cltdb import log
from cltdb.harvest.feature_edges import ENDS, KINDS, blocks
from cltdb.model.attention import attention_parts
from cltdb.model.norms import read_directions, written_directions


class Heads:
    """Attention of one layer, without its pattern."""

    def __init__(self, lm, layer):
        block, parts = lm.blocks[layer], attention_parts(lm, layer)
        self.W_V, self.W_O, self.norm = parts.W_V, parts.W_O, block.attention_norm
        self.post = None if block.attention_output is block.attention else block.attention_output

    def reads(self, directions):
        """What each head's output is read by, for `directions` [n, d_model] of the residual stream: [head, n, d_head]."""
        read = directions if self.post is None else read_directions(self.post, directions)
        return torch.einsum("nd,hed->hne", read, self.W_O.to(read.dtype))

    def values(self, written):
        """The values of each head, pattern 1, of what is `written` [n, d_model] to the residual stream: [head, n, d_head]."""
        values = torch.einsum("nd,kde->kne", written_directions(self.norm, written), self.W_V.to(written.dtype))
        return values.repeat_interleave(len(self.W_O) // len(values), dim=0)


@torch.no_grad()
def pullback(lm, dictionary, layer, features, *, head):
    """{source layer: virtual weights [n, n_features]} of the `features` [n] of `layer` through `head`, (its layer, its number), which must not
    come after the MLP input that they read."""
    through, number = head
    assert through in layers_before(lm, layer), "attention that the features do not read"
    heads = Heads(lm, through)
    reads = heads.reads(read_directions_of(lm, dictionary, layer)[features])[number]
    sources = [source for source in dictionary.layers if source < through]
    return {source: reads @ heads.values(written_by(lm, dictionary, source, through))[number].T for source in sources}


@torch.no_grad()
def head_edges(lm, dictionary, *, dict_id, n_kept, live):
    """{source layer: rows of table feature_edges}: of every feature the `n_kept` incoming edges of largest |V|, each through one head.

    live: per layer, which features fire at all [n_features]; the others have no edges.
    """
    n_heads, columns = len(attention_parts(lm, dictionary.layers[0]).W_O), []
    shape = (len(lm.blocks), n_heads, len(lm.blocks), dictionary.n_features)  # of an edge's code: head, source
    live = {layer: torch.from_numpy(live[layer]).nonzero()[:, 0].to(lm.device) for layer in dictionary.layers}
    with log.progress("edges through heads", total=len(dictionary.layers), unit="layers") as bar:
        for target in dictionary.layers:
            directions = read_directions_of(lm, dictionary, target)[live[target]]
            weight = directions.new_zeros(len(directions), n_kept)
            code = torch.zeros_like(weight, dtype=torch.int64)
            for through, source in product(layers_before(lm, target), dictionary.layers):
                if source < through:
                    heads = Heads(lm, through)
                    values = heads.values(written_by(lm, dictionary, source, through)[live[source]])
                    for number, (read, value) in enumerate(zip(heads.reads(directions), values, strict=True)):
                        first = int(np.ravel_multi_index((through, number, source, 0), shape))
                        keep_strongest(weight, code, read, value, codes=first + live[source])
            kept = weight != 0
            feature = live[target][:, None].expand_as(code)[kept]
            of_edges = (torch.full_like(feature, target), feature, code[kept], weight[kept].double())
            columns.append([column.cpu().numpy() for column in of_edges])
            bar.advance()
    target_layer, target_feature, code, weight = map(np.concatenate, zip(*columns, strict=True))
    through, number, source_layer, source_feature = np.unravel_index(code, shape)
    via = [f"L{layer}H{head}" for layer, head in zip(through.tolist(), number.tolist(), strict=True)]
    ends = (source_layer, source_feature, target_layer, target_feature)
    rows = pa.table(
        {
            "dict_id": pa.array([dict_id] * len(via), pa.string()),
            **{name: pa.array(column.astype(np.int32)) for name, column in zip(ENDS, ends, strict=True)},
            "virtual_weight": pa.array(weight.astype(np.float32)),
            **{name: pa.nulls(len(via), kind) for name, kind in KINDS.items() if name != "virtual_weight"},
            "via": pa.array(via, pa.string()),
        }
    )
    return {layer: rows.filter(pa.array(source_layer == layer)) for layer in dictionary.layers}


def merged(direct, through_heads):
    """Rows of table feature_edges of one source layer, those along the residual stream (`feature_edges.feature_edges`) and those through
    heads, in the order of its key."""
    if direct is None:
        return through_heads.sort_by([(name, "ascending") for name in (*ENDS, "via")])
    direct = direct.append_column("via", pa.nulls(len(direct), pa.string()))
    return pa.concat_tables([direct, through_heads]).sort_by([(name, "ascending") for name in (*ENDS, "via")])


def keep_strongest(weight, code, read, value, *, codes):
    """Puts the strongest of the weights read @ value.T [n, n_sources] into `weight`, `code` [n, k]; codes [n_sources]."""
    for rows in blocks(max(1, len(value)), n=len(read)):
        keep_largest(weight[rows], code[rows], read[rows] @ value.T, codes=codes)


def keep_largest(weight, code, candidates, *, codes):
    """Puts the largest, by absolute value, of `candidates` [n, n_sources] into `weight`, `code` [n, k]; codes [n_sources]."""
    weights = torch.cat([weight, candidates], dim=1)
    places = weights.abs().topk(weight.shape[1], dim=1).indices
    all_codes = torch.cat([code, codes.expand(len(weights), -1)], dim=1)
    weight[:], code[:] = weights.gather(1, places), all_codes.gather(1, places)


def layers_before(lm, layer):
    """Layers whose attention comes before the MLP input of `layer`."""
    return range(layer if lm.is_parallel else layer + 1)


def read_directions_of(lm, dictionary, layer):
    """The directions of the residual stream that the features of a layer read, up to a norm's scale [n_features, d_model]."""
    dtype = torch.promote_types(lm.dtype, torch.float32)
    return lm.residual_directions(layer, dictionary.encoder(layer)).to(dtype)


def written_by(lm, dictionary, source, before):
    """What the features of layer `source` write to the residual stream before layer `before`, per unit of activation [n_features, d_model]."""
    dtype = torch.promote_types(lm.dtype, torch.float32)
    return dictionary.decoder_sum(source, slice(before - source)).to(lm.device, dtype)
