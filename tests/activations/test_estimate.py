import pytest
from worlds import models

from cltdb.activations.cache import bytes_per_token
from cltdb.activations.codec import CODECS
from cltdb.activations.estimate import estimate
from cltdb.activations.settings import Activations
from cltdb.model.settings import Model


@pytest.fixture
def source(tmp_path):
    return str(models.saved(tmp_path / "model"))


def section(**options):
    return Activations(text=[{"toyworld": True}], context=16, train_tokens=1_000_000, heldout_tokens=50_000, **options)


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_are_those_of_the_rows_and_both_ways_are_measured(tmp_path, source, codec):
    found = estimate(section(codec=codec), Model(id="model"), source=source, folder=tmp_path)
    assert found.cache_bytes == 1_050_000 * bytes_per_token(2, 16, codec)
    assert found.recompute_s > 0 and found.read_s > 0
    assert f"a cache of {found.cache_bytes / 1e6:,.0f} MB; a token takes" in found.text and "times cheaper" in found.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_words_for_a_stream_and_for_what_is_not_measured(tmp_path, source, monkeypatch):
    found = estimate(section(mode="stream", compression="zstd"), Model(id="model"), source=source, folder=tmp_path)
    assert found.text.startswith("no cache, which would take up to ")
    slower = found._replace(recompute_s=1e-6, read_s=2e-6)
    assert slower.text.endswith("recomputing is 2.0 times cheaper")
    monkeypatch.setattr("cltdb.activations.estimate.LARGEST_MODEL_BYTES", 10)
    assert "(not measured: the model has 0 MB)" in estimate(section(), Model(id="model"), source=source, folder=tmp_path).text
    assert estimate(section(), Model(id="nobody/nothing"), source="nobody/nothing", folder=tmp_path) is None


def test_a_model_that_cannot_be_loaded_is_not_measured(tmp_path, source):
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text().replace('"model_type": "gpt2"', '"model_type": "opt"'))
    assert "not measured: architecture 'opt'" in estimate(section(), Model(id="model"), source=source, folder=tmp_path).text
