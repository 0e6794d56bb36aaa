"""What disks, programs and people do to files."""

import os

from cltdb.engine import integrity


def flip(path, place=None):
    """Changes one bit of one byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def cut(path):
    """Takes the end."""
    content = path.read_bytes()
    path.write_bytes(content[: -max(2, len(content) // 10)])


def rot(path):
    """A flipped byte that size and time do not tell."""
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def forget():
    """What this process knows of files: from now on it is like a new one."""
    integrity._seen.clear()
    integrity._manifests.clear()
