"""An experiment: a name, a seed and one section per stage. `composed` makes its type of a table of stages."""

from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, create_model, model_validator

from cltdb.engine.section import Name, Section, whole
from cltdb.engine.stage import Stage, nothing


class Experiment(Section):
    """What every experiment has, and what the engine asks of it."""

    stages: ClassVar[dict[str, Stage]] = {}
    """The table of stages that it is composed of, in order."""

    name: Name
    """Short name: letters, digits, dot, dash, underscore."""
    seed: whole(0, 2**63 - 1, "what 64 bits hold") = 0
    """Seed of everything random."""

    _references: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _sections_fit(self):
        for stage in self.present.values():
            stage.fits(self)
        return self

    @property
    def present(self):
        """{name: Stage} of the stages that are part of this experiment, in order."""
        return {name: stage for name, stage in self.stages.items() if not stage.optional or getattr(self, name, None) is not None}

    @property
    def gathering(self):
        """The `Gathering` of the stage that puts all artifacts together."""
        return next(stage.gathers for stage in self.stages.values() if stage.gathers)

    def reference(self, name):
        """The experiment of the sweep's point whose artifacts a stage reads beside its own; None of one that reads none."""
        return self._references.get(name)

    @property
    def refers(self):
        """Whether some stage may read what another point of its sweep made."""
        return any(stage.refers is not nothing for stage in self.present.values())

    def referring(self, points, number):
        """The same experiment, which knows the `reference`s of its stages. points: as in `Stage.refers`; number: its own."""
        found = {name: stage.refers(points, number) for name, stage in self.present.items()}
        made = self.model_copy()
        made._references = {name: points[other][0] for name, other in found.items() if other is not None}
        return made

    def without_references(self, names):
        """The same experiment, in which stages of these names know no `reference`."""
        made = self.model_copy()
        made._references = {name: other for name, other in self._references.items() if name not in names}
        return made

    def idle(self, name):
        """Why the experiment has no use for a stage, or ""."""
        return self.stages[name].idle(self)

    def provider(self, name, *, before=None):
        """The stage whose artifact those after it read as that of stage `name`: the last one, before the stage `before`, that is it or
        stands for it."""
        found = None
        for stage in self.present.values():
            if stage.name == before:
                break
            if name in (stage.name, stage.stands_for):
                found = stage.name
        return found

    def inputs(self, name):
        """{input: the stage that provides it} of a stage."""
        stage = self.stages[name]
        if stage.gathers:
            return {other: other for other in self.present if other != name and not self.idle(other)}
        return {wanted: self.provider(wanted, before=name) for wanted in stage.inputs(self) if not self.idle(wanted)}

    def needed(self, name):
        """The names of a stage and of all that its artifact is made from."""
        return {name}.union(*(self.needed(provider) for provider in self.inputs(name).values()))


def composed(stages, base=Experiment):
    """The type of experiments of a table of stages: their sections in order, then the sweep. A section whose every key has a default may
    be left out of a spec; that of an optional stage, and the stage with it, too."""
    fields = {stage.name: _field(stage) for stage in stages.values() if stage.section}
    sweep = (
        "Lists of values per key, such as `{seed: [0, 1, 2]}`, dotted where they are in sections: the grid of experiments to run instead of "
        "one. A list of these: several grids, one after the other."
    )
    fields["sweep"] = (dict[str, Any] | list[dict[str, Any]], Field(default={}, description=sweep))
    made = create_model("Experiment", __base__=base, __module__=base.__module__, **fields)
    made.stages = stages
    return made


def _field(stage):
    """(type, default) of a stage's section in the experiment."""
    about = " ".join((stage.section.__doc__ or "").split())
    if stage.optional:
        return stage.section | None, Field(default=None, description=about)
    if any(field.is_required() for field in stage.section.model_fields.values()):
        return stage.section, Field(description=about)
    return stage.section, Field(default=stage.section(), description=about)
