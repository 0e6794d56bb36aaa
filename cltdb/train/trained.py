"""The dictionary that stage train has made, as later stages read it."""

from cltdb.engine.integrity import checked
from cltdb.engine.workspace import read_json
from cltdb.model.kinds import KINDS, reads_of


def dict_id(directory):
    """The name of the dictionary in the artifact of stage train."""
    return read_json(checked(directory / "dictionary.json"))["dict_id"]


def sae_reads(directory):
    """What the SAE in the artifact of stage train reads, one of `kinds.READS`; None where it is a transcoder."""
    info = read_json(checked(directory / "dictionary.json"))
    return reads_of(info["kind"], info) if KINDS[info["kind"]].reconstructs else None


def dictionary_for(lm, directory):
    """The dictionary in the artifact of stage train, as `computing_for` a LanguageModel."""
    from cltdb.model.transcoder import load_dictionary

    return computing_for(lm, load_dictionary(directory, device=lm.device))


def computing_for(lm, dictionary):
    """The dictionary on the device of a LanguageModel, computing in the wider of its own dtype and the model's, on a CPU at least in
    float32: bfloat16 is slow there."""
    import torch

    own = (
        dictionary.dtype if dictionary.dtype.itemsize > 1 else torch.bfloat16
    )  # float8 has no arithmetic; bfloat16 holds its numbers
    dtype = torch.promote_types(own, lm.dtype)
    dtype = torch.promote_types(dtype, torch.float32) if lm.device.type == "cpu" else dtype
    return dictionary.computing(device=lm.device, dtype=dtype)


def measured_widely(experiment):
    """What enters the key of a stage that measures weights: where the dictionary or the model may have fewer bits than float32, an earlier
    cltdb took norms of decoders and directions of encoders in those bits, and gains of Gemma's norms."""
    is_narrow = experiment.train.published or experiment.model.dtype not in ("float32", "float64")
    return {"weights": "in float32 at least"} if is_narrow else {}


def known_features(experiment):
    """Features per layer as the spec states them; None for a published dictionary."""
    return None if experiment.train.published else experiment.train.n_features
