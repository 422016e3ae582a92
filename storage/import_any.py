"""One door for every source: finds out what a path is and imports it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from storage.errors import InvalidInputError, NotFoundError
from storage.import_export import import_export
from storage.import_folder import SUFFIXES, read_folder
from storage.import_parquet import is_pick_a_pic, parquet_files, read_mapped, read_pick_a_pic
from storage.importers import ImportReport, OnRows, import_rows, target_project

if TYPE_CHECKING:
    from storage.store import Store

Source = Literal["auto", "export", "folder", "pick-a-pic", "parquet"]
SOURCES: tuple[Source, ...] = ("auto", "export", "folder", "pick-a-pic", "parquet")


def import_path(
    store: Store,
    path: Path | str,
    project: str | None = None,
    *,
    source: str = "auto",
    kind: str | None = None,
    mapping: Mapping[str, str] | None = None,
    is_skipping_bad_rows: bool = False,
    on_rows: OnRows | None = None,
) -> ImportReport:
    """Import feedback from a file or folder.

    Args:
        project: the project to import into, made if missing; default: the folder's or file's name.
        source: export, folder, pick-a-pic, parquet, or auto to find out.
        kind: kind of a project that is made; default: pair for two pictures a row, else flag.
        mapping: field -> column, for parquet.
        is_skipping_bad_rows: store the good rows although others are refused.

    Raises:
        NotFoundError: the path is not there.
        InvalidInputError: not readable as this source, or rows are refused.
    """
    place = Path(path)
    if not place.exists():
        raise NotFoundError(f"There is no file or folder {str(path)!r}. Check the path.")
    found = _find_source(place, mapping) if source == "auto" else source
    if found == "export":
        return import_export(store, place, project, on_rows)
    name = project or place.resolve().stem[:40]
    options = {"is_skipping_bad_rows": is_skipping_bad_rows, "on_rows": on_rows}
    if found == "pick-a-pic":
        target = target_project(store, name, "pair")
        return import_rows(store, target, partial(read_pick_a_pic, place), **options)  # type: ignore[arg-type]
    if found == "parquet":
        if not mapping:
            raise InvalidInputError(f"{str(path)!r} needs a column mapping, for example image=img and prompt=text.")
        target = target_project(store, name, kind or ("pair" if "image_0" in mapping else "flag"))
        return import_rows(store, target, partial(read_mapped, place, dict(mapping)), **options)  # type: ignore[arg-type]
    target = target_project(store, name, kind or "flag")
    return import_rows(store, target, partial(read_folder, place), **options)  # type: ignore[arg-type]


def _find_source(place: Path, mapping: Mapping[str, str] | None) -> str:
    if place.is_dir() and (place / "manifest.json").exists():
        return "export"
    if place.is_dir() and any(path.suffix.lower() in SUFFIXES for path in place.rglob("*")):
        return "folder"
    if place.is_dir() or place.suffix == ".parquet":
        return "parquet" if mapping or not is_pick_a_pic(parquet_files(place)[0]) else "pick-a-pic"
    raise InvalidInputError(
        f"{str(place)!r} is neither a folder of pictures, an export, nor a parquet file. Convert it to one of these."
    )
