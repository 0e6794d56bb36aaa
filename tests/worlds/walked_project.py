"""A finished project of the toy world with a small CLT that was trained: what a person walks through in the browser."""

import contextlib
import io

from cltdb.__main__ import main
from worlds import projects

SPEC = """
name: walk
model: {id: toyworld}
activations: {text: [{toyworld: true}], context: 32, train_tokens: 12_000, heldout_tokens: 1000}
train: {n_features: 192, l0: 6, epochs: 6}
harvest: {tokens: 8_000, top: 12, per_quantile: 4, window: 12, pool_windows: 1500}
explain: {features: {limit: 30}, scorers: [detection]}
attribute: {prompts: [{id: france, text: The capital of France is}]}
"""


def build(folder):
    """Runs it in `folder`; about 10 CPU seconds."""
    projects.new(folder, SPEC)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(["run", "walk.yaml"]) == 0
