"""Random dictionaries in memory."""

import torch

from cltdb.model.transcoder import Dictionary

SCALE = {"b_enc": 0.1, "W_dec": 0.25, "b_dec": 0.1, "threshold": 0.1, "W_skip": 0.1}
"""Standard deviations; that of W_enc is d_model ** -0.5. Thresholds are absolute values."""


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
    scale=SCALE,
    least_threshold=0.0,
):
    """Random tensors of the given shapes; about half of the features fire."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    n_targets = [n_layers - layer if kind == "clt" else 1 for layer in range(n_layers)]
    has_threshold = activation in ("jumprelu", "batchtopk")
    return Dictionary(
        kind=kind,
        activation=activation,
        W_enc=draw(n_layers, n_features, d_model) / d_model**0.5,
        b_enc=scale["b_enc"] * draw(n_layers, n_features),
        W_dec=[scale["W_dec"] * draw(n_features, n, d_model) for n in n_targets],
        b_dec=scale["b_dec"] * draw(n_layers, d_model),
        threshold=least_threshold + scale["threshold"] * draw(n_layers, n_features).abs() if has_threshold else None,
        k=k if activation == "topk" else None,
        W_skip=scale["W_skip"] * draw(n_layers, d_model, d_model) if skip else None,
        info=info,
    )
