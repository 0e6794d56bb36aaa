"""Section `explain.labels` of a spec."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cltdb.engine.section import NAME, Expected, Layer, Neutral, Place, Section, Word

OWN = ("rules", "llm", "llm_output", "llm_contrastive", "llm_graph", "single_token", "top_logits")
"""Names that explainers of cltdb have."""


def _not_our_own(name):
    if name in OWN:
        raise ValueError(f"expected a name that no explainer of cltdb has ({', '.join(OWN)}), found {name}")
    return name


LabelsName = Annotated[
    str,
    Field(pattern=NAME, max_length=100),
    AfterValidator(_not_our_own),
    Expected("letters, digits, dot, dash, underscore, a letter or digit first, at most 100 characters"),
]


class Labels(Section):
    """Texts about features that were made elsewhere; they are scored and stored as our own are."""

    name: LabelsName
    """What the explainer of these texts is called. Where a table names its own explainers, `name:theirs`."""
    path: Annotated[Place, Neutral]
    """A file, or a folder of files, relative to cltdb.yaml. Their content enters the key."""
    format: Literal["neuronpedia", "circuit_tracer", "table"]
    """neuronpedia: an export of explanations, lines of JSON or a JSON array, also .gz, or a folder of batches. circuit_tracer: feature
    pages that have a label, one file per feature or packed, or graph files whose nodes have one. table: .csv, .tsv or .parquet with the
    columns layer, feature, text and, where wanted, side, explainer, model."""
    layer_names: Annotated[dict[Word, Layer], Field(min_length=1), Expected("names of layers, each with its number")] | None = (
        None
    )
    """Which layer each name in the files means, such as `{5-gemmascope-transcoder-16k: 5}`; labels of other names are left out. Default:
    the number that a name begins with."""
