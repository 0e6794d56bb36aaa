"""Folders and files of the Hugging Face Hub, downloaded; local ones as they are."""

import re
from contextlib import contextmanager
from pathlib import Path

from cltdb.errors import CltdbError

HUB = "hf://"


def local_copy(path, *, root, where="train.from.path"):
    """The directory that a path stands for: relative to `root`, or of the Hub, `hf://owner/name[@revision][/folder]`, downloaded."""
    if not path.startswith(HUB):
        directory = Path(root) / path
        if not directory.is_dir():
            raise CltdbError(where, found=f"no folder {directory}", expected="that of a dictionary", do="mend the path")
        return directory
    match = re.fullmatch(r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", path.removeprefix(HUB))
    if not match:
        raise CltdbError(where, found=path, expected="hf://owner/name, hf://owner/name@revision/folder", do="mend it")
    from huggingface_hub import snapshot_download

    repository, revision, folder = match.groups()
    wanted = [f"{folder}/{name}" if folder else name for name in ("*.safetensors", "*.json", "*.yaml")]
    with _download_errors(where, path):
        copy = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    return copy / folder if folder else copy


def local_file(path, *, root, where):
    """The file that a path stands for: relative to `root`, or of the Hub, `hf://owner/name/file[?revision=…]`, downloaded."""
    if not path.startswith(HUB):
        file = Path(root) / path
        if not file.is_file():
            raise CltdbError(where, found=f"no file {file}", expected="the files that are listed", do="mend the path")
        return file
    match = re.fullmatch(r"([^/?@]+/[^/?@]+)(?:@([^/?]+))?/([^?]+)(?:\?revision=([^&]+))?", path.removeprefix(HUB))
    if not match or (match[2] and match[4]):
        raise CltdbError(where, found=path, expected="hf://owner/name/file, hf://owner/name/file?revision=…", do="mend it")
    from huggingface_hub import hf_hub_download

    with _download_errors(where, path):
        return Path(hf_hub_download(match[1], match[3], revision=match[2] or match[4]))


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
