"""Stage `train`: trains the dictionary, or takes a published one (`train.from`).

Writes: the dictionary (`dictionary.json` and safetensors), tables `dictionaries` and `metrics`.
"""

from importlib.util import find_spec

from cltdb import memory
from cltdb.activations.reading import packed, sources
from cltdb.activations.sizes import check_layers, known_sizes
from cltdb.engine import revisions
from cltdb.engine.section import Conflict
from cltdb.engine.stage import Stage
from cltdb.errors import CltdbError
from cltdb.interchange import local_copy
from cltdb.model.kinds import KINDS, MLP_OUTPUT, input_name
from cltdb.model.source import language_model, model_source, sizes_and_tokens
from cltdb.train.published import import_dictionary, pinned_published, published_content, published_standing, read_published
from cltdb.train.settings import Train
from cltdb.train.start import start_content, start_dictionary, start_folder
from cltdb.train.trained import dict_id

BYTES_PER_WEIGHT = {"adam": 16, "adam8bit": 10}
"""Weight, gradient and the optimizer's moments while training."""


def run(job):
    settings, name = job.settings, lambda kind: f"{job.experiment.name}-{kind}-{job.key[:8]}"
    if settings.published:
        import_dictionary(job, language_model(job), name)
        return
    from cltdb.train.engine import begin
    from cltdb.train.finetune import Texts
    from cltdb.train.loop import train
    from cltdb.train.run import TrainingRun

    seed, activations = job.seed("train"), job.experiment.activations
    rank, world_size = job.share
    device, parallel = begin(job.experiment.device, rank=rank, world_size=world_size, n_shards=settings.launch.feature_parallel)
    lm = language_model(job) if settings.kl or activations.mode == "stream" else None
    source, heldout = sources(job, lm, seed=seed)
    texts = None
    if settings.kl:
        sequences, _ = packed(job, lm, train_tokens=activations.train_tokens, note=False)
        texts = Texts(lm, sequences, seed=seed)
    start = start_dictionary(settings, job.project, source.summary) if settings.start else None
    share = {"device": device, "parallel": parallel}
    training = TrainingRun(settings, source=source, heldout=heldout, seed=seed, texts=texts, start=start, **share)
    made = {"dict_id": name(settings.kind), "experiment": job.experiment.name}
    train(training, directory=job.directory, publish=job.publish, **made)


def inputs(experiment):
    return ("model",) if experiment.train.published else ("model", "activations")


def identity(experiment, project):
    if experiment.train.published:
        return published_content(experiment, project)
    train, read = experiment.train, {"seed": experiment.seed}
    if train.start:
        read["start"] = start_content(start_folder(train.start, project))
    if (
        train.start or train.orthogonality or train.weight_decay is not None
    ):  # an earlier cltdb exported the best held-out state of these
        read["exported"] = "last"
    if train.deepspeed.half:  # an earlier cltdb rounded their sums and coefficients to half precision
        read["errors"] = "float32"
    return read | {"activations.loader.shuffle_tokens": experiment.activations.loader.shuffle_tokens}


def pinned(experiment, project):
    """Section train with the commit of a published dictionary, or with the folder of the one to start from; None where nothing changes."""
    if experiment.train.start:
        return experiment.train.model_copy(update={"start": str(start_folder(experiment.train.start, project))})
    return pinned_published(experiment, project)


def fits(experiment):
    place, of_model = experiment.train.place, experiment.model.mlp_input
    if place not in (None, MLP_OUTPUT, input_name(of_model)):
        raise Conflict(
            f"expected {MLP_OUTPUT} or {input_name(of_model)} with model.mlp_input {of_model}, found {place}", "train", "reads"
        )
    if experiment.train.start == experiment.name:
        raise Conflict("expected another experiment than this one, found its own name", "train", "start")
    if experiment.train.deepspeed.half == "fp16" and experiment.device == "cpu":
        raise Conflict("expected a GPU for float16 (on a CPU bf16), found model.device cpu", "train", "deepspeed", "fp16")


def check_files(experiment, project):
    published, layers = experiment.train.published, experiment.train.layers
    if published and published_standing(experiment, project) is None:
        local_copy(published.path, root=project.root)
    if layers and (sizes := known_sizes(model_source(experiment.model.id, project.root))):
        check_layers(layers, sizes[0], experiment.model.id)


def check(experiment, project):
    settings = experiment.train
    extras = {"wandb": ("wandb", settings.wandb), "adam8bit": ("bitsandbytes", settings.optimizer == "adam8bit")}
    for extra, (package, wanted) in extras.items():
        if wanted and find_spec(package) is None:
            raise CltdbError(
                f"train.{extra}" if extra == "wandb" else "train.optimizer",
                found=f"{extra} without the package {package}",
                expected=package,
                do=f"pip install 'cltdb[{extra}]', or leave it out",
            )
    if found := published_standing(experiment, project):
        revisions.refuse_unknown(found, settings.published.path, where="train.from.path")
    elif not settings.published:
        _check_fits(experiment, project)


def _check_fits(experiment, project):
    """Refuses float16, and weights that do not fit into memory, on a CPU. GPUs and several machines are not checked."""
    from cltdb.devices import resolved_device
    from cltdb.model.loading import local_sizes

    settings = experiment.train
    if resolved_device(experiment.device) != "cpu" or settings.launch.nodes > 1:
        return
    if settings.deepspeed.half == "fp16":
        raise CltdbError(
            "train.deepspeed.fp16", found="float16 on a CPU", expected="a GPU for float16", do="use bf16, or leave it out"
        )
    zero = settings.deepspeed.zero_optimization
    on_disk = any(part and part.device == "nvme" for part in (zero.offload_param, zero.offload_optimizer))
    sizes = local_sizes(model_source(experiment.model.id, project.root))
    if sizes is None or on_disk:
        return
    n_layers, d_model = len(settings.layers) if settings.layers else sizes[0], sizes[1]
    span, kind = settings.decoder_span or n_layers, KINDS[settings.kind]
    n_vectors = n_layers + sum(min(span, kind.n_targets(layer, n_layers)) for layer in range(n_layers))
    needed = n_vectors * settings.n_features * d_model * BYTES_PER_WEIGHT[settings.optimizer]
    if needed > memory.machine_bytes():
        raise CltdbError(
            "train.n_features",
            found=f"{settings.n_features:,}, whose weights and optimizer states take {needed / 1e9:,.1f} GB",
            expected=f"at most the {memory.machine_bytes() / 1e9:,.1f} GB of memory of this machine",
            do="lower it, choose train.kind: plt or a train.decoder_span, or train on a larger machine",
        )


def preflight(experiment, project):
    settings = experiment.train
    if settings.layers:
        lm = sizes_and_tokens(experiment, project)
        check_layers(settings.layers, lm.n_layers, lm.model_id)
    if settings.start:
        lm = sizes_and_tokens(experiment, project)
        sizes = {name: getattr(lm, name) for name in ("model_id", "n_layers", "d_model")}
        start_dictionary(settings, project, sizes | {"mlp_input": experiment.model.mlp_input})
    if settings.published and published_standing(experiment, project) is None:
        from cltdb.model.fit import check_same_sizes, check_transcoder

        lm = sizes_and_tokens(experiment, project)
        parts = read_published(settings.published, lm, project)
        check_same_sizes(parts, lm)
        if experiment.attribute.prompts:
            check_transcoder(parts.kind, "attribute.prompts, with the dictionary of train.from")


def work(experiment, project):
    if experiment.train.published:
        return None
    return round(experiment.train.epochs * experiment.activations.train_tokens), "tokens"


def lines(made):
    return [f"dictionary {dict_id(made['train'])}"]


def compared(directory, record):
    return {"seconds": f"{record['seconds']:.1f}"} if record else {}


STAGE = Stage(
    "train",
    version=3,
    run=run,
    section=Train,
    inputs=inputs,
    fits=fits,
    identity=identity,
    pinned=pinned,
    check_files=check_files,
    check=check,
    preflight=preflight,
    work=work,
    tables=("dictionaries", "metrics"),
    lines=lines,
    compared=compared,
)
