"""Table `isolation`: a random sample of every layer's features and, where facts are given, the features of their concepts."""

import logging
from itertools import product
from pathlib import Path

import polars as pl

from cltdb.engine.workspace import write_parquet
from cltdb.evaluate.facts import concept_features, exchanges, known_facts, success
from cltdb.evaluate.isolation import (
    Clean,
    Raised,
    decoder_norms,
    decoder_overlaps,
    drawn_features,
    leakages,
    prompts_of,
    scales,
)

logger = logging.getLogger(__name__)
COLUMNS = {
    **{"dict_id": pl.String, "layer": pl.Int32, "feature": pl.Int32, "multiple": pl.Float64},
    **{"concept": pl.String, "is_sampled": pl.Boolean},
    **dict.fromkeys(("high", "decoder_norm", "decoder_overlap"), pl.Float64),
    **{"n_prompts": pl.Int32, "leakage_same": pl.Float64, "leakage_later": pl.Float64, "own_response": pl.Float64},
    **{"most_layer": pl.Int32, "most_feature": pl.Int32, "most_change": pl.Float64},
    **{"n_unrelated": pl.Int32, "kl_nats": pl.Float64},
    **{"n_drop": pl.Int32, "success_drop": pl.Float64, "n_include": pl.Int32, "success_include": pl.Float64},
}


def write_isolation(settings, models, sequences, fired, *, facts, seed, directory, dict_id):
    """Writes the table. settings: section `Evaluate`; models: (LanguageModel, Dictionary); fired [n_layers, n_features]: on how many tokens of
    `sequences`; facts: `questions.Fact`s."""
    section, (lm, dictionary) = settings.isolation, models
    sampled = drawn_features(fired, dictionary.layers, n=section.features, seed=seed)
    known = known_facts(lm, dictionary, facts, rows_at_once=settings.batch_seqs)
    of_layers = concept_features(known, dictionary)
    if facts and not any(of_layers.values()):
        logger.warning(
            "isolation: of %d facts the model answers %d rightly; no two concepts to exchange", len(facts), len(known.facts)
        )
    concepts = {(layer, one): name for layer, of_layer in of_layers.items() for name, one in of_layer.items()}
    chosen = {layer: sorted({*sampled[layer], *of_layers.get(layer, {}).values()}) for layer in dictionary.layers}
    highs = scales(lm, dictionary, sequences, chosen, batch_seqs=settings.batch_seqs)
    of_feature, asked = {}, {}
    for layer, features in chosen.items():
        norms = decoder_norms(dictionary, layer)
        writing = [one for one in features if highs[layer, one] > 0 and norms[one] > 0]
        asked[layer] = [Raised(one, multiple, highs[layer, one]) for one, multiple in product(writing, section.multiples)]
        overlaps = decoder_overlaps(dictionary, layer, writing)
        for one, overlap in zip(writing, overlaps, strict=True):
            of_feature[layer, one] = {"high": highs[layer, one], "decoder_norm": float(norms[one]), "decoder_overlap": overlap}
    drawn = prompts_of(sequences, n=section.prompts, n_tokens=section.prompt_tokens, seed=seed)
    rows_at_once = settings.batch_seqs * sequences.tokens.shape[1] // section.prompt_tokens
    clean = Clean.of(lm, dictionary, drawn, rows_at_once=rows_at_once)
    rows = {}
    for layer, raised, measured in leakages(lm, dictionary, clean, asked, rows_at_once=rows_at_once):
        own = {"concept": concepts.get((layer, raised.feature)), "is_sampled": raised.feature in sampled[layer]}
        place = {"layer": layer, "feature": raised.feature, "multiple": raised.multiple}
        rows[layer, raised.feature, raised.multiple] = place | own | of_feature[layer, raised.feature] | measured
    for layer, of_layer in of_layers.items():
        of_layer = {name: one for name, one in of_layer.items() if (layer, one) in of_feature}
        exchanged = exchanges(known, layer, of_layer, highs, multiples=section.multiples, pairs=section.facts.pairs, seed=seed)
        for key, rates in success(lm, dictionary, layer, exchanged, rows_at_once=settings.batch_seqs).items():
            rows[layer, *key] |= rates._asdict()
    frame = pl.DataFrame([{"dict_id": dict_id} | row for row in rows.values()], schema=COLUMNS)
    write_parquet(Path(directory) / "tables/isolation/isolation.parquet", frame)
