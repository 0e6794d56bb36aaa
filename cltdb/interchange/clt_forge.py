"""CLT-Forge's checkpoints: `clt_cfg.json` beside `clt_weights.safetensors`, or beside one `rank{r}_clt_weights.safetensors` per shard.

Source: clt_forge/clt.py and its export to circuit-tracer. Tensors are in training units: scaled inputs, scaled outputs. W_enc [n_layers,
d_model, n_features], b_enc and log_threshold [n_layers, n_features]; W_dec and b_dec of all (source, target) pairs, source by source, the
biases of one target to be added up; for a PLT of the layers. Shards hold consecutive features. Features read ln2.hook_normalized of a
model that TransformerLens loaded without processing (clt_forge/training/activations_store.py).
"""

import json
from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.interchange.files import numbered, read_settings, read_tensors, refuse_chosen_layers, tensor, without_gaps
from cltdb.interchange.hook_points import hook_of, info_of, input_of
from cltdb.model.parts import DictionaryParts
from cltdb.tensor_files import Pieces, pieces, scaled

SETTINGS, WEIGHTS = "clt_cfg.json", "clt_weights.safetensors"
INPUT_HOOK = "ln2.hook_normalized"
INPUT_SCALE, OUTPUT_SCALE = "estimated_norm_scaling_factor_in", "estimated_norm_scaling_factor_out"


def parts(directory):
    """The `DictionaryParts` of a checkpoint, in model units. Scales are folded in float32, piece by piece; where there are none, or
    all are 1, the files' dtype stays."""
    directory = Path(directory)
    settings, shards = read_settings(directory / SETTINGS), _shards(directory)
    first, path = shards[0]
    L, D, _ = tensor(first, "W_enc", path, shape=(None, None, None)).shape
    kind = "clt" if settings.get("cross_layer_decoders", True) else "plt"
    pairs = [(source, target) for source in range(L) for target in (range(source, L) if kind == "clt" else [source])]
    b_dec = tensor(first, "b_dec", path, shape=(len(pairs), D))
    s_in, s_out = (_scale(tensor(first, name, path, shape=(L,), optional=True)) for name in (INPUT_SCALE, OUTPUT_SCALE))
    bias = torch.zeros(L, D).index_add_(0, torch.tensor([target for _, target in pairs]), b_dec.float())
    by_shard = {"W_enc": [], "b_enc": [], "W_dec": [], "log_threshold": []}
    for tensors, path in shards:
        n_features = tensor(tensors, "W_enc", path, shape=(L, D, None)).shape[2]
        shapes = {"b_enc": (L, n_features), "W_dec": (len(pairs), n_features, D), "log_threshold": (L, n_features)}
        by_shard["W_enc"].append(tensors["W_enc"])
        for name, shape in shapes.items():
            by_shard[name].append(tensor(tensors, name, path, shape=shape))
    b_enc, threshold = torch.cat(by_shard["b_enc"], 1), torch.cat(by_shard["log_threshold"], 1).exp()
    layers = []
    for layer in range(L):
        mine = [number for number, (source, _) in enumerate(pairs) if source == layer]
        targets = slice(layer, layer + len(mine))
        encoders = [W[layer].T for W in by_shard["W_enc"]]
        decoders = [W[mine[0] : mine[-1] + 1].transpose(0, 1) for W in by_shard["W_dec"]]
        layers.append(
            {
                "W_enc": scaled(encoders, None if s_in is None else s_in[layer]),
                "b_enc": b_enc[layer],
                "W_dec": scaled(decoders, None if s_out is None else 1 / s_out[targets, None]),
                "b_dec": bias[layer] if s_out is None else bias[layer] / s_out[layer],
                "threshold": threshold[layer],
                "W_skip": None,
            }
        )
    info = info_of(settings.get("model_name"), input_of(INPUT_HOOK), "clt-forge")
    return DictionaryParts(kind=kind, activation="jumprelu", layers=layers, info=info)


def _scale(found):
    """Scales [n_layers] in float32; None where there is nothing to fold."""
    return None if found is None or bool((found == 1).all()) else found.float()


def _shards(directory):
    """[({name: tensor}, path)] of the one file or of the shards, which must be of one state."""
    if (directory / WEIGHTS).is_file():
        return [(read_tensors(directory / WEIGHTS), directory / WEIGHTS)]
    files = numbered(directory, r"rank(\d+)_clt_weights\.safetensors")
    without_gaps(files, directory, f"{WEIGHTS}, or rank0_{WEIGHTS}, rank1_{WEIGHTS}, …")
    shards = [(read_tensors(path), path) for _, path in sorted(files.items())]
    for name, value in shards[0][0].items():
        if name.startswith(("b_dec", "estimated")) and any(not torch.equal(shard.get(name, value), value) for shard, _ in shards):
            raise CltdbError(
                str(directory), found=f"shards whose {name} differ", expected="shards of one state", do="restore the checkpoint"
            )
    return shards


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
    if d.info.get("mlp_input", "normed") != "normed" or d.info.get("input_hook", INPUT_HOOK) != INPUT_HOOK:
        raise CltdbError(
            "export to clt-forge",
            found=f"features that read {hook_of(d)}",
            expected=f"{INPUT_HOOK}, the only input that its files stand for (of an RMSNorm it lacks the gain)",
            do="export in the format circuit-tracer or cltdb",
        )
    refuse_chosen_layers(d, "clt-forge")
    b_dec = torch.cat(
        [torch.nn.functional.pad(d.b_dec[layer, None], (0, 0, 0, W.shape[1] - 1)) for layer, W in enumerate(d.W_dec)]
    )
    write_safetensors(
        directory / WEIGHTS,
        {
            "W_enc": d.W_enc.transpose(1, 2),
            "b_enc": d.b_enc,
            "W_dec": Pieces(
                (len(b_dec), d.n_features, d.d_model),
                d.W_dec[0].dtype,
                lambda: (piece for W in d.W_dec for target in range(W.shape[1]) for piece in pieces(W[:, target])),
            ),
            "b_dec": b_dec,
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
