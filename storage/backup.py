"""A consistent copy of a store while annotators work, and bringing it back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage import sql
from storage.connection import explain_error
from storage.errors import ConflictError, InvalidInputError, StoreDamagedError
from storage.files import file_sha256, folder_in_place, write_file_atomically
from storage.store import Store

FORMAT = 1
MANIFEST = "backup.json"


def backup_store(store: Store, target: Path | str, on_file: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Copy a store into a new folder: the database as of one moment, and every picture and artifact it names.

    Others may go on writing meanwhile. The folder appears only when the copy is whole and checked.

    Args:
        target: a folder that doesn't exist yet.
        on_file: called with each file's name, for a progress bar.

    Returns:
        The manifest: hash and size of each file, and counts.

    Raises:
        ConflictError: the target exists.
        NoSpaceError: the disk is full; nothing is left behind.
        StoreDamagedError: the copy fails its integrity check, or a picture is missing.
    """
    target = Path(target)
    if target.exists():
        raise ConflictError(f"{str(target)!r} exists already. Name a new folder for the backup.")
    try:
        with folder_in_place(target, target.parent) as folder:
            store.connection.execute("VACUUM INTO ?", (str(folder / "store.db"),))
            manifest = _copy_files(store, folder, on_file or (lambda name: None))
            write_file_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    except (OSError, sqlite3.Error) as error:
        raise explain_error(error, str(target)) from error
    store.add_audit("store.backup", "store", {"files": len(manifest["files"])})
    return manifest


def _copy_files(store: Store, folder: Path, on_file: Callable[[str], None]) -> dict[str, Any]:
    copy = sqlite3.connect(folder / "store.db")
    try:
        _check_integrity(copy, str(folder))
        images = [sha256 for (sha256,) in copy.execute(sql.DOCTOR_IMAGES)]
        artifacts = [path for path, _ in copy.execute(sql.DOCTOR_ARTIFACTS)]
        counts = {table: copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in sql.COUNTED_TABLES}
    finally:
        copy.close()
    files = {"store.db": file_sha256(folder / "store.db")}
    names = [f"objects/{sha256[:2]}/{sha256}.png" for sha256 in images]
    for path in artifacts:
        members = [store.path / path] if (store.path / path).is_file() else sorted((store.path / path).rglob("*"))
        names += [member.relative_to(store.path).as_posix() for member in members if member.is_file()]
    for name in dict.fromkeys(names):
        files[name] = _copy_file(store.path / name, folder / name)
        on_file(name)
    return {
        "format": FORMAT,
        "store_id": store.store_id,
        "made_at_us": store.now_us(),
        "counts": counts,
        "files": files,
    }


def _copy_file(source: Path, copy: Path) -> str:
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, copy)
    except FileNotFoundError:
        raise StoreDamagedError(
            f"The file {str(source)!r} is missing from the store. Run `hfi doctor`, then back up again."
        ) from None
    return file_sha256(copy)


def _check_integrity(connection: sqlite3.Connection, name: str) -> None:
    found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise StoreDamagedError(f"The database in {name!r} fails its integrity check ({found}). Run `hfi doctor`.")


def check_backup(backup: Path | str) -> dict[str, Any]:
    """Verify every file of a backup against its manifest.

    Returns:
        The manifest.

    Raises:
        InvalidInputError: the folder is not a backup.
        StoreDamagedError: a file is missing or changed.
    """
    backup = Path(backup)
    try:
        manifest: dict[str, Any] = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidInputError(
            f"{str(backup)!r} is not a backup: it has no readable {MANIFEST}. Give a folder made by `hfi backup`."
        ) from None
    for name, sha256 in files.items():
        path = backup / name
        if not path.resolve().is_relative_to(backup.resolve()):
            raise InvalidInputError(f"The backup {str(backup)!r} names the file {name!r} outside itself. Don't use it.")
        if not path.is_file() or file_sha256(path) != sha256:
            raise StoreDamagedError(
                f"The file {name!r} of backup {str(backup)!r} is missing or changed. Use another one."
            )
    return manifest


def restore_store(backup: Path | str, target: Path | str) -> Store:
    """Make a store from a backup, checked before and after; opens it.

    Args:
        backup: a folder made by ``backup_store``.
        target: a folder that doesn't exist yet; a store that is there is never overwritten.

    Raises:
        ConflictError: the target exists.
        InvalidInputError, StoreDamagedError: as ``check_backup``.
    """
    backup, target = Path(backup), Path(target)
    if target.exists():
        raise ConflictError(f"{str(target)!r} exists already. Restore into a new folder, then swap the two yourself.")
    manifest = check_backup(backup)
    try:
        with folder_in_place(target, target.parent) as folder:
            for name in manifest["files"]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(backup / name, folder / name)
    except OSError as error:
        raise explain_error(error, str(target)) from error
    store = Store.open(target, create=False)
    store.add_audit("store.restore", "store", {"made_at_us": manifest["made_at_us"]})
    return store
