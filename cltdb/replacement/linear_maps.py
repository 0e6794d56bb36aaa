"""The frozen model of one prompt as explicit linear maps, run backwards: from what reads the residual stream to what wrote it.

With attention patterns and norm denominators frozen, an MLP input and the final norm's output are linear functions of the MLP
outputs and embeddings before them. `LinearMaps.gradients` carries a batch of read vectors down through these maps. It needs no
MLP, no queries or keys, and no position after the reader's. The slow twin, in the tests, differentiates the model's own frozen
forward pass.
Source: Anthropic, "Circuit Tracing" (2025), section "Attribution graphs".
"""

from typing import NamedTuple

import torch

from cltdb.model.attention import attention_parts
from cltdb.model.freezing import norm_names
from cltdb.model.norms import read_directions
from cltdb.replacement.constant_positions import blank


class Norm(NamedTuple):
    """`module` with its scale [pos, 1] given."""

    module: torch.nn.Module
    scale: torch.Tensor

    def back(self, gradient, positions=slice(None)):
        """The gradient at the norm's input: gradient [..., pos, d_model] at the output of these positions."""
        return read_directions(self.module, gradient) * self.scale[positions]


class Attention(NamedTuple):
    """Values, pattern and output of one layer: pattern [head, query pos, key pos], W_V [d_model, kv head, d_head], W_O [head,
    d_head, d_model]; `norm` before, `post` (or None) after."""

    norm: Norm
    post: Norm | None
    pattern: torch.Tensor
    W_V: torch.Tensor
    W_O: torch.Tensor

    def back(self, gradient):
        """The gradient at the residual stream that is read: gradient [batch, pos, d_model] at what attention adds."""
        batch, n_positions, _ = gradient.shape
        n_heads, d_head, _ = self.W_O.shape
        if self.post is not None:
            gradient = self.post.back(gradient, slice(n_positions))
        at_heads = (gradient @ self.W_O.flatten(0, 1).T).view(batch, n_positions, n_heads, d_head)
        pattern = self.pattern[:, :n_positions, :n_positions]
        at_values = pattern.transpose(1, 2) @ at_heads.permute(2, 1, 0, 3).reshape(n_heads, n_positions, batch * d_head)
        at_values = at_values.view(n_heads, n_positions, batch, d_head).permute(2, 1, 0, 3)
        return self._values_back(at_values)

    def back_from(self, positions, vectors):
        """As `back` of a gradient that is `vectors` [batch, d_model] at one position each, positions [batch], and zero
        elsewhere."""
        n_positions, (n_heads, d_head, _) = int(positions.max()) + 1, self.W_O.shape
        if self.post is not None:
            vectors = self.post.back(vectors, positions)
        at_heads = (vectors @ self.W_O.flatten(0, 1).T).view(-1, 1, n_heads, d_head)
        pattern = self.pattern[:, positions, :n_positions].permute(1, 2, 0)
        return self._values_back(pattern[..., None] * at_heads)

    def _values_back(self, at_values):
        """From the values of each head [batch, pos, head, d_head] to the residual stream."""
        n_kv, n_positions = self.W_V.shape[1], at_values.shape[1]
        if n_kv < at_values.shape[2]:
            at_values = at_values.unflatten(2, (n_kv, -1)).sum(3)
        return self.norm.back(at_values.flatten(2) @ self.W_V.flatten(1).T, slice(n_positions))


class Layer(NamedTuple):
    """attention; mlp_norm: what the MLP input is read through, None where it is the residual stream itself; W_skip [d_model,
    d_model] or None, at positions from n_constant on; parallel: the MLP reads what attention reads, as in GPT-NeoX, instead of
    what it leaves."""

    attention: Attention
    mlp_norm: Norm | None
    W_skip: torch.Tensor | None
    parallel: bool
    n_constant: int

    def mlp_input_back(self, gradient, positions):
        """From the MLP input to the residual stream it is read from."""
        return gradient if self.mlp_norm is None else self.mlp_norm.back(gradient, positions)

    def back(self, gradient):
        """From the residual stream after the layer to the one before it: gradient [batch, pos, d_model]."""
        through_skip = 0
        if self.W_skip is not None:
            n_positions = gradient.shape[1]
            read = blank(gradient @ self.W_skip.T, self.n_constant, dim=1)
            through_skip = self.mlp_input_back(read, slice(n_positions))
        if self.parallel:
            return gradient + through_skip + self.attention.back(gradient)
        middle = gradient + through_skip
        return middle + self.attention.back(middle)


class LinearMaps:
    """`layers` and the `final` norm of a `LocalReplacementModel`."""

    def __init__(self, replacement):
        lm, constants, skip = replacement.lm, replacement.constants, replacement.dictionary.W_skip
        names = norm_names(lm)

        def norm(module):
            return Norm(module, constants.scales[names[module]][0])

        self.layers = []
        for layer, block in enumerate(lm.blocks):
            post = None if block.attention_output is block.attention else block.attention_output
            parts = attention_parts(lm, layer)
            attention = Attention(
                norm(block.attention_norm),
                None if post is None else norm(post),
                constants.patterns[layer][0],
                parts.W_V.transpose(0, 1),
                parts.W_O,
            )
            mlp_norm = norm(block.mlp_norm) if lm.mlp_input == "normed" else None
            W_skip = None if skip is None else skip[layer]
            self.layers.append(Layer(attention, mlp_norm, W_skip, lm.is_parallel, replacement.n_constant))
        self.final = norm(lm.final_norm)

    @torch.no_grad()
    def gradients(self, layer, positions, vectors):
        """Yields, from the last to the first, (source layer, gradient at its MLP output [batch, pos, d_model]) of the layers that
        can be reached, then (None, gradient at the embeddings).

        vectors [batch, d_model] read the MLP input of `layer` (n_layers: the final norm's output) at positions [batch]; only
        positions up to the last of these are there.
        """
        n_layers, batch = len(self.layers), torch.arange(len(vectors), device=vectors.device)
        reader = self.layers[layer] if layer < n_layers else None
        read = self.final.back(vectors, positions) if reader is None else reader.mlp_input_back(vectors, positions)
        if reader is None or reader.parallel:
            gradient = vectors.new_zeros(len(vectors), int(positions.max()) + 1, vectors.shape[1])
        else:
            gradient = reader.attention.back_from(positions, read)
        gradient[batch, positions] += read
        for source in reversed(range(layer)):
            yield source, gradient
            gradient = self.layers[source].back(gradient)
        yield None, gradient
