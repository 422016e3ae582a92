"""Short versions of the fault drills in tests/faults, and a full disk played by SQLite itself."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from PIL import Image

from storage import Store, files
from storage.doctor import examine_store
from storage.errors import NoSpaceError
from storage.export import export_snapshot
from storage.snapshot import create_snapshot
from tests.faults.claim_race import run_race
from tests.faults.kill_writers import run_rounds
from tests.storage.builders import flag_by_number, judge_all


def test_killed_writers_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    result = run_rounds(tmp_path, 3)
    assert (result["lost"], result["duplicated"], result["integrity"], result["findings"]) == (0, 0, "ok", [])
    assert result["acknowledged"]


def test_racing_processes_lease_every_slot_once(tmp_path: Path) -> None:
    result = run_race(tmp_path, 4, 200)
    assert (result["claimed"], result["slots"], result["slots_leased_twice"], result["errors"]) == (200, 200, 0, 0)


def test_full_database_refuses_and_keeps_everything(store: Store) -> None:
    judge_all(store, "weapons", ["ada"])
    leases = store.claim("weapons", "bo", 12)
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    before = store.list_judgments("weapons")
    kept = []
    with pytest.raises(NoSpaceError, match="everything acknowledged before is safe"):
        for number in range(1000):
            project = store.create_project(f"filler {number}", guideline="g" * 2000)
            kept.append(project.name)
    assert store.list_judgments("weapons") == before
    assert [project.name for project in store.list_projects()] == ["weapons", *kept]
    store.connection.execute("PRAGMA max_page_count = 100000")
    assert len(store.submit_judgments([flag_by_number(lease, "bo") for lease in leases])) == 12
    assert examine_store(store.path) == []


def test_full_disk_leaves_no_half_picture(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", no_space)
        with pytest.raises(NoSpaceError, match="Free some space"):
            store.add_image(picture)
    assert list((store.path / "tmp").iterdir()) == []
    assert len(store.list_images()) == 12
    assert store.add_image(picture).width == 8
    assert examine_store(store.path) == []


def test_full_disk_stops_an_export_that_can_go_on(
    judged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = create_snapshot(judged, "weapons").hash
    n_calls = 0

    def no_space_later(descriptor: int) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", no_space_later)
        with pytest.raises(NoSpaceError):
            export_snapshot(judged, snapshot, tmp_path / "export")
    assert not (tmp_path / "export").exists()
    export_snapshot(judged, snapshot, tmp_path / "export")
    assert (tmp_path / "export" / "manifest.json").exists()
