"""Why a request failed, whether it is worth another try and when, and whether every other would fail too.

What counts is the HTTP status that an exception of litellm comes from: litellm's own classes go by words of the message.
"""

import random
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from cltdb.errors import CltdbError
from cltdb.log import duration

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 32
"""Before a request is tried again: at random up to this (full jitter), doubled each time; the provider may say how long (Retry-After)."""
RETRIES, UNREADABLE_RETRIES = 8, 1
"""Tries after the first, about a minute in all; of a reply that is none while nothing was answered yet: a wrong address may say such."""
LONGEST_ASKED_S = 180
"""A provider that asks to wait longer ends the run."""
UNREACHED_S, LOST_S = 5, 60
"""So long connections may be refused before the run ends: when nothing was answered yet, and when something was."""
PATIENCE_S, FAILURES_IN_A_ROW = 300, 20
"""After so long without any answer, or so many failed requests one after the other, a failed request ends the run."""
BUSY = (408, 409, 425, 429)
KEPT = "run again: replies so far are kept"
_NO_SUCH = ("not found", "not exist", "unknown model", "invalid model", "no such model")


class Unreadable(Exception):
    """A reply with status 200 that is no chat completion."""


class Fault(NamedTuple):
    """Why a request failed. passes: another try may help; is_unreadable: the reply was none; unreached: there was no connection."""

    text: str
    status: int | None = None
    passes: bool = False
    retry_after_s: float | None = None
    has_no_credit: bool = False
    is_unreadable: bool = False
    unreached: bool = False


class Health:
    """Of a provider: what it answered so far, and from it whether the run goes on. `model`: for messages."""

    def __init__(self, model):
        self.model, self.has_answered, self.refusal = model, False, None
        self.resume_at = 0.0  # of time.monotonic(): nobody asks before
        self._answered_at, self._n_failures = None, 0

    def answered(self):
        self.has_answered, self._answered_at, self._n_failures = True, time.monotonic(), 0

    def wait_s(self, fault, tries, began):
        """Seconds until a failed request is tried again, None where it is not. tries: those after the first; began: the first one's time."""
        wait_s = random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**tries))
        if fault.unreached:
            passed_s = time.monotonic() - began
            return wait_s if passed_s + wait_s <= (LOST_S if self.has_answered else UNREACHED_S) else None
        retries = UNREADABLE_RETRIES if fault.is_unreadable and not self.has_answered else RETRIES
        if not fault.passes or tries >= retries or (fault.retry_after_s or 0) > LONGEST_ASKED_S:
            return None
        asked_s = fault.retry_after_s or 0
        self.resume_at = max(self.resume_at, time.monotonic() + asked_s)  # for all requests
        return max(asked_s, wait_s)

    def failed(self, fault, began):
        """Notes a request that is given up; CltdbError where others would fail too."""
        self._n_failures += 1
        self._answered_at = self._answered_at or began
        if self.refusal is None:
            self.refusal = self._refusal(fault)
        self.check()

    def check(self):
        """Raises the CltdbError after which nobody is asked any more."""
        if self.refusal is not None:
            raise self.refusal

    def _refusal(self, fault):
        where, text = f"explain.model {self.model}", fault.text.lower()
        if fault.status == 401 or fault.status == 403 and not self.has_answered:
            do = f"set the right key in the environment (a server of your own gets only the one that explain.api_key_env names) and {KEPT}"
            return CltdbError(where, found=f"a key that the provider refuses ({fault.text})", expected="a valid API key", do=do)
        if fault.status == 404 or fault.status == 400 and "model" in text and any(word in text for word in _NO_SUCH):
            do = f"mend explain.model or explain.api_base and {KEPT}"
            return CltdbError(
                where, found=f"a model the provider does not know ({fault.text})", expected="one of its models", do=do
            )
        if fault.status == 402 or fault.has_no_credit:
            do = f"add some and {KEPT}"
            return CltdbError(where, found=f"no credit ({fault.text})", expected="an account with credit", do=do)
        if (fault.retry_after_s or 0) > LONGEST_ASKED_S:
            found = f"a provider that takes no requests for {duration(fault.retry_after_s)} ({fault.text})"
            return CltdbError(where, found=found, expected="answers", do=f"then {KEPT}")
        if fault.unreached or self._n_failures >= FAILURES_IN_A_ROW or time.monotonic() - self._answered_at > PATIENCE_S:
            do = f"check the model's name, the server and the network, and {KEPT}"
            return CltdbError(where, found=f"no answer to any request: {fault.text}", expected="answers", do=do)
        return None


def fault_of(error, scrubbed):
    """The Fault of an exception of litellm, of a TimeoutError or of `Unreadable`; scrubbed(text): the text without any key."""
    import httpx
    import openai

    chain, status = list(_causes(error)), _status(error)
    text = _said(error, scrubbed)
    unreached = (httpx.ConnectError, httpx.ConnectTimeout, ConnectionRefusedError)
    if status is not None:
        bodies = [body for cause in chain if isinstance(body := getattr(cause, "body", None), dict)]
        has_no_credit = any("insufficient_quota" in (body.get("code"), body.get("type")) for body in bodies)
        passes = (status in BUSY or status >= 500) and not has_no_credit
        return Fault(text, status, passes, _retry_after(chain), has_no_credit)
    if any(isinstance(cause, unreached) for cause in chain):
        return Fault(f"no connection to the server ({_said(chain[-1], scrubbed)})", unreached=True)
    if any(isinstance(cause, (httpx.TransportError, openai.APITimeoutError, TimeoutError)) for cause in chain):
        return Fault(text, passes=True)
    if type(error).__name__ == "APIConnectionError":  # of providers that are not asked by httpx
        return Fault(text, unreached=True)
    return Fault(text, passes=True, is_unreadable=True)


def _said(error, scrubbed):
    """An exception in one line, without the names that litellm puts before it."""
    line = re.sub(r"^(?:(?:litellm\.)?\w+: )+", "", scrubbed((str(error).splitlines() or [""])[0]))
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error):
    """The HTTP status that an exception comes from, None where there is none."""
    import httpx
    import openai

    for cause in _causes(error):
        if isinstance(cause, httpx.HTTPStatusError):
            return cause.response.status_code
        if isinstance(cause, openai.APIStatusError) and type(cause).__module__.startswith("openai"):
            return cause.status_code
    unsaid = ("InternalServerError", "APIError", "APIConnectionError")  # what litellm makes of anything, with a status of its own
    known = isinstance(error, openai.APIStatusError) and type(error).__name__ not in unsaid
    return error.status_code if known and isinstance(error.status_code, int) else None


def _retry_after(chain):
    """Seconds that the provider asks to wait, None where it does not."""
    for cause in chain:
        headers = getattr(getattr(cause, "response", None), "headers", None) or {}
        value = headers.get("retry-after")
        if value is None:
            continue
        try:
            return max(0.0, float(value))
        except ValueError:
            try:
                return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
            except (ValueError, TypeError):
                return None
    return None
