import polars as pl
import pytest
import torch
from activations.test_cache import write

from cltdb.activations.cache import ActivationCache
from cltdb.errors import NonFiniteError
from cltdb.model.transcoder import load_dictionary
from cltdb.spec import Train
from cltdb.train.loop import TrainingRun, inference_threshold, train

SETTINGS = dict(
    n_features=24,
    l0=3,
    batch_tokens=35,
    epochs=3,
    init_l0=6,
    warmup_steps=2,
    log_every_steps=2,
    checkpoint_every_steps=3,
    dead_window_tokens=70,
)


@pytest.fixture(scope="module")
def cache_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    write(directory)
    return directory


def trained(cache_directory, directory, **settings):
    train(
        Train(**{**SETTINGS, **settings}),
        cache_directory=cache_directory,
        directory=directory,
        seed=0,
        dict_id="d",
        experiment="e",
        device="cpu",
    )
    return load_dictionary(directory)


def metrics(directory):
    return pl.read_parquet(directory / "tables/metrics/train.parquet")


@pytest.mark.parametrize(
    "settings", [{}, {"kind": "plt"}, {"activation": "jumprelu"}, {"activation": "relu"}, {"skip": True}], ids=str
)
def test_the_exported_dictionary_computes_what_the_trained_module_does(cache_directory, tmp_path, settings):
    run = TrainingRun(Train(**{**SETTINGS, **settings}), cache=ActivationCache(cache_directory), seed=0, device="cpu")
    for _ in range(4):
        run.make_step()
    batch = run.cache.batch(0, 40)
    x, _ = run._scaled(batch)
    with torch.no_grad():
        threshold = inference_threshold(run, run.module)
        pre = [run.module.pre_activations(x, layer) for layer in range(run.n_layers)]
        if run.settings.activation == "batchtopk":
            from cltdb.model.sparse import Pairs

            masks = [h > cut for h, cut in zip(pre, threshold, strict=True)]
            pairs = [Pairs(*mask.nonzero(as_tuple=True), h[mask]) for h, mask in zip(pre, masks, strict=True)]
        else:
            pairs = [run.module.activate(h, layer) for layer, h in enumerate(pre)]
        wanted = run.module.decode(pairs, x) / run.output_scale[:, None]
    exported = run.module.export(input_scale=run.input_scale, output_scale=run.output_scale, threshold=threshold, info={})
    assert torch.allclose(exported.decode(exported.encode(batch.x), batch.x), wanted, rtol=1e-4, atol=1e-5)


def test_training_lowers_the_error_and_reaches_l0(cache_directory, tmp_path):
    trained(cache_directory, tmp_path, epochs=15, learning_rate=5e-3)
    curve = metrics(tmp_path).filter(pl.col("layer").is_null(), name="fvu").sort("step")["value"].to_list()
    assert curve[-1] < 0.5 * curve[0]
    assert metrics(tmp_path).filter(pl.col("layer").is_null(), name="l0")["value"].to_list()[-1] == pytest.approx(3, abs=0.05)
    names = set(metrics(tmp_path)["name"])
    assert names == {"loss", "loss_mse", "loss_sparsity", "loss_preact", "loss_aux", "l0", "fvu", "dead_frac", "lr", "grad_norm"}


@pytest.mark.parametrize(("l0", "rises"), [(1, True), (20, False)])
def test_the_controller_moves_jumprelu_towards_its_l0(cache_directory, l0, rises):
    run = TrainingRun(
        Train(**{**SETTINGS, "activation": "jumprelu", "l0": l0}), cache=ActivationCache(cache_directory), seed=0, device="cpu"
    )
    run.step = run.n_steps - 4  # the target has fallen from init_l0 to l0
    before = run.coefficient.clone()
    for _ in range(3):
        run.make_step()
    assert ((run.coefficient > before) == rises).all()


def test_a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(cache_directory, tmp_path):
    whole = trained(cache_directory, tmp_path / "whole")
    from cltdb.train import resume

    run = TrainingRun(Train(**SETTINGS), cache=ActivationCache(cache_directory, seed=0), seed=0, device="cpu")
    for _ in range(5):
        run.make_step()
    (tmp_path / "again").mkdir()
    resume.save(run, tmp_path / "again" / resume.CHECKPOINT_FILE)
    again = trained(cache_directory, tmp_path / "again")
    assert (
        torch.equal(whole.W_enc, again.W_enc)
        and all(map(torch.equal, whole.W_dec, again.W_dec))
        and torch.equal(whole.threshold, again.threshold)
    )
    assert metrics(tmp_path / "whole").equals(metrics(tmp_path / "again"))


@pytest.mark.parametrize("activation", ["batchtopk", "jumprelu"])
def test_bf16_trains_and_exports_the_float32_weights(cache_directory, tmp_path, activation):
    settings = dict(activation=activation, epochs=15, learning_rate=5e-3, deepspeed={"bf16": {"enabled": True}})
    dictionary = trained(cache_directory, tmp_path, **settings)
    assert dictionary.W_enc.dtype == torch.float32 and not torch.equal(dictionary.W_enc, dictionary.W_enc.bfloat16().float())
    curve = metrics(tmp_path).filter(pl.col("layer").is_null(), name="fvu").sort("step")["value"].to_list()
    assert curve[-1] < 0.6 * curve[0]


def test_a_loss_that_is_not_finite_stops_and_says_where(cache_directory, tmp_path):
    run = TrainingRun(Train(**SETTINGS), cache=ActivationCache(cache_directory), seed=0, device="cpu")
    with torch.no_grad():
        run.module.b_dec[1, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"not finite at step 0 \(batch 0, layers 1\)"):
        run.make_step()


def test_auxiliary_loss_reaches_dead_features(cache_directory):
    from cltdb.train.loss import measure

    run = TrainingRun(Train(**SETTINGS), cache=ActivationCache(cache_directory), seed=0, device="cpu")
    x, y = run.batch(0)
    dead = torch.zeros(run.n_layers, 24, dtype=torch.bool)
    dead[:, 3] = True
    with torch.no_grad():
        run.module.b_enc[:, 3] = 0.5
    measured = measure(run.module, x, y, coefficient=torch.zeros(run.n_layers), dead=dead)
    gradient = torch.autograd.grad(measured.aux, run.module.W_dec[0])[0]
    assert gradient[3].abs().sum() > 0 and gradient[4].abs().sum() == 0
