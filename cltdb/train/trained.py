"""The dictionary that stage train has made, as later stages read it."""

from cltdb.engine.integrity import checked
from cltdb.engine.workspace import read_json


def dict_id(directory):
    """The name of the dictionary in the artifact of stage train."""
    return read_json(checked(directory / "dictionary.json"))["dict_id"]


def dictionary_for(lm, directory):
    """The dictionary on the device of a LanguageModel, computing in the wider of its own dtype and the model's, on a CPU at least in
    float32: bfloat16 is slow there."""
    import torch

    from cltdb.model.transcoder import load_dictionary

    dictionary = load_dictionary(directory, device=lm.device)
    dtype = torch.promote_types(dictionary.dtype, lm.dtype)
    return dictionary.computing(dtype=torch.promote_types(dtype, torch.float32) if lm.device.type == "cpu" else dtype)


def known_features(experiment):
    """Features per layer as the spec states them; None for a published dictionary."""
    return None if experiment.train.published else experiment.train.n_features
