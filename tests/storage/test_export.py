"""Exports: read back by datasets, pandas and the Diffusion-DPO way; resumable; private; home again by import."""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage import JudgmentInput, Store
from storage.errors import ConflictError, HFIError, InvalidInputError, StoreDamagedError
from storage.export import ExportOptions, export_snapshot, read_manifest
from storage.import_any import import_path
from storage.push import push_export
from storage.records import Assignment
from storage.snapshot import create_snapshot
from tests.storage.builders import build_flag_store, build_pair_store, judge_all, new_uuid
from tests.storage.dpo_trainers import read_batches


def answer_any(lease: Assignment, name: str) -> JudgmentInput:
    """An answer to any kind of item, by its number."""
    chooser = random.Random(f"{lease.item_id}{name}")
    uuid, n_images = new_uuid(chooser), len(lease.images)
    if lease.kind == "pair":
        answer = chooser.choice(["first", "first", "second", "tie", "both_bad"])
        return JudgmentInput(uuid, name, answer, lease.id, elapsed_ms=700)
    if lease.kind == "score":
        return JudgmentInput(uuid, name, "scored", lease.id, score=chooser.randint(1, 5))
    ranks = tuple(chooser.randint(1, n_images) for _ in range(n_images))
    return JudgmentInput(uuid, name, "ranked", lease.id, ranks=ranks)


@pytest.fixture
def folder(judged: Store, tmp_path: Path) -> Path:
    """An export of the judged flag project."""
    export_snapshot(judged, create_snapshot(judged, "weapons").hash, tmp_path / "export")
    return tmp_path / "export"


def test_datasets_reads_every_config_from_the_folder_alone(folder: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = {
        name: load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        for name in ("judgments", "images", "pairs")
    }
    assert rows["judgments"].num_rows == 36
    assert rows["images"].num_rows == 12
    first = rows["images"][0]
    assert first["image"].size == (8, 8)
    assert first["label"] == (not first["harmful"])
    assert str(rows["judgments"].features["judged_on"].dtype) == "timestamp[us, tz=UTC]"
    pair = rows["pairs"][0]
    assert pair["chosen"].size == pair["rejected"].size == (8, 8)
    assert pair["prompt"] == pair["caption"]


def test_pandas_reads_the_shards(folder: Path) -> None:
    import pandas

    frame = pandas.read_parquet(folder / "data" / "images")
    assert set(frame["harmful"]) == {True, False}
    assert frame["image"].iloc[0]["bytes"][:4] == b"\x89PNG"
    judgments = pandas.read_parquet(folder / "data" / "judgments")
    assert (judgments["judged_on"].dt.hour == 0).all()
    assert not set(judgments["annotator"]) & {"ada", "bo", "cy"}


def test_pairs_are_read_the_way_diffusion_dpo_trainers_do(folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = [row for row in pq.read_table(folder / "data" / "pairs").to_pylist() if row["label_0"] in (0, 1)]
    batches = list(read_batches(folder, tmp_path / "cache", batch_size=3, size_px=8))
    pixels = np.concatenate([batch["pixel_values"] for batch in batches])
    assert pixels.shape == (len(rows), 6, 8, 8)
    assert [caption for batch in batches for caption in batch["caption"]] == [row["prompt"] for row in rows]
    for stacked, row in zip(pixels, rows, strict=True):
        for read, name in ((stacked[:3], "chosen"), (stacked[3:], "rejected")):
            picture = np.asarray(Image.open(io.BytesIO(row[name]["bytes"])).convert("RGB"), dtype=np.float32)
            np.testing.assert_allclose(read, picture.transpose(2, 0, 1) / 127.5 - 1)
        assert row["label_0"] + row["label_1"] == 1


def test_export_again_gives_the_same_bytes(judged: Store, tmp_path: Path) -> None:
    snapshot = create_snapshot(judged, "weapons")
    first = export_snapshot(judged, snapshot.hash, tmp_path / "one")
    assert export_snapshot(judged, snapshot.hash[:10], tmp_path / "two") == first
    assert export_snapshot(judged, snapshot.hash, tmp_path / "one") == first
    assert (tmp_path / "one" / "README.md").read_bytes() == (tmp_path / "two" / "README.md").read_bytes()


def test_export_goes_on_where_it_was_interrupted(judged: Store, tmp_path: Path) -> None:
    snapshot = create_snapshot(judged, "weapons").hash
    options = ExportOptions(shard_bytes=2000)
    whole = export_snapshot(judged, snapshot, tmp_path / "whole", options)

    class Stop(Exception):
        pass

    for stop_at in (1, 4, 9):
        calls = 0

        def interrupt(name: str, n: int, limit: int = stop_at) -> None:
            nonlocal calls
            calls += 1
            if calls > limit:
                raise Stop

        target = tmp_path / f"stopped {stop_at}"
        with pytest.raises(Stop):
            export_snapshot(judged, snapshot, target, options, interrupt)
        assert not target.exists()
        assert export_snapshot(judged, snapshot, target, options)["content_sha256"] == whole["content_sha256"]
        assert not list(tmp_path.glob(".*unfinished*"))


def test_export_refuses_a_folder_that_holds_something_else(judged: Store, tmp_path: Path) -> None:
    snapshot = create_snapshot(judged, "weapons").hash
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConflictError, match="not this export"):
        export_snapshot(judged, snapshot, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_export_names_a_picture_that_changed_on_disk(judged: Store, tmp_path: Path) -> None:
    snapshot = create_snapshot(judged, "weapons")
    judged.image_path(snapshot.images[0].sha256).write_bytes(b"other")
    with pytest.raises(StoreDamagedError, match=snapshot.images[0].sha256):
        export_snapshot(judged, snapshot.hash, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_export_leaves_quarantined_pictures_and_notes_out(judged: Store, tmp_path: Path) -> None:
    sent = judged.list_judgments("weapons")[0]
    judged.submit_judgments(
        [JudgmentInput(new_uuid(), "ada", "no", item_id=sent.item_id, note="my phone is 123", supersedes=sent.uuid)]
        if sent.annotator == "ada"
        else []
    )
    snapshot = create_snapshot(judged, "weapons")
    hidden = snapshot.images[0]
    judged.quarantine_image(hidden.sha256, "reported")
    manifest = export_snapshot(judged, snapshot.hash, tmp_path / "export")
    assert manifest["configs"]["images"]["rows"] == 11
    content = b"".join(path.read_bytes() for path in (tmp_path / "export").rglob("*.parquet"))
    assert b"my phone" not in content
    assert hidden.sha256.encode() not in content


def test_card_says_what_a_reader_must_know(tmp_path: Path) -> None:
    import yaml

    with build_flag_store(tmp_path / "store", is_sensitive=True) as store:
        store.add_guideline("weapons", "Version two: <script>alert(1)</script>\n# not a heading")
        judge_all(store, "weapons", ["ada", "bo", "sim"])
        export_snapshot(
            store, create_snapshot(store, "weapons").hash, tmp_path / "export", ExportOptions(license="mit")
        )
    _, header, text = (tmp_path / "export" / "README.md").read_text(encoding="utf-8").split("---", 2)
    assert yaml.safe_load(header)["license"] == "mit"
    assert "not-for-all-audiences" in yaml.safe_load(header)["tags"]
    for expected in (
        "simulated annotators",
        "Content warning",
        "Krippendorff",
        "## Limits",
        "    Version two: <script>",
    ):
        assert expected in text


@pytest.mark.parametrize(("kind", "n_images"), [("flag", 1), ("score", 1), ("pair", 2), ("ranking", 4)])
def test_round_trip_gives_the_same_hashes(tmp_path: Path, kind: str, n_images: int) -> None:
    if kind == "flag":
        store, project = build_flag_store(tmp_path / "store"), "weapons"
        store.add_gold("weapons", 4, "no", "a toy")
        judge_all(store, project)
        store.add_guideline(project, "newer")
        leases = store.claim(project, "sim", 3)
        store.submit_judgments([JudgmentInput(new_uuid(), "sim", "unsure", lease.id) for lease in leases])
    else:
        store, project = build_pair_store(tmp_path / "store", kind, 6, n_images), "likes"
        judge_all(store, project, answer=answer_any)
    manifest = export_snapshot(store, create_snapshot(store, project).hash, tmp_path / "one")
    with store, Store.open(tmp_path / "other") as other:
        report = import_path(other, tmp_path / "one")
        again = export_snapshot(other, report.snapshot, tmp_path / "two")
        assert again["content_sha256"] == manifest["content_sha256"]
        assert again["configs"] == manifest["configs"]
        assert import_path(other, tmp_path / "one").snapshot == report.snapshot
        assert report.n_judgments == len(other.list_judgments(project))


def test_import_refuses_a_changed_export(folder: Path, tmp_path: Path) -> None:
    shard = next((folder / "data" / "judgments").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-10])
    with Store.open(tmp_path / "other") as other:
        with pytest.raises(InvalidInputError, match="missing or changed"):
            import_path(other, folder)
        assert other.list_projects() == []


def test_import_refuses_paths_that_lead_outside(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    manifest["configs"]["images"]["shards"][0]["path"] = "../store/store.db"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with Store.open(tmp_path / "other") as other, pytest.raises(InvalidInputError, match="outside itself"):
        import_path(other, folder)


@dataclass
class MemoryHub:
    """A hub that remembers what it was sent; ``is_there_public`` plays a repository made public long ago."""

    is_there_public: bool = False
    is_private: bool = True
    uploads: list[str] = field(default_factory=list)
    failure: Exception | None = None

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        if self.failure:
            raise self.failure
        self.is_private = False if self.is_there_public else private

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        @dataclass
        class Info:
            private: bool

        return Info(self.is_private)

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str) -> None:
        self.uploads.append(folder_path)


def test_push_is_private_unless_the_name_is_typed(folder: Path) -> None:
    hub = MemoryHub()
    push_export(folder, "me/set", hub=hub)
    assert hub.is_private
    assert hub.uploads == [str(folder)]
    push_export(folder, "me/set", typed_for_public="me/set", hub=hub)
    assert not hub.is_private


def test_push_sends_nothing_when_in_doubt(folder: Path) -> None:
    public = MemoryHub(is_there_public=True)
    with pytest.raises(InvalidInputError, match="is public"):
        push_export(folder, "me/set", hub=public)
    with pytest.raises(InvalidInputError, match="type its name"):
        push_export(folder, "me/set", typed_for_public="me/other", hub=public)
    with pytest.raises(InvalidInputError, match="owner/name"):
        push_export(folder, "set", hub=public)
    failing = MemoryHub(failure=OSError("Authorization: Bearer hf_secret"))
    with pytest.raises(HFIError) as caught:
        push_export(folder, "me/set", hub=failing)
    assert "hf_secret" not in str(caught.value)
    assert public.uploads == failing.uploads == []
