"""The workspace kept in order: damage found, and what nothing refers to removed."""

import shutil
from contextlib import suppress

from cltdb.engine import integrity, units
from cltdb.engine.records import CACHED
from cltdb.engine.workspace import MANIFEST, Workspace
from cltdb.errors import CltdbError


def damage(project, stages):
    """The errors of all records, files of finished artifacts and units that are not as they were written; every byte is read.
    stages: the table of stages."""
    yield from _damaged_records(project)
    for name, _, directory in Workspace(project.workspace).folders():
        if (directory / MANIFEST).is_file():
            found = [*_moved(directory), *integrity.faults(directory, thorough=True)]
            yield from found
            if name in stages and not found:
                yield from stages[name].faults(directory)
        elif name in stages:
            do = f"run its spec again, which makes stage {name} anew, or remove the folder"
            yield CltdbError(f"{directory} (stage {name})", found="no manifest.json", expected="a finished artifact", do=do)
    yield from units.damage(project.workspace)


def damage_at_a_glance(project, directories):
    """The errors of all records that are not as they were written, and of files of the finished artifacts in these directories that are gone or of
    another size."""
    yield from _damaged_records(project)
    for directory in directories:
        yield from integrity.gone(directory)


def _damaged_records(project):
    for path, fault in Workspace(project.workspace).record_faults():
        do = "run its spec again, which writes a new one; the next command sets this one aside"
        yield CltdbError(f"{path} (a record of a run)", found=f"damage: {fault}", expected="a record as it was written", do=do)


def _moved(directory):
    """An error where an artifact is not in the folder that its manifest names."""
    with suppress(CltdbError):  # which `faults` names
        manifest = integrity.read_manifest(directory)
        if (own := (manifest.get("stage"), manifest.get("key"))) != directory.parts[-2:]:
            yield CltdbError(
                str(directory),
                found=f"the artifact {own[0]}/{own[1]}",
                expected="it in the folder of its name",
                do="move it back",
            )


def count_unhashed(project):
    """How many finished artifacts are of an earlier cltdb, whose manifests have no hashes."""
    count = 0
    for *_, directory in Workspace(project.workspace).artifacts():
        with suppress(CltdbError):
            count += "files" not in integrity.read_manifest(directory)
    return count


def collect_garbage(project, stages, *, delete):
    """(directories of artifacts that no run record refers to and what killed removals left, the `units.Unused`); removed if `delete`.
    stages: the table of stages."""
    workspace = Workspace(project.workspace)
    wanted = {(record["stage"], record["key"]) for record in workspace.run_records()}
    unread = [path.name for path in workspace.damaged_records()]  # a record's name says which artifact it refers to
    unwanted = [
        (name, key, directory)
        for name, key, directory in workspace.folders()
        if name in stages
        and (name, key) not in wanted
        and not any(f"-{name}-{key[:8]}-" in record or f"-{name}-{key[:8]}{CACHED}" in record for record in unread)
    ]
    leftovers = workspace.leftovers()
    if delete:
        gathering = next(stage.gathers for stage in stages.values() if stage.gathers)
        for name, key, _ in unwanted:
            with workspace.claim(name, key):
                gathering.remove(project, key)
                workspace.discard(name, key)
        for directory in leftovers:
            shutil.rmtree(directory, ignore_errors=True)
        gathering.remove(project, None)  # brings in what a killed collection had taken out without its being unwanted
    directories = [*(directory for *_, directory in unwanted), *leftovers]
    return directories, units.unused(workspace.root, ignoring=directories, delete=delete)
