"""Finished exports as zip files, written while they are sent: nothing is stored a second time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from storage import Store
from storage.errors import NotFoundError
from ui.context import Context

CHUNK_BYTES = 1024 * 1024
DATASET_KIND = "dataset"


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


def build_downloads(context: Context) -> APIRouter:
    """``/download/<run>.zip``."""
    router = APIRouter()

    @router.get("/download/{run_id}.zip")
    async def download(request: Request, run_id: str) -> StreamingResponse:
        await context.run(context.require, request, "researcher")
        name, folder = await context.run(find_dataset, context.store, run_id)
        # Headers are ASCII: other letters of a project's name become underscores.
        plain = name.encode("ascii", "replace").decode().replace("?", "_")
        headers = {"Content-Disposition": f'attachment; filename="{plain}"', "Cache-Control": "private, no-store"}
        return StreamingResponse(zip_folder(folder), media_type="application/zip", headers=headers)

    return router
