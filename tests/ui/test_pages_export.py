"""Export: freezing, what a snapshot holds, the dataset as a zip, and what keeps the Hub from being told too much."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfi.job_requests import ExportRequest
from hfi.jobs.job_kinds import run_export_job
from hfi.progress import NullProgress
from storage import Store
from storage.snapshot import create_snapshot
from tests.ui import people
from tests.ui.page_visits import build_visited_store, judge, refusal, sentence, visit
from ui.downloads import find_dataset, zip_folder
from ui.pages.export import (
    freeze_snapshot,
    show_snapshot,
    show_snapshots,
    submit_export,
    submit_push,
    watch_job,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        judge(opened)
        yield opened


def test_freezing_makes_one_snapshot_of_the_same_judgments(store: Store) -> None:
    rule, choices, facts = show_snapshots(visit(store), "weapons")
    assert rule["value"] == "dawid_skene" and choices["choices"] == [] and "Nothing is frozen yet" in facts
    said = freeze_snapshot(visit(store), "weapons", "majority")
    assert "Frozen as" in sentence(said) and said.values[0]["value"][:12] in sentence(said)
    assert "Nothing new" in sentence(freeze_snapshot(visit(store), "weapons", "majority"))
    freeze_snapshot(visit(store), "weapons", "dawid_skene")
    assert len(show_snapshots(visit(store), "weapons")[1]["choices"]) == 2
    assert "rule" in refusal(freeze_snapshot, visit(store), "weapons", "mean")


def test_a_snapshot_shows_what_it_holds(store: Store) -> None:
    snapshot = create_snapshot(store, "weapons")
    facts = show_snapshot(visit(store), snapshot.hash)
    for word in (snapshot.hash, "24", "12 items", "yes", "gun", "dawid_skene"):
        assert word in facts
    assert "no snapshot" in refusal(show_snapshot, visit(store), "abcdef")


def test_exporting_is_handed_over_and_followed(store: Store) -> None:
    here, snapshot = visit(store, "researcher"), create_snapshot(store, "weapons")
    said = submit_export(here, "weapons", snapshot.hash, "mit", False)
    shown, timer, job_id = said.values
    assert "background" in sentence(said) and timer["active"] and job_id in shown
    assert watch_job(here, job_id)[1]["active"]  # no worker has it yet
    here.queue.cancel(job_id)
    shown, timer = watch_job(here, job_id)
    assert not timer["active"] and "cancelled" in shown and "/download/" not in shown
    assert watch_job(here, "")[0] == ""
    here.queue.close()


def test_exporting_refuses_a_snapshot_of_another_project(store: Store) -> None:
    snapshot = create_snapshot(store, "weapons")
    store.create_project("other")
    assert "project 'weapons'" in refusal(submit_export, visit(store), "other", snapshot.hash, "mit", False)
    assert "No snapshot" in refusal(submit_export, visit(store), "weapons", "", "mit", False)
    assert "licence" in refusal(submit_export, visit(store), "weapons", snapshot.hash, "a\nb: c", False)


@pytest.mark.parametrize(
    ("repository", "typed", "named"),
    [("weapons", "", "owner/name"), ("a/b/c", "", "owner/name"), ("me/weapons", "me/weapon", "Nothing was sent")],
)
def test_pushing_names_what_it_refuses(store: Store, repository: str, typed: str, named: str) -> None:
    snapshot = create_snapshot(store, "weapons")
    assert named in refusal(submit_push, visit(store), "weapons", snapshot.hash, repository, typed, "mit")


def test_pushing_is_private_unless_the_name_is_typed(store: Store) -> None:
    here, snapshot = visit(store), create_snapshot(store, "weapons")
    asked = []
    for typed, readers in (("", "will be private"), ("me/weapons", "Everybody")):
        said = submit_push(here, "weapons", snapshot.hash, "me/weapons ", typed, "mit")
        assert readers in sentence(said)
        asked.append(here.queue.get_job(said.values[2]).request)
    assert [(request["repository"], request["typed_for_public"]) for request in asked if request] == [
        ("me/weapons", ""),
        ("me/weapons", "me/weapons"),
    ]
    assert "token" not in json.dumps(asked).lower()
    here.queue.close()


def test_a_dataset_comes_as_a_whole_zip_to_researchers_alone(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", n_items=4) as store:
        judge(store)
        request = ExportRequest(project="weapons", snapshot=create_snapshot(store, "weapons").hash)
        run = run_export_job(store, request, NullProgress()).run
        folder = find_dataset(store, run.id)[1]
        app = people.build_pages(store)
        answers = {role: people.client_of(app, role).get(f"/download/{run.id}.zip") for role in people.ROLES}
        statuses = {role: answer.status_code for role, answer in answers.items()}
        assert statuses["researcher"] == statuses["owner"] == 200 and statuses["reviewer"] == 403, statuses
        assert answers["owner"].headers["content-disposition"].endswith(f'"weapons-{run.id}.zip"')
        with zipfile.ZipFile(io.BytesIO(answers["researcher"].content)) as archive:
            assert archive.testzip() is None
            names = {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file()}
            assert set(archive.namelist()) == names and f"{folder.name}/README.md" in names
            for name in names:
                assert archive.read(name) == (folder.parent / name).read_bytes()
        client = people.client_of(app, "owner")
        for path in ("nothing", "..%2f..%2fstore", store.list_runs()[0].id[:6]):
            assert client.get(f"/download/{path}.zip").status_code == 404
        app.context.close()


def test_a_zip_is_the_same_each_time_and_holds_little_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "large.bin").write_bytes(bytes(5 * 2**20))
    (folder / "empty.txt").write_bytes(b"")
    pieces = list(zip_folder(folder))
    assert max(map(len, pieces)) < 2 * 2**20
    assert b"".join(pieces) == b"".join(zip_folder(folder))
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.namelist() == ["dataset/empty.txt", "dataset/large.bin"] and archive.testzip() is None
