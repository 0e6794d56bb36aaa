"""Random models of every architecture and the tokenizer they read with."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from cltdb.activations.settings import Activations, TextSource
from cltdb.model.language_model import LanguageModel

ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")


def byte_tokenizer(*, adds_bos=False):
    """One token per byte after `<bos>` (token 0)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={"<bos>": 0, **{character: 1 + index for index, character in enumerate(alphabet)}}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>")


def hf_model(architecture="gpt2", *, n_layers=2, d_model=16, seed=0, dtype=torch.float32, **settings):
    """A random Hugging Face model with grouped-query attention where the architecture has it. settings: others of its config."""
    torch.manual_seed(seed)
    sizes = dict(hidden_size=d_model, intermediate_size=2 * d_model, num_hidden_layers=n_layers, num_attention_heads=4)
    sizes |= dict(vocab_size=257, max_position_embeddings=64, bos_token_id=0, eos_token_id=0)
    if architecture not in ("gpt2", "gpt_neox"):
        sizes |= dict(num_key_value_heads=2, head_dim=8, pad_token_id=0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes | settings), dtype=dtype)


def language_model(architecture="gpt2", **sizes):
    return LanguageModel(hf_model(architecture, **sizes), byte_tokenizer(), model_id=f"random-{architecture}")


def bos_sink_model(*, mlp_scale=1.0, **sizes):
    """A GPT-2 whose layer 1 writes a vector of norm 1000 wherever BOS stands, as large models have it; no other token drives the neuron
    that does so. mlp_scale: factor of what the MLPs write otherwise."""
    lm = language_model(**sizes)
    with torch.no_grad():
        for block in lm.blocks:
            block.mlp.c_proj.weight *= mlp_scale
        lm.embedding.weight[0] *= 30  # at BOS the MLP input is the embedding's direction, whatever stands before
        mlp = lm.blocks[1].mlp
        tokens = torch.randint(1, 257, (20, 16), generator=torch.Generator().manual_seed(0))
        tokens[:, [0, 5, 9]] = 0
        x = lm.run(tokens, with_logits=False).mlp_input[:, :, 1]
        at_bos, elsewhere = x[tokens == 0], x[tokens != 0]
        direction = at_bos.mean(0) - elsewhere.mean(0)
        low, high = (elsewhere @ direction).max(), (at_bos @ direction).min()
        assert high > low
        slope = 20 / (high - low)
        mlp.c_fc.weight[:, 0], mlp.c_fc.bias[0] = direction * slope, -slope * (low + 0.7 * (high - low))
        vector = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1))
        mlp.c_proj.weight[0] = vector / vector.norm() * 150
    return lm


def saved(directory, architecture="gpt2", **sizes):
    """A model directory as `save_pretrained` writes it."""
    hf_model(architecture, **sizes).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def activations(**settings):
    """Section `activations` of a small cache: float32 shards of 32 tokens."""
    settings = {"codec": "float32", "compression": "none", "shard_tokens": 32, "batch_seqs": 3, **settings}
    return Activations(text=[TextSource(toyworld=True)], **settings)
