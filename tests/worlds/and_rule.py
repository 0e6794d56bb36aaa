"""A model made by hand whose MLP has one neuron that computes the AND of two directions, among random ones.

One block. Tokens have random embeddings, to which some add the direction a, some the direction b. The attention head copies what the token
before has, rotated, so that a of the token before and b of the token itself meet in the MLP input, among all else. The rule's neuron fires
where both are there, and writes one vector, which the unembedding of the token RULE reads. All other neurons have random weights.
"""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cltdb.model.language_model import LanguageModel
from worlds.models import byte_tokenizer

D_MODEL, CONTEXT, N_NEURONS, VOCAB = 64, 12, 24, 40
CONTENT = D_MODEL - CONTEXT  # the last CONTEXT dimensions are the positions'
WITH_A, WITH_B, RULE = range(1, 7), range(7, 13), 39


class AndModel:
    """lm; output [d_model]: the unit vector that the rule writes. Draws of `seed`."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        config = AutoConfig.for_model(
            "gpt2",
            vocab_size=VOCAB,
            n_embd=D_MODEL,
            n_layer=1,
            n_head=1,
            n_inner=N_NEURONS,
            n_positions=CONTEXT,
            activation_function="relu",
            tie_word_embeddings=False,
            scale_attn_weights=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        self.lm = LanguageModel(hf, byte_tokenizer(), model_id="random")
        with torch.no_grad():
            self._write(hf)

    def _random(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def _unit(self, *shape):
        vectors = torch.zeros(*shape, D_MODEL)
        vectors[..., :CONTENT] = self._random(*shape, CONTENT)
        return vectors / vectors.norm(dim=-1, keepdim=True)

    def _write(self, hf):
        for parameter in hf.parameters():
            parameter.zero_()
        model, block = hf.transformer, hf.transformer.h[0]
        for norm in (block.ln_1, block.ln_2, model.ln_f):
            norm.weight.fill_(1)
        a, b, self.output = self._unit(3)
        rotation = torch.zeros(D_MODEL, D_MODEL)
        rotation[:CONTENT, :CONTENT] = torch.linalg.qr(self._random(CONTENT, CONTENT)).Q
        model.wte.weight.copy_(self._unit(VOCAB))
        model.wte.weight[WITH_A] += 1.5 * a
        model.wte.weight[WITH_B] += 1.5 * b
        places = torch.arange(CONTEXT)
        model.wpe.weight[places, CONTENT + places] = 1
        q, k, v = block.attn.c_attn.weight.split(D_MODEL, dim=1)
        q[CONTENT + places[1:], places[:-1]] = 0.2  # a position asks for the one before
        k[CONTENT + places, places] = 1
        v.copy_(rotation)
        block.attn.c_proj.weight.copy_(torch.eye(D_MODEL) / 4)  # its input was scaled up by the norm
        mlp = block.mlp
        mlp.c_fc.weight.copy_(self._random(D_MODEL, N_NEURONS) / D_MODEL**0.5)
        mlp.c_proj.weight.copy_(self._unit(N_NEURONS))
        mlp.c_fc.weight[:, 0], mlp.c_proj.weight[0] = a @ rotation + b, 1.0 * self.output
        tokens = self.tokens(200)
        x, both = self.lm.run(tokens, with_logits=False).mlp_input[:, :, 0], self.truth(tokens)
        mlp.c_fc.bias.copy_(-(x.reshape(-1, D_MODEL) @ mlp.c_fc.weight).quantile(0.9, dim=0))
        drive = x @ mlp.c_fc.weight[:, 0]
        mlp.c_fc.bias[0] = -(drive[both].quantile(0.02) + drive[~both].quantile(0.998)) / 2
        hf.lm_head.weight.copy_(self._unit(VOCAB) / 4)
        hf.lm_head.weight[RULE] = self.output

    def tokens(self, n):
        """n random sequences, each begun by BOS; [n, CONTEXT]."""
        tokens = torch.randint(1, VOCAB - 1, (n, CONTEXT), generator=self.generator)
        tokens[:, 0] = 0
        return tokens

    @staticmethod
    def truth(tokens):
        """Where the rule holds: the token before has a, the token itself b. [n, CONTEXT] bool."""
        before = torch.nn.functional.pad(tokens[:, :-1], (1, 0))
        return torch.isin(before, torch.tensor(WITH_A)) & torch.isin(tokens, torch.tensor(WITH_B))
