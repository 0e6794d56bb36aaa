"""Questions to language models through litellm: access, cached replies, tokens, cost, errors.

Replies are files named by the hash of model, messages and parameters, so a killed or repeated run asks nothing twice. Failed
calls are not kept.
"""

import hashlib
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
RULES_MODEL = "cltdb-rules/v1"
PARAMETERS = {"temperature": 0}
RETRIES = 2
TIMEOUT_S = 120


class Reply(NamedTuple):
    """text is None where the call failed, and `error` then says why. cost_usd: None unknown, 0 known to be free."""

    text: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    error: str | None
    created_at: str


def load_litellm():
    """litellm, without network at import, with the rule explainer registered as a provider."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    from cltdb.explain.provider import RulesProvider

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    name = RULES_MODEL.partition("/")[0]
    if name not in {entry["provider"] for entry in litellm.custom_provider_map}:
        litellm.custom_provider_map = [*litellm.custom_provider_map, {"provider": name, "custom_handler": RulesProvider()}]
    return litellm


def check_access(model):
    """CltdbError where litellm does not know the model's provider or its key is not in the environment."""
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
    """Asks one model; `directory` holds the replies."""

    def __init__(self, model, directory):
        self.model, self.directory, self.litellm = model, Path(directory), load_litellm()

    def ask(self, messages):
        """The Reply to a list of chat messages."""
        asked = json.dumps([self.model, messages, PARAMETERS], ensure_ascii=False, sort_keys=True)
        path = self.directory / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"
        reply = _cached(path)
        if reply is None:
            reply = self._call(messages)
            if reply.error is None:
                _keep(path, reply)
        return reply

    def _call(self, messages):
        import openai

        now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
        try:
            response = self.litellm.completion(
                model=self.model, messages=messages, num_retries=RETRIES, timeout=TIMEOUT_S, **PARAMETERS
            )
        except self.litellm.exceptions.AuthenticationError as error:
            raise CltdbError(
                f"explain.model {self.model}",
                found="a key that the provider refuses",
                expected="a valid API key",
                do="set the right key in the environment and run again: replies so far are kept",
            ) from error
        except openai.OpenAIError as error:  # the base of all litellm exceptions
            return Reply(None, 0, 0, None, f"{type(error).__name__}: {str(error).splitlines()[0][:300]}", now)
        usage = response.usage
        return Reply(
            response.choices[0].message.content or "",
            usage.prompt_tokens,
            usage.completion_tokens,
            self._cost(response),
            None,
            now,
        )

    def _cost(self, response):
        if self.model == RULES_MODEL:
            return 0.0
        cost = getattr(response, "_hidden_params", {}).get("response_cost")
        return None if cost is None else float(cost)


def _cached(path):
    """The reply in a file; None where there is none or a kill left it unreadable."""
    try:
        return Reply(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        logger.warning("explain: %s is not a whole reply; asking again", path)
        return None


def _keep(path, reply):
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(reply._asdict(), ensure_ascii=False), encoding="utf-8")
    os.replace(aside, path)
