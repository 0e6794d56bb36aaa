"""What stands for the content of local files in a key."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path


def fingerprint(paths):
    """A hash of names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        facts = os.stat(path)
        digest.update(f"{Path(path).name}\0".encode() + _content_hash(str(path), facts.st_size, facts.st_mtime_ns))
    return digest.hexdigest()[:16]


@lru_cache(maxsize=4096)
def _content_hash(path, _size, _mtime_ns):
    """Of a file, read once for all points of a sweep while it stays as it is."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
