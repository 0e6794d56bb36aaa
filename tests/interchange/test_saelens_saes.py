"""SAELens's sparse autoencoders: files written by hand beside their formulas, and, where SAELens is installed, its own classes."""

import json

import pytest
import torch
from safetensors.torch import save_file
from worlds import dictionaries, models

from cltdb.errors import CltdbError
from cltdb.interchange import load_published, published_parts, save_published
from cltdb.interchange.hook_points import fitted

D, F, K = 8, 10, 3
HOOKS = {
    "hook_mlp_out": "mlp_output",
    "mlp.hook_in": "mlp_input",
    "hook_resid_mid": "residual",
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)))


def x_of(n=40):
    return draw(n, D, seed=5)


def write_sae(folder, architecture, *, layer=1, hook="hook_mlp_out", **settings):
    """An SAE's folder as SAELens writes it, and its encoder by SAELens's formulas."""
    folder.mkdir(parents=True)
    t = {"W_enc": draw(D, F), "b_enc": draw(F), "W_dec": draw(F, D), "b_dec": draw(D)}
    t |= {"threshold": draw(F, seed=3)} if architecture == "jumprelu" else {}
    t |= {"topk_threshold": torch.tensor(0.7, dtype=torch.float64)} if architecture == "batchtopk" else {}
    settings = ({"k": K} if architecture in ("topk", "batchtopk") else {}) | settings
    save_file(t, folder / "sae_weights.safetensors")
    metadata = {"model_name": "random-gpt2", "hook_name": f"blocks.{layer}.{hook}", "sae_lens_version": "6"}
    about = {"architecture": architecture, "d_in": D, "d_sae": F, "metadata": metadata, **settings}
    (folder / "cfg.json").write_text(json.dumps(about))
    minus = t["b_dec"] if settings.get("apply_b_dec_to_input", True) else 0
    norms = t["W_dec"].norm(dim=-1) if settings.get("rescale_acts_by_decoder_norm") else torch.ones(F)

    def reconstruct(x):
        h = ((x - minus) @ t["W_enc"] + t["b_enc"]) * norms
        match architecture:
            case "topk":
                a = torch.zeros_like(h).scatter(-1, (best := h.topk(K)).indices, best.values.relu())
            case "jumprelu":
                a = h.relu() * (h > t["threshold"])
            case "batchtopk":
                a = h.relu() * (h > 0.7)
            case "standard":
                a = h.relu()
        return a, (a / norms) @ t["W_dec"] + t["b_dec"]

    return reconstruct


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "batchtopk"])
@pytest.mark.parametrize("settings", [{}, {"apply_b_dec_to_input": False}, {"rescale_acts_by_decoder_norm": True}])
def test_outputs_are_those_of_the_formulas(tmp_path, architecture, settings):
    if "rescale_acts_by_decoder_norm" in settings and architecture not in ("topk", "batchtopk"):
        settings = {"normalize_activations": "none"}
    reconstruct = write_sae(tmp_path / "sae", architecture, **settings)
    d, x = load_published("saelens", tmp_path), x_of()
    assert (d.kind, d.reads, d.layers, d.info["model_id"]) == ("sae", "mlp_output", (1,), "random-gpt2")
    expected, output = reconstruct(x)
    a = d.encode_layer(x, 1)
    torch.testing.assert_close(a, expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(d.decode_layer([None, a], 1), output, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("hook", HOOKS)
def test_an_sae_of_one_layer_fits_a_deeper_model_where_it_reads_the_place_that_is_asked_for(tmp_path, hook):
    write_sae(tmp_path / "sae", "standard", hook=hook)
    parts = published_parts("saelens", tmp_path)
    assert parts.reads == HOOKS[hook]
    lm = models.language_model(n_layers=3, d_model=D)
    for mlp_input in ("normed", "residual"):
        lm.mlp_input = mlp_input
        fits = HOOKS[hook] in ("mlp_output", "mlp_input" if mlp_input == "normed" else "residual")
        if fits:
            found = fitted(parts, lm)
            assert (found.n_layers, found.info["layers"]) == (3, [1]) and not found.layers[2]["W_enc"].any()
        else:
            with pytest.raises(CltdbError, match="model.mlp_input"):
                fitted(parts, lm)


def test_before_the_gain_encoders_and_decoders_take_the_norm_in(tmp_path):
    reconstruct = write_sae(tmp_path / "sae", "standard", hook="ln2.hook_normalized")
    lm = models.language_model(n_layers=2, d_model=D)
    norm = lm.blocks[1].mlp_norm
    with torch.no_grad():
        norm.weight.copy_(draw(D).abs() + 0.5), norm.bias.copy_(draw(D, seed=9))
    n = torch.nn.functional.layer_norm(x_of(), (D,), eps=norm.eps)
    expected, output = reconstruct(n)
    from cltdb.model.transcoder import Dictionary

    d = Dictionary.from_parts(fitted(published_parts("saelens", tmp_path), lm, hook_normalized="before"))
    a = d.encode_layer(norm(x_of()), 1)
    torch.testing.assert_close(a, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(d.decode_layer([None, a], 1), output * norm.weight + norm.bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "architecture, settings, said",
    [
        ("gated", {}, "architecture 'gated'"),
        ("standard", {"metadata": {"hook_name": "blocks.1.attn.hook_z"}}, "features that read blocks.1.attn.hook_z"),
        (
            "standard",
            {"metadata": {"hook_name": "blocks.1.hook_mlp_out", "hook_name_out": "blocks.1.hook_resid_mid"}},
            "which it reconstructs",
        ),
        ("standard", {"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input 'yes'"),
        ("standard", {"normalize_activations": "layer_norm"}, "normalize_activations"),
        ("standard", {"reshape_activations": "hook_z"}, "reshape_activations"),
        ("topk", {"activation_fn": "relu"}, "activation_fn relu"),
        ("topk", {"k": 11}, "k"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, architecture, settings, said):
    write_sae(tmp_path / "sae", architecture, **settings)
    with pytest.raises(CltdbError, match=said):
        load_published("saelens", tmp_path)


@pytest.mark.parametrize("activation", ["relu", "jumprelu"])
@pytest.mark.parametrize("reads", HOOKS.values())
def test_an_exported_sae_is_imported_as_it_was(tmp_path, activation, reads):
    info = {"reads": reads, "mlp_input": "residual" if reads == "residual" else "normed", "model_id": "m"}
    d = dictionaries.random(
        kind="sae", activation=activation, n_layers=2, d_model=D, n_features=F, dtype=torch.float32, info=info
    )
    save_published(d, "saelens", tmp_path)
    again, x = load_published("saelens", tmp_path), x_of()[:, None].expand(-1, 2, -1)
    assert (again.kind, again.reads) == ("sae", reads)
    torch.testing.assert_close(again.decode(again.encode(x)), d.decode(d.encode(x)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("format", ["circuit-tracer", "clt-forge"])
def test_formats_of_transcoders_have_no_place_for_an_sae(tmp_path, format):
    with pytest.raises(CltdbError, match="found an sae"):
        save_published(dictionaries.random(kind="sae", dtype=torch.float32), format, tmp_path)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk", "batchtopk"])
def test_what_saelens_itself_saves(tmp_path, architecture):
    sae_lens = pytest.importorskip("sae_lens")
    torch.manual_seed(0)
    names = {"standard": "StandardSAE", "jumprelu": "JumpReLUSAE", "topk": "TopKSAE", "batchtopk": "BatchTopKTrainingSAE"}
    make = getattr(sae_lens, names[architecture])
    metadata = sae_lens.saes.sae.SAEMetadata(model_name="random-gpt2", hook_name="blocks.1.hook_mlp_out")
    k = {"k": K} if architecture in ("topk", "batchtopk") else {}
    config = getattr(sae_lens, f"{names[architecture]}Config")(d_in=D, d_sae=F, metadata=metadata, **k)
    sae = make(config)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.normal_()
        if architecture == "batchtopk":
            sae.topk_threshold.fill_(0.4)
    if architecture == "batchtopk":
        sae.save_inference_model(tmp_path / "sae")
        reads_as = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    else:
        sae.save_model(tmp_path / "sae")
        reads_as = sae
    d, x = load_published("saelens", tmp_path), x_of()
    a = reads_as.encode(x)
    torch.testing.assert_close(d.encode_layer(x, 1), a, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d.decode_layer([None, a.detach()], 1), reads_as.decode(a), rtol=1e-6, atol=1e-6)


def test_an_sae_that_does_not_say_what_it_reads_is_written_as_one_of_the_mlp_output(tmp_path):
    ours = dictionaries.random(kind="sae", dtype=torch.float32)
    save_published(ours, "saelens", tmp_path / "theirs")
    again = load_published("saelens", tmp_path / "theirs")
    assert again.reads == ours.reads == "mlp_output" and ours.sites[0].hook == "hook_mlp_out"
