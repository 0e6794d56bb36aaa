"""Training of a sparse autoencoder: a source whose inputs and outputs are one place of the model."""

from cltdb.activations.loader import Batch
from cltdb.model.kinds import both_sides


class OnePlace:
    """A source of which one place, one of `kinds.READS`, is both read and reconstructed."""

    def __init__(self, source, place):
        self.source, self.place, self.n_rows = source, place, source.n_rows
        names = both_sides("mlp_input_mean_norm", "mlp_output_mean_norm", place)
        norms = zip(("mlp_input_mean_norm", "mlp_output_mean_norm"), names, strict=True)
        self.summary = source.summary | {name: source.summary[taken] for name, taken in norms}

    def batch(self, *position, **share):
        return self._sides(self.source.batch(*position, **share))

    def batches(self, *position, **share):
        return map(self._sides, self.source.batches(*position, **share))

    def _sides(self, batch):
        return Batch(*both_sides(*batch, self.place))
