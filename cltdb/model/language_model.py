"""A Hugging Face causal language model with its hook points named: MLP input and output, norms, attention, unembedding.

MLP output is the vector that is added to the residual stream (after a post-norm, where there is one). MLP input is that of the
MLP itself (`normed`) or the residual stream before its norm (`residual`). architectures.py says where each family has them.
"""

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from cltdb.devices import resolved_device
from cltdb.engine import revisions
from cltdb.errors import CltdbError
from cltdb.model import weights
from cltdb.model.architectures import family_of
from cltdb.model.norms import read_directions
from cltdb.model.sites import implied_sites
from cltdb.model.tokens import Tokens

log = logging.getLogger(__name__)


class Block(NamedTuple):
    """The submodules of one transformer block."""

    attention_norm: torch.nn.Module
    attention: torch.nn.Module
    mlp_norm: torch.nn.Module
    mlp: torch.nn.Module
    mlp_output: torch.nn.Module
    attention_output: torch.nn.Module


class Captured(NamedTuple):
    """mlp_input, mlp_output [batch, pos, n_layers, d_model]; logits [batch, pos, vocab] where they were wanted."""

    mlp_input: torch.Tensor
    mlp_output: torch.Tensor
    logits: torch.Tensor | None


class LanguageModel(Tokens):
    """A frozen model, its tokenizer and its hook points. fingerprint: of its weights, config and tokenizer as `load_model` found them.

    logit_softcap: logits are logit_softcap * tanh(unembedding(final_norm(x)) / logit_softcap); None: without that."""

    def __init__(self, hf, tokenizer, *, model_id, revision="main", mlp_input="normed", fingerprint=None):
        config, self.family = hf.config.get_text_config(), family_of(hf.config, f"model {model_id}")
        super().__init__(tokenizer, config, model_id=model_id)
        self.hf, self.revision, self.mlp_input, self.fingerprint = (
            hf.eval().requires_grad_(False),
            revision,
            mlp_input,
            fingerprint,
        )
        self.architecture = self.family.name
        text_model = hf.base_model.get_submodule(self.family.text_model)
        self.blocks = [
            Block(*(block.get_submodule(getattr(self.family, part)) for part in Block._fields))
            for block in text_model.get_submodule(self.family.blocks)
        ]
        self.embedding = text_model.get_submodule(self.family.embedding)
        self.final_norm = text_model.get_submodule(self.family.final_norm)
        self.rotary = self.family.rotary and text_model.get_submodule(self.family.rotary)
        self.unembedding = hf.get_output_embeddings()
        self.logit_softcap = self.family.logit_softcap and getattr(config, self.family.logit_softcap)
        self.n_layers, self.d_model = len(self.blocks), config.hidden_size

    @property
    def input_hook(self):
        """What features read, as TransformerLens and circuit-tracer call it: `mlp.hook_in` is the MLP's own input in every model and
        version. `ln2.hook_normalized` is not: of an RMSNorm it lies before the gain; of a LayerNorm after gain and bias up to
        TransformerLens 2, before them since 3.0 (transformer_lens/components/layer_norm.py, rms_norm.py)."""
        if self.mlp_input == "residual":
            return "hook_resid_pre" if self.is_parallel else "hook_resid_mid"
        return "mlp.hook_in"

    @property
    def is_parallel(self):
        """Whether the MLP reads what attention reads, as in GPT-NeoX, instead of what it leaves."""
        return self.family.parallel is not None and getattr(self.hf.config, self.family.parallel)

    sites = property(lambda self: implied_sites(self.n_layers, self.input_hook))
    device = property(lambda self: next(self.hf.parameters()).device)
    dtype = property(lambda self: next(self.hf.parameters()).dtype)

    def unembedding_weight(self):
        """[vocab, d_model]."""
        return self.unembedding.weight

    def residual_directions(self, layer, vectors):
        """The directions of the residual stream that `vectors` [..., d_model] at the MLP input of `layer` read. Where that input is normed,
        they are so up to the norm's scale at each token."""
        return vectors if self.mlp_input == "residual" else read_directions(self.blocks[layer].mlp_norm, vectors)

    @torch.no_grad()
    def logits(self, tokens):
        """tokens [batch, pos] to logits [batch, pos, vocab]."""
        return self.hf(input_ids=tokens.to(self.device), use_cache=False).logits

    @torch.no_grad()
    def run(self, tokens, *, with_logits=True):
        """tokens [batch, pos] to the MLP inputs and outputs of every layer and the logits. Logits often cost as much as all the rest."""
        inputs, outputs = [None] * self.n_layers, [None] * self.n_layers

        def keep(layer, x, y):
            inputs[layer], outputs[layer] = x, y

        with self._watching_mlps(keep):
            logits = self.logits(tokens) if with_logits else None
            if not with_logits:
                self.hf.base_model(input_ids=tokens.to(self.device), use_cache=False)
        return Captured(torch.stack(inputs, dim=-2), torch.stack(outputs, dim=-2), logits)

    @contextmanager
    def replaced_mlps(self, replace):
        """Within the block, MLP outputs are `replace(layer, x, y)`: x, y [batch, pos, d_model], y the true output at the present
        input."""
        with self._watching_mlps(replace):
            yield self

    @contextmanager
    def _watching_mlps(self, see):
        """Calls see(layer, x, y) at every MLP; what it returns, unless None, becomes the MLP output. Hooks always come off."""
        inputs, handles = {}, []
        for layer, block in enumerate(self.blocks):
            reader = block.mlp if self.mlp_input == "normed" else block.mlp_norm
            handles.append(reader.register_forward_pre_hook(lambda module, args, layer=layer: inputs.__setitem__(layer, args[0])))
            handles.append(
                block.mlp_output.register_forward_hook(lambda module, args, y, layer=layer: see(layer, inputs.pop(layer), y))
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def load_model(path_or_id, *, revision="main", dtype="float32", device="auto", mlp_input="normed", model_id=None):
    """The language model in a local directory, on the Hub, or the embedded `toyworld`.

    dtype: float32, bfloat16, float16, float64 or auto (as saved). device: auto takes cuda where there is one. Weights are read
    from safetensors only and no code of the model's repository is run. model_id: the name it goes by, default path_or_id.
    """
    from transformers import AutoModelForCausalLM

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
