"""The sites of a dictionary: implied for a language model, named in dictionary.json for another, read back and checked."""

import json

import pytest
import torch
from worlds import dictionaries, models

from cltdb.errors import CltdbError
from cltdb.model.fit import check_fits
from cltdb.model.language_model import LanguageModel
from cltdb.model.sites import Site
from cltdb.model.transcoder import load_dictionary
from cltdb.train.chosen_layers import spread

STREAMS = [{"block": block, "stream": stream, "hook": "ff_in"} for block in (4, 7) for stream in ("img", "txt")]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "gemma2"])
@pytest.mark.parametrize("mlp_input", ["normed", "residual"])
def test_a_dictionary_of_a_language_model_has_its_sites_and_stores_none(tmp_path, architecture, mlp_input):
    lm = LanguageModel(models.hf_model(architecture), models.byte_tokenizer(), model_id=architecture, mlp_input=mlp_input)
    d = dictionaries.random(dtype=torch.float32, info={"mlp_input": mlp_input, "input_hook": lm.input_hook})
    hook = {"normed": "mlp.hook_in", "residual": "hook_resid_pre" if architecture == "gpt_neox" else "hook_resid_mid"}[mlp_input]
    assert d.sites == d.parts().sites == lm.sites == (Site(0, None, hook), Site(1, None, hook))
    d.save(tmp_path)
    assert "sites" not in json.loads((tmp_path / "dictionary.json").read_text())
    check_fits(load_dictionary(tmp_path), lm)


def test_where_nothing_says_what_is_read_it_is_the_mlp_input():
    assert dictionaries.random().sites[1] == Site(1, None, "mlp.hook_in")
    assert dictionaries.random(info={"mlp_input": "residual"}).sites[1].hook == "hook_resid_mid"


def test_the_layer_of_a_dictionary_of_chosen_layers_is_the_block_of_the_model():
    d = spread(dictionaries.random(n_layers=2), [1, 3], n_layers=5)
    assert [(layer, d.sites[layer].block) for layer in d.layers] == [(1, 1), (3, 3)]


def test_sites_that_are_not_implied_are_saved_and_read_back(tmp_path):
    d = dictionaries.random(kind="plt", n_layers=4, info={"sites": STREAMS})
    d.save(tmp_path)
    loaded = load_dictionary(tmp_path)
    assert loaded.sites == loaded.parts().sites == d.sites == tuple(Site(**site) for site in STREAMS)
    assert loaded.sites[2] == Site(block=7, stream="img", hook="ff_in")
    with pytest.raises(
        CltdbError, match=r"layer 0 at Site\(block=4, stream='img', hook='ff_in'\); expected Site\(block=0, stream=None"
    ):
        check_fits(loaded, models.language_model(n_layers=4))


@pytest.mark.parametrize(
    "sites",
    [
        STREAMS[:3],
        {"0": STREAMS[0]},
        [{"block": 0, "hook": "mlp.hook_in"}] * 4,
        [STREAMS[0] | {"step": 3}] * 4,  # a step is a property of an occurrence
        [STREAMS[0] | {"block": -1}] * 4,
        [STREAMS[0] | {"block": True}] * 4,
        [STREAMS[0] | {"hook": None}] * 4,
    ],
)
def test_sites_of_another_form_are_refused(tmp_path, sites):
    dictionaries.random(kind="plt", n_layers=4).save(tmp_path)
    path = tmp_path / "dictionary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sites": sites}))
    with pytest.raises(CltdbError, match="dictionary sites: found .*expected a list of 4, one for each layer"):
        load_dictionary(tmp_path)
