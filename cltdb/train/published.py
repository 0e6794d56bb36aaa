"""A published dictionary instead of training (`train.from`): where it is, what stands for its content, and how it becomes the artifact."""

from cltdb.engine import revisions
from cltdb.engine.content import fingerprint
from cltdb.interchange import HUB, files_of, local_copy, published_parts
from cltdb.interchange.hub import listed_repositories, pinned_path, split_hub_path

HOOK_TOKENS = 2048
"""Held-out tokens on which FVU is measured to find out what the features of a LayerNorm model read, where nothing says it."""


def published_standing(experiment, project):
    """Which commit a published dictionary on the Hub stands at, None of others."""
    published = experiment.train.published
    if published is None or not published.path.startswith(HUB):
        return None
    repository, revision, _ = split_hub_path(published.path)
    return revisions.standing("model", repository, revision, where="train.from.path", workspace=project.workspace)


def published_content(experiment, project):
    """The part of a key that identifies the content of a published dictionary: its commits, or a fingerprint of its files."""
    published, found = experiment.train.published, published_standing(experiment, project)
    known = {"revision": found.commit} if found else {"files": fingerprint(files_of(project.root / published.path))}
    return known | _listed_revisions(published, found, project)


def _listed_revisions(published, found, project):
    """The commits of other repositories whose files a published dictionary lists, by repository and revision."""
    if published.format != "circuit-tracer":
        return {}
    path = pinned_path(published.path, found.commit) if found and found.commit else published.path
    commits = {}
    for repository, revision in listed_repositories(path, root=project.root):
        where = f"train.from.path, whose config.yaml names {repository}"
        listed = revisions.standing("model", repository, revision, where=where, workspace=project.workspace)
        commits[f"{repository}@{revision or 'main'}"] = listed.commit
    return {"listed": commits} if commits else {}


def pinned_published(experiment, project):
    """Section train with the commit of a published dictionary; None where nothing changes."""
    found = published_standing(experiment, project)
    if not found or not found.commit:
        return None
    published = experiment.train.published
    published = published.model_copy(update={"path": pinned_path(published.path, found.commit)})
    return experiment.train.model_copy(update={"published": published})


def read_published(published, lm, project):
    """The `DictionaryParts` that train.from names."""
    dictionary = published_parts(published.format, local_copy(published.path, root=project.root))
    if (project.root / lm.model_id).is_dir():  # a local model's folder may have any name
        dictionary.info.pop("model_id", None)
    return dictionary


def known_layers(experiment, project, lm):
    """The layers that the dictionary has features in, as the spec or a published dictionary on this machine says; None of one on the Hub."""
    if not experiment.train.published:
        return experiment.train.layers or range(lm.n_layers)
    if published_standing(experiment, project) is not None:
        return None
    parts = read_published(experiment.train.published, lm, project)
    return parts.info.get("layers", range(parts.n_layers))


def import_dictionary(job, lm, dict_id):
    """Writes a published dictionary, fitted to the model, as the artifact of stage train. dict_id(kind): its name."""
    from cltdb.activations.reading import packed
    from cltdb.interchange.hook_points import fitted
    from cltdb.train.export import write_dictionary

    published = job.settings.published
    dictionary = read_published(published, lm, job.project)
    some_text = lambda: packed(job, lm, heldout_tokens=HOOK_TOKENS, note=False)[1].tokens  # noqa: E731
    dictionary = fitted(dictionary, lm, hook_normalized=published.hook_normalized, tokens=some_text)
    model = {"model_id": lm.model_id, "revision": lm.revision, "mlp_input": lm.mlp_input, "input_hook": lm.input_hook}
    dictionary.info["from"] = published.model_dump()
    write_dictionary(
        dictionary, model=model, directory=job.directory, dict_id=dict_id(dictionary.kind), experiment=job.experiment.name
    )
