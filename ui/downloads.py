"""What runs made, to look at and to take along: single files, and folders as zip files that are written while they are
sent, so that nothing is stored a second time.

    /download/<run>.zip              the dataset of an export
    /artifact/<run>/<path>           a file of the run's folder; pictures are shown, everything else is saved
    /artifact/<run>/<path>.zip       a folder of it (a file that is called so comes first)
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from storage import Store
from storage.errors import NotFoundError
from ui.context import Context

CHUNK_BYTES = 1024 * 1024
DATASET_KIND = "dataset"
PICTURE_SUFFIX = ".png"
PRIVATE = "private, no-store"


class _Sink:
    """A file that only takes: what was written waits here until it is sent."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self.n_sent = 0

    def write(self, content: Any) -> int:
        self.waiting += content
        return len(content)

    def tell(self) -> int:
        return self.n_sent + len(self.waiting)

    def flush(self) -> None:
        """There is nothing to flush."""

    def take(self) -> bytes:
        """What has been written since the last time."""
        content = bytes(self.waiting)
        self.n_sent += len(content)
        self.waiting.clear()
        return content


def zip_folder(folder: Path) -> Iterator[bytes]:
    """The bytes of a zip of a folder, sorted by name; parquet is compressed already, so nothing is compressed again."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for path in sorted(member for member in folder.rglob("*") if member.is_file()):
            information = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            information.external_attr = 0o644 << 16
            with archive.open(information, "w", force_zip64=True) as target, path.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield sink.take()
    yield sink.take()


def find_dataset(store: Store, run_id: str) -> tuple[str, Path]:
    """The name and folder of the dataset that an export run made.

    Raises:
        NotFoundError: there is no such run, or it made no dataset.
    """
    datasets = [artifact for artifact in store.list_artifacts(run_id) if artifact.kind == DATASET_KIND]
    if not datasets or not (store.path / datasets[0].path).is_dir():
        raise NotFoundError(f"Run {run_id[:40]!r} made no dataset. Export a snapshot first.")
    project = str(store.get_run(run_id).config.get("project") or DATASET_KIND)
    return f"{project}-{run_id}.zip", store.path / datasets[0].path


def find_in_artifacts(store: Store, run_id: str, path: str) -> Path:
    """A file of a run's folder of artifacts, or one of its folders if the path ends in .zip.

    Raises:
        NotFoundError: there is no such run or file, or the path leads elsewhere.
    """
    root = (store.path / "artifacts" / store.get_run(run_id).id).resolve()
    for name in (path, path.removesuffix(".zip")):
        place = (root / name).resolve()
        is_inside = place.is_relative_to(root) and place != root
        is_hidden = any(part.startswith(".") for part in Path(name).parts)
        if is_inside and not is_hidden and (place.is_file() or (name != path and place.is_dir())):
            return place
    raise NotFoundError(f"Run {run_id[:40]} has no file {path[:80]!r}. Look in the library for what it made.")


def _sent_as(name: str) -> dict[str, str]:
    # Headers are ASCII: other letters of a project's name become underscores.
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    return {"Content-Disposition": f'attachment; filename="{plain}"', "Cache-Control": PRIVATE}


def build_downloads(context: Context) -> APIRouter:
    """The routes above; all of them for researchers."""
    router = APIRouter()

    @router.get("/download/{run_id}.zip")
    async def download(request: Request, run_id: str) -> StreamingResponse:
        await context.run(context.require, request, "researcher")
        name, folder = await context.run(find_dataset, context.store, run_id)
        return StreamingResponse(zip_folder(folder), media_type="application/zip", headers=_sent_as(name))

    @router.get("/artifact/{run_id}/{path:path}")
    async def show_artifact(request: Request, run_id: str, path: str) -> Response:
        await context.run(context.require, request, "researcher")
        place = await context.run(find_in_artifacts, context.store, run_id, path)
        if place.is_dir():
            name = f"{place.name}-{run_id}.zip"
            return StreamingResponse(zip_folder(place), media_type="application/zip", headers=_sent_as(name))
        if place.suffix == PICTURE_SUFFIX:
            return FileResponse(place, media_type="image/png", headers={"Cache-Control": PRIVATE})
        return FileResponse(place, media_type="application/octet-stream", headers=_sent_as(place.name))

    return router
