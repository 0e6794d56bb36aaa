"""The deterministic rule explainer as a litellm provider, `cltdb-rules/v1`: no network, no language model.

Importing this module imports litellm: `calls.load_litellm` does so when it is wanted.
"""

import json

import litellm

from cltdb.explain.rule_prompts import answer


class RulesProvider(litellm.CustomLLM):
    """Learns a rule from the windows of the prompt (see rule_prompts.py)."""

    def completion(self, *args, messages, model_response, **_):
        model_response.choices[0].message.content = json.dumps(answer(json.loads(messages[-1]["content"])), ensure_ascii=False)
        model_response.usage = litellm.Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        return model_response
