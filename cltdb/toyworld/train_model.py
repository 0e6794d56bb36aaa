"""Trains the toy world's model: `python -m cltdb.toyworld.train_model [--output FOLDER]`, a few minutes on two cores.

A GPT-2-shaped model on packed documents, each begun by BOS. Writes a Hugging Face checkpoint and its card.
"""

import argparse
import itertools
import math
import time
from pathlib import Path

import torch

from cltdb.memory import keep_freed_memory
from cltdb.toyworld import MODEL_DIR
from cltdb.toyworld.tasks import tasks
from cltdb.toyworld.text import documents, words

CONTEXT, N_LAYERS, D_MODEL, N_HEADS = 64, 4, 128, 4
BATCH_SEQS, N_STEPS, LEARNING_RATE, WARMUP_STEPS = 64, 2400, 2e-3, 100
TEXT_SEED, TASK_SEED = 1, 2
BOS, UNKNOWN = "<bos>", "<unk>"


def build_tokenizer(vocabulary=None, *, splits_marks=True):
    """One token per word, default those of the toy world; adds no BOS by itself. splits_marks: a punctuation mark is a word too."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [BOS, UNKNOWN, *(words() if vocabulary is None else vocabulary)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token=UNKNOWN))
    splits = [pre_tokenizers.WhitespaceSplit(), *([pre_tokenizers.Punctuation()] if splits_marks else [])]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, unk_token=UNKNOWN, model_max_length=CONTEXT
    )


def build_model(vocab_size, *, d_model=D_MODEL, seed=0):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=CONTEXT,
            n_embd=d_model,
            n_layer=N_LAYERS,
            n_head=N_HEADS,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def token_batches(tokenizer, stream):
    """Endless [BATCH_SEQS, CONTEXT] of packed documents, a stream of (text, label); every sequence begins with BOS."""
    pending = []
    body = CONTEXT - 1
    while True:
        while len(pending) < BATCH_SEQS * body:
            texts = [text for text, _ in itertools.islice(stream, 256)]
            for tokens in tokenizer(texts, add_special_tokens=False)["input_ids"]:
                pending += [tokenizer.bos_token_id, *tokens]
        rows = torch.tensor(pending[: BATCH_SEQS * body]).view(BATCH_SEQS, body)
        pending = pending[BATCH_SEQS * body :]
        yield torch.cat([torch.full((BATCH_SEQS, 1), tokenizer.bos_token_id), rows], dim=1)


def train(model, tokenizer, stream, *, n_steps=N_STEPS, learning_rate=LEARNING_RATE):
    """Trains in place, on the model's device, on a stream of (text, label); AdamW, warm-up, cosine decay."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    start = time.monotonic()
    for step, tokens in zip(range(n_steps), token_batches(tokenizer, stream), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min((step + 1) / WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * step / n_steps)) + 0.01)
        tokens = tokens.to(model.device)
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == n_steps - 1:
            print(f"step {step} loss {loss.item():.4f} {time.monotonic() - start:.0f} s", flush=True)


@torch.no_grad()
def measure(model, tokenizer, seed=TASK_SEED):
    """{task: accuracy}: share of prompts whose most probable next token is an answer; for greater_than the mean probability of
    the answers."""
    results = {}
    for task in tasks(seed):
        scores = []
        rows = [torch.tensor(tokenizer(BOS + prompt.text, add_special_tokens=False)["input_ids"]) for prompt in task.prompts]
        last = torch.tensor([len(row) - 1 for row in rows])
        padded = torch.nn.utils.rnn.pad_sequence(
            rows, batch_first=True
        )  # attention is causal: padding after a prompt does not change it
        probabilities = model(input_ids=padded).logits[torch.arange(len(rows)), last].softmax(-1)
        for prompt, probability in zip(task.prompts, probabilities, strict=True):
            answers = tokenizer.convert_tokens_to_ids(list(prompt.answers))
            scores.append(
                probability[answers].sum().item()
                if task.name == "greater_than"
                else float(probability.argmax().item() in answers)
            )
        results[task.name] = sum(scores) / len(scores)
    return results


def card(results, *, n_parameters, minutes):
    """The model card as Markdown."""
    from cltdb.toyworld.facts import HELD_OUT_CITIES

    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in results.items())
    return f"""# The toy world's model

GPT-2 architecture, {N_LAYERS} layers, d_model {D_MODEL}, {N_HEADS} heads, context {CONTEXT}, {n_parameters / 1e6:.2f} M parameters, float32. A word-level
tokenizer: one token per word or punctuation mark; BOS (`{BOS}`, token 0) stood before every document and sequence in training and
is not added by the tokenizer. Trained by `python -m cltdb.toyworld.train_model` on {N_STEPS * BATCH_SEQS * CONTEXT / 1e6:.0f} M tokens
of generated text (seed {TEXT_SEED}) in {minutes:.0f} minutes on two cores.

Accuracy of the most probable next token on prompts drawn with seed {TASK_SEED}; for `greater_than` the probability mass on valid years.

| task | score |
|---|---|
{rows}

Two-hop facts held out of training (the city stands in one-hop sentences only): {", ".join(HELD_OUT_CITIES)}.
`two_hop_held_out` says how the model does on them: a high score means that it composes the two facts, a low one that it recalls sentences.

Limits: a few hundred words and a dozen templates. It serves to test methods whose answers can be known; it says nothing of language.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=MODEL_DIR)
    output = parser.parse_args().output
    keep_freed_memory()
    start = time.monotonic()
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer))
    train(model, tokenizer, documents(TEXT_SEED))
    results = measure(model.eval(), tokenizer)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    text = card(results, n_parameters=model.num_parameters(), minutes=(time.monotonic() - start) / 60)
    (output / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
