"""A language model that reads an explanation and windows, as many in a question as one call may judge, in mixed order."""

import asyncio

import numpy as np

from cltdb.explain.judges import NO_ANSWER, Answers
from cltdb.explain.prompts import answers_object, numbered, read_answers, read_judgements, request, window_text
from cltdb.harvest.hashing import hash64

WINDOWS_PER_CALL, SIMULATED_PER_CALL, GROUPS_PER_CALL = 30, 5, 6
"""Windows to judge, windows whose every token gets a number, groups to choose in."""
MOST = 10
"""The largest activation in a simulation; the others are whole numbers from 0."""
BOOLEAN = {"type": "boolean"}


class LanguageModelJudge:
    """client: requests.Client; vocabulary: string per token id. The order of questions depends on the seed alone."""

    name = "language model"

    def __init__(self, client, *, vocabulary, seed):
        self.client, self.vocabulary, self.seed = client, vocabulary, seed

    async def detect(self, explanation, windows):
        texts = [window_text(tokens, self.vocabulary) for tokens in windows.tokens]
        return await self._judge("detection", explanation, texts)

    async def fuzz(self, explanation, windows, marked):
        texts = [window_text(tokens, self.vocabulary, marks) for tokens, marks in zip(windows.tokens, marked, strict=True)]
        return await self._judge("fuzzing", explanation, texts)

    async def _judge(self, name, explanation, texts):
        def ask(part):
            return request(
                name,
                name,
                read=lambda text: read_judgements(text, len(part)),
                schema=answers_object(len(part), BOOLEAN),
                claim=explanation.text,
                excerpts=numbered([texts[index] for index in part]),
            )

        return await self._ask(len(texts), WINDOWS_PER_CALL, ask, np.full(len(texts), NO_ANSWER, dtype=np.int8))

    async def simulate(self, explanation, windows, training):
        n_tokens = (windows.tokens >= 0).sum(axis=1)

        def ask(part):
            excerpts = [[self.vocabulary[token] for token in windows.tokens[index][: n_tokens[index]]] for index in part]

            def read(text):
                def fits(answer):
                    whole = isinstance(answer, list) and all(type(value) is int and 0 <= value <= MOST for value in answer)
                    return whole and len(answer) in lengths

                lengths = {len(tokens) for tokens in excerpts}
                found = read_answers(text, len(part), fits, f"a list of a whole number from 0 to {MOST} per token")
                for number, (values, tokens) in enumerate(zip(found, excerpts, strict=True), start=1):
                    if len(values) != len(tokens):
                        raise ValueError(f"excerpt {number} has {len(tokens)} tokens, found {len(values)} numbers")
                return [np.pad(np.array(values, float), (0, windows.tokens.shape[1] - len(values))) for values in found]

            value = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MOST}}
            schema = answers_object(len(part), value)
            return request(
                "simulation", "simulation", read=read, schema=schema, claim=explanation.text, excerpts=numbered(excerpts)
            )

        return await self._ask(len(n_tokens), SIMULATED_PER_CALL, ask, np.full(windows.tokens.shape, np.nan))

    async def choose_window(self, explanation, groups):
        texts = [[window_text(tokens, self.vocabulary) for tokens in windows.tokens] for windows in groups]
        return await self._choose("pick_one", "pick_one", texts, claim=explanation.text)

    async def choose_tokens(self, explanation, groups, purpose):
        texts = [[[self.vocabulary[token] for token in tokens] for tokens in group] for group in groups]
        return await self._choose("pick_tokens", purpose, texts, claim=explanation.text)

    async def choose_intruder(self, explanation, groups):
        """In each group, a pair (Windows, marked tokens), the window whose marked tokens have least in common with the others'; whatever the
        explanation says."""
        texts = [
            [window_text(tokens, self.vocabulary, marks) for tokens, marks in zip(windows.tokens, marked, strict=True)]
            for windows, marked in groups
        ]
        return await self._choose("intruder", "intruder", texts)

    async def _choose(self, name, purpose, groups, **slots):
        def ask(part):
            most = max(len(groups[index]) for index in part)

            def read(text):
                found = read_answers(
                    text, len(part), lambda answer: type(answer) is int and 1 <= answer <= most, f"a number from 1 to {most}"
                )
                return [answer - 1 for answer in found]

            return request(
                name,
                purpose,
                read=read,
                schema=answers_object(len(part), {"type": "integer", "minimum": 1, "maximum": most}),
                groups=numbered([numbered(groups[index]) for index in part]),
                **slots,
            )

        return await self._ask(len(groups), GROUPS_PER_CALL, ask, np.full(len(groups), NO_ANSWER, dtype=np.int8))

    async def _ask(self, n, per_call, ask, values):
        """The Answers to n questions, per_call of them in a request ask(their indices); values: without any answer."""
        order = np.argsort(hash64(self.seed, np.arange(n)), kind="stable")
        parts = [order[first : first + per_call] for first in range(0, n, per_call)]
        replies = await asyncio.gather(*(self.client.ask(ask(part)) for part in parts))
        for part, reply in zip(parts, replies, strict=True):
            if reply.value is not None:
                values[part] = reply.value
        costs = [reply.cost_usd for reply in replies if reply.value is not None or reply.prompt_tokens]
        return Answers(
            values,
            sum(reply.prompt_tokens for reply in replies),
            sum(reply.completion_tokens for reply in replies),
            None if None in costs else sum(costs),
            next((reply.error for reply in reversed(replies) if reply.error), None),
        )
