"""What a published dictionary reads and writes, by TransformerLens's names of hook points, and its fit to a model that reads elsewhere."""

from cltdb.errors import CltdbError
from cltdb.model.norms import norm_gain
from cltdb.model.parts import DictionaryParts
from cltdb.model.transcoder import check_fits, reads_before_gain
from cltdb.tensor_files import scaled, whole

INPUT_HOOKS = {
    "normed": ("ln2.hook_normalized", "mlp.hook_in"),  # `LanguageModel.input_hook` says where they differ
    "residual": ("hook_resid_mid", "hook_resid_pre", "hook_mlp_in"),  # all before the norm
}
OUTPUT_HOOKS = ("hook_mlp_out", "mlp.hook_out")  # after and before a norm of the MLP's output, where there is one


def input_of(hook, path=None):
    """What a hook point of TransformerLens reads: {mlp_input, input_hook}, nothing where nothing is said."""
    if not hook:
        return {}
    for mlp_input, names in INPUT_HOOKS.items():
        for name in names:
            if str(hook) == name or str(hook).endswith("." + name):
                return {"mlp_input": mlp_input, "input_hook": name}
    raise CltdbError(
        str(path),
        found=f"features that read {hook}",
        expected="one of " + ", ".join(name for names in INPUT_HOOKS.values() for name in names),
        do="choose a dictionary that reads the MLP's input",
    )


def output_of(hook, path):
    """{output_hook} of a dictionary that writes what a hook point of TransformerLens holds, nothing where nothing is said."""
    if not hook:
        return {}
    for name in OUTPUT_HOOKS:
        if str(hook) == name or str(hook).endswith("." + name):
            return {"output_hook": name}
    raise CltdbError(
        str(path),
        found=f"features that write {hook}",
        expected=" or ".join(OUTPUT_HOOKS),
        do="choose a dictionary that writes the MLP's output",
    )


def hook_of(dictionary):
    """The hook point of TransformerLens that a dictionary reads."""
    info = dictionary.info
    return info.get("input_hook") or ("hook_resid_mid" if info.get("mlp_input") == "residual" else "mlp.hook_in")


def fitted(parts, lm):
    """The `DictionaryParts` as a model needs them, with gains folded in; refused where they are of another model."""
    parts = fold_gain(parts, lm)
    check_fits(parts, lm)
    return parts


def fold_gain(parts, lm):
    """The `DictionaryParts` that read what the MLPs of `lm` read, where `parts` read its RMSNorms before their gains:
    <w, x> = <w / gain, gain * x>, and so the skip connection. Others are as they were."""
    if (parts.n_layers, parts.d_model) != (lm.n_layers, lm.d_model) or not reads_before_gain(parts.info, lm):
        return parts
    layers = []
    for number, (layer, block) in enumerate(zip(parts.layers, lm.blocks, strict=True)):
        gain = norm_gain(block.mlp_norm).detach().float().cpu()
        if bool((gain == 0).any()):
            raise CltdbError(
                f"dictionary, layer {number}",
                found=f"features that read what the RMSNorm of {lm.model_id} has before a gain of 0",
                expected="gains other than 0, so that the MLP's input tells what came before",
                do="choose a dictionary that reads mlp.hook_in",
            )
        W_skip = None if layer["W_skip"] is None else whole(layer["W_skip"]) / gain[:, None]
        layers.append(layer | {"W_enc": scaled([layer["W_enc"]], 1 / gain), "W_skip": W_skip})
    info = parts.info | {"input_hook": lm.input_hook, "gain_folded": True}
    return DictionaryParts(kind=parts.kind, activation=parts.activation, layers=layers, info=info)


def info_of(model_id, hooks, source):
    """Provenance of an imported dictionary. hooks: of `input_of` and `output_of`."""
    if model_id is not None and not isinstance(model_id, str):
        raise CltdbError(f"dictionary from {source}", found=f"the model {model_id!r}", expected="a name", do="mend its settings")
    return ({"model_id": model_id} if model_id else {}) | hooks | {"imported": source}
