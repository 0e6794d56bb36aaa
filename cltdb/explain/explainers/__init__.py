"""Who explains features: a module per explainer, with

    SIDE                  `input`: what makes the feature fire; `output`: what it writes
    shortage(subject)     why there is too little to explain from, in one line, or None

and one of

    explain(subjects)     a list of `Explanation`, without any call
    PROMPT, slots(subject)   the prompt of `cltdb.explain.prompts` that a language model is asked with, and what stands in its slots
"""

from cltdb.explain.explainers import llm, llm_contrastive, llm_graph, llm_output, rules, single_token, top_logits, top_tokens

EXPLAINERS = {
    "rules": rules,
    "llm": llm,
    "llm_contrastive": llm_contrastive,
    "llm_graph": llm_graph,
    "llm_output": llm_output,
    "single_token": single_token,
    "top_logits": top_logits,
}
"""{name in `explain.explainers`: module}."""
TOP_TOKENS = "baseline:top_tokens"
BASELINES = {TOP_TOKENS: top_tokens}
"""{explainer: module} of baselines that are texts of their own."""


def asks(name):
    """Whether an explainer asks a language model."""
    return hasattr(EXPLAINERS.get(name), "PROMPT")
