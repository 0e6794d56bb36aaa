"""How well a dictionary stands in for the MLPs, on held-out text. Reads: model, dictionary. Writes: `tables/metrics`, and in
`counts.json` over how many tokens and predictions they are means."""

from math import isfinite
from pathlib import Path
from typing import NamedTuple

import torch

from cltdb import log
from cltdb.activations.labels import labels_apart
from cltdb.activations.ordinary import COUNTS_FILE, token_counts
from cltdb.engine.workspace import write_json
from cltdb.errors import CltdbError
from cltdb.evaluate.decoder_cosines import decoder_cosines
from cltdb.evaluate.reconstruction import Errors, Reconstruction
from cltdb.evaluate.replacement import Agreement, Original, constant, replacer
from cltdb.evaluate.splices import splices
from cltdb.metrics import write_metrics
from cltdb.model.fit import check_fits


@torch.no_grad()
def evaluate(settings, lm, dictionary, sequences, *, directory, dict_id, seed=0):
    """Writes every metric of stage `evaluate` (docs/training.md, "How good it is"), over the ordinary tokens of `sequences`. Where some
    layers were trained alone, all metrics are of these; the MLPs of the others stay as they are, also in the zero and mean baselines.
    settings: section `Evaluate`; seed: of what is drawn for the overlap of decoders. Returns on how many of these tokens each feature fired
    [n_layers, n_features].

    Where the spec names labels of the text, metrics of each label as well, with all MLPs replaced: those of its tokens and of the
    predictions made at them, as if they were all the text, but for the mean ablation, whose mean is that of all text.
    """
    check_fits(dictionary, lm)
    layers = list(dictionary.layers)
    reconstruction = Reconstruction(dictionary.n_layers, dictionary.n_features, dictionary.d_model)
    agreements = {splice: Agreement() for splice in splices(settings.splice, layers, lm.n_layers)}
    labels = labels_apart(sequences)
    by_label = (
        [OfLabel(name, Errors(dictionary.n_layers, dictionary.d_model), Agreement()) for name in labels.names] if labels else []
    )
    mean = _mean_output(lm, sequences, settings.batch_seqs)
    with log.progress("evaluate", total=sequences.tokens.size, unit="tokens") as bar:
        for first, (tokens, ordinary) in zip(
            range(0, len(sequences), settings.batch_seqs),
            batches(sequences, settings.batch_seqs, device=lm.device),
            strict=True,
        ):
            captured = lm.run(tokens)
            x, y = captured.mlp_input[ordinary], captured.mlp_output[ordinary]
            codes = torch.from_numpy(labels.codes[first : first + len(tokens)]) if labels else None
            at_tokens = [(one.errors, codes[ordinary.cpu()] == code) for code, one in enumerate(by_label)]
            reconstruction.add_all(dictionary, x, y, at_tokens)
            original = Original(tokens, ordinary, captured.logits)
            at_predictions = [
                (one.agreement, (codes[:, :-1].to(lm.device) == code)[original.counted]) for code, one in enumerate(by_label)
            ]
            for splice, agreement in agreements.items():
                ways = {
                    "replacement": replacer(lm, dictionary, ordinary, splice.layers),
                    "zero": constant(torch.zeros_like(mean), splice.layers, ordinary),
                    "mean": constant(mean, splice.layers, ordinary),
                }
                replaced = {name: _replaced_logits(lm, way, tokens) for name, way in ways.items()}
                agreement.add(original, replaced, at_predictions if splice.variant is None else ())
            bar.advance(tokens.numel())
    rows = {None: reconstruction.rows(layers, dense_above=settings.dense_above)}
    for splice, agreement in agreements.items():
        rows.setdefault(splice.variant, []).extend((splice.layer, name, value) for name, value in agreement.rows())
    bad = [name for part in rows.values() for _, name, value in part if value != value]
    if bad:
        raise CltdbError(
            "evaluate",
            found=f"{bad[0]} is not a number",
            expected="finite metrics",
            do="evaluate on more held-out tokens, or look at the dictionary",
        )
    whole = next(iter(agreements.values()))
    predictions = {"predictions": whole.n, "predicted_tokens": whole.n_targets}
    write_json(Path(directory) / COUNTS_FILE, token_counts(sequences) | predictions)
    parts = [
        (f"evaluate-{number}" if variant else "evaluate", part, variant, None)
        for number, (variant, part) in enumerate(rows.items())
    ]
    parts += [(f"evaluate-label-{number}", one.rows(layers), None, one.label) for number, one in enumerate(by_label)]
    for name, part, variant, label in parts:
        path = Path(directory) / f"tables/metrics/{name}.parquet"
        rows = [(0, *row) for row in part]
        write_metrics(path, dict_id=dict_id, stage="evaluate", rows=rows, variant=variant, label=label)
    if rows := decoder_cosines(dictionary, seed=seed):
        path, (layer, name, value, intervals) = Path(directory) / "tables/metrics/decoders.parquet", zip(*rows, strict=True)
        rows = list(zip([0] * len(rows), layer, name, value, strict=True))
        write_metrics(path, dict_id=dict_id, stage="evaluate", rows=rows, intervals=intervals)
    return reconstruction.fired


ROUNDING = 1e-9
"""Of the sum of squares: a smaller variance is what rounding leaves of none."""


class OfLabel(NamedTuple):
    """What is measured on the tokens of one label."""

    label: str
    errors: Errors
    agreement: Agreement

    def rows(self, layers):
        """(layer, name, value) of its metrics, with its number of `tokens`; those that so few tokens leave undefined are not there: the FVU of a
        layer whose output is the same on all of them, for one."""
        varies = (self.errors.sst > ROUNDING * self.errors.squares).tolist()
        errors = [
            row
            for row in self.errors.rows(layers)
            if not row[1].startswith("fvu") or (all(varies[one] for one in layers) if row[0] is None else varies[row[0]])
        ]
        rows = [(None, "tokens", float(self.errors.n_tokens)), *errors]
        rows += [(None, name, value) for name, value in self.agreement.rows()]
        return [row for row in rows if isfinite(row[2])]


def batches(sequences, batch_seqs, *, device):
    """(tokens, mask of the ordinary ones), both [batch, pos]."""
    for start in range(0, len(sequences), batch_seqs):
        part = sequences.part(start, start + batch_seqs)
        yield torch.from_numpy(part.tokens).long().to(device), torch.from_numpy(part.ordinary).to(device)


def _replaced_logits(lm, replace, tokens):
    with lm.replaced_mlps(replace):
        return lm.logits(tokens)


def _mean_output(lm, sequences, batch_seqs):
    """Mean MLP output [n_layers, d_model] over the tokens evaluated on."""
    total, n_tokens = 0, 0
    for tokens, ordinary in batches(sequences, batch_seqs, device=lm.device):
        y = lm.run(tokens, with_logits=False).mlp_output[ordinary]
        total, n_tokens = total + y.double().sum(0), n_tokens + len(y)
    return (total / n_tokens).to(lm.dtype)
