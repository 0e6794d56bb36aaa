"""Section train.deepspeed: the keys are DeepSpeed's own, what has no effect is refused, what changes a result is in the key."""

import subprocess
import sys
import types
from typing import get_args

import pytest
from pydantic import ValidationError

from cltdb.engine.section import Section
from cltdb.engine.spec_errors import spec_error
from cltdb.errors import CltdbError
from cltdb.spec import Experiment
from cltdb.train import deepspeed_settings as ours
from cltdb.train.settings import Train

HALF = {"bf16": {"enabled": True}}


def test_every_key_is_one_of_deepspeeds_own_classes():
    from deepspeed.runtime import constants
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig, DeepSpeedZeroOffloadParamConfig

    theirs = {
        ours.Zero: DeepSpeedZeroConfig,
        ours.OffloadParam: DeepSpeedZeroOffloadParamConfig,
        ours.OffloadOptimizer: DeepSpeedZeroOffloadOptimizerConfig,
        ours.BFloat16: DeepSpeedBF16Config,
        ours.Float16: DeepSpeedFP16Config,
    }
    for section, model in theirs.items():
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        assert section.model_fields.keys() <= fields.keys(), section
        for name, field in section.model_fields.items():
            kinds = {kind for kind in (bool, int, float) if kind in plain(field.annotation)}
            assert not kinds or kinds <= {*plain(fields[name].annotation)} or name == "stage", (section, name)
    assert ours.DeepSpeed.model_fields.keys() == {
        "zero_optimization", "bf16", "fp16", constants.DATA_TYPES, constants.GRADIENT_ACCUMULATION_STEPS
    }  # fmt: skip
    assert ours.DataTypes.model_fields.keys() == {constants.GRAD_ACCUM_DTYPE}
    assert len(theirs) + 2 == sum(
        issubclass(kind, Section) and kind is not Section for kind in vars(ours).values() if isinstance(kind, type)
    )


def plain(annotation):
    """The types that an annotation is of, without None and bounds."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return {annotation}
    return {kind for argument in get_args(annotation) for kind in plain(argument)}


@pytest.mark.parametrize(
    ("deepspeed", "message"),
    [
        ({"optimizer": {"type": "AdamW"}}, "train.deepspeed.optimizer .*do this: set train.optimizer, train.learning_rate"),
        ({"scheduler": {"type": "WarmupLR"}}, "train.deepspeed.scheduler .*do this: set train.warmup_steps and train.decay_frac"),
        ({"gradient_clipping": 0.5}, "train.deepspeed.gradient_clipping .*do this: set train.gradient_clip"),
        ({"train_batch_size": 4096}, "do this: set train.batch_tokens"),
        ({"steps_per_print": 5}, "remove it: metrics are in the database"),
        ({"no_such_key": 5}, "train.deepspeed.no_such_key .*unknown key .*expected one of zero_optimization, bf16"),
        ({"activation_checkpointing": {}}, "unknown key 'activation_checkpointing'"),
        ({"zero_optimisation": {"stage": 1}}, "do this: write 'zero_optimization'"),
        (
            {"zero_optimization": {"stage": 4}},
            "train.deepspeed.zero_optimization.stage .*found 4; expected an integer from 0 to 3",
        ),
        ({"zero_optimization": {"stage": True}}, "stage .*found true"),
        ({"zero_optimization": {"stage": "2"}}, "stage .*found '2'"),
        ({"zero_optimization": {"stage": 2, "zero_quantized_weights": True}}, "unknown key 'zero_quantized_weights'"),
        ({"zero_optimization": {"reduce_bucket_size": 1000}}, "reduce_bucket_size .*found stage 0; expected it at ZeRO stage 1"),
        ({"zero_optimization": {"stage": 2, "stage3_max_live_parameters": 9}}, "stage3_max_live_parameters .*ZeRO stage 3"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "offload_param .*ZeRO stage 3"),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, "offload_optimizer .*found stage 0"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "disk"}}}, "offload_param.device .*found 'disk'"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "offload_param.nvme_path .*found nothing"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"pin_memory": True}}}, "offload_param.pin_memory .*device none"),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "buffer_count": 4}}},
            "buffer_count .*device cpu",
        ),
        ({"bf16": {"enabled": 1}}, "bf16.enabled .*found 1; expected true or false"),
        ({"bf16": True}, "train.deepspeed.bf16 .*found true; expected keys and values"),
        ({**HALF, "fp16": {"enabled": True}}, "train.deepspeed.fp16 .*found both; expected one of bf16 and fp16"),
        ({"fp16": {"loss_scale": 128}}, "train.deepspeed.fp16.loss_scale .*found fp16 not enabled"),
        ({"data_types": {"grad_accum_dtype": "fp32"}}, "data_types.grad_accum_dtype .*found no bf16"),
        ({"gradient_accumulation_steps": 10**30}, "gradient_accumulation_steps .*expected an integer"),
        ({"gradient_accumulation_steps": 3}, "expected tokens that the 3 parts"),
    ],
)
def test_what_has_no_effect_or_is_not_passed_on_is_refused(deepspeed, message):
    values = {
        "name": "x",
        "model": {"id": "toyworld"},
        "activations": {"text": [{"toyworld": True}]},
        "train": {"deepspeed": deepspeed},
    }
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(values)
    with pytest.raises(CltdbError, match=message):
        raise spec_error(caught.value, Experiment, place=lambda path: "here")


def test_float16_on_a_cpu_is_refused_where_the_spec_says_cpu():
    values = {"name": "x", "activations": {"text": [{"toyworld": True}]}, "train": {"deepspeed": {"fp16": {"enabled": True}}}}
    Experiment.model_validate({**values, "model": {"id": "toyworld", "device": "cuda:0"}})
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate({**values, "model": {"id": "toyworld", "device": "cpu"}})
    said = str(spec_error(caught.value, Experiment, place=lambda path: "here"))
    assert said.startswith("train.deepspeed.fp16 (here): found model.device cpu; expected a GPU for float16")


@pytest.mark.parametrize(
    ("deepspeed", "key"),
    [
        ({}, {}),
        ({"bf16": {"enabled": False}}, {}),
        ({"gradient_accumulation_steps": 1}, {}),
        ({"zero_optimization": {"stage": 3, "overlap_comm": True, "offload_param": {"device": "cpu"}}}, {}),
        (HALF, HALF),
        ({**HALF, "zero_optimization": {"stage": 2}}, HALF),
        ({"fp16": {"enabled": True, "loss_scale": 128}}, {"fp16": {"enabled": True, "loss_scale": 128}}),
        ({**HALF, "data_types": {"grad_accum_dtype": "fp32"}}, {**HALF, "data_types": {"grad_accum_dtype": "fp32"}}),
        ({"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 2}),
    ],
)
def test_the_key_holds_what_changes_a_result_and_survives_a_launch(deepspeed, key):
    train = Train(deepspeed=deepspeed)
    assert train.result_settings()["deepspeed"] == key
    again = Train.model_validate_json(train.model_dump_json())
    assert again == train and again.deepspeed.config() == train.deepspeed.config()


def test_deepspeed_is_given_the_stage_that_half_precision_needs_and_no_more():
    assert ours.DeepSpeed().config()["zero_optimization"] == {"stage": 0}
    assert ours.DeepSpeed.model_validate(HALF).config()["zero_optimization"] == {"stage": 1}
    config = ours.DeepSpeed.model_validate({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}).config()
    assert config["zero_optimization"] == {"stage": 2, "offload_optimizer": {"device": "cpu"}}


def test_deepspeeds_own_refusals_are_one_line():
    from cltdb.train.engine import _refusals_said

    for error in (AssertionError("no"), ValueError("Type fp16 is not supported on your device."), NotImplementedError("mix")):
        with pytest.raises(CltdbError, match="train.deepspeed: found settings that DeepSpeed refuses"):
            with _refusals_said():
                raise error


def test_a_spec_is_checked_without_deepspeed_and_torch():
    code = "import sys, cltdb.engine.config; print(sorted({'deepspeed', 'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
