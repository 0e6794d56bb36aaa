"""What requests will cost, what they have cost, and when there is no money for one more.

Tokens of a prompt are counted as OpenAI's tokenizer does, offline; another model's count differs by a factor, which its first answers tell. Prices
are litellm's.
"""

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import NamedTuple

from cltdb.explain.requests.access import load_litellm

logger = logging.getLogger(__name__)
COUNTED_LIKE = "gpt-4o"
"""litellm would fetch the tokenizers of some other models from the network."""
UNKNOWN_FACTOR = 1.25
"""For a model's own count of tokens, until it has said one: what is reserved for a request is rather too much."""
TYPICAL_TOKENS, WORDS_TOKENS = 60, 40
"""Of an answer of unknown form, of a text in an answer."""


class Spent(NamedTuple):
    """n_asked, asked_usd: answers to requests of this process and what they cost, as far as known; of n_unpriced it is not. n_reused, reused_usd:
    answers that were there, and what they cost when they were paid. n_failed: requests without an answer; n_skipped: those that a budget ended."""

    n_asked: int = 0
    asked_usd: float = 0.0
    n_unpriced: int = 0
    n_reused: int = 0
    reused_usd: float = 0.0
    n_failed: int = 0
    n_skipped: int = 0

    def plus(self, **more):
        return self._replace(**{name: getattr(self, name) + value for name, value in more.items()})


class Estimate(NamedTuple):
    """What requests will take, without repairs. usd: None where litellm does not know the model's price."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None


def estimate(section, sample, n):
    """The Estimate of n requests that are like those in `sample` (client.Request), asked as section `explain` says; asks nobody and needs no key."""
    if not sample or not n:
        return Estimate(n, 0, 0, 0.0)
    most = section.parameters.max_tokens or 10**9
    prompt = sum(prompt_tokens(request.messages) for request in sample) / len(sample)
    completion = sum(min(most, _typical_tokens(request.schema)) for request in sample) / len(sample)
    known = prices(section.model)
    usd = None if known is None else n * (prompt * known[0] + completion * known[1])
    return Estimate(n, round(n * prompt), round(n * completion), usd)


def prompt_tokens(messages):
    """Tokens of chat messages, as OpenAI's tokenizer counts them."""
    return load_litellm().token_counter(model=COUNTED_LIKE, messages=messages)


def prices(model):
    """US dollars per token of a prompt and per token of an answer, None where litellm does not know."""
    try:
        info = load_litellm().get_model_info(model)
    except Exception:  # of no narrower class in all versions of litellm
        return None
    found = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    return None if None in found else found


def _typical_tokens(schema):
    """Tokens of a JSON answer that fits the schema."""
    kind = (schema or {}).get("type")
    if kind == "object":
        return 4 + sum(3 + len(name) // 4 + _typical_tokens(part) for name, part in schema.get("properties", {}).items())
    if kind == "array":
        return 2 + schema.get("minItems", 1) * (1 + _typical_tokens(schema.get("items")))
    return {"boolean": 1, "integer": 1, "number": 3, "string": WORDS_TOKENS}.get(kind, TYPICAL_TOKENS)


class Meter:
    """What a request's tokens will be at most, from the answers so far. Counts nothing where neither money nor tokens have a limit."""

    def __init__(self, section):
        self.is_needed = section.max_cost_usd is not None or section.tokens_per_minute is not None
        self.max_tokens, self.factor, self.longest, self._first = section.parameters.max_tokens, None, None, None

    def counted(self, messages):
        return prompt_tokens(messages) if self.is_needed else 1

    @asynccontextmanager
    async def first(self):
        """Lets the first request go alone, so that all others know how the model counts."""
        if self._first is None and self.is_needed:
            self._first = asyncio.Event()
            try:
                yield
            finally:
                self._first.set()
        else:
            if self._first is not None:
                await self._first.wait()
            yield

    def bound(self, counted):
        """(prompt tokens, completion tokens): the latter the longest so far; counted: by `counted`."""
        guess = self.max_tokens or 10 * TYPICAL_TOKENS
        return counted * (self.factor or UNKNOWN_FACTOR), guess if self.longest is None else self.longest

    def most(self, counted):
        """Tokens of prompt and answer: the longest that it may be, or else the longest so far."""
        prompt, completion = self.bound(counted)
        return prompt + (self.max_tokens or completion)

    def seen(self, counted, n_prompt, n_completion):
        """Notes what the provider counted."""
        self.factor = max(self.factor or 0, n_prompt / counted) or None
        self.longest = max(self.longest or 0, n_completion)


class Budget:
    """Decides before each request whether it is asked, counting those in flight at the price reserved for them."""

    def __init__(self, section):
        self.model, self.max_cost_usd, self.max_requests = section.model, section.max_cost_usd, section.max_requests
        self.prices, self.spent_usd, self.n_requests = prices(section.model), 0.0, 0
        self.ended = None  # in words, why nothing more is asked
        self._reserved, self._dearest, self._changed, self._is_warned = [], 0.0, asyncio.Event(), False

    def count(self, cost_usd):
        """Counts a request that the same artifact sent before, in a run that was killed."""
        self.n_requests, self.spent_usd = self.n_requests + 1, self.spent_usd + (cost_usd or 0.0)

    async def reserve(self, n_prompt, n_completion):
        """US dollars kept back for a request of so many tokens; None where there is no money for it, and from then on for none. Where it does not fit
        beside those in flight, waits for what they cost."""
        usd = self._dearest if self.prices is None else n_prompt * self.prices[0] + n_completion * self.prices[1]
        while self.ended is None:
            spent = self.spent_usd + sum(self._reserved)
            if self.max_requests is not None and self.n_requests >= self.max_requests:
                self.ended = f"{self.n_requests:,} requests are sent, as many as max_requests allows"
            elif self.max_cost_usd is None or spent + usd <= self.max_cost_usd * (1 + 1e-9):
                self.n_requests += 1
                self._reserved.append(usd)
                return usd
            elif not self._reserved:
                self.ended = (
                    f"${spent:.4f} of max_cost_usd ${self.max_cost_usd:.4f} are spent, and one more request may cost ${usd:.4f}"
                )
            else:
                self._changed.clear()
                await self._changed.wait()
        self._changed.set()
        return None

    def settle(self, reserved, cost_usd):
        """Gives back what was reserved and counts what the request cost, None where that is not known."""
        self._reserved.remove(reserved)
        self.spent_usd += cost_usd or 0.0
        self._dearest = max(self._dearest, cost_usd or 0.0)
        self._changed.set()
        if cost_usd is None and self.max_cost_usd is not None and not self._is_warned:
            self._is_warned = True
            logger.warning(
                "explain: litellm does not know what %s costs; its requests do not count against max_cost_usd", self.model
            )
