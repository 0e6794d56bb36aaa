"""Tiny random models and dictionaries, made in memory."""

import torch
import transformers

from cltdb.model.architectures import ARCHITECTURES
from cltdb.model.language_model import LanguageModel
from cltdb.model.transcoder import Dictionary

N_LAYERS, D_MODEL, VOCAB, N_FEATURES = 3, 24, 40, 30
FAMILIES = list(dict.fromkeys(family.name for family in ARCHITECTURES.values()))
PROMPT = [0, 7, 3, 19, 3, 25, 11]


class FakeTokenizer:
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
    torch.manual_seed(seed)
    shape = {
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": VOCAB,
        "max_position_embeddings": 32,
    }
    grouped = {**shape, "num_key_value_heads": 2, "head_dim": 6}
    config = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=D_MODEL, n_layer=N_LAYERS, n_head=4, n_positions=32, vocab_size=VOCAB),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**shape),
        "llama": lambda: transformers.LlamaConfig(**grouped),
        "mistral": lambda: transformers.MistralConfig(**grouped, sliding_window=4),
        "qwen2": lambda: transformers.Qwen2Config(**shape, num_key_value_heads=2),
        "qwen3": lambda: transformers.Qwen3Config(**grouped),
        "gemma2": lambda: transformers.Gemma2Config(**grouped, query_pre_attn_scalar=6, sliding_window=4),
        "gemma3": lambda: transformers.Gemma3TextConfig(**grouped, query_pre_attn_scalar=6, sliding_window=4),
    }[architecture]()
    hf = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in hf.parameters():  # so that norms' gains and biases are not 1 and 0, and attention is not uniform
        parameter.data += 0.3 * torch.randn_like(parameter)
    return LanguageModel(hf.to(dtype), FakeTokenizer(), model_id=f"tiny-{architecture}", mlp_input=mlp_input)


def dictionary(kind="clt", *, skip=False, activation="jumprelu", dtype=torch.float64, seed=1, n_features=N_FEATURES):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return Dictionary(
        kind=kind,
        activation=activation,
        W_enc=draw(N_LAYERS, n_features, D_MODEL) / D_MODEL**0.5,
        b_enc=0.3 * draw(N_LAYERS, n_features),
        W_dec=[draw(n_features, N_LAYERS - layer if kind == "clt" else 1, D_MODEL) / 10 for layer in range(N_LAYERS)],
        b_dec=draw(N_LAYERS, D_MODEL) / 5,
        threshold=0.2 + 0.2 * draw(N_LAYERS, n_features).abs() if activation in ("jumprelu", "batchtopk") else None,
        k=6 if activation == "topk" else None,
        W_skip=draw(N_LAYERS, D_MODEL, D_MODEL) / D_MODEL if skip else None,
    )
