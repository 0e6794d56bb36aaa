"""The work of stage `groups`: traces of all prompts, then what labels share. Writes: tables `group_prompts` and `group_overlaps`."""

from itertools import groupby

from cltdb.groups.overlap import overlap_rows
from cltdb.groups.prompts import labels_of
from cltdb.groups.tables import write_rows
from cltdb.groups.traces import check_prompts, traces_of


def compare_groups(settings, prompts, lm, dictionary, *, directory, units, names, seed):
    """Writes the tables of a set of prompts into `directory`. settings: section `groups`. prompts: [(`prompts.ParallelPrompt`, the key of its
    unit)], by concept and label. names: groups_id and dict_id."""
    entries = [prompt for prompt, _ in prompts]
    check_prompts(lm, entries)
    traces = traces_of(prompts, lm, dictionary, units=units, max_features=settings.max_features)
    concepts = [concept for concept, _ in groupby(entries, key=lambda prompt: prompt.concept)]
    compared = {"n_layers": lm.n_layers, "resamples": settings.resamples, "seed": seed}
    rows = overlap_rows(traces, concepts, labels_of(entries), **compared)
    write_rows(directory, "group_prompts", [_prompt_row(*pair) for pair in zip(entries, traces, strict=True)], names)
    write_rows(directory, "group_overlaps", rows, names)


def _prompt_row(prompt, trace):
    return {"concept": prompt.concept, "label": prompt.label, "prompt": prompt.text, "target": prompt.target, **trace.facts}
