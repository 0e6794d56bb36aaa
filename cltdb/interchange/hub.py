"""Folders and files of the Hugging Face Hub, downloaded; local ones as they are."""

import glob
import re
from contextlib import contextmanager
from pathlib import Path

from cltdb.engine import revisions
from cltdb.errors import CltdbError, SpecError

HUB = "hf://"
HUB_FILE = re.compile(r"hf://([^/?@]+/[^/?@]+)(?:@([^/?]+))?/([^?]+)(?:\?revision=([^&]+))?")


def split_hub_path(path, where="train.from.path"):
    """(repository, revision or None, folder or None) of hf://owner/name[@revision][/folder]."""
    match = re.fullmatch(r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", path.removeprefix(HUB))
    if not match:
        raise CltdbError(where, found=path, expected="hf://owner/name, hf://owner/name@revision/folder", do="mend it")
    return match.groups()


def pinned_path(path, commit):
    """The same hf:// path at a commit."""
    repository, _, folder = split_hub_path(path)
    return f"{HUB}{repository}@{commit}" + (f"/{folder}" if folder else "")


def local_copy(path, *, root, where="train.from.path"):
    """The directory that a path stands for: relative to `root`, or of the Hub, `hf://owner/name[@revision][/folder]`, downloaded."""
    if not path.startswith(HUB):
        directory = Path(root) / path
        if not directory.is_dir():
            raise CltdbError(where, found=f"no folder {directory}", expected="that of a dictionary", do="mend the path")
        return directory
    from huggingface_hub import snapshot_download

    repository, revision, folder = split_hub_path(path, where)
    limits = revisions.limits("model", repository, revision, where=where)
    wanted = [f"{glob.escape(folder)}/{name}" if folder else name for name in ("*.safetensors", "*.json", "*.yaml")]
    with _download_errors(where, path):
        copy = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, **limits))
    return copy / folder if folder else copy


def local_file(path, *, root, where):
    """The file that a path stands for: relative to `root`, or of the Hub, `hf://owner/name/file[?revision=…]`, downloaded."""
    if not path.startswith(HUB):
        file = Path(root) / path
        if not file.is_file():
            raise CltdbError(where, found=f"no file {file}", expected="the files that are listed", do="mend the path")
        return file
    match = HUB_FILE.fullmatch(path)
    if not match or (match[2] and match[4]):
        raise CltdbError(where, found=path, expected="hf://owner/name/file, hf://owner/name/file?revision=…", do="mend it")
    from huggingface_hub import hf_hub_download

    revision = match[2] or match[4]
    limits = revisions.limits("model", match[1], revision, where=where)
    revision = revisions.standing("model", match[1], revision, where=where).commit or revision
    with _download_errors(where, path):
        return Path(hf_hub_download(match[1], match[3], revision=revision, **limits))


def listed_repositories(path, *, root):
    """Sorted (repository, revision or None) that the config.yaml of a circuit-tracer dictionary names files of; none where it cannot be
    read, which is an error when the dictionary is."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    from cltdb.engine.yaml_text import read_file

    try:
        if path.startswith(HUB):
            repository, revision, folder = split_hub_path(path)
            name = f"{folder}/config.yaml" if folder else "config.yaml"
            limits = revisions.limits("model", repository, revision, where="train.from.path")
            config = Path(hf_hub_download(repository, name, revision=revision, **limits))
        else:
            config = Path(root) / path / "config.yaml"
        settings = read_file(config, bare_words=True).values
    except (OSError, HfHubHTTPError, EntryNotFoundError, ValueError, SpecError):
        return []
    listed = settings.get("transcoders") if isinstance(settings, dict) else None
    files = [HUB_FILE.fullmatch(name) for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return sorted({(file[1], file[2] or file[4]) for file in files if file}, key=str)


@contextmanager
def _download_errors(where, path):
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CltdbError(
            where,
            found=f"{path}, which cannot be downloaded ({str(error).splitlines()[0]})",
            expected="a repository on the Hub",
            do="check its name and revision; the Hub needs network, a gated one HF_TOKEN",
        ) from error
