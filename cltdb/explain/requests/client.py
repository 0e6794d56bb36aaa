"""Asks one language model, many requests at once.

    client = Client(section, units)
    reply = await client.ask(Request("detection", messages, read, schema))

Each complete answer is kept in the workspace before its place among the requests in flight is given free: a kill loses at most
`explain.concurrency` answers. An answer that `read` cannot use is kept too, and a request of its own shows it to the model with what is wrong.
Requests that fail for a reason that passes are sent again, after a while and within the provider's limits.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cltdb.errors import CltdbError
from cltdb.explain.requests.access import access, load_litellm
from cltdb.explain.requests.answers import FAILED, OK, SKIPPED, UNUSABLE, Answer, Answers, Entry, now
from cltdb.explain.requests.budget import Budget, Meter, Spent
from cltdb.explain.requests.faults import Health, Unreadable, fault_of
from cltdb.explain.requests.limits import Limits

logger = logging.getLogger(__name__)
REPAIRS = 2
"""Requests that show the model its unusable answer, at most."""
SHOWN_CHARACTERS = 2000
"""Of an unusable answer."""
REFUSALS = (400, 422)
"""Statuses by which servers say that they do not take a parameter."""
OPTIONAL = {"temperature": ("temperature",), "response_format": ("response_format", "json_schema", "schema", "grammar", "guided")}
"""Parameters that are left out where a server refuses them, with the words by which it says so."""


class Request(NamedTuple):
    """purpose: such as `explain:llm`, `detection`; messages: chat messages; read: text of an answer -> its value, raising ValueError with words that
    tell a model what to mend; schema: JSON schema of the answer, or None."""

    purpose: str
    messages: list
    read: Callable[[str], Any]
    schema: dict | None = None


class Reply(NamedTuple):
    """value: what `read` gave, None where status is not ok. status: ok, failed or skipped_budget, with the reason in `error`. The numbers include
    repairs; cost_usd: when it was paid, None unknown, 0 known to be free."""

    value: Any
    status: str
    error: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    created_at: str


class Ended(NamedTuple):
    """A request without an answer. status: failed or skipped_budget."""

    status: str
    error: str
    attempts: int


class Client:
    """Asks the model of a section `explain`; units: cltdb.engine.units.Units. `ledger`: an `Entry` for each request that was used; `spent`: their sums.
    CltdbError where the model cannot be reached as the section says."""

    def __init__(self, section, units):
        import openai

        self.section, self.access = section, access(section)
        self.litellm, self._faults = load_litellm(), (openai.OpenAIError, TimeoutError, Unreadable)
        self.answers = Answers(section, self.access.parameters, units)
        self.health, self.meter, self.budget = Health(section.model), Meter(section), Budget(section)
        if section.max_cost_usd is not None or section.max_requests is not None:
            for answer in self.answers.own():
                self.budget.count(answer.cost_usd)
        limits = section.requests_per_minute, section.tokens_per_minute
        self.limits = Limits(*limits) if any(limits) else None
        self.spent, self._entries = Spent(), {}
        self._left_out, self._has_form = set(), False
        self._takes_forms = section.api_base is not None or self.litellm.supports_response_schema(section.model)
        self._slots, self._asking = asyncio.Semaphore(section.concurrency), {}

    @property
    def ledger(self):
        return list(self._entries.values())

    async def ask(self, request):
        """The Reply to a Request; CltdbError where the provider will not answer this or any other."""
        messages, used, wrong = [{**said, "content": _plain(said["content"])} for said in request.messages], [], None
        for _ in range(1 + REPAIRS):
            key = self.answers.key(messages, request.schema)
            answer = await self._answer(key, request, messages)
            if isinstance(answer, Ended):
                return _reply(None, answer.status, answer.error, used)
            used.append(answer)
            try:
                return _reply(_read(request, answer), OK, None, used)
            except (ValueError, RecursionError) as error:
                wrong = " ".join(str(error).split())
            self._entries[key] = self._entries[key]._replace(status=UNUSABLE, error=wrong)
            messages = [*messages, *_repair(answer, wrong)]
        return _reply(None, FAILED, f"no usable answer in {1 + REPAIRS} tries: {wrong}", used)

    async def _answer(self, key, request, messages):
        """The Answer to messages, from the workspace or new, or an `Ended`. What is being asked already is waited for."""
        task = self._asking.get(key)
        if task is None:
            self.health.check()
            answer = self.answers.get(key)
            if answer is not None:
                self._count(key, answer, is_new=False)
                return answer

            def done(task):
                del self._asking[key]
                if not task.cancelled():
                    task.exception()  # which whoever asked has got, unless cancelled meanwhile

            task = self._asking[key] = asyncio.create_task(self._new(key, request, messages))
            task.add_done_callback(done)
        return await asyncio.shield(task)

    async def _new(self, key, request, messages):
        """The Answer of the provider, kept and counted, or an `Ended`."""
        async with self._slots, self.meter.first():
            self.health.check()
            counted = self.meter.counted(messages)
            reserved = await self.budget.reserve(*self.meter.bound(counted))
            if reserved is None:
                return self._ended(key, request, Ended(SKIPPED, self.budget.ended, 0))
            cost_usd = 0.0
            try:
                answer = await self._call(request, messages, counted)
                if isinstance(answer, Ended):
                    return self._ended(key, request, answer)
                cost_usd = answer.cost_usd
                self.answers.put(key, answer)
            finally:
                self.budget.settle(reserved, cost_usd)
            self._count(key, answer, is_new=True)
            return answer

    async def _call(self, request, messages, counted):
        """The provider's Answer, asked for again where that may help, or an `Ended`. counted: tokens of the messages."""
        began, tries, attempts, refused = time.monotonic(), 0, 0, set()
        while True:
            while (wait_s := self.health.resume_at - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            self.health.check()
            sent = await self.limits.wait(self.meter.most(counted)) if self.limits else None
            attempts, options, answer = attempts + 1, self._options(request, refused), None
            try:
                answer = await self._sent(request, messages, options, attempts)
            except self._faults as error:
                fault = fault_of(error, self.access.scrubbed)
            finally:
                if sent:
                    sent.ended((answer.prompt_tokens + answer.completion_tokens) or None if answer else None)
            if answer is not None:
                self.health.answered()
                self.meter.seen(counted, answer.prompt_tokens, answer.completion_tokens)
                self._has_form |= "response_format" in options
                self._leave_out(refused)
                return answer
            if name := self._refused(fault, options):
                refused.add(name)
                continue
            wait_s = self.health.wait_s(fault, tries, began)
            if wait_s is None:
                self.health.failed(fault, began)
                return Ended(FAILED, fault.text, attempts)
            tries += 1
            self._slots.release()  # another request has the place meanwhile; only the end of the run cancels this one
            await asyncio.sleep(wait_s)
            await self._slots.acquire()

    def _options(self, request, refused):
        """What litellm is called with, but for the messages; refused: names of parameters that this request goes without."""
        options = {**self.access.options, **self.access.parameters}
        if request.schema is not None and self._takes_forms:
            form = {"name": "answer", "schema": request.schema, "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": form}
        return {name: value for name, value in options.items() if name not in refused and name not in self._left_out}

    async def _sent(self, request, messages, options, attempts):
        """The Answer to one call; an exception where there is none."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.section.timeout_s):
                response = await self.litellm.acompletion(messages=messages, **options)
        except TimeoutError:
            raise TimeoutError(f"no answer within {self.section.timeout_s:g} s") from None
        text, refusal, finish = _said(response, self.access.scrubbed)
        usage = getattr(response, "usage", None)
        tokens = [int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens")]
        cost = getattr(response, "_hidden_params", {}).get("response_cost")
        return Answer(
            text,
            refusal,
            finish,
            *tokens,
            None if cost is None else float(cost),
            seconds=round(time.monotonic() - started, 3),
            attempts=attempts,
            purpose=request.purpose,
            model=self.section.model,
            created_at=now(),
            paid_by=self.answers.units.artifact,
        )

    def _refused(self, fault, options):
        """The parameter that a server does not take, by its words, or None. As long as no answer came in the wanted form, that form is the first that a
        request goes without."""
        if fault.status not in REFUSALS:
            return None
        words = fault.text.lower()
        named = (name for name, signs in OPTIONAL.items() if name in options and any(sign in words for sign in signs))
        return next(named, "response_format" if "response_format" in options and not self._has_form else None)

    def _leave_out(self, names):
        """Notes parameters without which a request was answered: no other gets them."""
        for name in names - self._left_out:
            logger.warning("explain: %s takes no %s; it is asked without", self.section.model, name)
            self._left_out.add(name)

    # The ledger.

    def _count(self, key, answer, *, is_new):
        """Enters a request that was answered, once."""
        if key in self._entries and self._entries[key].status in (OK, UNUSABLE):
            return
        numbers = {
            name: getattr(answer, name) for name in Entry._fields if name in Answer._fields and name not in ("purpose", "model")
        }
        self._entries[key] = Entry(key, answer.purpose, answer.model, OK, None, not self.answers.is_own(answer), **numbers)
        known = answer.cost_usd or 0.0
        if is_new:
            self.spent = self.spent.plus(n_asked=1, asked_usd=known, n_unpriced=int(answer.cost_usd is None))
        else:
            self.spent = self.spent.plus(n_reused=1, reused_usd=known)

    def _ended(self, key, request, ended):
        """Enters a request without an answer; returns `ended`."""
        named = key, request.purpose, self.section.model, ended.status, ended.error
        self._entries[key] = Entry(*named, reused=False, attempts=ended.attempts, created_at=now())
        name = "n_skipped" if ended.status == SKIPPED else "n_failed"
        self.spent = self.spent.plus(**{name: 1})
        return ended


def _plain(text):
    """The text with ? for halves of characters, which cannot be sent."""
    return text.encode(errors="replace").decode()


def _said(response, scrubbed):
    """(text, refusal, finish reason) of a response of litellm; Unreadable where it is none."""
    choices = getattr(response, "choices", None)
    message = getattr(choices[0], "message", None) if choices else None
    if message is None:
        raise Unreadable("a reply without choices")
    content, refusal = (getattr(message, name, None) for name in ("content", "refusal"))
    if not isinstance(content, str | None) or not isinstance(refusal, str | None):
        raise Unreadable(f"a reply whose text is of type {type(content).__name__}")
    text, refusal = (_plain(scrubbed(said or "")) for said in (content, refusal))
    return text, refusal or None, getattr(choices[0], "finish_reason", None)


def _read(request, answer):
    """The value of an answer; ValueError with what is wrong with it."""
    if not answer.text.strip():
        raise ValueError(
            f"it refuses: {answer.refusal[:200]}" if answer.refusal else f"it is empty (finish_reason {answer.finish})"
        )
    try:
        return request.read(answer.text)
    except ValueError as error:
        if answer.finish != "length":
            raise
        raise ValueError(f"{error} (it was cut off at its greatest length: use fewer words)") from None


def _repair(answer, wrong):
    """The messages that show a model its unusable answer."""
    shown = answer.text if answer.text.strip() else answer.refusal or "(no text)"
    asked = f"This answer cannot be used: {wrong}. Answer the first message again, with nothing but what it asks for."
    return [{"role": "assistant", "content": shown[:SHOWN_CHARACTERS]}, {"role": "user", "content": asked}]


def _reply(value, status, error, used):
    costs = [answer.cost_usd for answer in used]
    return Reply(
        value,
        status,
        error,
        sum(answer.prompt_tokens for answer in used),
        sum(answer.completion_tokens for answer in used),
        None if None in costs else sum(costs),
        used[-1].created_at if used else now(),
    )


def run(main):
    """The value of a coroutine, run to its end. On Ctrl-C or an error whatever is in flight is cancelled; of several errors at once, as a TaskGroup
    raises them, a CltdbError is raised alone."""

    async def whole():
        try:
            return await main
        finally:
            if litellm := sys.modules.get("litellm"):
                await litellm.close_litellm_async_clients()
                litellm.in_memory_llm_clients_cache.flush_cache()  # the next run has a loop of its own

    try:
        return asyncio.run(whole())
    except BaseExceptionGroup as group:
        leaves = [group]
        for error in leaves:
            leaves += error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        raise next((error for error in leaves if isinstance(error, CltdbError)), group) from None
