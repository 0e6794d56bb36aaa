"""A process that takes a circuit-tracer CLT through import, load and the stages after it, and prints how much its memory grew in each.

    PYTHONPATH=tests:. python memory_worker.py FOLDER N_LAYERS D_MODEL

Memory: RssAnon, what the process holds itself; pages of mapped files are the kernel's, which takes them back when it needs the room.
"""

import json
import sys
import threading
import time
from pathlib import Path

import torch
from activations.test_cache import random_sequences
from worlds import dictionaries, models

from cltdb.attribution.graph import attribute, check_edges
from cltdb.attribution.intervene import intervene
from cltdb.evaluate.evaluate import evaluate
from cltdb.evaluate.settings import Evaluate
from cltdb.harvest.statistics import logit_effects
from cltdb.interchange import published_parts, save_published
from cltdb.model.transcoder import load_dictionary
from cltdb.replacement.responses import MODES

PROMPT = [0, 5, 9, 30, 77]


def held():
    """Bytes."""
    return next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)


class Peak:
    """The largest `held` within a block, above that at its beginning."""

    def __enter__(self):
        self.before = self.largest = held()
        self.on, self.thread = True, threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.on:
            self.largest = max(self.largest, held())
            time.sleep(0.001)

    def __exit__(self, *_):
        self.on = False
        self.thread.join()
        self.growth = max(self.largest, held()) - self.before


def stages(lm, dictionary, folder):
    """(name, what it does) of everything that works on a dictionary."""
    graphs = []
    yield "attribute", lambda: graphs.append(attribute(lm, dictionary, PROMPT, max_features=50))
    yield "check_edges", lambda: check_edges(graphs[0], n=20, seed=0)
    for mode in MODES:
        yield mode, lambda mode=mode: intervene(lm, dictionary, PROMPT, ["1:5@2=3"], mode=mode)
    settings = Evaluate(dense_above=0.5, batch_seqs=1)
    options = {"directory": folder / "evaluated", "dict_id": "d"}
    yield "evaluate", lambda: evaluate(settings, lm, dictionary, random_sequences(1), **options)
    yield "norms", lambda: dictionary.decoder_norms(0)
    yield "logit_effects", lambda: logit_effects(lm, dictionary, dictionary.n_layers - 1)
    yield "export", lambda: save_published(dictionary, "circuit-tracer", folder / "again")


def main(folder, n_layers, d_model):
    torch.set_num_threads(1)
    lm = models.language_model(n_layers=n_layers, d_model=d_model)
    small = dictionaries.random(n_layers=n_layers, d_model=d_model, dtype=torch.bfloat16)
    for _, work in stages(lm, small, folder / "small"):  # so that what libraries allocate once does not count
        work()
    growth = {}
    with Peak() as peak:
        published_parts("circuit-tracer", folder / "theirs").save(folder / "native")
    growth["import"] = peak.growth
    with Peak() as peak:
        dictionary = load_dictionary(folder / "native")
    growth["load"] = peak.growth
    for name, work in stages(lm, dictionary, folder):
        with Peak() as peak:
            work()
        growth[name] = peak.growth
    print(json.dumps(growth))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
