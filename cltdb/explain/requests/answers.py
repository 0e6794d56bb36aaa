"""Answers of language models, kept in the workspace: whatever artifact asks the same again, nobody pays twice.

An answer is known by all that it depends on: the model, the server's address where the spec names one, the parameters, the messages and the form
that was asked for. Whether a provider takes all of them is not part of it.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import NamedTuple

from cltdb.engine.units import REPLIES

OK, UNUSABLE, FAILED, SKIPPED = "ok", "unusable", "failed", "skipped_budget"


class Answer(NamedTuple):
    """A complete answer. text: "" where there is none; refusal: the model's words that it will not answer; finish: why it ended, such as `stop`, or
    `length` at max_tokens. cost_usd: when it was paid, None unknown, 0 known to be free. seconds: of the try that was answered; attempts: that
    one and those that failed before. paid_by: the artifact."""

    text: str
    refusal: str | None
    finish: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    seconds: float
    attempts: int
    purpose: str
    model: str
    created_at: str
    paid_by: str


class Entry(NamedTuple):
    """A row of table `requests`: a request that the artifact used. status: ok, unusable (a complete answer, which the next request asks to mend), failed
    (no answer) or skipped_budget. reused: another artifact paid. created_at: when it was answered or given up. The numbers are None where nothing
    was answered."""

    request_id: str
    purpose: str
    model: str
    status: str
    error: str | None
    reused: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None
    attempts: int | None = None
    created_at: str | None = None


def now():
    """The time in UTC as ISO 8601 text."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")


class Answers:
    """The answers of one model, asked in one way; units: cltdb.engine.units.Units."""

    def __init__(self, section, parameters, units):
        self.asked, self.units = [section.model, section.api_base, parameters], units

    def key(self, messages, schema):
        """What a request is known by, a sha256."""
        asked = json.dumps([*self.asked, messages, schema], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(asked.encode(errors="replace")).hexdigest()

    def get(self, key):
        """The Answer, None where there is none."""
        record = self.units.get(REPLIES, key)
        return None if record is None else Answer(**record)

    def own(self):
        """The answers that the artifact in the making has paid, also before it was killed or forced."""
        used = self.units.used(REPLIES)
        return [answer for record in used if record.keys() == set(Answer._fields) and self.is_own(answer := Answer(**record))]

    def put(self, key, answer):
        self.units.put(REPLIES, key, answer._asdict())

    def is_own(self, answer):
        """Whether the artifact in the making paid for it."""
        return answer.paid_by == self.units.artifact
