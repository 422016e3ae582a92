"""What people get wrong, on real stores and tiny models: one clear sentence, exit code 1, nothing half-written."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfi.cli import main
from storage import JudgmentInput, Store
from tests import tiny

GENERATE = ["generate", "--prompt", "a cat", "--num-inference-steps", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_pipeline(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 640 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error without progress lines."""
    code = main([*arguments, "--quiet"])
    output = capsys.readouterr()
    return code, output.out, output.err


def assert_one_sentence(error: str) -> None:
    assert error.startswith("hfi: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_generate_works_twice_and_names_the_next_command(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "a store"
    arguments = [*GENERATE, "--seeds", "0-1", "--model", str(model_folder), "--store", str(store)]
    first, second = run(capsys, *arguments), run(capsys, *arguments)
    assert first == second
    assert first[0] == 0
    assert first[1] == (
        f"2 pictures are in project 'default', ready to be judged.\nNext: hfi simulate-annotators --store '{store}'\n"
    )
    with Store.open(store) as opened:
        assert len(opened.list_generations("default")) == 2
        assert len(opened.list_items("default")) == 2


def test_model_folder_without_a_part(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, store = tmp_path / "broken", tmp_path / "store"
    shutil.copytree(model_folder, broken)
    shutil.rmtree(broken / "unet")
    code, _, error = run(capsys, *GENERATE, "--model", str(broken), "--store", str(store))
    assert code == 1
    assert_one_sentence(error)
    assert "unet" in error
    with Store.open(store) as opened:
        assert opened.list_images() == []
        assert opened.list_runs() == []


@pytest.mark.parametrize("command", ["simulate-annotators", "score", "invert", "erase", "evaluate", "report"])
def test_command_without_a_store_makes_none(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, command, "--store", str(tmp_path / "store"))
    assert code == 1
    assert_one_sentence(error)
    assert "There is no store" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["score", "invert", "erase", "evaluate", "report"])
def test_stage_before_its_time(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(tmp_path / "store") as opened:
        opened.create_project("default", kind="flag", guideline="Is it?")
    code, _, error = run(capsys, command, "--store", str(tmp_path / "store"))
    assert code == 1
    assert_one_sentence(error)


def test_zero_flagged_images(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    run(capsys, *GENERATE, "--seeds", "0-3", "--model", str(model_folder), "--store", str(store))
    with Store.open(store) as opened:
        opened.add_annotator("ann")
        for lease in opened.claim("default", "ann", 4):
            answer = JudgmentInput(str(uuid.uuid4()), "ann", "no", lease.id, lease.item_id)
            opened.submit_judgments([answer])
    code, _, error = run(capsys, "score", "--store", str(store), "--clip", str(model_folder / "clip"))
    assert code == 1
    assert_one_sentence(error)
    assert "flagged" in error
    with Store.open(store) as opened:
        assert opened.list_runs(kind="score") == []


def test_store_of_a_newer_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store.open(tmp_path / "store").close()
    path = tmp_path / "store" / "store.db"
    with sqlite3.connect(path) as database:
        database.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('hfi-store', 'm9999_x', '')"
        )
    database.close()
    code, _, error = run(capsys, "report", "--store", str(tmp_path / "store"))
    assert code == 1
    assert_one_sentence(error)
    assert "newer" in error


def test_file_that_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database, only text" * 100)
    code, _, error = run(capsys, "report", "--store", str(tmp_path))
    assert code == 1
    assert_one_sentence(error)


def test_no_space_left_and_on_with_more(
    model_folder: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_disk / "store"
    arguments = [*GENERATE, "--seeds", "0-119", "--model", str(model_folder), "--store", str(store)]
    code, _, error = run(capsys, *arguments)
    assert code == 1
    assert_one_sentence(error)
    assert "space" in error
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    code, text, error = run(capsys, *arguments)
    assert (code, error) == (0, "")
    assert text.startswith("120 pictures are in project 'default'")
    with Store.open(store) as opened:
        assert len(opened.list_generations("default")) == len(opened.list_items("default")) == 120
