"""Which hook points of TransformerLens a published dictionary reads and writes, and how it is fitted to a model that reads elsewhere.

Source for ln2.hook_normalized: TransformerLens's issue 747 and pull request 770, which moved it in front of a LayerNorm's gain and bias (3.0).
"""

import logging

import torch

from cltdb.activations.ordinary import ordinary_places
from cltdb.errors import CltdbError
from cltdb.model.fit import check_fits, check_same_sizes, reads_hook_normalized
from cltdb.model.kinds import KINDS, MLP_OUTPUT, input_name
from cltdb.model.nonlinearity import among_largest
from cltdb.model.norms import is_centred, norm_bias, norm_gain
from cltdb.model.parts import DictionaryParts
from cltdb.tensor_files import pieces, scaled, whole

log = logging.getLogger(__name__)

INPUT_HOOKS = {
    "normed": ("ln2.hook_normalized", "mlp.hook_in"),  # `LanguageModel.input_hook` says where they differ
    "residual": ("hook_resid_mid", "hook_resid_pre", "hook_mlp_in"),  # all before the norm
}
OUTPUT_HOOKS = ("hook_mlp_out", "mlp.hook_out")  # after and before a norm of the MLP's output, where there is one


def input_of(hook, path=None):
    """{mlp_input, input_hook} of features that read a hook point of TransformerLens; empty where none is stated."""
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
    """{output_hook} of features that write to a hook point of TransformerLens; empty where none is stated."""
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


def place_of(hook, path):
    """{reads, and input_hook or output_hook} of an SAE, which reads and reconstructs a hook point of TransformerLens."""
    name = str(hook)
    if any(name == known or name.endswith("." + known) for known in OUTPUT_HOOKS):
        return {"reads": MLP_OUTPUT} | output_of(hook, path)
    found = input_of(hook, path)
    return {"reads": input_name(found["mlp_input"])} | found


def fitted(parts, lm, *, hook_normalized=None, tokens=None):
    """The `DictionaryParts` as a model needs them, with its norms folded in; refused where they are of another model.

    hook_normalized: whether the ln2.hook_normalized that they read lies `after` the norm's gain and bias or `before`. None: before those of
    an RMSNorm, as in every version of TransformerLens; of a LayerNorm, where versions differ, what `measured_fvu` tells on `tokens`, a
    function that gives sequences of token ids; default SAMPLE."""
    if "layers" in parts.info and parts.n_layers < lm.n_layers and not KINDS[parts.kind].spans:
        parts = parts.deepened(lm.n_layers)  # the files of single layers do not say how many the model has
    if reads_hook_normalized(parts.info, lm):
        check_same_sizes(parts, lm)
        centred = is_centred(lm.blocks[0].mlp_norm)
        parts = fold_norm(parts, lm, hook_normalized or (_measured_meaning(parts, lm, tokens) if centred else "before"))
    elif hook_normalized:
        raise CltdbError(
            "hook_normalized",
            found=f"{hook_normalized} for features that read {parts.sites[0].hook}",
            expected="none: there is one meaning of that",
            do="leave it out",
        )
    check_fits(parts, lm)
    if "imported" in parts.info and "input_hook" not in parts.info:
        log.warning("its files do not say what its features read: they are taken to read %s", lm.input_hook)
    return parts


def named_after(parts, hook_normalized):
    """The `DictionaryParts` whose ln2.hook_normalized is known to lie after gain and bias, which needs no model."""
    if hook_normalized == "before" or parts.info.get("input_hook") != "ln2.hook_normalized":
        where = "--hook-normalized"
        if hook_normalized == "before":
            found, expected, do = "before and no model", "the model, whose norms go into the encoders", "add --model"
        else:
            found, expected, do = f"features that read {parts.sites[0].hook}", "ln2.hook_normalized", "leave it out"
        raise CltdbError(where, found=found, expected=expected, do=do)
    info = parts.info | {"input_hook": "mlp.hook_in"}
    return DictionaryParts(kind=parts.kind, activation=parts.activation, k=parts.k, layers=parts.layers, info=info)


def fold_norm(parts, lm, hook_normalized):
    """The `DictionaryParts` that read what the MLPs of `lm` read, x = gain * n + bias, where `parts` read n (hook_normalized: before):
    <w, n> = <w / gain, x> - <w / gain, bias>, and so the skip connection. Where they read x (after) they are as they were."""
    info = parts.info | {"input_hook": lm.input_hook, "gain_folded": hook_normalized == "before"}
    layers = parts.layers
    if hook_normalized == "before":
        layers = [
            _folded(layer, block.mlp_norm, number, writes_there=parts.kind == "sae")
            for number, (layer, block) in enumerate(zip(layers, lm.blocks, strict=True))
        ]
    return DictionaryParts(kind=parts.kind, activation=parts.activation, k=parts.k, layers=layers, info=info)


def _folded(layer, norm, number, *, writes_there):
    """writes_there: of an SAE, which writes n as well: x = gain * (a W_dec + b_dec) + bias."""
    gain, bias = (side.detach().float().cpu() for side in (norm_gain(norm), norm_bias(norm)))
    if bool((gain == 0).any()):
        raise CltdbError(
            f"dictionary, layer {number}",
            found="a norm with a gain of 0, and features that read what comes before the gain",
            expected="gains other than 0: through a gain of 0 the MLP's input does not tell what came before",
            do="choose a dictionary that reads mlp.hook_in",
        )
    W_enc, folded = scaled([layer["W_enc"]], 1 / gain), {}
    if layer["W_skip"] is not None:
        folded["W_skip"] = whole(layer["W_skip"]) / gain[:, None]
    if bool((bias != 0).any()):
        at_bias = torch.cat([(rows @ bias.to(rows.dtype)).flatten() for rows in pieces(W_enc)])
        folded["b_enc"] = whole(layer["b_enc"]) - at_bias
        if "W_skip" in folded:
            folded["b_dec"] = whole(layer["b_dec"]) - bias @ folded["W_skip"].to(bias.dtype)
    if writes_there:
        folded |= {"W_dec": scaled([layer["W_dec"]], gain), "b_dec": whole(layer["b_dec"]) * gain + bias}
    return layer | {"W_enc": W_enc} | folded


SAMPLE = """The old harbour lies an hour north of the city, where the river meets the sea. In 1921 a fire destroyed most of the wooden houses;
the town council decided to build in stone, and within ten years 340 new homes stood along the water. "We could not have done it without our
neighbours," the mayor said at the opening. Today visitors come for the museum, the fish market and the long walk to the lighthouse. The first
ships of the year arrive in April, when the ice has gone, and the last ones leave before the storms of late November. Most families have a
small boat, although few of them live from fishing: the school, the hospital and a company that makes pumps employ more people than the sea
does. If you ask them why they stay, they will tell you about the light on a summer evening, or that rents are low, or that they never
thought about it."""
CLEARLY = 1.2
"""FVU decides where the smaller one is below 1 and the larger one exceeds it by this factor. The factor is smallest for top-k, whose number of
active features is the same for any input: 0.085 to 0.064 on the toy world's own text."""


def _measured_meaning(parts, lm, tokens):
    """`after` or `before`, whichever clearly reconstructs the MLPs' outputs; a CltdbError where neither does."""
    found = measured_fvu(parts, lm, _sample(lm) if tokens is None else tokens())
    best = min(found, key=found.get)
    figures = ", ".join(f"{value:.3g} {name}" for name, value in found.items())
    if not found[best] < 1 or not max(found.values()) > CLEARLY * found[best]:
        raise CltdbError(
            "dictionary",
            found="features that read ln2.hook_normalized of a LayerNorm, which lies after gain and bias up to TransformerLens 2 and before them"
            f" since 3.0; its FVU on a little text ({figures}) does not tell which is meant",
            expected="the one that it was trained on",
            do="say hook_normalized: after or before under train.from, or --hook-normalized with cltdb import",
        )
    log.warning(
        "features that read ln2.hook_normalized: FVU on a little text is %s gain and bias of the LayerNorm, so it is taken as %s; "
        "hook_normalized says it without measuring",
        figures,
        best,
    )
    return best


def _sample(lm):
    """SAMPLE as sequences of token ids."""
    n, tokens = min(64, lm.max_context) - 1, lm.text_tokens(SAMPLE)
    return [[lm.bos_token_id, *tokens[start : start + n]] for start in range(0, len(tokens) - 1, n)]


@torch.no_grad()
def measured_fvu(parts, lm, sequences):
    """{meaning: pooled FVU, BOS left out} of parts that read ln2.hook_normalized `after` gain and bias and `before`."""
    sides = [], []
    for sequence in sequences:
        tokens = torch.as_tensor(sequence).long()
        ordinary = torch.from_numpy(ordinary_places(tokens[None].numpy(), (lm.bos_token_id,))[0])
        for side, values in zip(sides, lm.run(tokens[None], with_logits=False)[:2], strict=True):
            side.append(values[0].float().cpu()[ordinary])
    x, y = map(torch.cat, sides)
    norms = [[side.detach().float().cpu() for side in (norm_gain(b.mlp_norm), norm_bias(b.mlp_norm))] for b in lm.blocks]
    before = torch.stack([(x[:, layer] - bias) / gain for layer, (gain, bias) in enumerate(norms)], dim=1)
    layers = list(parts.info.get("layers", range(parts.n_layers)))
    found = {}
    for name, inputs in (("after", x), ("before", before)):
        wanted = inputs if parts.kind == "sae" else y
        error = (wanted - _decoded(parts, inputs))[:, layers].square().sum(-1).sum(0)
        spread = (wanted - wanted.mean(0))[:, layers].square().sum(-1).sum(0)
        weights = wanted[:, layers].norm(dim=-1).mean(0).square()
        found[name] = float((error / weights).nan_to_num(torch.inf).sum() / (spread / weights).sum())
    return found


def _decoded(parts, x):
    """The outputs [token, layer, d_model] for inputs of that shape, a layer's encoder and some rows of its decoder in memory at a time."""
    y = torch.stack([whole(layer["b_dec"]).float() for layer in parts.layers]).repeat(len(x), 1, 1)
    for number, layer in enumerate(parts.layers):
        h = torch.cat([x[:, number] @ rows.float().T for rows in pieces(layer["W_enc"])], dim=1) + whole(layer["b_enc"]).float()
        threshold = 0 if layer["threshold"] is None else whole(layer["threshold"]).float()
        a, first = h * (among_largest(h, parts.k) if parts.activation == "topk" else h > threshold), 0
        for rows in pieces(layer["W_dec"]):
            rows = rows.reshape(-1, *layer["W_dec"].shape[1:])
            active = (a[:, first : first + len(rows)] != 0).any(0).nonzero()[:, 0]
            written = torch.einsum("tf,fld->tld", a[:, first + active], rows[active].float())
            y[:, number : number + rows.shape[1]] += written
            first += len(rows)
        if layer["W_skip"] is not None:
            y[:, number] += x[:, number] @ whole(layer["W_skip"]).float()
    return y


def info_of(model_id, hooks, source):
    """Provenance of an imported dictionary. hooks: of `input_of` and `output_of`."""
    if model_id is not None and not isinstance(model_id, str):
        raise CltdbError(f"dictionary from {source}", found=f"the model {model_id!r}", expected="a name", do="mend its settings")
    return ({"model_id": model_id} if model_id else {}) | hooks | {"imported": source}
