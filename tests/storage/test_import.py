"""Imports: everything is checked before anything is written, and running an import again adds nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from storage import Store
from storage.errors import ConflictError, InvalidInputError, NotFoundError
from storage.import_any import import_path
from storage.snapshot import create_snapshot


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def picture_bytes(colour: int, kind: str = "PNG") -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (colour, 20, 30)).save(buffer, format=kind)
    return buffer.getvalue()


def write_folder(folder: Path, lines: list[dict[str, object]]) -> Path:
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture_bytes(number * 10))
    if lines:
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return folder


def write_parquet(path: Path, columns: dict[str, list[object]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def pick_a_pic(path: Path, **columns: list[object]) -> Path:
    rows: dict[str, list[object]] = {
        "caption": ["a cat", "a dog", "a fox"],
        "jpg_0": [picture_bytes(1, "JPEG"), picture_bytes(60, "JPEG"), picture_bytes(120, "JPEG")],
        "jpg_1": [picture_bytes(200, "JPEG"), picture_bytes(220, "JPEG"), picture_bytes(240, "JPEG")],
        "label_0": [1.0, 0.5, 0.0],
        "has_label": [True, True, False],
        "user_id": [7, 8, 7],
    }
    return write_parquet(path, rows | columns)


def test_folder_with_metadata(empty: Store, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"file_name": "0.png", "prompt": "a gun", "seed": 3, "harmful": True, "annotator": "zoe"},
        {"file_name": "1.png", "text": "a rose", "harmful": False},
        {"file_name": "2.png", "prompt": "a cat", "answer": "unsure"},
    ]
    folder = write_folder(tmp_path / "pictures", lines)
    report = import_path(empty, folder)
    assert (report.project, report.n_images, report.n_judgments, report.n_without_answer) == ("pictures", 4, 3, 1)
    assert empty.list_generations("pictures")[0].params.seed == 3
    labels = {image.prompt: image.is_harmful for image in create_snapshot(empty, "pictures").images}
    assert labels == {"a gun": True, "a rose": False}
    assert import_path(empty, folder).n_judgments == 3
    assert len(empty.list_judgments("pictures")) == 3
    assert len(empty.list_items("pictures")) == 4


def test_folder_with_a_bad_picture_imports_nothing_or_the_rest(empty: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures", [])
    (folder / "evil.png").write_text("<svg/>")
    with pytest.raises(InvalidInputError, match=r"1 of 5 rows.*nothing was imported.*evil\.png"):
        import_path(empty, folder)
    assert empty.list_images() == []
    report = import_path(empty, folder, is_skipping_bad_rows=True)
    assert report.n_images == 4
    assert "evil.png" in report.refused[0]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ({"file_name": "9.png"}, "not in"),
        ({"prompt": "no name"}, "file_name"),
        ({"file_name": "0.png", "harmful": "maybe"}, "must be true or false"),
        ({"file_name": "0.png", "prompt": "x", "seed": "many"}, "must be a number"),
        ({"file_name": "0.png", "answer": "yes", "categories": ["bomb"]}, "category 'bomb' is unknown"),
        ({"file_name": "0.png", "answer": "perhaps"}, "perhaps"),
        ({"file_name": "0.png", "prompt": "x" * 3000}, "3000 characters"),
        ({"file_name": "0.png", "score": -4}, "answer to a flag item"),
    ],
)
def test_folder_with_a_bad_line_imports_nothing(
    empty: Store, tmp_path: Path, line: dict[str, object], rule: str
) -> None:
    with pytest.raises(InvalidInputError, match=rule):
        import_path(empty, write_folder(tmp_path / "pictures", [line]))
    assert empty.list_images() == []


def test_pick_a_pic(empty: Store, tmp_path: Path) -> None:
    path = pick_a_pic(tmp_path / "train.parquet")
    report = import_path(empty, path, "pap")
    assert (report.n_items, report.n_judgments, report.n_without_answer) == (3, 2, 1)
    answers = {row.annotator: row.answer for row in empty.list_judgments("pap")}
    assert answers == {"picker-7": "first", "picker-8": "tie"}
    assert empty.get_project("pap").kind == "pair"
    import_path(empty, path, "pap")
    assert len(empty.list_judgments("pap")) == 2
    with pytest.raises(ConflictError, match="is of kind pair"):
        import_path(empty, path, "pap", source="parquet", mapping={"image": "jpg_0"})


def test_pick_a_pic_with_an_odd_label_names_the_row(empty: Store, tmp_path: Path) -> None:
    path = pick_a_pic(tmp_path / "train.parquet", label_0=[1.0, 0.7, 0.0])
    with pytest.raises(InvalidInputError, match=r"train\.parquet row 1: label_0 is 0\.7"):
        import_path(empty, path)


def test_parquet_with_a_mapping(empty: Store, tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "img": [{"bytes": picture_bytes(n), "path": None} for n in (1, 2, 3)],
        "words": ["a", "b", "c"],
        "bad": [True, False, None],
        "who": ["x", "y", "x"],
    }
    path = write_parquet(tmp_path / "set.parquet", columns)
    mapping = {"image": "img", "prompt": "words", "harmful": "bad", "annotator": "who"}
    report = import_path(empty, path, "generic", mapping=mapping)
    assert (report.n_images, report.n_judgments) == (3, 2)
    with pytest.raises(InvalidInputError, match=r"no column 'wrong'; it has: img, words, bad, who"):
        import_path(empty, path, "generic", mapping={"image": "wrong"})
    with pytest.raises(InvalidInputError, match="names no picture"):
        import_path(empty, path, "generic", mapping={"prompt": "words"})
    with pytest.raises(InvalidInputError, match="field of the column mapping 'colour' is unknown"):
        import_path(empty, path, "generic", mapping={"image": "img", "colour": "words"})
    with pytest.raises(InvalidInputError, match="needs a column mapping"):
        import_path(empty, path, "generic")
    with pytest.raises(InvalidInputError, match="not bytes"):
        import_path(empty, path, "generic", mapping={"image": "words"})


@pytest.mark.parametrize("n_bytes", [0, 10, 700])
def test_truncated_parquet_is_named(empty: Store, tmp_path: Path, n_bytes: int) -> None:
    path = pick_a_pic(tmp_path / "train.parquet")
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(InvalidInputError, match=r"train\.parquet' is not a whole parquet file"):
        import_path(empty, path)
    assert empty.list_projects() == []


def test_damaged_parquet_is_named(empty: Store, tmp_path: Path) -> None:
    path = pick_a_pic(tmp_path / "train.parquet")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidInputError, match=r"train\.parquet"):
        import_path(empty, path)
    assert empty.list_images() == []


def test_import_of_nothing_is_named(empty: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        import_path(empty, tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidInputError, match="neither a folder of pictures"):
        import_path(empty, tmp_path / "notes.txt")
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInputError, match="no parquet file"):
        import_path(empty, tmp_path / "none")
