"""Features of a baseline dictionary, explained and scored as the trained one's are, as rows beside features of these."""

import json
from typing import NamedTuple

import polars as pl

from cltdb.explain.baselines.harvested import Baseline
from cltdb.explain.baselines.matched import matched


class Comparison(NamedTuple):
    """pairs: (layer, feature, unit) of `matched`, unit: the number in the baseline's harvest."""

    baseline: Baseline
    pairs: list

    @classmethod
    def of(cls, baseline, subjects, features, n):
        """Up to n of `features`, [(layer, feature)] of `subjects` (`Subjects`), those that are live."""
        live = subjects.windows.live()
        chosen = pl.DataFrame(features, schema={name: live.schema[name] for name in ("layer", "feature")}, orient="row")
        compared = live.join(chosen, on=["layer", "feature"], how="semi")
        return cls(baseline, matched(compared, baseline.subjects.windows.live(), n, seed=subjects.windows.seed).rows())

    async def rows(self, pipeline):
        """(rows of explanations, rows of scores) of the compared features, by the explainer `baseline:…`; what has no text has no rows. pipeline: of
        the baseline's subjects. The detail of scores says which `unit` of the baseline it is."""
        explanations, scores = await pipeline.block([(layer, unit) for layer, _, unit in self.pairs])
        beside, name = {(layer, unit): feature for layer, feature, unit in self.pairs}, self.baseline.name
        explained = [
            (dict_id, layer, beside[layer, unit], side, name, *rest)
            for dict_id, layer, unit, side, _, *rest in explanations
            if rest[0] is not None
        ]
        scored = [
            (dict_id, layer, beside[layer, unit], side, name, *rest, self._told(layer, unit, detail))
            for dict_id, layer, unit, side, _, *rest, detail in scores
        ]
        return explained, scored

    def _told(self, layer, unit, detail):
        return json.dumps({**json.loads(detail), "unit": self.baseline.units[layer][unit]}, ensure_ascii=False)
