"""Interventions on features and what they do; edges measured by interventions.

Modes. constrained: the other features hold their values of the clean run, attention patterns and norm denominators too,
so that only direct effects show; with `until_layer`, that holds for MLP outputs up to that layer, and later layers and
all norms respond. iterative: the replacement model responds, every feature read again layer by layer, with errors and
attention patterns held. free: the model itself responds, with the change of the feature's decoder vectors added to its
MLP outputs. Source: Anthropic, "Circuit Tracing" (2025), section on validating graphs with perturbations.
"""

import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cltdb.attribute.freezing import frozen, hooks
from cltdb.attribute.replacement_model import LocalReplacementModel, at_least_float32, prompt_token_ids
from cltdb.errors import CltdbError
from cltdb.model.transcoder import Outputs

MODES = ("constrained", "iterative", "free")
SETTING = re.compile(r"(?P<layer>\d+):(?P<feature>\d+)@(?P<position>-?\d+|\*)=(?P<scale>x?)(?P<value>.+)")


class Setting(NamedTuple):
    """What is done to a feature. position: counted from the end where negative, None = all. operation: set or scale."""

    layer: int
    feature: int
    position: int | None
    operation: str
    value: float


class Response(NamedTuple):
    """activations [pos, n_layers, n_features]; at the last position, logits less their mean and probabilities [vocab], the final norm's
    output [d_model] and mlp_inputs [n_layers, d_model]."""

    activations: torch.Tensor
    logits: torch.Tensor
    probabilities: torch.Tensor
    final: torch.Tensor
    mlp_inputs: torch.Tensor


@dataclass(frozen=True)
class Outcome:
    """Before and after, as Polars frames. logits: token, string, before, after, probability_before, probability_after,
    for the likeliest tokens; a logit is less the mean over the vocabulary, before a soft-cap. features: layer,
    position, feature, before, after, most changed first."""

    mode: str
    logits: Any
    features: Any

    def to_json(self):
        """The same as a JSON object."""
        import json

        return json.dumps(
            {"mode": self.mode, "logits": self.logits.to_dicts(), "features": self.features.to_dicts()},
            ensure_ascii=False,
        )

    def __str__(self):
        return f"mode {self.mode}\n{self.logits}\n{self.features}"


def parse_setting(text):
    """`3:120@5=0` sets feature 120 of layer 3 at position 5 to 0, `=2.5` to 2.5, `=x2` doubles it; a position may be
    negative or `*`."""
    match = SETTING.fullmatch(text.strip())
    try:
        value = float(match["value"])
    except (TypeError, ValueError):
        value = float("nan")
    if not abs(value) < float("inf"):
        raise CltdbError(
            "--feature",
            found=repr(text),
            expected="LAYER:FEATURE@POS=VALUE, for example 3:120@5=0, 3:120@-1=2.5 or 3:120@*=x2",
            do="mend it",
        )
    position = None if match["position"] == "*" else int(match["position"])
    return Setting(int(match["layer"]), int(match["feature"]), position, "scale" if match["scale"] else "set", value)


def placed(settings, dictionary, n_positions):
    """The settings with positions 1 to n_positions - 1 spelled out, all within the dictionary and the prompt."""

    def check(what, found, first, last, note=""):
        if not first <= found <= last:
            raise CltdbError(f"--feature {what}", found=found, expected=f"{first} to {last}{note}", do="choose one of these")

    out = []
    for setting in settings:
        check("layer", setting.layer, 0, dictionary.n_layers - 1)
        check("feature", setting.feature, 0, dictionary.n_features - 1)
        if setting.position is None:
            out += [setting._replace(position=position) for position in range(1, n_positions)]
            continue
        position = setting.position + n_positions if setting.position < 0 else setting.position
        check("position", position, 1, n_positions - 1, " (position 0 has no features), or counted from the end")
        out.append(setting._replace(position=position))
    return out


def respond(replacement, settings, *, mode, until_layer=None):
    """How the model or replacement model responds to `settings` (positions spelled out)."""
    if mode not in MODES:
        raise CltdbError("--mode", found=repr(mode), expected=", ".join(MODES), do="choose one")
    lm, final = replacement.lm, []
    held = lm.n_layers - 1 if until_layer is None else until_layer
    mlps = {
        "constrained": _Constrained(replacement, settings, held),
        "iterative": _Iterative(replacement, settings),
        "free": _Free(replacement, settings),
    }[mode]
    direct = mode == "constrained" and held == lm.n_layers - 1
    freezing = nullcontext() if mode == "free" else frozen(lm, replacement.constants, norms=direct)
    with (
        torch.no_grad(),
        lm.replaced_mlps(mlps),
        freezing,
        hooks([("final", lm.final_norm)], lambda name, module: lambda _, args, x: final.append(x)),
    ):
        output = lm.hf(input_ids=replacement.tokens[None], use_cache=False).logits
    logits = lm.unembedding(final[0][0, -1])
    return Response(
        torch.stack(mlps.activations, dim=1),
        logits - logits.mean(),
        torch.softmax(output[0, -1].double(), dim=-1),
        final[0][0, -1],
        torch.stack(mlps.inputs),
    )


class _Mlps:
    """What stands in for the MLPs, called layer by layer; keeps the activations [pos, n_features] it saw. `written`: what the changes so
    far write to each layer."""

    def __init__(self, replacement, settings):
        self.replacement, self.dictionary, self.settings = replacement, replacement.dictionary, settings
        self.activations, self.inputs = [], []
        self.written = Outputs(self.dictionary, torch.zeros_like(self.dictionary.b_dec))

    def read(self, x, layer):
        """Activations at x [pos, d_model], nothing at position 0; notes what is read at the last position."""
        self.inputs.append(x[-1])
        activations = self.dictionary.encode_layer(x, layer)
        activations[0] = 0
        return activations

    def changed(self, activations, layer):
        """The activations with this layer's settings applied."""
        activations = activations.clone()
        for setting in self.settings:
            if setting.layer == layer:
                before = activations[setting.position, setting.feature]
                activations[setting.position, setting.feature] = setting.value * (before if setting.operation == "scale" else 1)
        return activations

    def keep(self, x, layer, base):
        """Notes the activations at x with the settings' values, and the change that the settings make to `base`."""
        change = self.changed(base, layer) - base
        self.written.add(change, layer)
        self.activations.append(torch.where(change != 0, self.changed(base, layer), self.read(x, layer)))


class _Constrained(_Mlps):
    def __init__(self, replacement, settings, until_layer):
        super().__init__(replacement, settings)
        self.until_layer = until_layer

    def __call__(self, layer, x, y):
        self.keep(x[0], layer, self.replacement.activations[:, layer])
        if layer > self.until_layer:
            return y + self.written.sum(layer)
        return (self.replacement.sites[:, layer] + self.replacement.skip(layer, x[0]) + self.written.sum(layer))[None]


class _Iterative(_Mlps):
    def __init__(self, replacement, settings):
        super().__init__(replacement, settings)
        self.outputs = Outputs(self.dictionary, self.dictionary.b_dec)

    def __call__(self, layer, x, y):
        self.activations.append(self.changed(self.read(x[0], layer), layer))
        self.outputs.add(self.activations[-1], layer)
        output = self.outputs.output(layer, x[0]) + self.replacement.errors[:, layer]
        return torch.cat([self.replacement.sites[:1, layer], output[1:]])[None]


class _Free(_Mlps):
    def __call__(self, layer, x, y):
        self.keep(x[0], layer, self.read(x[0], layer))
        return y + self.written.sum(layer)


def intervene(model, dictionary, prompt, interventions, *, mode="constrained", until_layer=None, n_logits=10, n_features=50):
    """What `interventions` (texts as of `parse_setting`, or `Setting`s) do to the next token's logits and to the other
    features.

    model, prompt as in `attribute`. Returns an `Outcome`: the `n_logits` likeliest tokens before or after, the
    `n_features` most changed features.
    """
    lm = at_least_float32(model)
    replacement = LocalReplacementModel.of(lm, dictionary, prompt_token_ids(lm, prompt))
    settings = placed(
        [parse_setting(item) if isinstance(item, str) else item for item in interventions],
        replacement.dictionary,
        replacement.n_positions,
    )
    if until_layer is not None and not 0 <= until_layer < lm.n_layers:
        raise CltdbError("until_layer", found=until_layer, expected=f"0 to {lm.n_layers - 1}", do="choose one of these")
    before = respond(replacement, [], mode=mode, until_layer=until_layer)
    after = respond(replacement, settings, mode=mode, until_layer=until_layer)
    return Outcome(mode, _logit_frame(lm, before, after, n_logits), _feature_frame(before, after, n_features))


def most_changed(before, after, n):
    """(layer, position, feature) of at most `n` features whose activations differ, most changed first."""
    change = (after.activations - before.activations).abs()
    position, layer, feature = change.nonzero(as_tuple=True)
    order = change[position, layer, feature].sort(descending=True, stable=True).indices[:n]
    return list(zip(layer[order].tolist(), position[order].tolist(), feature[order].tolist(), strict=True))


def _logit_frame(lm, before, after, n):
    import polars as pl

    tokens = {
        token for response in (before, after) for token in response.probabilities.topk(min(n, lm.vocab_size)).indices.tolist()
    }
    rows = [
        {
            "token": token,
            "string": lm.tokenizer.decode([token]),
            "before": float(before.logits[token]),
            "after": float(after.logits[token]),
            "probability_before": float(before.probabilities[token]),
            "probability_after": float(after.probabilities[token]),
        }
        for token in tokens
    ]
    return pl.DataFrame(sorted(rows, key=lambda row: (-row["probability_before"], row["token"])))


def _feature_frame(before, after, n):
    import polars as pl

    rows = [
        {
            "layer": layer,
            "position": position,
            "feature": feature,
            "before": float(before.activations[position, layer, feature]),
            "after": float(after.activations[position, layer, feature]),
        }
        for layer, position, feature in most_changed(before, after, n)
    ]
    return pl.DataFrame(
        rows,
        schema={
            "layer": pl.Int32,
            "position": pl.Int32,
            "feature": pl.Int32,
            "before": pl.Float64,
            "after": pl.Float64,
        },
    )


def measure_edges(replacement, nodes, targets, pairs, *, batch_size=32):
    """What removing each pair's source takes from its target: forward passes of the frozen model, no backward pass.

    pairs: (source_id, target_id). Returns one number per pair, what `weight` claims to be. The replacement model should
    be in float64, for small effects on large pre-activations.
    """
    sources = sorted({source for source, _ in pairs})
    values = {}
    for start in range(0, len(sources), batch_size):
        chunk = sources[start : start + batch_size]
        with torch.no_grad():
            run = replacement.run(*_without(replacement, nodes, chunk))
        for row, source in enumerate(chunk, start=1):
            for target in {target for other, target in pairs if other == source}:
                read = _reader(replacement, nodes, targets, target)
                values[source, target] = float(read(run, 0) - read(run, row))
    return [values[pair] for pair in pairs]


def _without(replacement, nodes, sources):
    """Embeddings [1 + n_sources, pos, d_model] and MLP outputs: one row as they are, one without each source."""
    n_rows = len(sources) + 1
    embeddings = replacement.embeddings.repeat(n_rows, 1, 1)
    sites = replacement.sites.transpose(0, 1)[:, None].repeat(1, n_rows, 1, 1)
    for row, source in enumerate(sources, start=1):
        layer, position, feature = nodes.place(source)
        kind = nodes.kind(source)
        if kind == "embedding":
            embeddings[row, position] = 0
        elif kind == "error":
            sites[layer, row, position] -= replacement.errors[position, layer]
        else:
            activations = replacement.activations[position].clone()
            activations[layer, feature] = 0
            decoded = replacement.dictionary.decode(activations, torch.zeros_like(replacement.mlp_inputs[position]))
            sites[:, row, position] = decoded + replacement.errors[position]
    return embeddings, sites


def _reader(replacement, nodes, targets, target):
    """A function of (pass, row): the pre-activation of node `target` there, less constants."""
    if nodes.kind(target) == "logit":
        direction = targets.directions[target - nodes.logits.start].to(replacement.lm.dtype)
        return lambda run, row: (run.final if targets.layer is None else run.mlp_inputs[targets.layer])[row, -1] @ direction
    layer, position, feature = nodes.place(target)
    direction = replacement.dictionary.encoder(layer, feature)
    return lambda run, row: run.mlp_inputs[layer][row, position] @ direction
