"""Experiments composed of stages: which stages one has, what stands for what, and what of a section enters a key."""

from typing import Annotated

import pytest
from pydantic import ValidationError

from cltdb.engine.experiment import composed
from cltdb.engine.plan import key_parts
from cltdb.engine.section import Added, Conflict, Count, Neutral, Positive, Section, documented
from cltdb.engine.stage import Gathering, Stage, nothing, reads


class Source(Section):
    """Where it begins."""

    path: str
    threads: Annotated[Positive, Neutral] = 2


class Change(Section):
    """What is done to it."""

    by: Count = 1
    twice: Annotated[bool, Added] = False


class Use(Section):
    """What is read off."""

    parts: list[Change] = []


def no_ones(experiment):
    if experiment.change and experiment.change.by == 1:
        raise Conflict("expected another number, found 1", "change", "by")


def table(*stages):
    return {stage.name: stage for stage in stages}


STAGES = table(
    Stage("source", 1, nothing, Source),
    Stage("change", 1, nothing, Change, reads("source"), optional=True, stands_for="source", fits=no_ones),
    Stage("use", 3, nothing, Use, reads("source"), identity=lambda experiment, project: {"seed": experiment.seed}),
    Stage("all", 1, nothing, gathers=Gathering(*[nothing] * 6)),
)
Experiment = composed(STAGES)


def experiment(**sections):
    return Experiment.model_validate({"name": "e", "source": {"path": "p"}, **sections})


def test_optional_stages_are_there_with_their_section():
    assert list(experiment().present) == ["source", "use", "all"]
    assert list(experiment(change={"by": 2}).present) == ["source", "change", "use", "all"]
    with pytest.raises(ValidationError, match="source"):
        Experiment.model_validate({"name": "e"})


def test_a_stage_that_stands_for_another_is_read_in_its_place():
    plain, changed = experiment(), experiment(change={"by": 2})
    assert plain.inputs("use") == {"source": "source"} and changed.inputs("use") == {"source": "change"}
    assert changed.inputs("change") == {"source": "source"}
    assert changed.inputs("all") == {"source": "source", "change": "change", "use": "use"}
    assert changed.needed("use") == {"source", "change", "use"} and plain.needed("use") == {"source", "use"}
    assert changed.provider("source") == "change" and changed.provider("source", before="change") == "source"


def test_a_key_is_made_of_version_inputs_section_and_identity():
    made = experiment(source={"path": "p", "threads": 7}, change={"by": 2}, seed=4)
    keys = {"source": "s", "change": "c"}
    assert key_parts("source", made, None, {}) == {"version": 1, "source.path": "p"}
    assert key_parts("change", made, None, keys) == {"version": 1, "input source": "s", "change.by": 2}
    assert key_parts("use", made, None, keys) == {"version": 3, "input source": "c", "use.parts": [], "seed": 4}


def test_what_was_added_enters_a_key_where_it_is_not_the_default():
    assert Change(by=3, twice=False).result_settings() == {"by": 3}
    assert Change(by=3, twice=True).result_settings() == {"by": 3, "twice": True}
    assert Use(parts=[Change(), Change(twice=True)]).result_settings() == {"parts": [{"by": 1}, {"by": 1, "twice": True}]}


def test_sections_that_do_not_go_together_are_refused():
    with pytest.raises(ValidationError, match="expected another number, found 1"):
        experiment(change={"by": 1})


def test_sections_have_their_docstrings_and_the_order_of_the_table():
    assert list(Experiment.model_fields) == ["name", "seed", "source", "change", "use", "sweep"]
    assert documented(Experiment)["use"].description == "What is read off."


def test_docstrings_are_those_that_pydantic_reads():
    def made(**config):
        class Told(Change, **config):
            times: Count = 2
            """How often:
                so often,

            in all."""
            "no docstring of a key"
            silent: Count = 3
            last: Count = 4
            "One line."

        return Told

    read = {name: field.description for name, field in made(use_attribute_docstrings=True).model_fields.items()}
    assert read["times"] == "How often:\n    so often,\n\nin all." and read["last"] == "One line." and read["silent"] is None
    assert {name: field.description for name, field in documented(made()).items()} == read
