"""Makes the models, texts and prompts of this study: `python experiments/multilingual/make_models.py --help`.

Four worlds of three languages without a common token (`cltdb.toyworld.languages`), three seeds each: balanced, en60 (60 % of the
documents in one language are English, 20 % French, 20 % German), en90 (90, 5, 5), and shuffled (balanced, each language with facts of its own).
Trained on a CUDA device where there is one. What is there already is left as it is. For each world also `text-WORLD.jsonl`, equal
shares of the languages with their labels, to train and measure dictionaries on; `labelled-WORLD.jsonl`, longer documents in one language each, on
which features have to tell the language; and `prompts-WORLD.jsonl`, the questions for capitals and opposites in each language.
"""

import argparse
import itertools
import json
from pathlib import Path

import torch

from cltdb.devices import resolved_device
from cltdb.memory import keep_freed_memory
from cltdb.toyworld.facts import LANGUAGES
from cltdb.toyworld.languages import documents, facts, words
from cltdb.toyworld.train_model import BOS, build_model, build_tokenizer, train

EQUAL = dict.fromkeys(LANGUAGES, 1)
SHARES = {
    "balanced": EQUAL,
    "en60": {"en": 60, "fr": 20, "de": 20},
    "en90": {"en": 90, "fr": 5, "de": 5},
    "shuffled": EQUAL,
}
SHUFFLED_BY = {"shuffled": 0}
SEEDS = (0, 1, 2)
D_MODEL, N_STEPS, LEARNING_RATE = 96, 2800, 5e-3
TEXT_SEED, N_DOCUMENTS = 1000, 20_000
"""Of the texts; models are trained on others, seeds 1, 2 and 3."""
LABELLED_SEED, N_LABELLED, JOINED = 3000, 600, 10
"""Documents with a label, each of so many documents in one language: most that fits a context is then a whole context of one language."""


def make_model(folder, world, seed):
    tokenizer = build_tokenizer(words(), splits_marks=False)
    model = build_model(len(tokenizer), d_model=D_MODEL, seed=seed).to(resolved_device("auto"))
    train(model, tokenizer, _documents(world, SHARES[world], seed + 1), n_steps=N_STEPS, learning_rate=LEARNING_RATE)
    right = accuracy(model.cpu().eval(), tokenizer, world)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "accuracy.json").write_text(json.dumps(right, indent=1))  # last: a folder that has it is whole
    print(f"{folder.name}: share of questions answered rightly: {right}", flush=True)


def _documents(world, shares, seed):
    return documents(seed, shares=shares, shuffled_by=SHUFFLED_BY.get(world))


@torch.no_grad()
def accuracy(model, tokenizer, world):
    """{language: share of all facts whose greedy answer is right, both pieces}."""
    known = facts(shuffled_by=SHUFFLED_BY.get(world))
    right = {}
    for language in LANGUAGES:
        texts = [f"{BOS} {fact.prompt[language]} {fact.answer[language]}" for fact in known]
        rows = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # attention is causal
        said = model(input_ids=padded).logits.argmax(-1)
        of_fact = [torch.equal(guess[len(row) - 3 : len(row) - 1], row[-2:]) for guess, row in zip(said, rows, strict=True)]
        right[language] = round(sum(of_fact) / len(of_fact), 3)
    return right


def write_text(folder, world):
    drawn = itertools.islice(_documents(world, EQUAL, TEXT_SEED), N_DOCUMENTS)
    _write_lines(folder / f"text-{world}.jsonl", ({"text": text, "language": language} for text, language in drawn))


def write_labelled(folder, world):
    _write_lines(folder / f"labelled-{world}.jsonl", itertools.islice(_labelled(world), N_LABELLED))


def _labelled(world):
    waiting = {language: [] for language in LANGUAGES}
    for text, language in _documents(world, EQUAL, LABELLED_SEED):
        if language is None:
            continue
        waiting[language].append(text)
        if len(waiting[language]) == JOINED:
            yield {"text": " ".join(waiting[language]), "language": language}
            waiting[language] = []


def write_prompts(folder, world):
    """The capitals, and the opposite of one word of each pair: asked both ways round, a pair would be two concepts of the same words. The target is
    the answer's first piece."""
    known = facts(shuffled_by=SHUFFLED_BY.get(world))
    asked = [fact for kind, step in (("capital", 1), ("opposite", 2)) for fact in _of_kind(known, kind)[::step]]
    rows = (
        {
            "concept": fact.concept,
            "kind": _kind(fact),
            "label": language,
            "text": fact.prompt[language],
            "target": fact.answer[language].split()[0],
        }
        for fact in asked
        for language in LANGUAGES
    )
    _write_lines(folder / f"prompts-{world}.jsonl", rows)


def _of_kind(known, kind):
    return [fact for fact in known if _kind(fact) == kind]


def _kind(fact):
    return fact.concept.split("-")[0]


def _write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("multilingual-models"))
    parser.add_argument("--worlds", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    args = parser.parse_args()
    folder = args.output
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    for world in args.worlds:
        write_text(folder, world)
        write_labelled(folder, world)
        write_prompts(folder, world)
        for seed in args.seeds:
            if not (folder / f"{world}-{seed}" / "accuracy.json").is_file():
                make_model(folder / f"{world}-{seed}", world, seed)


if __name__ == "__main__":
    main()
