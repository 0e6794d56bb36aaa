"""The activations of all features of a dictionary over a text, sparse."""

import torch

from cltdb import log
from cltdb.evaluate.evaluate import batches
from cltdb.match.similarity import Firings
from cltdb.model.fit import check_fits


@torch.no_grad()
def firings_on(lm, dictionary, sequences, *, batch_seqs=16):
    """{layer: `Firings`} over the ordinary tokens of `sequences`, in their order: those of two dictionaries, whatever their models, are of the same
    tokens."""
    check_fits(dictionary, lm)
    found, n_tokens = {layer: [] for layer in dictionary.layers}, 0
    with log.progress("match", total=sequences.tokens.size, unit="tokens") as bar:
        for tokens, ordinary in batches(sequences, batch_seqs, device=lm.device):
            captured = lm.run(tokens, with_logits=False)
            x = dictionary.read_of(captured.mlp_input[ordinary], captured.mlp_output[ordinary]).to(dictionary.dtype)
            for layer, parts in found.items():
                activations = dictionary.encode_layer(x[:, layer], layer)
                token, feature = activations.nonzero(as_tuple=True)
                parts.append([part.cpu() for part in (token + n_tokens, feature.int(), activations[token, feature].float())])
            n_tokens += len(x)
            bar.advance(tokens.numel())
    sizes = {"n_tokens": n_tokens, "n_features": dictionary.n_features}
    together = {layer: [torch.cat(part).numpy() for part in zip(*parts, strict=True)] for layer, parts in found.items()}
    return {layer: Firings(*parts, **sizes) for layer, parts in together.items()}
