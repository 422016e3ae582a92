# mypy: disable-error-code="import-untyped"
"""Parquet files: Pick-a-Pic's columns (v1 and v2), or any others with a mapping of columns to fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from storage.errors import InvalidInputError
from storage.import_folder import answer_of, generation_of
from storage.importers import ImportRow
from storage.records import canonical_json
from storage.validate import check_choice

FIELDS = (
    *("image", "image_0", "image_1", "prompt", "annotator", "answer", "harmful", "acceptable", "score", "categories"),
    *("seed", "model_id", "negative_prompt", "scheduler", "num_inference_steps", "guidance_scale"),
)
PICK_A_PIC = ("caption", "jpg_0", "jpg_1", "label_0")
_READ_ROWS = 32
# label_0 of Pick-a-Pic: 1 = the first was preferred, 0 = the second, 0.5 = a tie.
_PICK_A_PIC_ANSWERS = {1.0: "first", 0.0: "second", 0.5: "tie"}


def parquet_files(path: Path) -> list[Path]:
    """The parquet file, or all in a folder, by name.

    Raises:
        InvalidInputError: there is none.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise InvalidInputError(f"There is no parquet file in {str(path)!r}. Name a .parquet file or a folder of them.")
    return files


def columns_of(path: Path) -> list[str]:
    """The names of a parquet file's columns.

    Raises:
        InvalidInputError: it is not a whole parquet file.
    """
    return list(_open(path).schema_arrow.names)


def is_pick_a_pic(path: Path) -> bool:
    """Whether a file has Pick-a-Pic's columns."""
    return set(PICK_A_PIC) <= set(columns_of(path))


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0][:120]
        raise InvalidInputError(f"{str(path)!r} is not a whole parquet file ({reason}). Download it again.") from None


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa

    number = 0
    try:
        for batch in _open(path).iter_batches(batch_size=_READ_ROWS, columns=columns):
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0][:120]
        raise InvalidInputError(f"{str(path)!r} is damaged after row {number} ({reason}). Download it again.") from None


def read_pick_a_pic(path: Path) -> Iterator[ImportRow]:
    """Rows of Pick-a-Pic parquet files as pairs; rows without a label come without an answer."""
    for file in parquet_files(path):
        names = columns_of(file)
        _check_columns(file, names, PICK_A_PIC)
        optional = ("has_label", "user_id", "ranking_id", "model_0", "model_1")
        columns = [*PICK_A_PIC, *(name for name in optional if name in names)]
        for number, row in _rows(file, columns):
            where = f"{file.name} row {number}"
            label = row["label_0"]
            answer = ""
            if row.get("has_label", True) and label is not None:
                if label not in _PICK_A_PIC_ANSWERS:
                    raise InvalidInputError(f"{where}: label_0 is {label!r}; it must be 0, 0.5 or 1. Mend the row.")
                answer = _PICK_A_PIC_ANSWERS[label]
            person = row.get("user_id")
            yield ImportRow(
                where=where,
                key=canonical_json(["pick-a-pic", file.name, number, row.get("ranking_id")]),
                images=(_picture(row["jpg_0"], where), _picture(row["jpg_1"], where)),
                prompt=str(row["caption"] or ""),
                annotator="" if person is None else f"picker-{person}"[:40],
                answer=answer,
            )


def read_mapped(path: Path, mapping: Mapping[str, str]) -> Iterator[ImportRow]:
    """Rows of any parquet files.

    Args:
        mapping: field (one of FIELDS) -> the file's column.
    """
    for name in mapping:
        check_choice(name, FIELDS, "field of the column mapping")
    pictures = ("image",) if "image" in mapping else ("image_0", "image_1")
    for name in pictures:
        if name not in mapping:
            raise InvalidInputError("The column mapping names no picture. Map `image`, or `image_0` and `image_1`.")
    for file in parquet_files(path):
        _check_columns(file, columns_of(file), tuple(mapping.values()))
        for number, row in _rows(file, sorted(set(mapping.values()))):
            where = f"{file.name} row {number}"
            line = {name: row[column] for name, column in mapping.items()}
            prompt = str(line.get("prompt") or "")
            yield ImportRow(
                where=where,
                key=canonical_json(["parquet", file.name, number]),
                images=tuple(_picture(line[name], where) for name in pictures),
                prompt=prompt,
                annotator=str(line.get("annotator") or "")[:40],
                answer=answer_of(line, where),
                categories=tuple(line.get("categories") or ()),
                score=line.get("score"),
                generation=(generation_of(line, prompt, where),) if pictures == ("image",) else (),
            )


def _check_columns(file: Path, names: list[str], wanted: tuple[str, ...]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InvalidInputError(
            f"{str(file)!r} has no column {missing[0]!r}; it has: {', '.join(names[:30])}. Mend the column mapping."
        )


def _picture(value: Any, where: str) -> bytes:
    """The bytes of a picture cell: bytes, or `datasets`' struct of bytes and path."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise InvalidInputError(
            f"{where}: the picture is {type(value).__name__}, not bytes. Paths and addresses are not followed."
        )
    return value
