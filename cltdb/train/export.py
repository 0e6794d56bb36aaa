"""From a trained run to the artifact: the fixed threshold of batch top-k, the dictionary in model units, its database row."""

import hashlib
import json

import torch

from cltdb.engine.workspace import write_parquet
from cltdb.model.parts import TENSORS_FILE
from cltdb.train.chosen_layers import spread
from cltdb.train.module import export

THRESHOLD_TOKENS = 65_536
THRESHOLD_STEP_TOKENS = 4096


@torch.no_grad()
def inference_threshold(run, tensors):
    """[n_layers, n_features]: per layer the value that l0 features per token exceed, on average over training tokens. tensors: whole ones.

    Source: Bussmann et al. 2024 (arXiv 2412.06410), section 3. There it is the mean of the batches' cuts; here it is the quantile over a
    fixed sample.
    """
    n_tokens = min(THRESHOLD_TOKENS, run.source.n_rows)
    step_tokens = min(THRESHOLD_STEP_TOKENS, n_tokens)
    wanted = round(run.settings.l0 * step_tokens)
    kept = [[] for _ in range(run.n_layers)]
    for batch in run.source.batches(0, n_tokens // step_tokens, step_tokens):
        x, _ = run.scaled(batch)
        for layer, best in enumerate(kept):
            weights, bias = (tensors[f"layers.{layer}.{name}"].to(x.device) for name in ("W_enc", "b_enc"))
            h = torch.addmm(bias, x[:, layer], weights.T).flatten()
            best.append(h.topk(min(2 * wanted, h.numel())).values)  # a batch twice as active as the mean is still counted whole
    cuts = []
    for values in kept:
        values = torch.cat(values)
        cuts.append(values.topk(min(len(values), wanted * (n_tokens // step_tokens))).values.min().clamp(min=0))
    return torch.stack(cuts).cpu()[:, None].expand(-1, run.settings.n_features).contiguous()


def export_run(run, tensors, *, step, directory, dict_id, experiment):
    """Writes the dictionary made of `tensors` {name: whole float32 tensor}, those after `step`, and its row of the table `dictionaries`."""
    settings = run.settings
    train = json.loads(settings.model_dump_json(exclude={"launch", "wandb", "published"}))
    train["start"] = run.start_id
    threshold = inference_threshold(run, tensors) if settings.activation == "batchtopk" else None
    dictionary = export(
        tensors,
        settings,
        input_scale=run.input_scale,
        output_scale=run.output_scale,
        threshold=threshold,
        info={"steps": step, "train": train},
    )
    if settings.layers:
        dictionary = spread(dictionary, settings.layers, n_layers=run.model_layers)
    model = dict(run.source.summary)
    if model["mlp_input"] == "normed":  # caches of older versions have another name for it
        model["input_hook"] = "mlp.hook_in"
    if settings.place:
        dictionary.info["reads"] = settings.place
    write_dictionary(dictionary, model=model, directory=directory, dict_id=dict_id, experiment=experiment)


def write_dictionary(dictionary, *, model, directory, dict_id, experiment):
    """Writes a `Dictionary` or `DictionaryParts` with its provenance, and its row of the table `dictionaries`. model: its model_id,
    revision, mlp_input and, where it is known, input_hook."""
    import pyarrow as pa

    named = {"dict_id": dict_id, "experiment": experiment} | {name: model[name] for name in ("model_id", "revision", "mlp_input")}
    of_model = {"input_hook": model["input_hook"]} if "input_hook" in model else {}
    known = named | of_model
    dictionary.info = known | {name: value for name, value in dictionary.info.items() if name not in known}
    dictionary.save(directory)
    with open(directory / TENSORS_FILE, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    row = {
        **named,
        "kind": dictionary.kind,
        "reads": dictionary.reads,
        "activation": dictionary.activation,
        "d_model": dictionary.d_model,
        "n_layers": dictionary.n_layers,
        "n_features": dictionary.n_features,
        "path": f"train/{directory.name.removesuffix('.partial')}",
        "sha256": sha256,
    }
    write_parquet(directory / "tables/dictionaries/dictionary.parquet", pa.Table.from_pylist([row]))
