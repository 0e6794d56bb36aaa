"""CLT-Forge's checkpoints: `clt_cfg.json` beside `clt_weights.safetensors`, or beside one `rank{r}_clt_weights.safetensors` per shard.

Source: clt_forge/clt.py and its export to circuit-tracer. Tensors are in training units: scaled inputs, scaled outputs. W_enc [n_layers,
d_model, n_features], b_enc and log_threshold [n_layers, n_features]; W_dec and b_dec of all (source, target) pairs, source by source,
of a PLT one pair per layer; the biases of one target add up. Shards hold consecutive features. Features read ln2.hook_normalized of a
model that TransformerLens loaded without processing (clt_forge/training/activations_store.py); hook_points.py says what that may mean.
"""

import json
from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.interchange.files import (
    check_settings,
    check_sizes,
    check_tensors,
    numbered,
    read_settings,
    read_tensors,
    refuse_chosen_layers,
    refuse_sae,
    refuse_top_k,
    tensor,
    without_gaps,
)
from cltdb.interchange.hook_points import info_of, input_of
from cltdb.model.parts import DictionaryParts
from cltdb.tensor_files import Pieces, pieces, scaled

SETTINGS, WEIGHTS = "clt_cfg.json", "clt_weights.safetensors"
INPUT_HOOK = "ln2.hook_normalized"
INPUT_SCALE, OUTPUT_SCALE = "estimated_norm_scaling_factor_in", "estimated_norm_scaling_factor_out"
READ = ("model_name", "d_in", "d_latent", "n_layers", "world_size")
NEUTRAL = (
    *("device", "dtype", "seed", "debug", "ddp", "fsdp", "feature_sharding", "is_sharded", "sparse_decode", "sparse_threshold"),
    *("context_size", "jumprelu_bandwidth", "jumprelu_init_threshold", "normalize_decoder", "dead_feature_window"),
    *("functional_loss", "l0_coefficient", "decoder_rank"),
)
"""What makes it fast, and how it was trained."""
FIXED = {"activation_fn": ("jumprelu", "jump_relu"), "cross_layer_decoders": (True, False), "decoder_type": ("full",)}
"""k, with or without another activation, is refused as what is not known: its files hold thresholds."""
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "log_threshold", "layer_mask", "feature_count", INPUT_SCALE, OUTPUT_SCALE)


def parts(directory):
    """The `DictionaryParts` of a checkpoint, in model units. Scales are folded in float32, piece by piece; where there are none, or
    all are 1, the files' dtype stays."""
    directory = Path(directory)
    settings = read_settings(directory / SETTINGS)
    check_settings(settings, directory / SETTINGS, read=READ, neutral=NEUTRAL, fixed=FIXED)
    shards = _shards(directory)
    first, path = shards[0]
    L, D, _ = tensor(first, "W_enc", path, shape=(None, None, None)).shape
    kind = "clt" if settings.get("cross_layer_decoders", True) else "plt"
    pairs = [(source, target) for source in range(L) for target in (range(source, L) if kind == "clt" else [source])]
    _check_whole(settings, directory / SETTINGS, shards, n_layers=L, d_model=D)
    _check_mask(first, path, [source for source, _ in pairs], n_layers=L)
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


def _check_whole(settings, path, shards, *, n_layers, d_model):
    """Refuses shards that do not make up all of the features that the settings state."""
    if shards[0][1].name != WEIGHTS and settings.get("d_latent") is None:
        raise CltdbError(
            str(path),
            found=f"shards ({len(shards)}) and no d_latent",
            expected="the number of features, which tells whether the last shards are there",
            do="restore the file",
        )
    n_features = sum(tensor(tensors, "W_enc", file, shape=(n_layers, d_model, None)).shape[2] for tensors, file in shards)
    sizes = {"n_layers": n_layers, "d_in": d_model, "d_latent": n_features}
    check_sizes(settings, path, sizes | ({"world_size": len(shards)} if settings.get("feature_sharding") else {}))


def _check_mask(tensors, path, sources, *, n_layers):
    """Refuses pairs in another order than source by source. sources: that of each pair [n_pairs]."""
    mask = tensor(tensors, "layer_mask", path, shape=(n_layers, len(sources)), optional=True)
    if mask is not None and not torch.equal(mask != 0, torch.arange(n_layers)[:, None] == torch.tensor(sources)):
        raise CltdbError(f"{path} layer_mask", found="pairs in another order", expected="source by source", do="restore the file")


def _scale(found):
    """Scales [n_layers] in float32; None where there is nothing to fold."""
    return None if found is None or bool((found == 1).all()) else found.float()


def _shards(directory):
    """[({name: tensor}, path)] of the one file or of the shards, which must be of one state."""
    files = numbered(directory, r"rank(\d+)_clt_weights\.safetensors")
    if (directory / WEIGHTS).is_file():
        if files:
            found, expected = f"{WEIGHTS} and {min(files.values()).name}", "one of them"
            raise CltdbError(str(directory), found=found, expected=expected, do="take out what is not of this state")
        files = {0: directory / WEIGHTS}
    without_gaps(files, directory, f"{WEIGHTS}, or rank0_{WEIGHTS}, rank1_{WEIGHTS}, …")
    shards = [(read_tensors(path), path) for _, path in sorted(files.items())]
    for tensors, path in shards:  # model.*: the language model's own, which CLT-Forge leaves out as well
        check_tensors([name for name in tensors if not name.startswith("model.")], path, TENSORS)
    for name, value in shards[0][0].items():
        if name.startswith(("b_dec", "estimated")) and any(not torch.equal(shard.get(name, value), value) for shard, _ in shards):
            raise CltdbError(
                str(directory), found=f"shards whose {name} differ", expected="shards of one state", do="restore the checkpoint"
            )
    return shards


def save(dictionary, directory, *, hook_normalized=None, model=None):
    """Writes `clt_weights.safetensors` and `clt_cfg.json`, scales being 1 and each bias with its own layer's pair.

    hook_normalized="after": the files' ln2.hook_normalized is to mean the MLP's own input, as of a LayerNorm before TransformerLens 3.
    model: folder or id of the model whose config tells whether it has LayerNorms; default the one that the dictionary names."""
    from cltdb.engine.workspace import write_safetensors, writing

    d, directory = dictionary, Path(directory)
    refuse_sae(d, "clt-forge")
    refuse_top_k(d, "clt-forge")
    if d.threshold is None or d.W_skip is not None or bool((d.threshold <= 0).any()):
        what = "a skip connection" if d.W_skip is not None else "no threshold, or one that is not above 0"
        raise CltdbError(
            "export to clt-forge",
            found=what,
            expected="a JumpReLU dictionary without skip, whose log thresholds its files hold",
            do="export in the format circuit-tracer or cltdb",
        )
    hooks = (INPUT_HOOK, "mlp.hook_in") if hook_normalized == "after" else (INPUT_HOOK,)
    if d.info.get("mlp_input", "normed") != "normed" or d.info.get("input_hook", INPUT_HOOK) not in hooks:
        raise CltdbError(
            "export to clt-forge",
            found=f"features that read {d.sites[0].hook}",
            expected=f"{INPUT_HOOK}, the only input that its files stand for (of an RMSNorm it lacks the gain)",
            do="export in the format circuit-tracer or cltdb; of a LayerNorm model add --hook-normalized after where TransformerLens is"
            " older than 3.0, whose hook_normalized is the MLP's own input",
        )
    if hook_normalized == "after":
        _require_layer_norms(model or d.info.get("model_id"))
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


def _require_layer_norms(model):
    """Refuses a model of which ln2.hook_normalized is never the MLP's own input."""
    from cltdb.model.loading import has_layer_norms

    if not model:
        found, do = "a dictionary that names no model", "add --model with its folder or id"
    elif not has_layer_norms(model):
        found = f"after, of {model}, whose RMSNorms have ln2.hook_normalized before the gain in every version of TransformerLens"
        do = "export in the format circuit-tracer or cltdb"
    else:
        return
    raise CltdbError("--hook-normalized", found=found, expected="a model with LayerNorms, whose config says so", do=do)
