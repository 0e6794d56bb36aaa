"""Commits that branches and tags on the Hugging Face Hub stand for, so that a key holds what is read and not where it was found.

The Hub is asked where it can be reached, with a short limit, and the answer is kept in the workspace. Without network the kept commit is
used, else the one at which the Hub's cache on this machine stands, and a line says so. Imports neither torch nor transformers.

Writes: `<workspace>/revisions/<kind>--<owner>--<name>@<revision>.json`.
"""

import logging
import re
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cltdb.engine.integrity import read_sealed, sealed
from cltdb.engine.workspace import write_json
from cltdb.errors import CltdbError

log = logging.getLogger(__name__)
TIMEOUT_S = 3
COMMIT = re.compile(r"[0-9a-f]{40}")
_known = ContextVar("answers of the Hub", default=None)


class Standing(NamedTuple):
    """commit: what a revision stands for, None where nothing tells; absent: why the Hub did not say it, None where it did."""

    commit: str | None
    absent: str | None


@contextmanager
def asked_once():
    """Within the block the Hub is asked once about each revision, and is not asked any more once it could not be reached."""
    if _known.get() is not None:
        yield
        return
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def standing(kind, repository, revision, *, where, workspace=None):
    """The `Standing` of a revision (branch, tag, commit or None: the main branch). kind: model or dataset; where: what asks for it.

    CltdbError where the Hub knows no such repository or revision and no commit of it was kept.
    """
    known, revision = _known.get(), revision or "main"
    place = (kind, repository, revision)
    if known is not None and place in known:
        return known[place]
    kept = _kept_path(workspace, *place)
    if COMMIT.fullmatch(revision):
        found = Standing(revision, None)
    else:
        commit, absent = _ask(*place, where=where, is_kept=kept is not None and kept.is_file())
        found = Standing(_keep(kept, place, commit), None) if commit else _without_answer(kept, place, absent)
    if known is not None:
        known[place] = found
    return found


def limits(kind, repository, revision, *, where):
    """What a download of Hugging Face's libraries is to be given: nothing where the Hub answers, {local_files_only: True} where it does
    not, since each file would be tried for half a minute. CltdbError as of `standing`."""
    from huggingface_hub import is_offline_mode

    if is_offline_mode():  # which the libraries know
        return {}
    is_kept = COMMIT.fullmatch(revision or "") is not None
    _, absent = _ask(kind, repository, revision or "main", where=where, is_kept=is_kept)
    return {"local_files_only": True} if absent else {}


def _ask(kind, repository, revision, *, where, is_kept):
    """(commit, None) as the Hub says, or (None, why it does not). is_kept: a commit is known, so that a missing repository is no error."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    known = _known.get()
    place = (kind, repository, revision, "answer")
    if known is not None and place in known:
        return known[place]
    if known is not None and "absent" in known:
        return None, known["absent"]
    try:
        ask = getattr(HfApi(), f"{kind}_info")  # model_info or dataset_info
        commit, absent = ask(repository, revision=revision, timeout=TIMEOUT_S).sha, None
        absent = None if commit else "it told no commit"
    except HFValidationError as error:
        raise CltdbError(
            where,
            found=f"{repository!r}, which is no folder here",
            expected=f"a local folder, or a {kind} on the Hub, OWNER/NAME",
            do="mend the name; folders are relative to cltdb.yaml",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = f"revision {revision!r} of {repository}" if isinstance(error, RevisionNotFoundError) else repository
        if not is_kept:
            raise CltdbError(
                where,
                found=f"{repository}@{revision}, neither a folder here nor on the Hub",
                expected=f"a local folder, or a {kind} on the Hub that can be read",
                do="check name and revision; private and gated ones need HF_TOKEN",
            ) from error
        commit, absent = None, f"it has no {what} any more"
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        absent = _reason(error)
        if known is not None:
            known["absent"] = absent
        return None, absent
    if known is not None:
        known[place] = commit, absent
    return commit, absent


def _reason(error):
    words = " ".join(str(error).split())
    if getattr(error, "response", None) is not None:
        return f"it answers {error.response.status_code}"
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set"
    return f"it cannot be reached ({type(error).__name__}{': ' + words[:120] if words else ''})"


def _kept_path(workspace, kind, repository, revision):
    if workspace is None:
        return None
    name = re.sub(r"[^A-Za-z0-9._@-]", "--", f"{kind}--{repository}@{revision}")
    return Path(workspace) / "revisions" / f"{name}.json"


def _keep(path, place, commit):
    """The commit, noted in the workspace where there is one."""
    if path is not None and path.parent.parent.is_dir():
        if (_kept(path) or {}).get("commit") != commit:
            kind, repository, revision = place
            asked_at = datetime.now(UTC).isoformat(timespec="seconds")
            facts = {"kind": kind, "repository": repository, "revision": revision, "commit": commit, "asked_at": asked_at}
            write_json(path, sealed(facts))
    return commit


def _kept(path):
    """What the workspace keeps, None where that is nothing, or damaged: then the Hub or its cache tell."""
    try:
        return read_sealed(path) if path is not None and path.is_file() else None
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s) and is not used", path, error)
        return None


def _without_answer(path, place, absent):
    """The `Standing` that the workspace or the Hub's cache knows, which is said."""
    kind, repository, revision = place
    if kept := _kept(path):
        commit, known_from = kept["commit"], f"as it stood on {kept['asked_at'][:10]}"
    else:
        commit, known_from = _cached_commit(kind, repository, revision), "as the copy on this machine has it"
    if commit:
        log.warning("no answer of the Hub on %s %s at %s (%s): commit %s is used, %s", *place, absent, commit[:12], known_from)
    return Standing(commit, absent)


def _cached_commit(kind, repository, revision):
    """The commit at which the Hub's cache on this machine stands, or None."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    try:
        found = HfApi().resolve_revision(repository, repo_type=kind, revision=revision, local_files_only=True)
    except (RevisionResolutionError, OSError, ValueError):
        return None
    return str(found.resolved)


def refuse_unknown(found, name, *, where):
    """Raises CltdbError where a revision stands for no commit, so that nothing can be read."""
    if found.commit is None:
        raise CltdbError(
            where,
            found=f"{name}, which is no folder here, and of the Hub: {found.absent}",
            expected="a local folder, or the Hub, or a copy that was downloaded earlier",
            do="mend the name (folders are relative to cltdb.yaml), or run again with network",
        )
