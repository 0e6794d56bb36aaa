"""Reads a language model from a directory, the Hub or the embedded toy world: safetensors only, none of the repository's code.

Writes nothing. What transformers cannot load is one CltdbError; weights.py refuses weights that are not those of the files.
"""

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from cltdb.devices import resolved_device
from cltdb.engine import revisions
from cltdb.errors import CltdbError, shown
from cltdb.model import weights
from cltdb.model.architectures import family_of
from cltdb.model.language_model import LanguageModel

log = logging.getLogger(__name__)
DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")
MLP_INPUTS = ("normed", "residual")


def load_model(path_or_id, *, revision="main", dtype="float32", device="auto", mlp_input="normed", model_id=None):
    """The language model in a local directory, on the Hub, or the embedded `toyworld`.

    dtype: float32, bfloat16, float16, float64 or auto (as saved). device: auto takes cuda where there is one. Weights are read
    from safetensors only and no code of the model's repository is run. model_id: the name it goes by, default path_or_id.
    """
    from transformers import AutoModelForCausalLM

    _require_known(dtype=dtype, mlp_input=mlp_input, device=device)
    read = _read(path_or_id, revision=revision, model_id=model_id)
    where = f"model {read.model_id}"
    with _loading_errors(where):
        hf, info = AutoModelForCausalLM.from_pretrained(
            read.source,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, with their names
            **read.options,
        )
    weights.refuse_unlike(hf, info, weights.weight_files(read.directory, where), where)
    fingerprint = weights.fingerprint(hf, read.directory, where)
    if (
        hf.config.get_text_config().tie_word_embeddings
        and hf.get_output_embeddings().weight is not hf.get_input_embeddings().weight
    ):
        log.warning("%s: config.json ties the unembedding to the embedding; the file holds another one, which is used", where)
    commit = read.directory.name  # of a Hub model's copy, the commit that a branch stood at
    return LanguageModel(
        hf.to(resolved_device(device)),
        read.tokenizer,
        model_id=read.model_id,
        revision=commit if read.options and revisions.COMMIT.fullmatch(commit) else revision,
        mlp_input=mlp_input,
        fingerprint=fingerprint,
    )


def _require_known(*, dtype, mlp_input, device):
    for name, value, known in (("dtype", dtype, DTYPES), ("mlp_input", mlp_input, MLP_INPUTS)):
        if value not in known:
            raise CltdbError(f"load_model {name}", found=shown(value), expected=" or ".join(known), do="choose one")
    try:
        torch.device(resolved_device(device))
    except (RuntimeError, TypeError) as error:
        expected = "auto, cpu, cuda or cuda with a number, such as cuda:1"
        raise CltdbError("load_model device", found=shown(device), expected=expected, do="choose one") from error


def load_sizes_and_tokens(path_or_id, *, revision="main", model_id=None):
    """A `LanguageModel` without numbers, of its config and tokenizer alone: what can be asked about sizes and tokens before the weights
    are read."""
    from transformers import AutoModelForCausalLM

    read = _read(path_or_id, revision=revision, model_id=model_id)
    with _loading_errors(f"model {read.model_id}"), torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(read.config)
    return LanguageModel(hf, read.tokenizer, model_id=read.model_id, revision=revision)


class _Read(NamedTuple):
    """A model's config and tokenizer; source and options: what transformers takes for it; directory: that of its files."""

    source: str
    options: dict
    model_id: str
    directory: Path
    config: object
    tokenizer: object


def _read(path_or_id, *, revision, model_id):
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import cached_file

    source = _source(str(path_or_id))
    model_id = model_id or str(path_or_id)
    where = f"model {model_id}"
    options = {}
    if Path(source).is_dir():
        weights.weight_files(source, where)
    else:
        options = {"revision": revision, **revisions.limits("model", source, revision, where=where)}
    with _loading_errors(where):
        config = AutoConfig.from_pretrained(source, **options)
        family_of(config, where)  # before anything else is read
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        directory = Path(cached_file(source, "config.json", **options)).parent
    return _Read(source, options, model_id, directory, config, tokenizer)


@contextmanager
def _loading_errors(where):
    """Says what transformers cannot load as one `CltdbError`, and keeps its log lines to itself."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, StrictDataclassError, SafetensorError) as error:
        raise CltdbError(
            where,
            found=" ".join(str(error).split())[:300] or type(error).__name__,
            expected="config.json, model.safetensors and a tokenizer of a causal language model",
            do="check model.id and model.revision; a local directory is relative to cltdb.yaml, the Hub needs network",
        ) from error
    finally:
        transformers_logging.set_verbosity(level)


def has_layer_norms(path_or_id):
    """Whether a model's norms are LayerNorms, from its config alone; RMSNorms are not."""
    from transformers import AutoConfig

    source, where = _source(str(path_or_id)), f"model {path_or_id}"
    options = {} if Path(source).is_dir() else revisions.limits("model", source, "main", where=where)
    with _loading_errors(where):
        config = AutoConfig.from_pretrained(source, **options)
    return family_of(config, where).norm.centred


def local_sizes(path_or_id):
    """(n_layers, d_model) of a model on this machine, from its config alone, or None where that would need the network."""
    source = _source(str(path_or_id))
    if not Path(source).is_dir():
        return None
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source).get_text_config()
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError):
        return None  # load_model says what is wrong
    return config.num_hidden_layers, config.hidden_size


def _source(model_id):
    """The directory of a local or embedded model, else the Hub id itself."""
    if model_id == "toyworld":
        from cltdb.toyworld import MODEL_DIR

        return str(MODEL_DIR)
    path = Path(model_id)
    if not path.is_dir():
        if path.is_absolute() or model_id.startswith("."):
            raise CltdbError(
                f"model {model_id}",
                found="no such directory",
                expected="a directory of a saved model or a Hub id",
                do="mend model.id",
            )
        return model_id
    if not list(path.glob("*.safetensors")):
        raise CltdbError(
            f"model {model_id}",
            found="no weights (*.safetensors)",
            expected="a directory with config.json and model.safetensors",
            do="save the model with save_pretrained, which writes safetensors",
        )
    return str(path.resolve())
