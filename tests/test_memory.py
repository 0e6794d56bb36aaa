"""What does not fit is said: before training where it can be known, else as one line instead of a traceback."""

import gc

import pytest
import torch
from worlds.device import DEVICE

from cltdb import memory
from cltdb.errors import CltdbError
from cltdb.spec import load
from cltdb.stages import STAGES

MINIMAL = "name: small\nmodel: {id: toyworld, device: cpu}\nactivations: {text: [{toyworld: true}]}\n"


def check_train(folder, *overrides):
    (folder / "small.yaml").write_text(MINIMAL)
    loaded = load(folder / "small.yaml", overrides=overrides)
    STAGES["train"].check(loaded.experiment, loaded.project)


@pytest.mark.parametrize(
    ("overrides", "n_vectors"),
    [
        (["train.n_features=2_000_000"], 4 + 10),
        (["train.n_features=2_000_000", "train.kind=plt"], 4 + 4),
        (["train.n_features=2_000_000", "train.decoder_span=2"], 4 + 7),
        (["train.n_features=2_000_000", "train.layers=[1, 2]"], 2 + 3),
    ],
)
def test_weights_that_the_machine_cannot_train_are_refused(tmp_path, monkeypatch, overrides, n_vectors):
    """The toy model has 4 layers of width 128; a weight takes 16 bytes with its gradient and Adam's moments."""
    needed = n_vectors * 2_000_000 * 128 * 16
    monkeypatch.setattr(memory, "machine_bytes", lambda: needed)
    check_train(tmp_path, *overrides)
    monkeypatch.setattr(memory, "machine_bytes", lambda: needed - 1)
    with pytest.raises(CltdbError, match=rf"train.n_features: found 2,000,000, .* take {needed / 1e9:,.1f} GB"):
        check_train(tmp_path, *overrides)


def test_float16_is_refused_where_auto_is_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CltdbError, match="train.deepspeed.fp16: found float16 on a CPU"):
        check_train(tmp_path, "model.device=auto", "train.deepspeed={fp16: {enabled: true}}")


def test_running_out_of_memory_is_one_line():
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), _failure_of_torch()):
        said = str(memory.ran_out(error, "cltdb run"))
        assert said.startswith("cltdb run: found not enough memory (") and len(said) < 400
    assert memory.ran_out(RuntimeError("shapes do not fit"), "cltdb run") is None


@pytest.mark.gpu
def test_running_out_of_the_memory_of_a_gpu_is_one_line():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, device=DEVICE)
    assert str(memory.ran_out(caught.value, "cltdb run")).startswith("cltdb run: found not enough memory (")


def _failure_of_torch():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    return caught.value


@pytest.mark.parametrize("looks", [True, False])
def test_what_imports_much_is_not_searched_for_garbage(monkeypatch, looks):
    """Afterwards Python looks again where it did before, also after an error, and at what is new alone."""
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 0)  # the session has set aside what it imported
    (gc.enable if looks else gc.disable)()
    made = []
    try:
        with pytest.raises(ImportError), memory.without_garbage():
            assert not gc.isenabled()
            made += [[number] for number in range(1_000)]
            raise ImportError
        assert gc.isenabled() == looks
        gc.disable()
        assert {id(number) for number in made} <= {id(found) for found in gc.get_objects(generation=2)}
    finally:
        gc.enable()
