"""Two dictionaries compared: what of them can be, and the rows of all layers.

Writes: tables `feature_matches` (a part per layer), `dictionary_matches`.
"""

from pathlib import Path
from typing import Any, NamedTuple

from cltdb import log
from cltdb.engine.workspace import write_parquet
from cltdb.errors import CltdbError
from cltdb.match.matching import ACTIVATIONS, DECODER, match_layer
from cltdb.match.tables import feature_rows, summary_rows

TABLES = ("feature_matches", "dictionary_matches")


class Side(NamedTuple):
    """A dictionary and its dict_id; firings: {layer: `Firings`} on the text that both sides read, None where none was."""

    name: str
    dictionary: Any
    firings: dict | None = None


def chosen_by(settings, a, b, *, one_model):
    """By what two dictionaries are matched, `decoder` or `activations`. settings: section `Match`. CltdbError where they cannot be compared so."""
    if a.n_layers != b.n_layers:
        found, expected = (
            f"dictionaries of {a.n_layers} and {b.n_layers} layers",
            "as many in both: features are matched layer by layer",
        )
        raise CltdbError("match", found=found, expected=expected, do="compare others")
    if not set(a.layers) & set(b.layers):
        layers = " and ".join(", ".join(map(str, one.layers)) for one in (a, b))
        found = f"no layer in common: the dictionaries have layers {layers}"
        raise CltdbError("match", found=found, expected="one at least", do="compare others")
    apart = None if one_model else "different models"
    if a.writes != b.writes:
        apart = f"different places that they write to ({a.writes} and {b.writes})"
    if apart is None and a.d_model != b.d_model:
        found = f"dictionaries of widths {a.d_model} and {b.d_model}"
        raise CltdbError("match", found=found, expected="two of one model, or known to be of two", do="compare others")
    if settings.by == DECODER and apart:
        do = "leave match.by out, or set it to activations"
        raise CltdbError("match.by", found=f"decoder for dictionaries of {apart}", expected="decoders in one space", do=do)
    if apart and not settings.correlation:
        found, expected = f"dictionaries of {apart}, and no text to read", "text: their activations alone can be compared"
        do = "leave out correlation: false or --no-correlation; name the second by its dict_id or experiment, not by its folder"
        raise CltdbError("match", found=found, expected=expected, do=do)
    return settings.by or (ACTIVATIONS if apart else DECODER)


def match_dictionaries(a, b, *, directory, by, threshold, one_space=True, seed=0):
    """Fills `directory` with the matches of two `Side`s in all layers that both have. by, threshold, one_space: as in `match_layer`."""
    directory, matches, n_tokens = Path(directory), [], None
    layers = [layer for layer in a.dictionary.layers if layer in b.dictionary.layers]
    with log.progress("match", total=len(layers), unit="layers") as bar:
        for layer in layers:
            firings = None if a.firings is None else (a.firings[layer], b.firings[layer])
            n_tokens = firings and firings[0].n_tokens
            how = {"by": by, "threshold": threshold, "firings": firings, "one_space": one_space, "seed": seed}
            match = match_layer(a.dictionary, b.dictionary, layer, **how)
            if match is not None:
                rows = feature_rows(match, a.name, b.name)
                write_parquet(directory / f"tables/feature_matches/layer-{layer:02d}.parquet", rows)
                matches.append(match)
            bar.advance()
    if not matches:
        found = (
            "no layer in which both have a feature with a decoder" if by == DECODER else "no layer in which features of both fire"
        )
        raise CltdbError("match", found=found, expected="features to compare", do="look at the dictionaries, or read more text")
    same = {"dict_a": a.name, "dict_b": b.name, "matched_by": by, "n_tokens": n_tokens}
    write_parquet(directory / "tables/dictionary_matches/dictionary_matches.parquet", summary_rows(matches, same))
