"""A Hugging Face causal language model with its hook points named: MLP input and output, norms, attention, unembedding.

MLP output is the vector that is added to the residual stream (after a post-norm, where there is one). MLP input is that of the
MLP itself (`normed`) or the residual stream before its norm (`residual`). architectures.py says where each family has them.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch

from cltdb.model.architectures import family_of
from cltdb.model.kinds import MLP_OUTPUT, RESIDUAL
from cltdb.model.norms import read_directions
from cltdb.model.sites import implied_sites
from cltdb.model.tokens import Tokens


class Block(NamedTuple):
    """The submodules of one transformer block."""

    attention_norm: torch.nn.Module
    attention: torch.nn.Module
    mlp_norm: torch.nn.Module
    mlp: torch.nn.Module
    mlp_output: torch.nn.Module
    attention_output: torch.nn.Module


class Captured(NamedTuple):
    """mlp_input, mlp_output [batch, pos, n_layers, d_model]; logits [batch, pos, vocab] where they were wanted."""

    mlp_input: torch.Tensor
    mlp_output: torch.Tensor
    logits: torch.Tensor | None


class LanguageModel(Tokens):
    """A frozen model, its tokenizer and its hook points. fingerprint: of its weights, config and tokenizer as `load_model` found them.

    logit_softcap: logits are logit_softcap * tanh(unembedding(final_norm(x)) / logit_softcap); None: without that."""

    def __init__(self, hf, tokenizer, *, model_id, revision="main", mlp_input="normed", fingerprint=None):
        config, self.family = hf.config.get_text_config(), family_of(hf.config, f"model {model_id}")
        super().__init__(tokenizer, config, model_id=model_id)
        self.hf, self.revision, self.mlp_input, self.fingerprint = (
            hf.eval().requires_grad_(False),
            revision,
            mlp_input,
            fingerprint,
        )
        self.architecture = self.family.name
        text_model = hf.base_model.get_submodule(self.family.text_model)
        self.blocks = [
            Block(*(block.get_submodule(getattr(self.family, part)) for part in Block._fields))
            for block in text_model.get_submodule(self.family.blocks)
        ]
        self.embedding = text_model.get_submodule(self.family.embedding)
        self.final_norm = text_model.get_submodule(self.family.final_norm)
        self.positions = self.family.positions and text_model.get_submodule(self.family.positions)
        self.rotary = self.family.rotary and text_model.get_submodule(self.family.rotary)
        self.unembedding = hf.get_output_embeddings()
        self.logit_softcap = self.family.logit_softcap and getattr(config, self.family.logit_softcap)
        self.n_layers, self.d_model = len(self.blocks), config.hidden_size

    @property
    def input_hook(self):
        """What features read, as TransformerLens and circuit-tracer call it: `mlp.hook_in` is the MLP's own input in every model and
        version. `ln2.hook_normalized` is not: of an RMSNorm it lies before the gain; of a LayerNorm after gain and bias up to
        TransformerLens 2, before them since 3.0 (transformer_lens/components/layer_norm.py, rms_norm.py)."""
        if self.mlp_input == "residual":
            return "hook_resid_pre" if self.is_parallel else "hook_resid_mid"
        return "mlp.hook_in"

    @property
    def is_parallel(self):
        """Whether the MLP reads what attention reads, as in GPT-NeoX, instead of what it leaves."""
        return self.family.parallel is not None and getattr(self.hf.config, self.family.parallel)

    sites = property(lambda self: implied_sites(self.n_layers, self.input_hook))
    device = property(lambda self: next(self.hf.parameters()).device)
    dtype = property(lambda self: next(self.hf.parameters()).dtype)

    def unembedding_weight(self):
        """[vocab, d_model]."""
        return self.unembedding.weight

    def residual_directions(self, layer, vectors):
        """The directions of the residual stream that `vectors` [..., d_model] at the MLP input of `layer` read, in float32 at least. Where that
        input is normed, they are so up to the norm's scale at each token."""
        vectors = vectors.to(self.device, torch.promote_types(torch.promote_types(vectors.dtype, self.dtype), torch.float32))
        return vectors if self.mlp_input == "residual" else read_directions(self.blocks[layer].mlp_norm, vectors)

    def output_with(self, layer, x, y, change, place):
        """The MLP output of `layer` [..., d_model] when `change` [..., d_model] is added at `place`, one of `kinds.READS`, where MLP input and
        output were x and y. What is added to the residual stream before the MLP's norm stays in it, and is part of this output."""
        if place == MLP_OUTPUT:
            return y + change
        block, changed = self.blocks[layer], x + change
        read = block.mlp_norm.forward(changed) if place == RESIDUAL else changed  # `forward`: no hook is called
        output = block.mlp.forward(read)
        output = output if block.mlp_output is block.mlp else block.mlp_output.forward(output)
        return output + change if place == RESIDUAL else output

    @torch.no_grad()
    def logits(self, tokens):
        """tokens [batch, pos] to logits [batch, pos, vocab]."""
        return self.hf(input_ids=tokens.to(self.device), use_cache=False).logits

    @torch.no_grad()
    def run(self, tokens, *, with_logits=True):
        """tokens [batch, pos] to the MLP inputs and outputs of every layer and the logits. Logits often cost as much as all the rest."""
        inputs, outputs = [None] * self.n_layers, [None] * self.n_layers

        def keep(layer, x, y):
            inputs[layer], outputs[layer] = x, y

        with self._watching_mlps(keep):
            logits = self.logits(tokens) if with_logits else None
            if not with_logits:
                self.hf.base_model(input_ids=tokens.to(self.device), use_cache=False)
        return Captured(torch.stack(inputs, dim=-2), torch.stack(outputs, dim=-2), logits)

    @contextmanager
    def replaced_mlps(self, replace):
        """Within the block, MLP outputs are `replace(layer, x, y)`: x, y [batch, pos, d_model], y the true output at the present
        input."""
        with self._watching_mlps(replace):
            yield self

    @contextmanager
    def _watching_mlps(self, see):
        """Calls see(layer, x, y) at every MLP; what it returns, unless None, becomes the MLP output. Hooks always come off."""
        inputs, handles = {}, []
        for layer, block in enumerate(self.blocks):
            reader = block.mlp if self.mlp_input == "normed" else block.mlp_norm
            handles.append(reader.register_forward_pre_hook(lambda module, args, layer=layer: inputs.__setitem__(layer, args[0])))
            handles.append(
                block.mlp_output.register_forward_hook(lambda module, args, y, layer=layer: see(layer, inputs.pop(layer), y))
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
