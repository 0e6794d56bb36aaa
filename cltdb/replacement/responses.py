"""How a model or its replacement model responds when features are set, or directions added.

Modes. constrained: the other features hold their values of the clean run, attention patterns and norm denominators too, so that only direct
effects show; with `until_layer`, that holds for MLP outputs up to that layer, and later layers and all norms respond, without what the
features' decoders write there. iterative: the replacement model responds, every feature read again layer by layer, with errors and
attention patterns held. free: the model itself responds, with the change of the features' decoder vectors added to its MLP outputs; what a
cross-layer feature writes to later layers then counts twice as far as these respond to what it wrote before. frozen_attention: as free,
but with the attention patterns of the clean run, while MLPs and norms respond (circuit-tracer's default).
With activation topk the k largest are those by pre-activation, before anything is set: a feature that is set or ablated by hand lets no other
in and drives none out, so that more or fewer than k may be active.
Source: Anthropic, "Circuit Tracing" (2025), section on validating graphs with perturbations; circuit_tracer, `feature_intervention`.
"""

import re
from contextlib import nullcontext
from numbers import Integral
from typing import Any, NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.model.transcoder import Outputs
from cltdb.replacement.freezing import frozen, hooks

MODES = ("constrained", "iterative", "free", "frozen_attention")
OPERATIONS = ("set", "scale")
SETTING = re.compile(r"(?P<layer>\d+):(?P<feature>\d+)@(?P<position>-?\d+|\*|-?\d*:(-?\d+)?)=(?P<scale>x?)(?P<value>.+)")
MAX_SEED = 2**63 - 1


class Setting(NamedTuple):
    """What is done to a feature. position: counted from the end where negative, None = all, or a slice, whose end is not in it.
    operation: set or scale."""

    layer: int
    feature: int
    position: int | slice | None
    operation: str
    value: float


class Addition(NamedTuple):
    """`vector` [d_model] added to the MLP output of `layer`; position as of `Setting`."""

    vector: Any
    layer: int
    position: int | slice | None


class Sampling(NamedTuple):
    """How tokens that follow are drawn: from probabilities at a temperature above 0, of the `top_k` likeliest alone where given. The noise
    of each step is that of the seed whatever the logits are, so that two runs differ by their logits only."""

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def check(self):
        """Raises CltdbError where it is none."""
        for name, is_right, expected in (
            ("temperature", 0 < self.temperature < float("inf"), "a number above 0; leave sampling out for the likeliest tokens"),
            ("top-k", self.top_k is None or self.top_k >= 1, "1 or more"),
            ("seed", 0 <= self.seed <= MAX_SEED, f"0 to {MAX_SEED}"),
        ):
            if not is_right:
                found = getattr(self, name.replace("-", "_"))
                raise CltdbError(f"--{name}", found=found, expected=expected, do="mend it")


class Response(NamedTuple):
    """activations [pos, n_layers, n_features]; at the last position, logits less their mean and probabilities [vocab], the final norm's
    output [d_model] and mlp_inputs [n_layers, d_model]."""

    activations: torch.Tensor
    logits: torch.Tensor
    probabilities: torch.Tensor
    final: torch.Tensor
    mlp_inputs: torch.Tensor


def parse_setting(text):
    """`3:120@5=0` sets feature 120 of layer 3 at position 5 to 0, `=2.5` to 2.5, `=x2` doubles it; a position may be
    negative, `*`, or a slice such as `2:5` (2, 3 and 4), `-3:` or `:4`."""
    match = SETTING.fullmatch(text.strip())
    try:
        value = float(match["value"])
    except (TypeError, ValueError):
        value = float("nan")
    if not abs(value) < float("inf"):
        raise CltdbError(
            "--feature",
            found=repr(text),
            expected="LAYER:FEATURE@POS=VALUE, for example 3:120@5=0, 3:120@-1=2.5, 3:120@*=x2 or 3:120@2:5=0",
            do="mend it",
        )
    ends = [int(end) if end else None for end in match["position"].replace("*", "").split(":")]
    position = slice(*ends) if len(ends) == 2 else ends[0]
    return Setting(int(match["layer"]), int(match["feature"]), position, "scale" if match["scale"] else "set", value)


def placed(interventions, dictionary, n_positions, n_constant=1):
    """`Setting`s and `Addition`s with positions n_constant to n_positions - 1 spelled out, all within the dictionary and the prompt, values
    within its dtype, no feature set twice at one position."""

    def check(what, found, first, last, note="", given=None):
        if not (isinstance(found, Integral) and first <= found <= last):
            found = found if given is None else given
            raise CltdbError(f"--feature {what}", found=found, expected=f"{first} to {last}{note}", do="choose one of these")

    out, taken = [], set()
    for one in interventions:
        check("layer", one.layer, 0, dictionary.n_layers - 1)
        if isinstance(one, Setting):
            check("feature", one.feature, 0, dictionary.n_features - 1)
            if one.operation not in OPERATIONS:
                raise CltdbError("--feature", found=repr(one.operation), expected=" or ".join(OPERATIONS), do="choose one")
            limit = torch.finfo(dictionary.dtype).max
            if not abs(one.value) <= limit:
                raise CltdbError("--feature value", found=one.value, expected=f"a number up to {limit:.3g}", do="mend it")
        else:
            one = one._replace(vector=_finite_vector(one.vector, dictionary))
        places = range(n_constant, n_positions)
        if isinstance(one.position, slice):
            places = _sliced(one.position, n_positions, n_constant)
        elif one.position is not None:
            position = one.position + n_positions if one.position < 0 else one.position
            note = f" ({without_features(n_constant)}), or counted from the end"
            check("position", position, n_constant, n_positions - 1, note, given=one.position)
            places = [position]
        for position in places:
            place = (one.layer, one.feature, position) if isinstance(one, Setting) else None
            if place in taken:
                found = f"{one.layer}:{one.feature} set twice at position {position}"
                raise CltdbError("--feature", found=found, expected="each feature once at a position", do="drop one of the two")
            taken |= {place} - {None}
            out.append(one._replace(position=position))
    return out


def without_features(n_constant):
    """What a message says of the constant positions."""
    return "position 0 has no features" if n_constant == 1 else f"positions 0 to {n_constant - 1} are constant, without features"


def _sliced(positions, n_positions, n_constant):
    """The range of a slice of positions; an open start is the first that is not constant."""
    start, stop = (end if end is None or end >= 0 else end + n_positions for end in (positions.start, positions.stop))
    start, stop = n_constant if start is None else start, n_positions if stop is None else stop
    if positions.step is not None or not n_constant <= start < stop <= n_positions:
        shown = ":".join("" if end is None else str(end) for end in (positions.start, positions.stop))
        first = f"a start from {n_constant} ({without_features(n_constant)})"
        expected = f"{first} below an end up to {n_positions}, or counted from the end"
        raise CltdbError("--feature position", found=shown, expected=expected, do="mend the slice; one end may be left out")
    return range(start, stop)


def _finite_vector(vector, dictionary):
    vector = torch.as_tensor(vector, dtype=dictionary.dtype, device=dictionary.device)
    if vector.shape != (dictionary.d_model,) or not bool(vector.isfinite().all()):
        found = f"shape {list(vector.shape)}" + ("" if vector.isfinite().all() else ", not finite")
        raise CltdbError("intervention, added vector", found=found, expected=f"[{dictionary.d_model}], finite", do="mend it")
    return vector


def respond(replacement, interventions, *, mode, until_layer=None):
    """How the model or replacement model responds to `interventions` (positions spelled out)."""
    if mode not in MODES:
        raise CltdbError("--mode", found=repr(mode), expected=", ".join(MODES), do="choose one")
    lm = replacement.lm
    held = lm.n_layers - 1 if until_layer is None else until_layer
    mlps = {
        "constrained": lambda: _Constrained(replacement, interventions, held),
        "iterative": lambda: _Iterative(replacement, interventions),
        "free": lambda: _Free(replacement.dictionary, interventions, replacement.n_constant),
        "frozen_attention": lambda: _Free(replacement.dictionary, interventions, replacement.n_constant),
    }[mode]()
    direct = mode == "constrained" and held == lm.n_layers - 1
    freezing = nullcontext() if mode == "free" else frozen(lm, replacement.constants, norms=direct)
    with freezing:
        final, output = _forward(lm, replacement.tokens, mlps)
    if not bool(output.isfinite().all()):
        expected = f"finite logits in {str(lm.dtype).removeprefix('torch.')}"
        raise CltdbError("intervention", found="an overflow", expected=expected, do="set smaller values")
    logits = lm.unembedding(final)
    return Response(
        torch.stack(mlps.activations, dim=1),
        logits - logits.mean(),
        torch.softmax(output.double(), dim=-1),
        final,
        torch.stack(mlps.inputs),
    )


@torch.no_grad()
def _forward(lm, tokens, mlps):
    """(the final norm's output [d_model], the logits after a soft-cap [vocab]) at the last of `tokens` [pos], with `mlps` for MLPs."""
    final = []
    with (
        lm.replaced_mlps(mlps),
        hooks([("final", lm.final_norm)], lambda name, module: lambda _, args, x: final.append(x)),
    ):
        output = lm.hf(input_ids=tokens[None], use_cache=False).logits
    return final[0][0, -1], output[0, -1]


def continued(lm, dictionary, tokens, interventions, n, sampling=None, n_constant=1):
    """`tokens` (ids) with `n` next ones, one after another, the likeliest or drawn as `Sampling` says, the model itself responding (mode
    free). Interventions at all positions, or in a slice without an end, act on the new ones too, the others where they stand."""
    tokens = list(tokens)
    given = [other for one in interventions for other in _standing(one, dictionary, len(tokens), n_constant)]
    generator = None if sampling is None else torch.Generator().manual_seed(sampling.seed)
    for _ in range(min(n, lm.max_context - len(tokens))):
        mlps = _Free(dictionary, placed(given, dictionary, len(tokens), n_constant), n_constant)
        _, logits = _forward(lm, torch.tensor(tokens, device=lm.device), mlps)
        tokens.append(int((logits if sampling is None else noisy_logits(logits, sampling, generator)).argmax()))
    return tokens


def _standing(one, dictionary, n_positions, n_constant):
    """An intervention at the positions that a prompt of `n_positions` gives it, open to later ones where it has no end."""
    places = placed([one], dictionary, n_positions, n_constant)
    if isinstance(one.position, slice) and one.position.stop is None:
        return [one._replace(position=slice(places[0].position, None))]
    return [one] if one.position is None else places


def noisy_logits(logits, sampling, generator):
    """Logits [vocab] whose largest is a draw from their softmax: with Gumbel's noise, one value per token and step."""
    noise = -torch.empty(len(logits), dtype=torch.float64).exponential_(generator=generator).log()
    scores = logits.double().cpu() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < len(scores):
        scores[scores < scores.topk(sampling.top_k).values[-1]] = -torch.inf
    return scores + noise


class _Mlps:
    """What stands in for the MLPs, called layer by layer; keeps the activations [pos, n_features] it saw and what it read at the last
    position. `written`: what the changes so far write to each layer."""

    def __init__(self, dictionary, interventions, n_constant):
        self.dictionary, self.n_constant, self.activations, self.inputs = dictionary, n_constant, [], []
        self.settings = [one for one in interventions if isinstance(one, Setting)]
        self.additions = [one for one in interventions if isinstance(one, Addition)]
        self.written = Outputs(dictionary, torch.zeros_like(dictionary.b_dec))

    def __call__(self, layer, x, y):
        """x, y [1, pos, d_model], the input and output of the MLP of `layer`, to what takes the output's place."""
        self.inputs.append(x[0, -1])
        output = self.output(layer, x[0], y[0]).clone()
        for one in self.additions:
            if one.layer == layer:
                output[one.position] += one.vector
        return output[None]

    def read(self, x, layer):
        """Activations at x [pos, d_model], nothing at the constant positions."""
        activations = self.dictionary.encode_layer(x, layer)
        activations[: self.n_constant] = 0
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
    def __init__(self, replacement, interventions, until_layer):
        super().__init__(replacement.dictionary, interventions, replacement.n_constant)
        self.replacement, self.until_layer = replacement, until_layer

    def output(self, layer, x, y):
        self.keep(x, layer, self.replacement.activations[:, layer])
        if layer > self.until_layer:
            return y  # it responds to what was changed below; the features' decoders into it would count that twice
        return self.replacement.sites[:, layer] + self.replacement.skip(layer, x) + self.written.sum(layer)


class _Iterative(_Mlps):
    def __init__(self, replacement, interventions):
        super().__init__(replacement.dictionary, interventions, replacement.n_constant)
        self.replacement, self.decoded = replacement, Outputs(self.dictionary, self.dictionary.b_dec)

    def output(self, layer, x, y):
        self.activations.append(self.changed(self.read(x, layer), layer))
        self.decoded.add(self.activations[-1], layer)
        output = self.decoded.output(layer, x) + self.replacement.errors[:, layer]
        return torch.cat([self.replacement.sites[: self.n_constant, layer], output[self.n_constant :]])


class _Free(_Mlps):
    def output(self, layer, x, y):
        self.keep(x, layer, self.read(x, layer))
        return y + self.written.sum(layer)


def most_changed(before, after, n):
    """(layer, position, feature) of at most `n` features whose activations differ, most changed first."""
    change = (after.activations - before.activations).abs()
    position, layer, feature = change.nonzero(as_tuple=True)
    order = change[position, layer, feature].sort(descending=True, stable=True).indices[:n]
    return list(zip(layer[order].tolist(), position[order].tolist(), feature[order].tolist(), strict=True))
