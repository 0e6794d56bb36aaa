"""The local replacement model of one prompt: attention and norms frozen, MLP outputs from the dictionary plus a
constant error.

From MLP outputs and embeddings to MLP inputs and logits it is an affine map; on its prompt it computes what the model
computes. Which features are active is fixed by the prompt: active features stay active and silent ones silent, also the k
largest of topk. Source: Anthropic, "Circuit Tracing" (2025), section "Local replacement model".
"""

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.model.fit import check_fits, check_transcoder
from cltdb.model.freezing import Constants, frozen, hooks, record
from cltdb.replacement.constant_positions import blank, check_constant, with_constant

DTYPES = ("float32", "bfloat16")


class Pass(NamedTuple):
    """One forward pass: mlp_inputs per layer and final, the final norm's output, each [batch, pos, d_model]."""

    mlp_inputs: list
    final: torch.Tensor


def in_dtype(lm, dtype):
    """The language model itself where it has this dtype, else a copy in it."""
    if lm.dtype == dtype:
        return lm
    return type(lm)(
        copy.deepcopy(lm.hf).to(dtype), lm.tokenizer, model_id=lm.model_id, revision=lm.revision, mlp_input=lm.mlp_input
    )


def at_least_float32(lm):
    """float64 models in float64, all others in float32: half precision is too coarse for exact edges."""
    return lm if lm.dtype == torch.float64 else in_dtype(lm, torch.float32)


def computing_in(lm, dtype):
    """The model in the dtype named for a graph: `at_least_float32` of it where that is float32."""
    if dtype not in DTYPES:
        raise CltdbError("attribute.dtype", found=repr(dtype), expected=" or ".join(DTYPES), do="choose one")
    return at_least_float32(lm) if dtype == "float32" else in_dtype(lm, torch.bfloat16)


def prompt_token_ids(lm, prompt):
    """Token ids of a text with BOS in front, or of a list of ids as it is. CltdbError for a text with words that the model has no token for."""
    if isinstance(prompt, str):
        return lm.known_prompt(prompt)
    tokens = [int(token) for token in prompt]
    if not 2 <= len(tokens) <= lm.max_context:
        raise CltdbError(
            "prompt",
            found=f"{len(tokens)} tokens",
            expected=f"2 to {lm.max_context}, the first of them BOS",
            do="give more tokens, or fewer",
        )
    outside = [token for token in tokens if not 0 <= token < lm.vocab_size]
    if outside:
        raise CltdbError(
            "prompt",
            found=f"token id {outside[0]}",
            expected=f"ids from 0 to {lm.vocab_size - 1}",
            do="use the model's own tokenizer",
        )
    return tokens


@dataclass(frozen=True)
class LocalReplacementModel:
    """Everything constant about one prompt. All tensors are in the dtype of `lm`, on its device.

    embeddings [pos, d_model]: token embeddings. mlp_inputs, sites, errors [pos, n_layers, d_model]: `sites` are the MLP
    outputs less the skip path (decoded features + b_dec + error), `errors` what the dictionary misses; activations,
    pre_activations [pos, n_layers, n_features]. logits [pos, vocab]: the model's own.

    The first n_constant positions are constants of the prompt (constant_positions.py): their `sites` are the model's own MLP
    outputs, without a skip path; activations, pre_activations and errors are 0 there. Special tokens after them are positions
    like others. circuit-tracer differs where a dictionary has W_skip: it differentiates through the skip path at the constant
    positions too, so the edges from their embeddings have more paths there. Here these paths are part of the constants. All other
    edges agree.
    """

    lm: object
    dictionary: object
    tokens: torch.Tensor
    constants: Constants
    embeddings: torch.Tensor
    mlp_inputs: torch.Tensor
    sites: torch.Tensor
    errors: torch.Tensor
    pre_activations: torch.Tensor
    activations: torch.Tensor
    logits: torch.Tensor
    n_constant: int = 1

    @classmethod
    def of(cls, lm, dictionary, tokens, *, constant_positions=1):
        """The replacement model of `tokens` (BOS first); lm in float32 or float64, or in bfloat16 for a graph of three digits."""
        check_constant(constant_positions, len(tokens))
        check_transcoder(dictionary.kind)
        check_fits(dictionary, lm)
        dictionary = dictionary.computing(device=lm.device, dtype=lm.dtype)
        tokens = torch.tensor([tokens], device=lm.device)
        logits = lm.logits(tokens)[0]
        with torch.no_grad(), record(lm) as constants:
            captured = lm.run(tokens, with_logits=False)
            embeddings = lm.embedding(tokens)[0]
        x, y = captured.mlp_input[0], captured.mlp_output[0]
        pre_activations = blank(dictionary.pre_activations(x), constant_positions)
        activations = blank(dictionary.activate(pre_activations), constant_positions)
        reconstruction = dictionary.decode(activations, x)
        errors = blank(y - reconstruction, constant_positions)
        skip = 0 if dictionary.W_skip is None else torch.einsum("pld,lde->ple", x, dictionary.W_skip)
        sites = with_constant(reconstruction - skip + errors, y, constant_positions)
        per_place = (embeddings, x, sites, errors, pre_activations, activations, logits)
        return cls(lm, dictionary, tokens[0], constants(), *per_place, constant_positions)

    def in_dtype(self, dtype, *, lm):
        """The same linear maps and constants in another dtype, converted, not computed again; lm: the model in it."""
        tensors = {
            name: getattr(self, name).to(dtype)
            for name in ("embeddings", "mlp_inputs", "sites", "errors", "pre_activations", "activations", "logits")
        }
        return replace(
            self, lm=lm, dictionary=self.dictionary.computing(dtype=dtype), constants=self.constants.to(dtype), **tensors
        )

    n_positions = property(lambda self: len(self.tokens))

    def skip(self, layer, x):
        """What the skip path adds to the MLP output: x [..., pos, d_model] to the same, 0 at the constant positions."""
        if self.dictionary.W_skip is None:
            return torch.zeros_like(x)
        return blank(x @ self.dictionary.W_skip[layer], self.n_constant, dim=-2)

    def run(self, embeddings, sites):
        """The frozen model on other embeddings [batch, pos, d_model] and MLP outputs, `sites` per layer [batch, pos,
        d_model].

        The skip path stays a function of the MLP input, except at the constant positions. Differentiable in both arguments.
        """
        return self._forward(embeddings, sites)[0]

    @torch.no_grad()
    def replaced_logits(self):
        """The logits [pos, vocab] of the replacement model on its own prompt."""
        return self._forward(self.embeddings[None], self.sites.transpose(0, 1)[:, None], logits=True)[1][0]

    @torch.no_grad()
    def final(self):
        """The final norm's output [pos, d_model] on the prompt."""
        return self.run(self.embeddings[None], self.sites.transpose(0, 1)[:, None]).final[0]

    @torch.no_grad()
    def constant_part(self):
        """`run` without token embeddings, features and errors: what biases, learned position embeddings and the MLP outputs of
        the constant positions do alone."""
        sites = with_constant(self.dictionary.b_dec.expand_as(self.sites), self.sites, self.n_constant)
        return self.run(torch.zeros_like(self.embeddings)[None], sites.transpose(0, 1)[:, None])

    def _forward(self, embeddings, sites, *, logits=False):
        inputs, final = [None] * self.lm.n_layers, []

        def replaced(layer, x, y):
            inputs[layer] = x
            return sites[layer] + self.skip(layer, x)

        tokens = self.tokens.expand(len(embeddings), -1)
        seen = [("embedding", self.lm.embedding), ("final", self.lm.final_norm)]
        hooks_of = {
            "embedding": lambda module, args, output: embeddings,
            "final": lambda module, args, output: final.append(output),
        }
        with (
            self.lm.replaced_mlps(replaced),
            frozen(self.lm, self.constants),
            hooks(seen, lambda name, module: hooks_of[name]),
        ):
            if logits:
                output = self.lm.hf(input_ids=tokens, use_cache=False).logits
            else:
                output = self.lm.hf.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return Pass(inputs, final[0]), output
