"""Files that are there whole or not at all: written aside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file_atomically(path: Path, content: bytes, scratch: Path | None = None) -> None:
    """Write ``content`` to ``path``, whole or not at all.

    Args:
        scratch: a folder of the same file system for the unfinished file; default: beside ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = (scratch or path.parent) / f".{path.name}.{uuid.uuid4().hex}.part"
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


@contextmanager
def folder_in_place(target: Path, scratch: Path) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends well it becomes ``target``, otherwise it goes away."""
    unfinished = scratch / f"{target.name}.{uuid.uuid4().hex}.part"
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_sha256(path: Path) -> tuple[str, int]:
    """Hash and size in bytes of a file, or of a folder (the hash of its files' names and hashes, sorted)."""
    if path.is_file():
        return file_sha256(path), path.stat().st_size
    members = sorted(member for member in path.rglob("*") if member.is_file())
    lines = [f"{file_sha256(member)}  {member.relative_to(path).as_posix()}\n" for member in members]
    digest = hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()
    return digest, sum(member.stat().st_size for member in members)
