"""A language model that reads windows and, as further evidence, which features drive this one and which it drives (table feature_edges of the
harvest). Edges of graphs are made after explanations and are not among them."""

from cltdb.explain.explainers import llm
from cltdb.explain.subjects import windows_shortage

SIDE, PROMPT = "input", "llm_graph"
shortage = windows_shortage


def slots(subject):
    raises = [subject.all.vocabulary[token] for token in subject.promoted]
    return {**llm.slots(subject), **subject.neighbours(), "raises": raises}
