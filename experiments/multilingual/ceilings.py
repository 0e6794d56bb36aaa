"""What could turn answers into another language: things that are put at the last word where the first MLP writes, on both halves of the concepts.

`exchanged.py` calls `ceilings`. Means, partners and maps come from the half of the concepts that chooses, multiples too; the other half measures.
"""

import itertools
import json
import zlib
from pathlib import Path

import torch

import cltdb
from cltdb.groups.substitution import halves
from cltdb.replacement.targets import token_id
from cltdb.toyworld.facts import LANGUAGES

MULTIPLES = (0.75, 1, 1.25, 1.5, 2)
RIDGE = 3.0
"""Of the linear map, beside activations of about 1 to 10."""
SEED = zlib.crc32(b"0/groups substitution")
"""Of the halves, as stage groups draws them for seed 0."""


class Prompts:
    """Parallel prompts of a model: what the first MLP reads and writes at their last word; the same where that word alone is another language's."""

    def __init__(self, lm, dictionary, path):
        self.lm, self.dictionary, self.tokens, self.answer, self.seen = lm, dictionary, {}, {}, {}
        for row in map(json.loads, open(path, encoding="utf-8")):
            key = row["concept"], row["label"]
            self.tokens[key] = lm.prompt_tokens(row["text"])
            self.answer[key] = token_id(lm, row["target"])
        self.concepts = list(dict.fromkeys(concept for concept, _ in self.tokens))
        for (concept, language), tokens in self.tokens.items():
            for last in LANGUAGES:
                run = lm.run(torch.tensor([[*tokens[:-1], self.tokens[concept, last][-1]]]), with_logits=False)
                self.seen[concept, language, last] = run.mlp_input[0, -1, 0], run.mlp_output[0, -1, 0]

    def written(self, concepts, language, last=None):
        """[n, d_model]"""
        return torch.stack([self.seen[concept, language, last or language][1] for concept in concepts])

    def activations(self, concepts, language, last=None):
        """[n, n_features] of layer 0."""
        return self.dictionary.encode_layer(
            torch.stack([self.seen[concept, language, last or language][0] for concept in concepts]), 0
        )

    @torch.no_grad()
    def answers(self, concepts, language, added):
        """The likeliest next tokens where `added` {layer: [n, d_model]} is added to what MLPs write at the last word."""
        said, lengths = [None] * len(concepts), {}
        for place, concept in enumerate(concepts):
            lengths.setdefault(len(self.tokens[concept, language]), []).append(place)
        for places in lengths.values():

            def adds(layer, x, y, places=places):
                return torch.cat([y[:, :-1], (y[:, -1] + added[layer][places])[:, None]], dim=1) if layer in added else y

            with self.lm.replaced_mlps(adds):
                logits = self.lm.logits(torch.tensor([self.tokens[concepts[place], language] for place in places]))[:, -1]
            for place, token in zip(places, logits.argmax(-1).tolist(), strict=True):
                said[place] = token
        return said

    def right(self, concepts, source, target, added, *, of=None):
        """Share of answers that are right in the target language; of: the concepts whose answers count, default the same."""
        said = self.answers(concepts, source, added)
        return sum(one == self.answer[concept, target] for one, concept in zip(said, of or concepts, strict=True)) / len(said)


def ceilings(lm, dictionary, path, label_features):
    """{what is put: {pair: [share right of the concepts that choose, of those that measure]}}. label_features: {language: [(feature, high)] of layer 0}."""
    prompts, found = Prompts(lm, dictionary, path), {}
    for pair in itertools.permutations(LANGUAGES, 2):
        for name, shares in _of_pair(prompts, *pair, label_features).items():
            found.setdefault(name, {})["-".join(pair)] = [round(share, 4) for share in shares]
    return found


def _of_pair(prompts, source, target, label_features):
    differ = [c for c in prompts.concepts if prompts.answer[c, source] != prompts.answer[c, target]]
    parts = halves(differ, SEED)
    own = list(dict.fromkeys(feature for language in (source, target) for feature, _ in label_features[language]))
    first = parts[0]
    offset = prompts.written(first, target).mean(0) - prompts.written(first, source).mean(0)
    mean = prompts.activations(first, target).mean(0)
    differences = mean - prompts.activations(first, source).mean(0)
    partners, mapped = _partners(prompts, first, source, target, label_features), _map(prompts, first, source, target, own)

    def features(change):
        """What a change of activations [n, n_features], of label features alone, writes."""
        written = torch.einsum("nf,ftd->tnd", change[:, own], prompts.dictionary.decoder(0, torch.tensor(own, dtype=torch.long)))
        return dict(zip(prompts.dictionary.target_layers(0), written, strict=True))

    def now(concepts):
        return prompts.activations(concepts, source)

    ways = {
        "output, as on the other prompt": lambda cs, m: {0: prompts.written(cs, target) - prompts.written(cs, source)},
        "output, last word exchanged": lambda cs, m: {0: prompts.written(cs, source, target) - prompts.written(cs, source)},
        "output, the target's mean": lambda cs, m: {0: prompts.written(first, target).mean(0) - prompts.written(cs, source)},
        "output, mean difference added": lambda cs, m: {0: (m * offset).expand(len(cs), -1)},
        "label features, as on the other prompt": lambda cs, m: features(prompts.activations(cs, target) - now(cs)),
        "label features, last word exchanged": lambda cs, m: features(m * (prompts.activations(cs, source, target) - now(cs))),
        "label features, the target's mean": lambda cs, m: features(mean - now(cs)),
        "label features, mean difference added": lambda cs, m: features((m * differences).expand(len(cs), -1)),
        "label features, by partners": lambda cs, m: features(m * partners(cs) - now(cs)),
        "label features, by a linear map": lambda cs, m: features(mapped(cs) - now(cs)),
    }
    with_multiples = (
        "output, mean difference added",
        *(f"label features, {way}" for way in ("last word exchanged", "mean difference added", "by partners")),
    )
    shares = {}
    for name, way in ways.items():
        tried = MULTIPLES if name in with_multiples else (1,)
        best = max(tried, key=lambda m: (prompts.right(first, source, target, way(first, m)), -abs(m - 1)))
        shares[name] = [prompts.right(part, source, target, way(part, best)) for part in parts]
    others = [part[1:] + part[:1] for part in parts]
    given = [features(prompts.activations(of, target) - now(part)) for part, of in zip(parts, others, strict=True)]
    shares["label features, as on another concept's prompt"] = [
        prompts.right(*one, added) for one, added in zip(((part, source, target) for part in parts), given, strict=True)
    ]
    shares["the same, the other concept's answer"] = [
        prompts.right(part, source, target, added, of=of) for part, added, of in zip(parts, given, others, strict=True)
    ]
    return shares


def _partners(prompts, concepts, source, target, label_features):
    """A function of concepts: activations at which each of the target's label features has what its partner has, in units of each one's high; those of the
    source are 0. The partner is the source's label feature whose activations correlate most."""
    mine, theirs = ([feature for feature, _ in label_features[language]] for language in (source, target))
    my_high, their_high = (torch.tensor([high for _, high in label_features[language]]) for language in (source, target))
    if not mine:
        raise SystemExit(f"{source}: found no label features of layer 0; expected some, whose partners are looked for")
    units = [prompts.activations(concepts, language)[:, of] for language, of in ((source, mine), (target, theirs))]
    x, y = ((one - one.mean(0)) / (one.std(0, unbiased=False) + 1e-9) for one in units)
    partner, fires = (y.T @ x).argmax(1), (units[1] > 0).any(0)

    def of(concepts):
        now = prompts.activations(concepts, source)
        taken = (now[:, mine] / my_high)[:, partner] * their_high * fires
        now[:, mine] = 0
        now[:, theirs] = taken
        return now

    return of


def _map(prompts, concepts, source, target, own):
    """A function of concepts: the label features as a linear map (ridge) of the source's activations says them."""
    x, y = (prompts.activations(concepts, language)[:, own] for language in (source, target))
    weights = torch.linalg.solve(
        (x - x.mean(0)).T @ (x - x.mean(0)) + RIDGE * torch.eye(len(own)), (x - x.mean(0)).T @ (y - y.mean(0))
    )

    def of(concepts):
        now = prompts.activations(concepts, source)
        now[:, own] = ((now[:, own] - x.mean(0)) @ weights + y.mean(0)).clamp(min=0)
        return now

    return of


def ceilings_of(db, dict_id, prompts, workspace):
    """`ceilings` of a dictionary of a database."""
    [(model_id, path)] = db.sql("SELECT model_id, path FROM dictionaries WHERE dict_id = $dict_id", {"dict_id": dict_id}).rows()
    rows = db.sql(
        "SELECT label, feature, high FROM label_features WHERE dict_id = $dict_id AND layer = 0 AND high > 0 ORDER BY label, rank",
        {"dict_id": dict_id},
    ).rows()
    of_label = {language: [(feature, high) for label, feature, high in rows if label == language] for language in LANGUAGES}
    return ceilings(cltdb.load_model(model_id, device="cpu"), cltdb.load_dictionary(Path(workspace) / path), prompts, of_label)
