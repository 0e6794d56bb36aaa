"""Substitutions as rows of tables interventions and intervention_effects, as any other intervention has them."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import torch

from cltdb.attribution.prompts import prompt_slug
from cltdb.replacement.interventions import Setting, setting_text

N_LOGITS = 5
"""Likeliest tokens, before or after, whose logits are stored."""


class Made(NamedTuple):
    """What was done to the prompts of label_from so that they answer under label_to, a `substitution.Change`, and the `substitution.Answers` of the
    untouched and the changed model, one row per question."""

    label_from: str
    label_to: str
    questions: list
    change: Any
    clean: Any
    changed: Any


def intervention_rows(made, lm, *, groups_id, n_constant=1):
    """(rows of table interventions, rows of table intervention_effects) of the questions of a `Made`, JSON values. Concepts that ask the same prompt are
    one intervention, with the logits of the answers of each."""
    rows, effects, now = [], [], datetime.now(UTC).replace(tzinfo=None).isoformat()
    for same in _by_prompt(made.questions):
        place, tokens = same[0], list(made.questions[same[0]].tokens)
        last, answers = len(tokens) - 1, {token for one in same for token in made.questions[one].answers.values()}
        text = lm.tokenizer.decode(tokens[1:])
        intervention_id = f"{groups_id}-{made.label_from}-{made.label_to}-{prompt_slug(text)}"
        start = last if made.change.positions == "last" else n_constant
        span = slice(start, None if made.change.continued else last + 1)
        values = {feature: value_of(value, place) for feature, value in sorted(made.change.values.items())}
        given = [Setting(*feature, span, "set", value) for feature, value in values.items()]
        settings = [one._replace(position=position)._asdict() for one in given for position in range(start, last + 1)]
        texts = {
            f"text_{name}": _text(lm, found.following[place]) for name, found in (("without", made.clean), ("with", made.changed))
        }
        rows.append(
            {
                **{
                    "intervention_id": intervention_id,
                    "graph_id": None,
                    "model_id": lm.model_id,
                    "prompt": text,
                    "tokens": tokens,
                },
                **{"mode": "free", "until_layer": None, "settings": settings, "given": [setting_text(one) for one in given]},
                **{"created_at": now, **texts},
            }
        )
        before, after = made.clean.logits[place], made.changed.logits[place]
        shown = {int(token) for logits in (before, after) for token in logits.topk(min(N_LOGITS, len(logits))).indices}
        for token in sorted(shown | answers):
            values = {"before": float(before[token] - before.mean()), "after": float(after[token] - after.mean())}
            shares = {
                f"probability_{name}": float(logits.softmax(-1)[token]) for name, logits in (("before", before), ("after", after))
            }
            effects.append(
                {"intervention_id": intervention_id, "kind": "logit", "position": last, "token": token, **values, **shares}
            )
    return rows, effects


def value_of(value, place):
    """The value of a `Change` for the question at a place."""
    return float(value[place] if isinstance(value, torch.Tensor) else value)


def _by_prompt(questions):
    """The places of the questions of each prompt."""
    places = {}
    for place, question in enumerate(questions):
        places.setdefault(question.tokens, []).append(place)
    return places.values()


def _text(lm, tokens):
    return lm.tokenizer.decode([token for token in tokens.tolist() if token >= 0])
