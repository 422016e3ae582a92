"""Which disks a store may lie on: those that forget are refused unless that is meant."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfi.cli import main
from storage import Store
from storage.disk import disk_kind, why_ephemeral
from storage.doctor import examine_store
from storage.errors import EphemeralDiskError
from tests.storage.builders import build_flag_store


@pytest.fixture
def memory_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a file system in memory, with nothing in the environment that allows it."""
    monkeypatch.delenv("HFI_ALLOW_EPHEMERAL")
    folder = tmp_path / "in memory"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_open_refuses_a_disk_in_memory_and_leaves_nothing_there(memory_disk: Path) -> None:
    with pytest.raises(EphemeralDiskError, match=r"in memory \(tmpfs\).*lasting disk.*HFI_ALLOW_EPHEMERAL=1"):
        Store.open(memory_disk / "deep" / "store")
    assert list(memory_disk.iterdir()) == []


def test_open_takes_a_disk_in_memory_if_that_is_meant(memory_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(memory_disk / "store", allow_ephemeral=True).close()
    monkeypatch.setenv("HFI_ALLOW_EPHEMERAL", "1")
    Store.open(memory_disk / "store").close()
    with pytest.raises(EphemeralDiskError):
        Store.open(memory_disk / "store", allow_ephemeral=False)


def test_the_command_line_says_how_to_allow_it(memory_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["annotator", "add", "ada", "--store", str(memory_disk)]
    assert main(words) == 1
    assert "hfi --allow-ephemeral" in capsys.readouterr().err
    assert main(["--allow-ephemeral", *words]) == 0
    assert os.environ.pop("HFI_ALLOW_EPHEMERAL") == "1"


def write_mount_table(path: Path, kind: str) -> Path:
    """A mount table in which the disk of ``path``'s folder is of a kind chosen."""
    device = path.parent.stat().st_dev
    path.write_text(
        f"20 1 0:0 / /proc rw,relatime - proc proc rw\n"
        f"25 1 {os.major(device)}:{os.minor(device)} / /with\\040blank rw shared:1 - {kind} disk rw\n"
    )
    return path


@pytest.mark.parametrize("kind", ["ext4", "overlay", "nfs4", "tmpfs"])
def test_disk_kind_is_read_from_the_mount_table(tmp_path: Path, kind: str) -> None:
    table = write_mount_table(tmp_path / "mountinfo", kind)
    assert disk_kind(tmp_path / "not" / "there yet", table) == kind
    assert disk_kind(tmp_path, tmp_path / "no table") == ""


def test_a_containers_own_layer_is_fine_but_not_in_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert [bool(why_ephemeral(kind)) for kind in ("ext4", "", "overlay", "tmpfs", "ramfs")] == [0, 0, 0, 1, 1]
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert "/data" in why_ephemeral("overlay")
    assert why_ephemeral("ext4") == ""


def test_doctor_warns_of_a_containers_own_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_flag_store(tmp_path / "store").close()
    monkeypatch.delenv("HFI_ALLOW_EPHEMERAL")
    monkeypatch.setattr("storage.doctor.disk_kind", lambda path: "overlay")
    found = examine_store(tmp_path / "store")
    assert [(finding.level, finding.check) for finding in found] == [("warning", "disk")]


def test_a_network_disk_gets_no_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.store.disk_kind", lambda path: "nfs4")
    with Store.open(tmp_path / "far") as store:
        assert store.connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        store.add_annotator("ada")
    monkeypatch.setattr("storage.store.disk_kind", lambda path: "ext4")
    with Store.open(tmp_path / "near") as store:
        assert store.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_read_only_disk_is_named_and_nothing_is_half_written(
    memory_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFI_ALLOW_EPHEMERAL", "1")
    build_flag_store(memory_disk / "store").close()
    before = (memory_disk / "store" / "store.db").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(memory_disk)], check=True)
    for words in (["annotator", "add", "dee"], ["snapshot", "create", "weapons"]):
        assert main([*words, "--store", str(memory_disk / "store")]) == 1
        error = capsys.readouterr().err
        assert "cannot be written" in error
        assert error.count("\n") == 1
    assert main(["annotator", "add", "dee", "--store", str(memory_disk / "new")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert (memory_disk / "store" / "store.db").read_bytes() == before
