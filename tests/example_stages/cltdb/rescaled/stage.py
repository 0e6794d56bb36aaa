"""Stage `rescaled`: writes the changed model and the `model.json` from which later stages load it. Stands for stage `model`."""

from cltdb.rescaled.settings import Rescaled

from cltdb.engine.integrity import checked
from cltdb.engine.stage import Stage, reads
from cltdb.engine.workspace import read_json, write_json
from cltdb.model.source import MODEL_FILE, language_model


def run(job):
    import torch

    import cltdb

    lm = language_model(job)
    with torch.no_grad():
        for parameter in lm.hf.transformer.ln_f.parameters():
            parameter.mul_(job.settings.factor)
    folder = job.directory / "weights"
    lm.hf.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    facts = read_json(checked(job.inputs["model"] / MODEL_FILE))
    made = cltdb.load_model(str(folder), mlp_input=facts["mlp_input"], model_id=facts["model_id"])
    write_json(job.directory / MODEL_FILE, facts | {"weights": "weights", "fingerprint": made.fingerprint})


STAGE = Stage("rescaled", version=1, run=run, section=Rescaled, inputs=reads("model"), optional=True, stands_for="model")
