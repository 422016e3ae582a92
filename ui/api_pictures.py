"""Pictures by their hash, and the labelling page itself."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from storage.errors import QuarantinedError
from ui.context import Context
from ui.guard import error_response

STATIC = Path(__file__).parent / "static"
# A picture never changes, but it can be hidden: no browser keeps it for longer than this.
PICTURE_HEADERS = {"Cache-Control": "private, max-age=300"}


def build_pictures(context: Context) -> APIRouter:
    """``/img/<sha256>``, ``/thumb/<sha256>`` and ``/label/<project>``."""
    router = APIRouter()
    store = context.store

    @router.get("/img/{sha256}")
    async def image(sha256: str) -> Response:
        return await _picture(sha256, is_thumbnail=False)

    @router.get("/thumb/{sha256}")
    async def thumbnail(sha256: str) -> Response:
        return await _picture(sha256, is_thumbnail=True)

    async def _picture(sha256: str, is_thumbnail: bool) -> Response:
        find = store.thumbnail_path if is_thumbnail else store.image_path
        try:
            path = await context.run(find, sha256)
        except QuarantinedError:
            return error_response(410, "hidden", "This picture is hidden from everyone.")
        return FileResponse(path, media_type="image/webp" if is_thumbnail else "image/png", headers=PICTURE_HEADERS)

    @router.get("/label/{project}")
    async def label_page(project: str) -> Response:
        return FileResponse(STATIC / "label" / "label.html", media_type="text/html")

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return FileResponse(STATIC / "label" / "icon.svg", media_type="image/svg+xml")

    return router
