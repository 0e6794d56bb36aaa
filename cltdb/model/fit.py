"""Whether a dictionary and a language model belong together: the same model, sizes, hook points and sites."""

from cltdb.errors import CltdbError
from cltdb.model.kinds import KINDS, MLP_OUTPUT, input_name
from cltdb.model.norms import is_centred


def check_fits(dictionary, lm):
    """CltdbError where a dictionary was trained on a model of another name (the part after the last slash), depth or width, reads another
    MLP input, writes another output, or has other sites."""
    check_same_sizes(dictionary, lm)
    if reads_hook_normalized(dictionary.info, lm):
        centred = is_centred(lm.blocks[0].mlp_norm)
        lies = (
            "of a LayerNorm after gain and bias up to TransformerLens 2 and before them since 3.0"
            if centred
            else "what an RMSNorm has before it multiplies by its gain"
        )
        raise CltdbError(
            "dictionary",
            found=f"features that read ln2.hook_normalized, {lies}",
            expected=f"the MLP's own input, as {lm.model_id} was loaded",
            do="name its folder under train.from of a spec, or import it with cltdb import … --model"
            + (", and say which of the two it is (hook_normalized: after or before, --hook-normalized)" if centred else "")
            + "; that puts the norm into the encoders",
        )
    if dictionary.info.get("output_hook") == "mlp.hook_out" and lm.blocks[0].mlp_output is not lm.blocks[0].mlp:
        raise CltdbError(
            "dictionary",
            found="features that write to mlp.hook_out, the MLP's output before its norm",
            expected=f"hook_mlp_out, what the layers of {lm.model_id} add to the residual stream",
            do="choose a dictionary that was trained on the output of the norm",
        )
    mlp_input = dictionary.info.get("mlp_input", lm.mlp_input)
    if mlp_input != lm.mlp_input:
        raise CltdbError(
            "dictionary",
            found=f"one that reads the MLP input {mlp_input!r}",
            expected=f"{lm.mlp_input!r}, as {lm.model_id} was loaded",
            do=f"set model.mlp_input: {mlp_input} in the spec, or load the model with mlp_input={mlp_input!r}",
        )
    if KINDS[dictionary.kind].reconstructs and dictionary.reads not in (MLP_OUTPUT, input_name(lm.mlp_input)):
        mlp_input = "normed" if dictionary.reads == "mlp_input" else "residual"
        raise CltdbError(
            "dictionary",
            found=f"an SAE of the place {dictionary.reads}",
            expected=f"{MLP_OUTPUT} or {input_name(lm.mlp_input)}, as {lm.model_id} was loaded",
            do=f"set model.mlp_input: {mlp_input}",
        )
    if "sites" in dictionary.info and dictionary.sites != lm.sites:
        places = enumerate(zip(dictionary.sites, lm.sites, strict=True))
        layer, site, own = next((layer, site, own) for layer, (site, own) in places if site != own)
        raise CltdbError(
            "dictionary",
            found=f"layer {layer} at {site}",
            expected=f"{own}, as {lm.model_id} was loaded",
            do="give a dictionary that was trained on the MLPs of this model",
        )
    input_hook = dictionary.info.get("input_hook")
    if {input_hook, lm.input_hook} == {"hook_resid_pre", "hook_resid_mid"}:
        raise CltdbError(
            "dictionary",
            found=f"features that read {input_hook}",
            expected=f"{lm.input_hook}, from which the MLPs of {lm.model_id} read",
            do="choose a dictionary that reads the residual stream where the MLP does",
        )


def check_transcoder(kind, where="dictionary"):
    """CltdbError for a kind of dictionary through which a graph cannot be drawn."""
    if KINDS[kind].reconstructs:
        raise CltdbError(
            where,
            found=f"kind {kind}",
            expected="clt or plt: an SAE explains an activation and not how the MLP makes it, so no edge leads through its layers",
            do="train a transcoder (train.kind: plt), or leave the graph out",
        )


def check_same_sizes(dictionary, lm):
    """CltdbError where a dictionary was trained on a model of another name, depth or width."""
    of_model = dictionary.info.get("model_id")
    if of_model and _last_part(of_model) != _last_part(lm.model_id):
        raise CltdbError(
            "dictionary",
            found=f"one of the model {of_model}",
            expected=f"one of {lm.model_id}",
            do="give the dictionary that was trained on this model",
        )
    found, expected = (dictionary.n_layers, dictionary.d_model), (lm.n_layers, lm.d_model)
    if found != expected:
        raise CltdbError(
            "dictionary",
            found="{} layers of width {}".format(*found),
            expected=f"the {expected[0]} layers of width {expected[1]} of {lm.model_id}",
            do="give the dictionary that was trained on this model",
        )


def reads_hook_normalized(info, lm):
    """Whether a dictionary, by its `info`, reads ln2.hook_normalized instead of the MLP's own input. `LanguageModel.input_hook` says how the
    two differ."""
    return info.get("input_hook") == "ln2.hook_normalized" and lm.mlp_input == info.get("mlp_input") == "normed"


def _last_part(model_id):
    return str(model_id).rstrip("/").rpartition("/")[2].lower()
