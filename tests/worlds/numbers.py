"""Where graphs and interventions are tested: a random model of three layers whose words are numbers, and dictionaries of it.

Norms have gains and biases of their own, attention is not uniform, some architectures see four tokens back.
"""

from functools import partial

import torch

from cltdb.attribution.graph import attribute
from cltdb.model.architectures import ARCHITECTURES
from cltdb.model.language_model import LanguageModel
from worlds import dictionaries, models

N_LAYERS, D_MODEL, VOCAB, N_FEATURES = 3, 24, 40, 30
FAMILIES = list(dict.fromkeys(family.name for family in ARCHITECTURES.values()))
PROMPT = [0, 7, 3, 19, 3, 25, 11]
ATTENTION = {
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4, "query_pre_attn_scalar": 6},
    "gemma3": {"sliding_window": 4, "query_pre_attn_scalar": 6},
}


class NumberTokenizer:
    """Words are numbers: "7 3" is [7, 3]."""

    bos_token_id, eos_token_id = 0, 0

    unk_token = unk_token_id = None
    all_special_ids, all_special_tokens, added_tokens_decoder = [0], ["<0>"], {}

    def __call__(self, text, **_):
        ids = lambda one: [int(word) for word in one.split()]  # noqa: E731
        return {"input_ids": ids(text) if isinstance(text, str) else list(map(ids, text))}

    def decode(self, tokens):
        return " ".join(map(str, tokens))


def language_model(dtype=torch.float64, *, architecture="gpt2", seed=0, mlp_input="normed"):
    sizes = {"n_layers": N_LAYERS, "d_model": D_MODEL, "vocab_size": VOCAB, "max_position_embeddings": 32}
    name = "gemma3_text" if architecture == "gemma3" else architecture
    hf = models.hf_model(name, seed=seed, **sizes, **ATTENTION.get(architecture, {}))
    for parameter in hf.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return LanguageModel(hf.to(dtype), NumberTokenizer(), model_id=f"tiny-{architecture}", mlp_input=mlp_input)


def dictionary(kind="clt", **options):
    """One that writes little, so that a change at one feature leaves most others firing."""
    scale = {"b_enc": 0.3, "W_dec": 0.1, "b_dec": 0.2, "threshold": 0.2, "W_skip": 1 / D_MODEL}
    sizes = {"n_layers": N_LAYERS, "d_model": D_MODEL, "n_features": N_FEATURES, "k": 6, "seed": 1}
    return dictionaries.random(kind=kind, scale=scale, least_threshold=0.2, **sizes | options)


def _graph(n_constant=1, **of_dictionary):
    return attribute(language_model(), dictionary(**of_dictionary), PROMPT, constant_positions=n_constant)


GRAPHS = {
    "no skip": _graph,
    "skip": partial(_graph, skip=True),
    "topk": partial(_graph, activation="topk"),
    "constant prefix": partial(_graph, 3, skip=True),
}
"""Functions that make graphs of PROMPT, by what is special about them."""


def strongest(graph, layer=0):
    """The node id of the most influential feature of a layer."""
    ids = [n for n in range(graph.index.features.stop) if graph.index.place(n)[0] == layer]
    return max(ids, key=lambda n: float(graph.influence[n]))
