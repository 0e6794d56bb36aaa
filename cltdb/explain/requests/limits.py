"""Requests and tokens per minute, kept so that the server never counts more in any minute, wherever its minute begins.

A request arrives at the server some time after it is sent and before it is answered. So it counts from when it is sent until a minute after
its latest possible arrival: its end, or `TRAVEL_S` after it was sent where it takes longer. Any two requests that the server may count in
one minute then count together here.
"""

import asyncio
import heapq
import time
from itertools import count

WINDOW_S = 60.0
TRAVEL_S = 2.0
"""Longest time from sending to arrival. A longer one would slow down requests that are answered late."""
LOOK_EVERY_S = 0.05
"""How often a waiting request looks for those that have ended meanwhile."""


class Sent:
    """A request that counts: its tokens, at first as estimated, and when it stops to count."""

    def __init__(self, limits, tokens):
        self.limits, self.tokens, self.at, self.counts = limits, tokens, time.monotonic(), True

    def ended(self, tokens=None):
        """Notes the end of the request, and the tokens that the provider counted where it said."""
        if tokens is not None and self.counts:
            self.limits.n_tokens += tokens - self.tokens
            self.tokens = tokens
        if time.monotonic() < self.at + TRAVEL_S:
            self.limits.leaves(self, time.monotonic() + WINDOW_S)


class Limits:
    """The provider's limits; None where there is none."""

    def __init__(self, requests_per_minute, tokens_per_minute):
        self.requests, self.tokens = requests_per_minute, tokens_per_minute
        self.n_requests = self.n_tokens = 0  # of those that count
        self._leaving, self._number, self._turn = [], count(), asyncio.Lock()

    async def wait(self, tokens):
        """Waits until one more request of so many tokens may be sent, in the order in which requests come; returns it as `Sent`. One that is larger
        than the limit goes when no other counts."""
        async with self._turn:
            while not self._admits(tokens):
                await asyncio.sleep(LOOK_EVERY_S)
            sent = Sent(self, tokens)
            self.n_requests, self.n_tokens = self.n_requests + 1, self.n_tokens + tokens
            self.leaves(sent, sent.at + TRAVEL_S + WINDOW_S)
            return sent

    def leaves(self, sent, at):
        """Notes when a request stops to count; the earliest of several times holds."""
        heapq.heappush(self._leaving, (at, next(self._number), sent))

    def _admits(self, tokens):
        now = time.monotonic()
        while self._leaving and self._leaving[0][0] <= now:
            sent = heapq.heappop(self._leaving)[2]
            if sent.counts:
                sent.counts, self.n_requests, self.n_tokens = False, self.n_requests - 1, self.n_tokens - sent.tokens
        within_requests = self.requests is None or self.n_requests < self.requests
        return within_requests and (self.tokens is None or not self.n_requests or self.n_tokens + tokens <= self.tokens)
