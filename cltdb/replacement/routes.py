"""Direct effects split by the routes that they take: along the residual stream, or through heads with frozen patterns.

A route is the residual stream alone or a chain of hops. A hop is an attention head, which carries from the position that it reads to
another, or the skip path of a dictionary at its position. What a route carries is the product of two factors. `input_factor` has all that
depends on the prompt: the source's activation (of an error its norm), patterns, denominators of norms. `weight_factor` has weights alone:
what a unit of the source writes, the OV matrices and gains, the encoder or unembedding that reads. Only an error's direction, which no
weights give, is of the prompt too. Over all routes the products sum to the edge's weight.
Source: Dunefsky, Chlenski and Nanda, "Transcoders find interpretable LLM feature circuits" (2024), section on circuit analysis; here with
frozen denominators instead of a constant per vector.
"""

from typing import NamedTuple

import torch

from cltdb.model.norms import read_directions, written_directions
from cltdb.replacement.constant_positions import blank
from cltdb.replacement.linear_maps import LinearMaps

LISTED = 20
"""Routes of an edge that are listed, the strongest of at most two hops."""
OTHERS = "others"
HELD_BYTES = 2**27
"""What hops read for targets, held at once; what they write of their sources comes to a few times that."""


class Route(NamedTuple):
    """via: `residual`, hops in their order such as `L3H2`, `L1H0 L3H2` or `L1skip`, or OTHERS: all routes that are not listed together, in
    bfloat16 with what rounding leaves; its input_factor is the source's activation alone. head, source_position: the last head of the
    route and the position that it reads, None where no head is."""

    via: str
    head: str | None
    source_position: int | None
    input_factor: float
    weight_factor: float


class _Source(NamedTuple):
    """written [n_layers + 1, d_model]: what a unit of it has added to the residual stream before each layer, and at the end. layer: the
    one after which it first has, -1 for an embedding."""

    activation: float
    layer: int
    position: int
    written: torch.Tensor
    writes: torch.Tensor | None = None


class _Target(NamedTuple):
    """What reads before `layer` at `position`, through a norm of this scale. n_layers: those that hops to it are in. back [n_layers * n_hops,
    d_model]: what each hop to it reads of its input; carried [n_layers * n_hops, position + 1]: how much of it, from each position."""

    layer: int
    position: int
    scale: float
    direction: torch.Tensor
    n_layers: int
    carried: torch.Tensor
    back: torch.Tensor | None = None


class Routes:
    """Splits the edges of one graph: of its replacement model, `NodeIndex` and `Targets`."""

    def __init__(self, replacement, nodes, targets):
        maps = LinearMaps(replacement)
        self.replacement, self.nodes, self.targets, self.layers, self.final = replacement, nodes, targets, maps.layers, maps.final
        self.n_heads, self.has_skip = len(self.layers[0].attention.W_O), self.layers[0].W_skip is not None
        self.n_hops = self.n_heads + self.has_skip

    @torch.no_grad()
    def of(self, edges):
        """{(source, target): its `Route`s, the strongest first and OTHERS last}. edges: {(source, target): weight}."""
        found, targets = {}, sorted({target for _, target in edges})
        at_once = max(1, HELD_BYTES // (len(self.layers) * self.n_hops * self.replacement.embeddings[0].nbytes))
        for first in range(0, len(targets), at_once):
            ends = self._ends(targets[first : first + at_once])
            begins = self._begins(sorted({source for source, target in edges if target in ends}))
            found |= {
                (source, target): self._routes(begins[source], ends[target], weight)
                for (source, target), weight in edges.items()
                if target in ends
            }
        return found

    def _begins(self, nodes):
        """{node: its `_Source`}."""
        sources = [self._source(node) for node in nodes]
        written = torch.stack([source.written for source in sources])
        writes = [self._forth(layer, written[:, number]) for number, layer in enumerate(self.layers)]
        writes = torch.stack(writes, dim=1).flatten(1, 2)
        return {node: source._replace(writes=own) for node, source, own in zip(nodes, sources, writes, strict=True)}

    def _source(self, node):
        layer, position, feature = self.nodes.place(node)
        model, activation = self.replacement, 1.0
        written = torch.zeros(len(self.layers) + 1, model.lm.d_model, dtype=model.lm.dtype, device=model.lm.device)
        if feature is not None:
            activation = float(model.activations[position, layer, feature])
            decoders = model.dictionary.decoder(layer, torch.tensor([feature]))[0]
            for to, decoder in zip(model.dictionary.target_layers(layer), decoders, strict=True):
                written[to + 1 :] += decoder
        elif layer is not None:
            error = model.errors[position, layer]
            activation = float(error.norm())
            written[layer + 1 :] = error / error.norm()
        else:
            written[:] = model.embeddings[position]
        return _Source(activation, -1 if layer is None else layer, position, written)

    def _ends(self, nodes):
        """{node: its `_Target`}."""
        targets = [self._target(node) for node in nodes]
        directions = torch.stack([target.direction for target in targets])
        backs = [self._back(layer, directions) for layer in self.layers]
        backs = torch.stack(backs, dim=1).flatten(1, 2)
        return {
            node: target._replace(back=own[: target.n_layers * self.n_hops])
            for node, target, own in zip(nodes, targets, backs, strict=True)
        }

    def _target(self, node):
        layer, position, feature = self.nodes.place(node)
        if feature is None:
            layer = len(self.layers) if self.targets.layer is None else self.targets.layer
            direction = self.targets.directions[node - self.nodes.logits.start]
        else:
            direction = self.replacement.dictionary.encoder(layer, feature)
        is_final = layer == len(self.layers)
        norm = self.final if is_final else self.layers[layer].mlp_norm
        direction, scale = _read(norm, direction), float(_scale(norm, position))
        n_layers = layer if is_final or self.layers[layer].parallel else layer + 1
        here, before = slice(position, position + 1), slice(position + 1)
        carried = [direction.new_zeros(0, position + 1)]
        for number, one in enumerate(self.layers[:n_layers]):
            carried.append(self._carried(one, here, before)[:, 0])
            if self.has_skip and number == layer:
                carried[-1][-1] = 0  # what the skip path of its own layer adds comes after the target
        return _Target(layer, position, scale, direction, n_layers, torch.cat(carried))

    def _back(self, layer, directions):
        """What each hop of a layer reads of the residual stream for `directions` [n, d_model] to read what it writes [n, n_hops, d_model]."""
        attention = layer.attention
        at_heads = torch.einsum("nd,hed->nhe", _read(attention.post, directions), attention.W_O)
        of_kv = at_heads.unflatten(1, (attention.W_V.shape[1], -1))
        reads = _read(attention.norm, torch.einsum("nkge,dke->nkgd", of_kv, attention.W_V).flatten(1, 2))
        if self.has_skip:
            reads = torch.cat([reads, _read(layer.mlp_norm, directions @ layer.W_skip.T)[:, None]], dim=1)
        return reads

    def _forth(self, layer, written):
        """What each hop of a layer writes where the residual stream has `written` [n, d_model] where it reads: [n, n_hops, d_model]."""
        attention = layer.attention
        values = torch.einsum("nd,dke->nke", _written(attention.norm, written), attention.W_V)
        W_O = attention.W_O.unflatten(0, (values.shape[1], -1))
        writes = _written(attention.post, torch.einsum("nke,kged->nkgd", values, W_O).flatten(1, 2))
        if self.has_skip:
            writes = torch.cat([writes, (_written(layer.mlp_norm, written) @ layer.W_skip)[:, None]], dim=1)
        return writes

    def _carried(self, layer, query, key):
        """The factor of the prompt of each hop of a layer, from slice `key` to slice `query` of the positions [n_hops, n_query, n_key]."""
        attention = layer.attention
        carried = attention.pattern[:, query, key] * _scale(attention.norm, key)
        if attention.post is not None:
            carried = carried * _scale(attention.post, query)[:, None]
        if self.has_skip:
            same = torch.eye(len(attention.norm.scale), dtype=carried.dtype, device=carried.device)
            of_skip = blank(same, layer.n_constant)[query, key] * _scale(layer.mlp_norm, key)
            carried = torch.cat([carried, of_skip[None]])
        return carried

    def _routes(self, begin, end, weight):
        """The `Route`s of one edge of this weight."""
        layers = range(begin.layer + 1, end.n_layers)
        routes, scale = [], begin.activation * end.scale
        for first, second, middle, carried, product in self._chains(begin, end, layers).strongest(LISTED):
            hops = [hop + layers.start * self.n_hops for hop in (first, second) if hop >= 0]
            names = [self._name(hop) for hop in hops]
            last = max((place for place, hop in enumerate(hops) if hop % self.n_hops < self.n_heads), default=None)
            reads = None if last is None else middle if last == len(hops) - 1 else begin.position
            routes.append(
                Route(" ".join(names) or "residual", None if last is None else names[last], reads, scale * carried, product)
            )
        in_parallel = self.layers[0].parallel
        longest_chain = len(layers) + (
            0 if in_parallel or not self.has_skip else len(range(layers.start, min(layers.stop, end.layer)))
        )
        if len(routes) == LISTED or longest_chain > 2 or end.direction.dtype == torch.bfloat16:
            left = weight - sum(route.input_factor * route.weight_factor for route in routes)
            routes.append(Route(OTHERS, None, None, begin.activation, left / begin.activation))
        return routes

    def _name(self, hop):
        layer, place = divmod(hop, self.n_hops)
        return f"L{layer}H{place}" if place < self.n_heads else f"L{layer}skip"

    def _chains(self, begin, end, layers):
        """The chains of at most two hops, as `_Chains`: of those of two all that can be among the LISTED strongest."""
        back, carried = end.back[layers.start * self.n_hops :], end.carried[layers.start * self.n_hops :]
        none, n = torch.full((len(back) + 1,), -1, device=back.device), len(back)
        written = begin.written[layers.start : layers.stop].repeat_interleave(self.n_hops, 0)
        direct = back.new_tensor([float(begin.position == end.position)])
        short = _Chains(
            first=none,
            second=torch.arange(-1, n, device=back.device),
            middle=none.clone().fill_(begin.position),
            carried=torch.cat([direct, carried[:, begin.position]]),
            product=torch.cat([(begin.written[end.layer] @ end.direction)[None], (written * back).sum(1)]),
        )
        if not n:
            return short
        here, before = slice(begin.position, begin.position + 1), slice(end.position + 1)
        to_middle = torch.cat([self._carried(self.layers[k], before, here)[:, :, 0] for k in layers])
        products = begin.writes[layers.start * self.n_hops :][:n] @ back.T * self._can_follow(layers)
        bounds = (products.abs() * (to_middle.abs() @ carried.abs().T)).flatten()

        def of(pairs):
            first, second = pairs // n, pairs % n
            by_middle = to_middle[first] * carried[second]
            places = torch.arange(len(pairs), device=pairs.device).repeat_interleave(by_middle.shape[1])
            middle = torch.arange(by_middle.shape[1], device=pairs.device).repeat(len(pairs))
            return _Chains(first[places], second[places], middle, by_middle.flatten(), products.flatten()[pairs][places])

        strong = short.and_those(of(bounds.topk(min(LISTED, len(bounds))).indices)).strengths
        at_least = strong.topk(LISTED).values[-1] if len(strong) >= LISTED else 0
        return short.and_those(of(((bounds > 0) & (1.01 * bounds >= at_least)).nonzero()[:, 0]))

    def _can_follow(self, layers):
        """Which hop of these layers (columns) can come after which (rows), 1 or 0 [n, n]."""
        hop = torch.arange(len(layers) * self.n_hops, device=self.replacement.lm.device)
        layer, is_skip = hop // self.n_hops, hop % self.n_hops >= self.n_heads
        follows = layer[:, None] < layer
        if not self.layers[0].parallel:
            follows |= (layer[:, None] == layer) & ~is_skip[:, None] & is_skip
        return follows


class _Chains(NamedTuple):
    """Chains of hops, each column [n]: the hops, -1 for none; the position that the last one reads; the factors of prompt and weights
    between source and target."""

    first: torch.Tensor
    second: torch.Tensor
    middle: torch.Tensor
    carried: torch.Tensor
    product: torch.Tensor

    strengths = property(lambda self: (self.carried * self.product).abs())

    def and_those(self, others):
        return _Chains(*map(torch.cat, zip(self, others, strict=True)))

    def strongest(self, n):
        """At most `n` of them that are not 0, the strongest first, as tuples of numbers."""
        strengths = self.strengths
        order = strengths.sort(descending=True, stable=True).indices[: min(n, int((strengths > 0).sum()))]
        return zip(*(column[order].tolist() for column in self), strict=True)


def _read(norm, vectors):
    """The directions before a `Norm`, or none, that read what `vectors` read after it, up to its scale."""
    return vectors if norm is None else read_directions(norm.module, vectors)


def _written(norm, vectors):
    """What a `Norm`, or none, makes of `vectors`, up to its scale."""
    return vectors if norm is None else written_directions(norm.module, vectors)


def _scale(norm, position):
    return 1.0 if norm is None else norm.scale[position, 0]
