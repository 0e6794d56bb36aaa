"""How well a dictionary stands in for the MLPs, on held-out text. Reads: model, dictionary. Writes: `tables/metrics`."""

from pathlib import Path

import torch

from cltdb import log
from cltdb.errors import CltdbError
from cltdb.evaluate.reconstruction import Reconstruction
from cltdb.evaluate.replacement import Agreement, constant, replacer
from cltdb.metrics import write_metrics
from cltdb.model.transcoder import check_fits


@torch.no_grad()
def evaluate(lm, dictionary, sequences, *, directory, dict_id, dense_above, batch_seqs):
    """Writes every metric of stage `evaluate` (contract, "Quantities"). Where some layers were trained alone, all metrics are of these,
    and the MLPs of the others stay as they are, also in the zero and mean baselines."""
    check_fits(dictionary, lm)
    layers = list(dictionary.layers)
    reconstruction = Reconstruction(dictionary.n_layers, dictionary.n_features, dictionary.d_model)
    agreement = Agreement()
    mean = _mean_output(lm, sequences, batch_seqs)
    with log.progress("evaluate", total=sequences.tokens.size, unit="tokens") as bar:
        for tokens in batches(sequences, batch_seqs):
            captured = lm.run(tokens)
            x, y = (part[:, 1:].flatten(0, 1) for part in (captured.mlp_input, captured.mlp_output))
            reconstruction.add_all(dictionary, x.to(dictionary.dtype), y)
            ways = {
                "replacement": replacer(dictionary),
                "zero": constant(torch.zeros_like(mean), layers),
                "mean": constant(mean, layers),
            }
            agreement.add(
                tokens.to(lm.device), captured.logits, {name: _replaced_logits(lm, way, tokens) for name, way in ways.items()}
            )
            bar.advance(tokens.numel())
    rows = reconstruction.rows(layers, dense_above=dense_above) + agreement.rows()
    bad = [name for _, name, value in rows if value != value]
    if bad:
        raise CltdbError(
            "evaluate",
            found=f"{bad[0]} is not a number",
            expected="finite metrics",
            do="evaluate on more held-out tokens, or look at the dictionary",
        )
    write_metrics(
        Path(directory) / "tables/metrics/evaluate.parquet", dict_id=dict_id, stage="evaluate", rows=[(0, *row) for row in rows]
    )


def batches(sequences, batch_seqs):
    """Token tensors [batch, pos]."""
    for start in range(0, len(sequences), batch_seqs):
        yield torch.from_numpy(sequences.tokens[start : start + batch_seqs]).long()


def _replaced_logits(lm, replace, tokens):
    with lm.replaced_mlps(replace):
        return lm.logits(tokens)


def _mean_output(lm, sequences, batch_seqs):
    """Mean MLP output [n_layers, d_model] over the tokens evaluated on."""
    total, n_tokens = 0, 0
    for tokens in batches(sequences, batch_seqs):
        y = lm.run(tokens, with_logits=False).mlp_output[:, 1:]
        total, n_tokens = total + y.double().sum((0, 1)), n_tokens + y.shape[0] * y.shape[1]
    return (total / n_tokens).to(lm.dtype)
