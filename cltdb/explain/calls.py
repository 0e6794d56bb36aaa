"""Questions to language models through litellm: access, stored replies, retries, tokens, cost, errors.

A reply is a unit of the workspace (`cltdb.engine.units`), known by model, messages and parameters: whatever artifact asks the same, nobody pays
twice. Failed calls are not kept.
"""

import hashlib
import json
import logging
import os
import re
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from cltdb.engine.units import REPLIES
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
RULES_MODEL = "cltdb-rules/v1"
PARAMETERS = {"temperature": 0}
"""Asked of every model; litellm leaves out what a model is known to refuse (drop_params)."""
TIMEOUT_S = 120
FIRST_WAIT_S = 0.5
"""Before a call is tried again; doubled each time, unless the provider says how long (Retry-After)."""
RETRIES, UNREADABLE_RETRIES = 7, 1
"""Of a call that the provider is too busy or too broken for, about a minute in all; of one whose reply is no reply."""
GIVE_UP_S = 180
"""No call is tried again later than this after it was first made."""
UNREACHED_S, LOST_S = 5, 60
"""So long connections may be refused before the run ends: when nothing was answered yet, and when something was."""
PATIENCE_S, FAILURES_IN_A_ROW = 300, 20
"""After so long without any answer, or so many failed calls one after the other, a failed call ends the run."""
BUSY = (408, 409, 425, 429)
KEPT = "run again: replies so far are kept"


class Reply(NamedTuple):
    """text is None where the call failed, and `error` then says why. cost_usd: when it was paid; None unknown, 0 known to be free."""

    text: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    error: str | None
    created_at: str


class Spent(NamedTuple):
    """n_asked, asked_usd: answered calls of this process and what they cost, as far as known; of n_unpriced it is not. n_reused, reused_usd: replies that were
    there, and what they cost when they were paid. budget_usd: what this artifact's replies cost, also those of a killed run of it."""

    n_asked: int = 0
    asked_usd: float = 0.0
    n_unpriced: int = 0
    n_reused: int = 0
    reused_usd: float = 0.0
    budget_usd: float = 0.0

    def plus(self, **more):
        return self._replace(**{name: getattr(self, name) + value for name, value in more.items()})

    def minus(self, earlier):
        return Spent(*(now - then for now, then in zip(self, earlier, strict=True)))


class Fault(NamedTuple):
    """Why a call failed. retries: how often it is worth another try; retry_after_s: as the provider says, or None."""

    text: str
    status: int | None
    retries: int = 0
    retry_after_s: float | None = None
    has_no_credit: bool = False
    unreached: bool = False


def load_litellm():
    """litellm, without network at import, which takes seconds."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


def check_access(model):
    """CltdbError where litellm does not know the model's provider or its key is not in the environment."""
    if model == RULES_MODEL:
        return
    litellm = load_litellm()
    if model.partition("/")[0] in {entry["provider"] for entry in litellm.custom_provider_map}:
        return
    try:
        litellm.get_llm_provider(model)
    except litellm.exceptions.BadRequestError as error:
        raise CltdbError(
            "explain.model",
            found=repr(model),
            expected=f"a litellm model, such as openai/gpt-4o-mini, or {RULES_MODEL}",
            do="see docs.litellm.ai/docs/providers for the names of models",
        ) from error
    missing = litellm.validate_environment(model)["missing_keys"]
    if missing:
        raise CltdbError(
            f"explain.model {model}",
            found=f"no {' or '.join(missing)} in the environment",
            expected="the provider's key",
            do=f"export {missing[0]}=…, or set explain.model: {RULES_MODEL}, which needs no network",
        )


class Caller:
    """Asks one model, from any number of threads; `units` (cltdb.engine.units.Units) has the replies."""

    def __init__(self, model, units):
        self.model, self.units, self.parameters = model, units, dict(PARAMETERS)
        self.litellm = None if model == RULES_MODEL else load_litellm()
        self.spent, self.refusal, self._counted = Spent(), None, set()
        self._asking = {}  # a lock per request
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._resume_at, self._answered_at, self._has_answered, self._n_failures = 0.0, None, False, 0

    def ask(self, messages):
        """The Reply to a list of chat messages; CltdbError where the provider will not answer this or any other call."""
        asked = json.dumps([self.model, messages, PARAMETERS], ensure_ascii=False, sort_keys=True)
        name = hashlib.sha256(asked.encode(errors="surrogatepass")).hexdigest()
        key = f"{name[:2]}/{name[2:]}"
        with self._asking.setdefault(key, threading.Lock()):  # what another thread asks just now is waited for
            return self._stored_or_new(key, messages)

    def _stored_or_new(self, key, messages):
        record = self.units.get(REPLIES, key)
        if record is not None:
            reply = Reply(**{field: record[field] for field in Reply._fields})
            self._count(key, reply, n_reused=1, reused_usd=reply.cost_usd or 0.0, is_own=record["paid_by"] == self.units.artifact)
            return reply
        reply = self._call(messages)
        if reply.text is not None:
            self.units.put(REPLIES, key, {**reply._asdict(), "model": self.model, "paid_by": self.units.artifact})
        if reply.text is not None or reply.prompt_tokens or reply.completion_tokens:
            known = dict(asked_usd=reply.cost_usd or 0.0, n_unpriced=int(reply.cost_usd is None))
            self._count(key, reply, n_asked=1, is_own=True, **known)
        return reply

    def _count(self, key, reply, *, is_own, **more):
        with self._lock:
            if key not in self._counted:
                self._counted.add(key)
                self.spent = self.spent.plus(budget_usd=(reply.cost_usd or 0.0) * is_own, **more)

    def stop(self):
        """Ends the waiting of calls in other threads."""
        self._stop.set()

    def _call(self, messages):
        """The Reply of the provider, which is asked again where that may help."""
        import openai

        began, tries = time.monotonic(), 0
        while True:
            self._wait(self._resume_at - time.monotonic())
            try:
                response = self.litellm.completion(
                    model=self.model,
                    messages=messages,
                    timeout=TIMEOUT_S,
                    max_retries=0,
                    num_retries=0,
                    drop_params=True,
                    **self.parameters,
                )
            except openai.OpenAIError as error:  # the base of all litellm exceptions
                if self._drops_temperature(error):
                    continue
                fault = fault_of(error)
                if not self._will_try_again(fault, tries, began):
                    return self._failed(fault, began)
                tries += 1
            else:
                return self._answered(response)

    def _answered(self, response):
        with self._lock:
            self._has_answered, self._answered_at, self._n_failures = True, time.monotonic(), 0
        text, error = _text_of(response)
        usage = getattr(response, "usage", None)
        tokens = [int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens")]
        return Reply(text, *tokens, self._cost(response), error, now())

    def _drops_temperature(self, error):
        """True where the model refused the temperature, which is left out from now on: litellm does not know every model."""
        refused = _status(error) == 400 and "temperature" in str(error) and "temperature" in self.parameters
        if refused:
            self.parameters = {name: value for name, value in self.parameters.items() if name != "temperature"}
        return refused

    def _will_try_again(self, fault, tries, began):
        """Waits and returns True where a failed call is to be made again."""
        wait_s = fault.retry_after_s if fault.retry_after_s is not None else FIRST_WAIT_S * 2 ** min(tries, 6)
        passed_s = time.monotonic() - began
        if fault.unreached:
            if passed_s + wait_s > (LOST_S if self._has_answered else UNREACHED_S):
                return False
        elif tries >= fault.retries or passed_s + wait_s > GIVE_UP_S:
            return False
        if fault.retry_after_s is not None:  # for all threads
            self._resume_at = max(self._resume_at, time.monotonic() + wait_s)
        self._wait(wait_s)
        return True

    def _wait(self, seconds):
        if seconds > 0:
            self._stop.wait(seconds)
        if self.refusal or self._stop.is_set():
            raise self.refusal or KeyboardInterrupt

    def _failed(self, fault, began):
        """The Reply that says that a call failed; CltdbError where others would fail too."""
        with self._lock:
            self._n_failures += 1
            self._answered_at = self._answered_at or began
            silent_s = time.monotonic() - self._answered_at
            if self.refusal is None:
                self.refusal = self._refusal(fault, silent_s)
                if self.refusal:
                    self._stop.set()
        if self.refusal:
            raise self.refusal
        return Reply(None, 0, 0, None, fault.text, now())

    def _refusal(self, fault, silent_s):
        """The CltdbError that ends the run, or None where only this call failed."""
        where, text = f"explain.model {self.model}", fault.text.lower()
        if fault.status == 401 or fault.status == 403 and not self._has_answered:
            do = f"set the right key in the environment and {KEPT}"
            return CltdbError(where, found=f"a key that the provider refuses ({fault.text})", expected="a valid API key", do=do)
        if fault.status == 404 or fault.status == 400 and "model" in text and any(word in text for word in _NO_SUCH):
            do = f"mend explain.model or the server's address and {KEPT}"
            return CltdbError(
                where, found=f"a model the provider does not know ({fault.text})", expected="one of its models", do=do
            )
        if fault.status == 402 or fault.has_no_credit:
            return CltdbError(
                where, found=f"no credit ({fault.text})", expected="an account with credit", do=f"add some and {KEPT}"
            )
        if fault.unreached or self._n_failures >= FAILURES_IN_A_ROW or silent_s > PATIENCE_S:
            found = f"no answer to any call: {fault.text}"
            do = f"check the model's name, the server and the network, and {KEPT}"
            return CltdbError(where, found=found, expected="explanations", do=do)
        return None

    def _cost(self, response):
        cost = getattr(response, "_hidden_params", {}).get("response_cost")
        return None if cost is None else float(cost)


_NO_SUCH = ("not found", "not exist", "unknown model", "invalid model", "no such model")


def now():
    """The time in UTC as ISO 8601 text."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def _text_of(response):
    """(text of a reply, None) or (None, what is wrong with it)."""
    choices = getattr(response, "choices", None)
    if not choices:
        return None, "a reply without choices"
    content = getattr(getattr(choices[0], "message", None), "content", None)
    if isinstance(content, str) and content.strip():
        return content.encode(errors="replace").decode(), None
    kind = "empty" if content in (None, "") or isinstance(content, str) else f"of type {type(content).__name__}"
    return None, f"a reply whose text is {kind} (finish_reason {getattr(choices[0], 'finish_reason', None)})"


def fault_of(error):
    """The Fault of an exception of litellm, by the HTTP status that it comes from: litellm's own classes go by words of the message."""
    import httpx
    import openai

    text = _said(error)
    chain, status = list(_causes(error)), _status(error)
    unreached = (httpx.ConnectError, httpx.ConnectTimeout, ConnectionRefusedError)
    if status is not None:
        bodies = [body for cause in chain if isinstance(body := getattr(cause, "body", None), dict)]
        has_no_credit = any("insufficient_quota" in (body.get("code"), body.get("type")) for body in bodies)
        passes = (status in BUSY or status >= 500) and not has_no_credit
        return Fault(text, status, RETRIES if passes else 0, _retry_after(chain), has_no_credit)
    if any(isinstance(cause, unreached) for cause in chain):
        return Fault(f"no connection to the server ({_said(chain[-1])})", None, unreached=True)
    if any(isinstance(cause, (httpx.TransportError, openai.APITimeoutError, TimeoutError)) for cause in chain):
        return Fault(text, None, RETRIES)
    if type(error).__name__ == "APIConnectionError":  # of providers that are not asked by httpx
        return Fault(text, None, unreached=True)
    return Fault(text, None, UNREADABLE_RETRIES)


def _said(error):
    """An exception in one line, without the names that litellm puts before it, and without any key."""
    line = re.sub(r"^(?:(?:litellm\.)?\w+: )+", "", (str(error).splitlines() or [""])[0])
    for name, value in os.environ.items():
        if len(value) >= 8 and any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD")):
            line = line.replace(value, "…")
    return f"{type(error).__name__}: {line[:300]}"


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
