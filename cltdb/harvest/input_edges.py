"""What of the input drives a feature, by weights alone: tokens as each attention head shows them, and learned positions.

The pullback of feature j to a token or position e, V = <e, r_j> along the residual stream and <e, A_l W_V W_O B_l r_j> through a head of layer l, is
that of head_edges.py with the embedding in place of a decoder vector: before norms divide, with the head's pattern 1. Tokens along the residual
stream are `features.top_embeddings`.
Source: Dunefsky, Chlenski and Nanda, "Transcoders find interpretable LLM feature circuits" (2024), section on de-embeddings.
"""

import numpy as np
import pyarrow as pa
import torch

from cltdb import log
from cltdb.harvest.head_edges import Heads, keep_strongest, layers_before, read_directions_of
from cltdb.model.kinds import MLP_OUTPUT


@torch.no_grad()
def input_edges(lm, dictionary, *, dict_id, n_kept, live):
    """{layer: rows of table input_edges}: of every feature and kind of input the `n_kept` edges of largest |V|. Empty where features read the
    MLP output, which is no sum of embeddings.

    live: per layer, which features fire at all [n_features]; the others have no edges.
    """
    if dictionary.reads == MLP_OUTPUT:
        return {}
    kinds, found = _embeddings(lm), {}
    with log.progress("edges from inputs", total=len(dictionary.layers), unit="layers") as bar:
        for layer in dictionary.layers:
            features = torch.from_numpy(live[layer]).nonzero()[:, 0].to(lm.device)
            directions = read_directions_of(lm, dictionary, layer)[features]
            of_each = {"layer": layer, "features": features, "n_kept": n_kept}
            parts = [_rows(lm, kind, embeddings, directions, **of_each) for kind, embeddings in kinds.items()]
            rows = pa.concat_tables(parts)
            rows = rows.add_column(0, "dict_id", pa.array([dict_id] * len(rows), pa.string()))
            found[layer] = rows.sort_by([(name, "ascending") for name in ("feature", "kind", "input", "via")])
            bar.advance()
    return found


def _embeddings(lm):
    """{kind of input: [n, d_model] as they enter the residual stream}."""
    dtype = torch.promote_types(lm.dtype, torch.float32)
    kinds = {"token": lm.embedding(torch.arange(lm.vocab_size, device=lm.device)).to(dtype)}
    return kinds if lm.positions is None else kinds | {"position": lm.positions.weight.to(dtype)}


def _rows(lm, kind, embeddings, directions, *, layer, features, n_kept):
    """The rows of table input_edges without dict_id: the strongest edges of `features` of `layer`, which read `directions` [n, d_model], from
    the inputs of a kind, `embeddings` [n_inputs, d_model]."""
    weight = directions.new_zeros(len(directions), n_kept)
    code = torch.zeros_like(weight, dtype=torch.int64)  # number of the way * n_inputs + input
    inputs, ways = torch.arange(len(embeddings), device=lm.device), []
    if kind == "position":
        ways.append(None)
        keep_strongest(weight, code, directions, embeddings, codes=inputs)
    for through in layers_before(lm, layer):
        heads = Heads(lm, through)
        for number, (read, value) in enumerate(zip(heads.reads(directions), heads.values(embeddings), strict=True)):
            keep_strongest(weight, code, read, value, codes=len(ways) * len(embeddings) + inputs)
            ways.append(f"L{through}H{number}")
    kept = weight != 0
    feature = features[:, None].expand_as(code)[kept].cpu().numpy()
    way, number = np.divmod(code[kept].cpu().numpy(), len(embeddings))
    return pa.table(
        {
            "layer": pa.array(np.full(len(feature), layer, dtype=np.int32)),
            "feature": pa.array(feature.astype(np.int32)),
            "kind": pa.array([kind] * len(feature), pa.string()),
            "input": pa.array(number.astype(np.int32)),
            "via": pa.array([ways[index] for index in way], pa.string()),
            "virtual_weight": pa.array(weight[kept].float().cpu().numpy()),
        }
    )
