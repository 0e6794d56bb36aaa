"""CLT-Forge's checkpoints: `clt_cfg.json` beside `clt_weights.safetensors`, or beside one `rank{r}_clt_weights.safetensors` per shard.

Source: clt_forge/clt.py and its export to circuit-tracer. Tensors are in training units: scaled inputs, scaled outputs. W_enc [n_layers,
d_model, n_features], b_enc and log_threshold [n_layers, n_features]; W_dec and b_dec of all (source, target) pairs, source by source, the
biases of one target to be added up; for a PLT of the layers. Shards hold consecutive features. Features read ln2.hook_normalized.
"""

import json
from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.interchange.files import info_of, numbered, read_settings, read_tensors, refuse_chosen_layers, tensor, without_gaps
from cltdb.model.transcoder import Dictionary

SETTINGS, WEIGHTS = "clt_cfg.json", "clt_weights.safetensors"
FEATURE_AXIS = {"W_enc": 2, "b_enc": 1, "W_dec": 1, "log_threshold": 1}
INPUT_SCALE, OUTPUT_SCALE = "estimated_norm_scaling_factor_in", "estimated_norm_scaling_factor_out"


def load(directory):
    """The `Dictionary` of a checkpoint, in model units."""
    directory = Path(directory)
    settings, (tensors, path) = read_settings(directory / SETTINGS), _whole(directory)
    L, D, F = tensor(tensors, "W_enc", path, shape=(None, None, None)).shape
    kind = "clt" if settings.get("cross_layer_decoders", True) else "plt"
    pairs = [(source, target) for source in range(L) for target in (range(source, L) if kind == "clt" else [source])]
    W_dec = tensor(tensors, "W_dec", path, shape=(len(pairs), F, D))
    b_dec = tensor(tensors, "b_dec", path, shape=(len(pairs), D))
    scales = (tensor(tensors, name, path, shape=(L,), optional=True) for name in (INPUT_SCALE, OUTPUT_SCALE))
    s_in, s_out = (torch.ones(L) if scale is None else scale.float() for scale in scales)
    bias = torch.zeros(L, D).index_add_(0, torch.tensor([target for _, target in pairs]), b_dec.float())
    decoders = [[] for _ in range(L)]
    for W, (source, target) in zip(W_dec, pairs, strict=True):
        decoders[source].append(W / s_out[target])
    return Dictionary(
        kind=kind,
        activation="jumprelu",
        W_enc=tensors["W_enc"].transpose(1, 2).contiguous() * s_in[:, None, None],
        b_enc=tensor(tensors, "b_enc", path, shape=(L, F)),
        W_dec=[torch.stack(some, dim=1) for some in decoders],
        b_dec=bias / s_out[:, None],
        threshold=tensor(tensors, "log_threshold", path, shape=(L, F)).exp(),
        info=info_of(settings.get("model_name"), "normed", "clt-forge"),
    )


def _whole(directory):
    """({name: tensor} of all shards together, the path that stands for them in messages)."""
    if (directory / WEIGHTS).is_file():
        return read_tensors(directory / WEIGHTS), directory / WEIGHTS
    shards = numbered(directory, r"rank(\d+)_clt_weights\.safetensors")
    without_gaps(shards, directory, f"{WEIGHTS}, or rank0_{WEIGHTS}, rank1_{WEIGHTS}, …")
    parts = [read_tensors(path) for _, path in sorted(shards.items())]
    whole = {name: value for name, value in parts[0].items() if name not in FEATURE_AXIS}
    for name, value in whole.items():
        if name.startswith(("b_dec", "estimated")) and any(not torch.equal(part.get(name, value), value) for part in parts):
            raise CltdbError(
                str(directory), found=f"shards whose {name} differ", expected="shards of one state", do="restore the checkpoint"
            )
    for name, axis in FEATURE_AXIS.items():
        whole[name] = torch.cat([tensor(part, name, shards[rank]) for rank, part in enumerate(parts)], dim=axis)
    return whole, directory


def save(dictionary, directory):
    """Writes `clt_weights.safetensors` and `clt_cfg.json`, scales being 1 and each bias with its own layer's pair."""
    from cltdb.workspace import write_safetensors, writing

    d, directory = dictionary, Path(directory)
    if d.threshold is None or d.W_skip is not None or bool((d.threshold <= 0).any()):
        what = "a skip connection" if d.W_skip is not None else "no threshold, or one that is not above 0"
        raise CltdbError(
            "export to clt-forge",
            found=what,
            expected="a JumpReLU dictionary without skip, whose log thresholds its files hold",
            do="export in the format circuit-tracer or cltdb",
        )
    if d.info.get("mlp_input", "normed") != "normed":
        raise CltdbError(
            "export to clt-forge",
            found=f"features that read the MLP input {d.info['mlp_input']!r}",
            expected="'normed', the only one that its files stand for",
            do="export in the format circuit-tracer or cltdb",
        )
    refuse_chosen_layers(d, "clt-forge")
    b_dec = [
        torch.stack([d.b_dec[layer], *[torch.zeros_like(d.b_dec[layer])] * (W.shape[1] - 1)]) for layer, W in enumerate(d.W_dec)
    ]
    write_safetensors(
        directory / WEIGHTS,
        {
            "W_enc": d.W_enc.transpose(1, 2),
            "b_enc": d.b_enc,
            "W_dec": torch.cat([W.transpose(0, 1) for W in d.W_dec]),
            "b_dec": torch.cat(b_dec),
            "log_threshold": d.threshold.log(),
            INPUT_SCALE: torch.ones(d.n_layers),
            OUTPUT_SCALE: torch.ones(d.n_layers),
        },
    )
    settings = {
        "model_name": d.info.get("model_id", ""),
        "d_in": d.d_model,
        "d_latent": d.n_features,
        "n_layers": d.n_layers,
        "dtype": str(d.dtype).removeprefix("torch."),
        "cross_layer_decoders": d.kind == "clt",
    }
    with writing(directory / SETTINGS) as aside:
        aside.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
