"""How a language model is reached: litellm, the model's name, the server's address, the key. Keys come from the environment alone, and no text
that leaves this room holds one."""

import os
import re
import warnings
from typing import NamedTuple

from cltdb.errors import CltdbError
from cltdb.memory import without_garbage

NO_KEY = "none"
"""Sent to a server of one's own that wants no key. The provider's key is never sent there unasked."""
SECRET_LENGTH = 8
"""Shorter values of the environment are words, not keys."""


def load_litellm():
    """litellm, without network at import, which takes seconds."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with without_garbage():
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
    options, secrets = reached(section, "explain.model")
    options |= {"max_retries": 0, "num_retries": 0, "drop_params": True}
    options |= {"timeout": 2 * section.timeout_s}  # the client itself ends a call before
    return Access(options, parameters(section), secrets)


def reached(section, name):
    """(options of litellm that say which model, server and key; texts that must not be written). section: of settings, with model, api_base and
    api_key_env; name: its key that names the model. CltdbError as of `access`."""
    litellm, model = load_litellm(), section.model
    is_scripted = model.partition("/")[0] in {entry["provider"] for entry in litellm.custom_provider_map}
    if not is_scripted:
        _check_provider(litellm, model, name)
    key = None
    if section.api_key_env is not None:
        key = _key(section.api_key_env, name)
    elif section.api_base is not None:
        key = NO_KEY
    elif not is_scripted:
        _check_own_key(litellm, model, name)
    options = {"model": model, "api_key": key, "api_base": section.api_base}
    return {name: value for name, value in options.items() if value is not None}, _secrets(key)


def parameters(section):
    """{name: value} of the parameters that are set."""
    return {name: value for name, value in section.parameters.model_dump().items() if value is not None and value != {}}


def _check_provider(litellm, model, name):
    try:
        litellm.get_llm_provider(model)
    except litellm.exceptions.BadRequestError:
        raise CltdbError(
            name,
            found=repr(model),
            expected=f"a litellm model, such as openai/gpt-4o-mini, or openai/NAME with {_beside(name, 'api_base')}",
            do="see docs.litellm.ai/docs/providers for the names of models",
        ) from None


def _check_own_key(litellm, model, name):
    """CltdbError where the provider's own variables are not in the environment."""
    missing = litellm.validate_environment(model)["missing_keys"]
    if missing:
        raise CltdbError(
            f"{name} {model}",
            found=f"no {' or '.join(missing)} in the environment",
            expected="the provider's key",
            do=f"export {missing[0]}=…, or name another variable in {_beside(name, 'api_key_env')}, or a server of your own in {_beside(name, 'api_base')}",
        )


def _beside(name, other):
    """The key `other` of the section in which the key `name` stands."""
    return f"{name.rpartition('.')[0]}.{other}"


def _key(variable, name):
    """The key in an environment variable."""
    key = os.environ.get(variable, "").strip()
    if re.fullmatch(r"[!-~]+", key) is None:
        found = "a value with blanks or signs that no key has" if key else f"no {variable} in the environment"
        raise CltdbError(
            f"{_beside(name, 'api_key_env')} {variable}", found=found, expected="the provider's key", do=f"export {variable}=…"
        )
    return key


def _secrets(key):
    """The key, and what else in the environment is one by its name; the longest first, since one may be part of another."""
    words = ("KEY", "TOKEN", "SECRET", "PASSWORD")
    found = {value.strip() for name, value in os.environ.items() if any(word in name.upper() for word in words)} | {key or ""}
    return tuple(sorted((text for text in found if len(text) >= SECRET_LENGTH), key=len, reverse=True))
