"""`db.plot`: questions to a database answered with Plotly figures, those of the browser."""

from cltdb.database.display import figures
from cltdb.database.nothing_found import check_known
from cltdb.errors import CltdbError


class Plots:
    """Figures of a database, as `plotly.graph_objects.Figure`: a notebook shows them, `figure.write_html("FILE")` keeps them. An unknown
    dictionary, metric, sweep or feature is an error that names the nearest one; what was not measured says so in an empty figure."""

    def __init__(self, database):
        self._database = database

    def __repr__(self):
        return f"{self._database!r}.plot"

    def frontier(self, sweep=None, layer=None):
        """FVU against L0, a point per evaluated dictionary, the best ones joined: of a sweep or experiment, or of all; of a layer, or
        pooled over layers."""
        with self._database.session() as db:
            rows = db.query("frontier", sweep=sweep, layer=layer).to_dicts()
            if not rows and (sweep, layer) != (None, None):
                every = db.query("frontier")
                _known("plot.frontier", "sweep", sweep, every["sweep"])
                layers = [str(layer) for layer in range(max(every["n_layers"], default=0))]
                _known("plot.frontier", "layer", None if layer is None else str(layer), layers)
        return figures.frontier([row | {"swept": figures.swept(row["swept"])} for row in rows])

    def curve(self, metric="fvu", dict_id=None):
        """A metric over training: of a dictionary a line per layer and the pooled one; without `dict_id`, where there are several, the
        pooled line of each."""
        with self._database.session() as db:
            dict_ids = self._measured(db, "train", metric, dict_id)
            frame = db.query("metrics_curve", name=metric, dict_id=dict_id, stage="train")
        return (figures.training_curve if len(dict_ids) < 2 else figures.pooled_curves)(frame, name=metric)

    def evaluation(self, metric="fvu", dict_id=None):
        """A metric on held-out text, a bar per layer, the pooled value as a line. `dict_id` may be left out where there is one dictionary."""
        with self._database.session() as db:
            dict_ids = self._measured(db, "evaluate", metric, dict_id)
            frame = db.query("metrics_curve", name=metric, dict_id=_only("plot.evaluation", dict_ids), stage="evaluate")
        return figures.evaluation_bars(frame, name=metric)

    def histogram(self, layer, feature, dict_id=None):
        """On how many tokens of the harvest a feature is how active. `dict_id` may be left out where there is one dictionary. A harvest of
        an earlier cltdb stored no histogram: the figure says so, and harvesting again makes one."""
        with self._database.session() as db:
            known = db.dictionaries()["dict_id"]
            _known("plot.histogram", "dictionary", dict_id, known)
            dict_id = _only("plot.histogram", [dict_id] if dict_id else known.to_list())
            return figures.activation_histogram(db.feature(dict_id, layer, feature).card)

    def _measured(self, db, stage, metric, dict_id):
        """Ids of the dictionaries that are asked for and have the metric."""
        names = db.query("page_metric_names")
        where = f"plot.{'curve' if stage == 'train' else 'evaluation'}"
        _known(where, "dictionary", dict_id, names["dict_id"])
        names = names.filter(stage=stage)
        _known(where, "metric", metric, names["name"])
        return [dict_id] if dict_id else sorted(set(names.filter(name=metric)["dict_id"]))


def _known(where, what, name, names):
    """CltdbError for a name that is given and not among `names`; nothing where there are none at all."""
    names = sorted({known for known in names if known is not None})
    if name is not None and names:
        check_known(where, what, name, names)


def _only(where, dict_ids):
    """The one id; CltdbError where there are several to choose from, or none."""
    if len(dict_ids) != 1:
        listed = ", ".join(dict_ids[:20]) or "none"
        raise CltdbError(where, found=f"{len(dict_ids)} dictionaries: {listed}", expected="one", do="say which, with dict_id=…")
    return dict_ids[0]
