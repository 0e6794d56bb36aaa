"""How a language model is reached: litellm, the model's name, the server's address, the key. Keys come from the environment alone, and no text
that leaves this room holds one."""

import os
import re
import warnings
from typing import NamedTuple

from cltdb.errors import CltdbError

NO_KEY = "none"
"""Sent to a server of one's own that wants no key. The provider's key is never sent there unasked."""
SECRET_LENGTH = 8
"""Shorter values of the environment are words, not keys."""


def load_litellm():
    """litellm, without network at import, which takes seconds."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    warnings.filterwarnings(
        "ignore", "coroutine '.*completion' was never awaited", RuntimeWarning
    )  # of a call that was cancelled
    return litellm


class Access(NamedTuple):
    """options: what every call of litellm gets, the key among it; parameters: those of the spec that are set, {name: value}; secrets: texts that
    must not be written."""

    options: dict
    parameters: dict
    secrets: tuple

    def scrubbed(self, text):
        """The text with … for every secret."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


def access(section):
    """The Access for a section `explain`; CltdbError where litellm does not know the provider or the key is missing."""
    litellm, model = load_litellm(), section.model
    options = {
        "model": model,
        "max_retries": 0,
        "num_retries": 0,
        "drop_params": True,
        "timeout": 2 * section.timeout_s,
    }  # the client itself ends a call before
    is_scripted = model.partition("/")[0] in {entry["provider"] for entry in litellm.custom_provider_map}
    if not is_scripted:
        _check_provider(litellm, model)
    key = None
    if section.api_key_env is not None:
        key = _key(section.api_key_env)
    elif section.api_base is not None:
        key = NO_KEY
    elif not is_scripted:
        _check_own_key(litellm, model)
    options |= {"api_key": key} if key is not None else {}
    options |= {"api_base": section.api_base} if section.api_base is not None else {}
    return Access(options, parameters(section), _secrets(key))


def parameters(section):
    """{name: value} of the parameters that are set."""
    return {name: value for name, value in section.parameters.model_dump().items() if value is not None and value != {}}


def _check_provider(litellm, model):
    try:
        litellm.get_llm_provider(model)
    except litellm.exceptions.BadRequestError:
        raise CltdbError(
            "explain.model",
            found=repr(model),
            expected="a litellm model, such as openai/gpt-4o-mini, or openai/NAME with explain.api_base",
            do="see docs.litellm.ai/docs/providers for the names of models",
        ) from None


def _check_own_key(litellm, model):
    """CltdbError where the provider's own variables are not in the environment."""
    missing = litellm.validate_environment(model)["missing_keys"]
    if missing:
        raise CltdbError(
            f"explain.model {model}",
            found=f"no {' or '.join(missing)} in the environment",
            expected="the provider's key",
            do=f"export {missing[0]}=…, or name another variable in explain.api_key_env, or a server of your own in explain.api_base",
        )


def _key(variable):
    """The key in an environment variable."""
    key = os.environ.get(variable, "").strip()
    if re.fullmatch(r"[!-~]+", key) is None:
        found = "a value with blanks or signs that no key has" if key else f"no {variable} in the environment"
        raise CltdbError(f"explain.api_key_env {variable}", found=found, expected="the provider's key", do=f"export {variable}=…")
    return key


def _secrets(key):
    """The key, and what else in the environment is one by its name; the longest first, since one may be part of another."""
    words = ("KEY", "TOKEN", "SECRET", "PASSWORD")
    found = {value.strip() for name, value in os.environ.items() if any(word in name.upper() for word in words)} | {key or ""}
    return tuple(sorted((text for text in found if len(text) >= SECRET_LENGTH), key=len, reverse=True))
