"""Is everything still as it was written? Each finding says what is wrong and what to do about it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from storage import sql
from storage.audit import find_broken_links
from storage.disk import LAYER_KINDS, disk_kind, is_allowed_by_environment, why_ephemeral
from storage.errors import HFIError, NotFoundError
from storage.files import file_sha256, path_sha256
from storage.records import canonical_json
from storage.schema import expected_guards, guards, migration_names

Level = Literal["error", "warning"]
_RESTORE = "Restore the last backup (`hfi restore`), or export what is there and start a new store."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be; errors mean that something may be lost, warnings don't."""

    level: Level
    check: str
    message: str
    remedy: str


def examine_store(path: Path | str) -> list[Finding]:
    """Run every check on a store, changing nothing.

    Raises:
        NotFoundError: there is no store.
    """
    root = Path(path)
    if not (root / "store.db").is_file():
        raise NotFoundError(f"There is no store in {str(path)!r}. Give the folder of a store.")
    connection = sqlite3.connect(f"{(root / 'store.db').absolute().as_uri()}?mode=ro", uri=True)
    findings: list[Finding] = []
    try:
        connection.execute("BEGIN")
        for name, check in CHECKS.items():
            findings += _run_check(name, check, connection, root)
    except sqlite3.DatabaseError as error:
        findings.append(Finding("error", "file", f"store.db is not a readable SQLite database ({error})", _RESTORE))
    finally:
        connection.close()
    return findings


Check = Callable[[sqlite3.Connection, Path], Iterator[Finding]]


def _run_check(name: str, check: Check, connection: sqlite3.Connection, root: Path) -> list[Finding]:
    try:
        return list(check(connection, root))
    except sqlite3.OperationalError as error:
        return [Finding("error", name, f"the check could not run ({error})", _RESTORE)]


def _check_version(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    applied = [name for (name,) in connection.execute(sql.DOCTOR_MIGRATIONS)]
    known = migration_names()
    for name in applied:
        if name not in known:
            yield Finding("error", "version", f"a newer version wrote this store ({name})", "Upgrade HFI.")
    for name in known:
        if name not in applied:
            yield Finding("warning", "version", f"the upgrade {name} has not run yet", "Open the store once to run it.")


def _check_file(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    for (text,) in connection.execute("PRAGMA integrity_check"):
        if text != "ok":
            yield Finding("error", "integrity", text, _RESTORE)
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        message = f"row {row_id} of {table} refers to a row of {parent} that is not there"
        yield Finding("error", "foreign keys", message, _RESTORE)


def _check_guards(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    from sqlite_utils import Database

    found = guards(Database(connection, recursive_triggers=False, execute_plugins=False))
    for kind, wanted in expected_guards().items():
        for missing in sorted(wanted - found[kind]):
            message = f"the {kind} {missing[:90]!r} is gone: another program changed the schema"
            yield Finding("error", "guards", message, _RESTORE)


def _check_audit(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    for message in find_broken_links(connection):
        yield Finding("error", "audit", message, "Compare with the last backup to see what was changed.")


def _check_judgments(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    """Each submitted batch still has the hash it was written with, and no judgment is outside a batch."""
    remedy = "Compare with the last backup to see what was changed."
    expected_id = 1
    for (details,) in connection.execute(sql.DOCTOR_SUBMITS).fetchall():
        batch = json.loads(details)
        digest, n_rows = hashlib.sha256(), 0
        for row in connection.execute(sql.JUDGMENT_STORED_VALUES, (batch["first"], batch["last"])):
            digest.update(canonical_json(row[1:]).encode("utf-8"))
            n_rows += 1
        span = f"judgments {batch['first']} to {batch['last']}"
        if batch["first"] != expected_id:
            yield Finding(
                "error", "judgments", f"judgments {expected_id} to {batch['first'] - 1} are in no batch", remedy
            )
        if n_rows != batch["n"]:
            yield Finding("error", "judgments", f"{span}: {batch['n']} were written, {n_rows} are there", remedy)
        elif digest.hexdigest() != batch["sha256"]:
            yield Finding("error", "judgments", f"{span} were changed after they were written", remedy)
        expected_id = batch["last"] + 1
    last = connection.execute(sql.DOCTOR_LAST_JUDGMENT).fetchone()[0]
    if last >= expected_id:
        yield Finding("error", "judgments", f"judgments {expected_id} to {last} are in no batch", remedy)


def _check_objects(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    known = {sha256 for (sha256,) in connection.execute(sql.DOCTOR_IMAGES)}
    for sha256 in sorted(known):
        path = root / "objects" / sha256[:2] / f"{sha256}.png"
        if not path.is_file():
            yield Finding(
                "error", "images", f"the file of image {sha256} is missing", f"Put it back: {_name(path, root)}."
            )
        elif file_sha256(path) != sha256:
            remedy = f"Replace {_name(path, root)} by the copy in a backup."
            yield Finding("error", "images", f"the file of image {sha256} has changed", remedy)
    for path in sorted((root / "objects").rglob("*")):
        if path.is_file() and path.stem not in known:
            message = f"{_name(path, root)} belongs to no image (an interrupted import leaves such files)"
            yield Finding("warning", "images", message, "Delete it, or add the picture again.")
    for path in sorted((root / "tmp").glob("*")):
        message = f"{_name(path, root)} is an unfinished file"
        yield Finding("warning", "tmp", message, "Delete it when no other process is working on the store.")


def _check_artifacts(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    for relative, sha256 in connection.execute(sql.DOCTOR_ARTIFACTS):
        path = root / relative
        if not path.exists():
            yield Finding(
                "error", "artifacts", f"{relative} is missing", "Put it back from a backup, or run the job again."
            )
        elif path_sha256(path)[0] != sha256:
            yield Finding("error", "artifacts", f"{relative} has changed since it was made", "Run the job again.")


def _check_counts(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    for item_id, n_counted, n_there in connection.execute(sql.DOCTOR_COUNTS):
        message = f"item {item_id} counts {n_counted} judgments, {n_there} are there"
        yield Finding("error", "counts", message, "Take a backup and report it; the judgments themselves are whole.")
    for item_id, n_counted, n_there in connection.execute(sql.DOCTOR_LEASES):
        message = f"item {item_id} counts {n_counted} leases, {n_there} are there"
        yield Finding("error", "counts", message, "Take a backup and report it; the judgments themselves are whole.")


def _check_disk(connection: sqlite3.Connection, root: Path) -> Iterator[Finding]:
    kind = disk_kind(root)
    if (kind in LAYER_KINDS or why_ephemeral(kind)) and not is_allowed_by_environment():
        message = f"the store is on a disk of kind {kind}, which goes with its container or at the next restart"
        yield Finding("warning", "disk", message, "Move the folder to a lasting disk (a volume), or back it up often.")


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


CHECKS: dict[str, Check] = {
    "version": _check_version,
    "file": _check_file,
    "guards": _check_guards,
    "audit": _check_audit,
    "judgments": _check_judgments,
    "objects": _check_objects,
    "artifacts": _check_artifacts,
    "counts": _check_counts,
    "disk": _check_disk,
}


def summarise_findings(findings: list[Finding]) -> dict[str, Any]:
    """Findings as JSON values; ``is_sound`` is False if any is an error."""
    return {"is_sound": all(f.level != "error" for f in findings), "findings": [asdict(f) for f in findings]}


def assert_sound(path: Path | str) -> None:
    """Raise on the first error that ``examine_store`` finds.

    Raises:
        HFIError: names the finding and its remedy.
    """
    for finding in examine_store(path):
        if finding.level == "error":
            raise HFIError(f"The store {str(path)!r} is not sound: {finding.message}. {finding.remedy}")
