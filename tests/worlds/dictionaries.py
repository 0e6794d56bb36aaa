"""Random dictionaries in memory."""

import torch

from cltdb.model.transcoder import Dictionary


def random(
    *,
    kind="clt",
    activation="jumprelu",
    n_layers=2,
    n_features=12,
    d_model=16,
    skip=False,
    dtype=torch.float64,
    seed=0,
    info=None,
    k=4,
):
    """Random tensors of the given shapes; about half of the features fire."""
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    n_targets = [n_layers - layer if kind == "clt" else 1 for layer in range(n_layers)]
    return Dictionary(
        kind=kind,
        activation=activation,
        W_enc=random(n_layers, n_features, d_model) / d_model**0.5,
        b_enc=0.1 * random(n_layers, n_features),
        W_dec=[random(n_features, n, d_model) / 4 for n in n_targets],
        b_dec=random(n_layers, d_model) / 10,
        threshold=random(n_layers, n_features).abs() / 10 if activation in ("jumprelu", "batchtopk") else None,
        k=k if activation == "topk" else None,
        W_skip=random(n_layers, d_model, d_model) / 10 if skip else None,
        info=info,
    )
