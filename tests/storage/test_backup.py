"""Backup, restore and doctor: a drill from start to end, and a finding for every kind of damage."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import Store
from storage.backup import backup_store, restore_store
from storage.doctor import assert_sound, examine_store, summarise_findings
from storage.errors import ConflictError, HFIError, InvalidInputError, NotFoundError, StoreDamagedError
from storage.snapshot import create_snapshot, load_snapshot
from tests.storage.builders import flag_by_number, judge_all


def test_restore_drill(judged: Store, tmp_path: Path) -> None:
    snapshot = create_snapshot(judged, "weapons")
    run = judged.start_run("score", {}, snapshot.hash)
    with judged.writing_artifact(run.id, "model", "weights") as folder:
        (folder / "weights.bin").write_bytes(b"123")
    names: list[str] = []
    manifest = backup_store(judged, tmp_path / "backup", names.append)
    assert len(names) == 13
    assert manifest["counts"]["judgment"] == 36
    with restore_store(tmp_path / "backup", tmp_path / "again") as restored:
        assert load_snapshot(restored, snapshot.hash) == snapshot
        assert restored.list_judgments("weapons") == judged.list_judgments("weapons")
        assert restored.load_image(snapshot.images[0].sha256).size == (8, 8)
        assert (restored.path / restored.list_artifacts(run.id)[0].path / "weights.bin").read_bytes() == b"123"
        assert judge_all(restored, "weapons", ["sim"]) >= 0
    assert examine_store(tmp_path / "again") == []


def test_backup_while_annotators_work_is_of_one_moment(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        for name in ("ada", "bo", "cy"):
            for lease in store.claim("weapons", name, 50):
                store.submit_judgments([flag_by_number(lease, name)])
        stop.set()

    worker = threading.Thread(target=work)
    worker.start()
    backup_store(store, tmp_path / "backup")
    worker.join()
    assert stop.is_set()
    with restore_store(tmp_path / "backup", tmp_path / "again") as restored:
        rows = restored.list_judgments("weapons")
    assert examine_store(tmp_path / "again") == []
    assert {row.uuid for row in rows} <= {row.uuid for row in store.list_judgments("weapons")}


def test_backup_and_restore_never_overwrite(judged: Store, tmp_path: Path) -> None:
    backup_store(judged, tmp_path / "backup")
    with pytest.raises(ConflictError, match="exists already"):
        backup_store(judged, tmp_path / "backup")
    with pytest.raises(ConflictError, match="exists already"):
        restore_store(tmp_path / "backup", judged.path)
    with pytest.raises(InvalidInputError, match="is not a backup"):
        restore_store(tmp_path, tmp_path / "new")


def test_restore_refuses_a_changed_backup(judged: Store, tmp_path: Path) -> None:
    backup_store(judged, tmp_path / "backup")
    picture = next((tmp_path / "backup" / "objects").rglob("*.png"))
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(StoreDamagedError, match=picture.name):
        restore_store(tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    manifest = json.loads((tmp_path / "backup" / "backup.json").read_text())
    manifest["files"] = {"../outside": "0" * 64}
    (tmp_path / "backup" / "backup.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidInputError, match="outside itself"):
        restore_store(tmp_path / "backup", tmp_path / "again")


def test_doctor_finds_nothing_on_a_sound_store(judged: Store) -> None:
    create_snapshot(judged, "weapons")
    assert examine_store(judged.path) == []
    assert_sound(judged.path)
    with pytest.raises(NotFoundError, match="no store"):
        examine_store(judged.path / "objects")


Damage = Callable[[sqlite3.Connection, Path], object]


def without_guard(table: str, statement: str) -> Damage:
    """What somebody would do who knows SQL and wants no trace."""

    def damage(connection: sqlite3.Connection, root: Path) -> None:
        query = "SELECT name, sql FROM sqlite_master WHERE tbl_name = ? AND type = 'trigger'"
        saved = connection.execute(query, (table,)).fetchall()
        for name, _ in saved:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
        for _, text in saved:
            connection.execute(text)

    return damage


def first_picture(root: Path) -> Path:
    return next((root / "objects").rglob("*.png"))


@pytest.mark.parametrize(
    ("damage", "check", "level"),
    [
        (without_guard("judgment", "UPDATE judgment SET item_id = item_id + 1 WHERE id = 3"), "judgments", "error"),
        (without_guard("judgment", "UPDATE judgment SET elapsed_ms = 1 WHERE id = 36"), "judgments", "error"),
        (without_guard("audit", "UPDATE audit SET actor = 'someone' WHERE id = 2"), "audit", "error"),
        (without_guard("audit", "DELETE FROM audit WHERE id = 3"), "audit", "error"),
        (lambda db, root: db.execute("DROP TRIGGER judgment_no_delete"), "guards", "error"),
        (lambda db, root: db.execute("UPDATE item SET n_judgments = 9 WHERE id = 1"), "counts", "error"),
        (lambda db, root: db.execute("UPDATE item SET n_leased = 2 WHERE id = 1"), "counts", "error"),
        (lambda db, root: first_picture(root).unlink(), "images", "error"),
        (lambda db, root: first_picture(root).write_bytes(b"x"), "images", "error"),
        (lambda db, root: (root / "objects" / "stray.png").write_bytes(b"x"), "images", "warning"),
        (lambda db, root: (root / "tmp" / "half.part").write_bytes(b"x"), "tmp", "warning"),
        (lambda db, root: db.execute("UPDATE assignment SET annotator_id = 99 WHERE id = 1"), "foreign keys", "error"),
        (
            lambda db, root: db.execute("INSERT INTO _sqlite_migrations VALUES (99, 'hfi-store', 'm9999_x', '')"),
            "version",
            "error",
        ),
    ],
)
def test_doctor_names_every_kind_of_damage(judged: Store, damage: Damage, check: str, level: str) -> None:
    connection = sqlite3.connect(judged.path / "store.db", isolation_level=None)
    damage(connection, judged.path)
    connection.close()
    findings = examine_store(judged.path)
    assert (check, level) in {(finding.check, finding.level) for finding in findings}
    assert all(len(finding.remedy) > 10 for finding in findings)
    assert summarise_findings(findings)["is_sound"] == (level == "warning")
    if level == "error":
        with pytest.raises(HFIError, match="is not sound"):
            assert_sound(judged.path)


def test_doctor_reads_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"nothing like it " * 1000)
    assert examine_store(tmp_path)[0].level == "error"


def test_doctor_checks_artifacts(judged: Store) -> None:
    run = judged.start_run("score", {})
    with judged.writing_artifact(run.id, "model", "weights") as folder:
        (folder / "weights.bin").write_bytes(b"123")
    (judged.artifact_dir(run.id) / "model" / "weights.bin").write_bytes(b"456")
    assert [finding.check for finding in examine_store(judged.path)] == ["artifacts"]
