"""Makes text.jsonl and parallel.jsonl of the study from translations of Genesis.

    python experiments/genesis/prepare.py TEXTS MODEL INTO

TEXTS: a folder with a .txt file for each label. In all of them a verse ends at a line's end; in portuguese.txt every line is a verse. MODEL:
the folder of the model that reads the prompts. INTO: where the two files go.
"""

import argparse
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

REFERENCE = "portuguese"
MOST_LINES = 16
"""Lines of a verse, at most."""
BEAM = 50
"""Cuts of a text that are kept after each verse."""
VARIANCE = 6.8
"""Of a translation's length, per character of the original (Gale and Church 1993)."""
SHARED_NAME, NO_PUNCTUATION = -3.0, 5.0
"""What a name in both verses, and a verse that ends without punctuation, cost in nats."""
ENDS = tuple(".,:;!?\"'½)-")
VERSES_OF_DOCUMENT = 4
N_CONCEPTS, MOST_TOKENS = 30, 30


def names(text):
    """How often each name is in a text, by its first three letters without accents: words with a capital that begin no sentence."""
    plain = "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))
    return Counter(word[:3].lower() for word in re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{2,}", plain))


def align(verses, lines):
    """The text of each verse in the lines of another translation, in order and none left out: the cut that costs least by lengths, shared names
    and punctuation, as far as a beam finds it."""
    sizes = np.concatenate([[0], np.cumsum([len(line) + 1 for line in lines])])
    ratio = sizes[-1] / sum(len(verse) + 1 for verse in verses)
    of_line, cheapest, chosen = [names(line) for line in lines], {0: 0.0}, []
    for verse in verses:
        expected, of_verse, following, back = ratio * (len(verse) + 1), names(verse), {}, {}
        for start, before in cheapest.items():
            found = Counter()
            for end in range(start + 1, min(start + MOST_LINES, len(lines)) + 1):
                found += of_line[end - 1]
                cost = before + (sizes[end] - sizes[start] - expected) ** 2 / (2 * VARIANCE * expected)
                cost += SHARED_NAME * sum((found & of_verse).values()) + NO_PUNCTUATION * (not lines[end - 1].endswith(ENDS))
                if cost < following.get(end, np.inf):
                    following[end], back[end] = cost, start
        cheapest = dict(sorted(following.items(), key=lambda one: one[1])[:BEAM])
        chosen.append(back)
    cuts = [len(lines)]
    for back in reversed(chosen):
        cuts.insert(0, back[cuts[0]])
    return [" ".join(lines[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)]


def aligned(folder):
    """{label: its verses}, as many for each."""
    texts = {}
    for path in sorted(folder.glob("*.txt")):
        texts[path.stem] = [line.strip() for line in path.read_text("utf-8").split("\n") if line.strip()]
    verses = texts[REFERENCE]
    return {label: lines if len(lines) == len(verses) else align(verses, lines) for label, lines in texts.items()}


def documents(verses):
    """Rows of text.jsonl: some verses in a row, with their label."""
    for label, of_label in verses.items():
        for start in range(0, len(of_label), VERSES_OF_DOCUMENT):
            yield {"text": " ".join(of_label[start : start + VERSES_OF_DOCUMENT]), "label": label}


def cut(verse, tokenizer):
    """(the beginning of a verse, the token that begins its last word), None where that token is no text of its own."""
    beginning, _, word = verse.rpartition(" ")
    ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    token = tokenizer.decode(ids[:1])
    if not beginning or tokenizer(token, add_special_tokens=False)["input_ids"] != ids[:1]:
        return None
    return beginning, token


def prompts(verses, tokenizer):
    """Rows of parallel.jsonl: verses whose beginnings are short in all languages and whose next tokens are not all the same, evenly over the
    book."""
    usable = []
    for place, of_verse in enumerate(zip(*verses.values(), strict=True)):
        cuts = [cut(verse, tokenizer) for verse in of_verse]
        if not all(cuts) or len({token for _, token in cuts}) == 1:
            continue
        if all(len(tokenizer(text)["input_ids"]) <= MOST_TOKENS for text, _ in cuts):
            usable.append((f"verse {place + 1}", cuts))
    for place in np.linspace(0, len(usable) - 1, min(N_CONCEPTS, len(usable))).round().astype(int):
        concept, cuts = usable[place]
        for label, (text, target) in zip(verses, cuts, strict=True):
            yield {"concept": concept, "label": label, "text": text, "target": target}


def main():
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("texts", "model", "into"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    verses = aligned(options.texts)
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    for name, rows in (("text", documents(verses)), ("parallel", prompts(verses, tokenizer))):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (options.into / f"{name}.jsonl").write_text("".join(lines), "utf-8")
        print(f"{name}.jsonl: {len(lines)} lines")


if __name__ == "__main__":
    main()
