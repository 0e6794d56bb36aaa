"""A PLT trained on an MLP that computes the AND of two directions has that rule as one feature, whose strongest paths start at the inputs."""

import pytest
import torch
from torch.nn import functional as F
from worlds import dictionaries
from worlds.and_rule import D_MODEL, RULE, AndModel
from worlds.batches import MemorySource

import cltdb
from cltdb.model.transcoder import load_dictionary
from cltdb.replacement.targets import FeatureTarget
from cltdb.train.loop import train
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Train

SETTINGS = Train(
    kind="plt",
    n_features=32,
    l0=1,  # 2.3 neurons fire at a token: where there is room for more, several features share the rule
    init_l0=1,
    learning_rate=1e-2,
    batch_tokens=256,
    epochs=7,
    warmup_steps=20,
    dead_window_tokens=5000,
)
N_PROMPTS = 5


def trained(world, directory, *, seed):
    def source(n):
        found = world.lm.run(world.tokens(n), with_logits=False)
        return MemorySource(*(side[:, 1:].flatten(0, 1) for side in (found.mlp_input, found.mlp_output)))

    run = TrainingRun(SETTINGS, source=source(2000), heldout=source(200), seed=seed, device="cpu")
    train(run, directory=directory, dict_id="d", experiment="e")
    return load_dictionary(directory)


def rule_feature(world, dictionary):
    """(feature that fires most as the rule holds, tokens, its activations), of tokens that training did not see; None where that is not the
    rule as one feature: balanced accuracy of its firing below 0.95, cosine of what it writes with what the rule writes below 0.9, or less
    than 0.8 of what all features write along that direction where the rule holds."""
    tokens = world.tokens(400)
    truth = world.truth(tokens)
    activations = dictionary.encode_layer(world.lm.run(tokens, with_logits=False).mlp_input[:, :, 0], 0)
    fires = activations[:, 1:] > 0
    hits, false_alarms = (fires[truth[:, 1:] == holds].double().mean(0) for holds in (True, False))
    accuracy, best = ((hits + 1 - false_alarms) / 2).max(0)
    decoders = dictionary.W_dec[0][:, 0]
    written = (activations[truth].sum(0) * (decoders @ world.output)).clamp(min=0)
    cosine = F.cosine_similarity(decoders[best], world.output, dim=0)
    if accuracy < 0.95 or cosine < 0.9 or written[best] < 0.8 * written.sum():
        return None
    return best.item(), tokens, activations[..., best]


def start_at_inputs(world, dictionary, feature, tokens, activations):
    """Whether, where the rule holds, the two strongest paths to its feature and those to the logit of RULE begin at the two input tokens, and
    the latter go through the feature, in nine of ten cases."""
    places = (world.truth(tokens) & (activations > 0)).nonzero().tolist()[:N_PROMPTS]
    good = 0
    for row, position in places:
        for target in (FeatureTarget(0, feature, position), RULE):
            graph = cltdb.attribute(world.lm, dictionary, tokens[row, : position + 1].tolist(), target=target)
            [found] = graph.signed_paths(2).values()
            nodes = graph.nodes.select("kind", "position", "feature").rows()
            starts = {nodes[path.nodes[0]][:2] for path in found}
            between = {nodes[node] for path in found for node in path.nodes[1:-1]}
            good += starts == {("embedding", position - 1), ("embedding", position)} and between == (
                {("feature", position, feature)} if target == RULE else set()
            )
    return good >= 0.9 * 2 * len(places)


def recovered(directory, *, seed):
    world = AndModel(seed)
    dictionary = trained(world, directory, seed=seed)
    found = rule_feature(world, dictionary)
    return found is not None and start_at_inputs(world, dictionary, *found)


def test_a_plt_recovers_a_planted_and_as_one_feature(tmp_path):
    assert recovered(tmp_path, seed=0)


def test_random_features_are_not_the_rule():
    untrained = dictionaries.random(kind="plt", n_layers=1, d_model=D_MODEL, n_features=32, dtype=torch.float32)
    assert rule_feature(AndModel(0), untrained) is None


@pytest.mark.slow
def test_in_nine_of_ten_seeds(tmp_path):
    found = [recovered(tmp_path / str(seed), seed=seed) for seed in range(10)]
    assert sum(found) >= 9, found
