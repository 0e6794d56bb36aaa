import ast
from pathlib import Path

import pytest
import torch
from worlds import models

import cltdb
from cltdb.model.architectures import ARCHITECTURES, Architecture, is_mlp_input
from cltdb.model.language_model import LanguageModel

COMMON = {"", "config", "dense", "eps", "h", "layers", "mlp", "norm", "language_model", "scaling"} | set(Architecture._fields)
"""Words of the table that are cltdb's own too, or everyone's."""


def words(tree):
    """(line, word) of every string and attribute."""
    for node in ast.walk(tree):
        word = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
        if isinstance(word, str):
            yield node.lineno, word


def test_nothing_about_a_family_stands_outside_the_table():
    names = [name for family in ARCHITECTURES.values() for name in (*family, *family.norm) if isinstance(name, str)]
    root = Path(cltdb.__file__).parent
    table = ast.walk(ast.parse((root / "model/architectures.py").read_text()))
    names += [
        node.attr for node in table if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in ("attention", "mlp")
    ]
    known = {part for name in names for part in name.split(".")} - COMMON | set(ARCHITECTURES) | {"model_type"}
    others = {
        "model/architectures.py",
        "engine/spec_errors.py",
        "__main__.py",
    }  # the table; pydantic's model_type; names of templates
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).as_posix() not in others and path.parent.name != "commands":
            found = [(line, word) for line, word in words(ast.parse(path.read_text())) if word in known]
            assert not found, f"{path}: {found}"


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_logits_are_the_unembedding_of_the_final_norm_with_the_soft_cap_of_the_family(architecture):
    hf, seen = models.hf_model(architecture), []
    if "gemma" in architecture:
        hf.config.final_logit_softcapping = 0.1
    lm = LanguageModel(hf, models.byte_tokenizer(), model_id=architecture)
    assert lm.logit_softcap == (0.1 if "gemma" in architecture else None)
    with torch.no_grad():
        lm.final_norm.register_forward_hook(lambda _, args, y: seen.append(y))
        logits = lm.logits(torch.tensor([[0, 5, 60, 7]]))
        made = lm.unembedding(seen[0])
        if lm.logit_softcap:
            made = lm.logit_softcap * torch.tanh(made / lm.logit_softcap)
    torch.testing.assert_close(logits, made)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model.layers.3.pre_feedforward_layernorm.output", True),
        ("transformer.h.3.ln_2.output", True),
        ("model.layers.3.mlp.input", True),
        ("model.layers.3.mlp.output", False),
        ("model.layers.3.post_attention_layernorm.output", False),  # of Llama the MLP's norm, of Gemma that of attention's output
        ("model.layers.3.input_layernorm.output", False),
        ("None", False),
        ("", False),
    ],
)
def test_which_side_of_a_module_is_an_mlp_input(path, expected):
    assert is_mlp_input(path) is expected
