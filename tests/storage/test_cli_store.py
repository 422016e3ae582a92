"""The store's commands: what they print, as JSON too, and one clear sentence when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfi.cli import main
from storage import Store
from tests.storage.builders import build_flag_store, judge_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with build_flag_store(tmp_path / "store") as store:
        judge_all(store, "weapons")
    return tmp_path / "store"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], folder: Path, *words: object) -> Any:
    code, out, err = run(capsys, *words, "--store", folder, "--json")
    assert code == 0, err
    return json.loads(out)


def test_everything_by_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "new"
    words = ("project", "create", "knives", "--category", "gun", "--guideline", "Is there a knife?")
    assert run_json(capsys, folder, *words)["categories"] == ["gun"]
    assert [row["name"] for row in run_json(capsys, folder, "project", "list")] == ["knives"]
    assert run_json(capsys, folder, "project", "show", "knives")["guideline"] == "Is there a knife?"
    assert run_json(capsys, folder, "annotator", "add", "zoe", "--simulated")["is_simulated"]
    assert run_json(capsys, folder, "annotator", "disable", "zoe", "--withdraw")["is_disabled"]
    assert len(run_json(capsys, folder, "annotator", "list")) == 1
    assert run_json(capsys, folder, "doctor")["is_sound"]
    assert run_json(capsys, folder, "stats", "knives")["n_judgments"] == 0


def test_snapshot_export_import_backup_restore(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    first = run_json(capsys, folder, "snapshot", "create", "weapons")
    second = run_json(capsys, folder, "snapshot", "create", "weapons", "--rule", "majority")
    shown = run_json(capsys, folder, "snapshot", "show", first["hash"][:8])
    assert (shown["n_items"], shown["labels"]) == (12, {"yes": 4, "no": 8})
    found = run_json(capsys, folder, "snapshot", "diff", first["hash"], second["hash"])
    assert found["judgments_added"] == 0
    exported = run_json(capsys, folder, "export", first["hash"][:8], tmp_path / "export")
    assert exported["rows"]["images"] == 12
    report = run_json(capsys, tmp_path / "other", "import", tmp_path / "export", "--project", "copy")
    assert report["n_judgments"] == 36
    assert run_json(capsys, folder, "backup", tmp_path / "backup")["counts"]["judgment"] == 36
    assert run_json(capsys, tmp_path / "again", "restore", tmp_path / "backup")["projects"] == 1
    assert run_json(capsys, folder, "stats", "weapons")["agreement"]["alpha"] > 0.5
    withdrawn = run_json(capsys, folder, "annotator", "disable", "cy", "--withdraw")
    shown = run_json(capsys, folder, "snapshot", "show", withdrawn["new_snapshots"]["weapons"])
    assert (shown["parent_hash"], shown["n_judgments"]) == (second["hash"], 24)


def test_text_output_is_for_people(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "stats", "weapons", "--store", folder)
    assert code == 0
    assert "36 judgments by 3 annotators (0 simulated)." in out
    for words in (("project", "list"), ("project", "show", "weapons"), ("annotator", "list"), ("snapshot", "list")):
        assert run(capsys, *words, "--store", folder)[0] == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("project", "show", "nope"), "no project 'nope'"),
        (("project", "create", "a/b"), "project name 'a/b' is not allowed"),
        (("project", "create", "x", "--kind", "poll"), "project kind 'poll'"),
        (("project", "create", "x", "--annotators-per-item", "-2"), "number of annotators per item is -2"),
        (("annotator", "disable", "nobody"), "no annotator 'nobody'"),
        (("snapshot", "show", "beef00"), "no snapshot 'beef00'"),
        (("snapshot", "create", "weapons", "--rule", "x"), "aggregation rule 'x'"),
        (("export", "beef00", "out"), "no snapshot"),
        (("import", "nowhere"), "no file or folder 'nowhere'"),
        (("import", "nowhere", "--map", "image"), "is not FIELD=COLUMN"),
        (("restore", "nowhere"), "exists already"),
        (("stats", "nope"), "no project"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], folder: Path, words: tuple[str, ...], expected: str
) -> None:
    code, _, err = run(capsys, *words, "--store", folder)
    assert code == 1
    assert expected in err
    assert "Traceback" not in err
    with Store.open(folder) as store:
        assert len(store.list_judgments("weapons")) == 36


def test_commands_that_read_make_no_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "project", "list", "--store", tmp_path / "typo")
    assert code == 1
    assert "no store" in err
    assert not (tmp_path / "typo").exists()


def test_doctor_says_what_is_wrong_with_exit_code_1(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    next((folder / "objects").rglob("*.png")).unlink()
    code, out, _ = run(capsys, "doctor", "--store", folder)
    assert code == 1
    assert "is missing" in out
