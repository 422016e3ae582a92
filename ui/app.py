"""The application: own routes at once, Gradio's pages as soon as they are built, the gate before both."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from storage import Store
from storage.errors import HFIError
from ui.api import build_api
from ui.api_pictures import STATIC, build_pictures
from ui.auth import build_auth
from ui.context import Context
from ui.downloads import build_downloads
from ui.guard import Gate, error_response
from ui.reports import build_reports
from ui.settings import UiSettings
from ui.shell import Shell

log = logging.getLogger("hfi.ui")


class Application(FastAPI):
    """FastAPI behind the gate."""

    context: Context
    shell: Shell


def build_app(store_path: Path | str | Store, settings: UiSettings | None = None) -> Application:
    """The whole of the pages on a store.

    Args:
        store_path: the store's folder (made if it is not there), or an open store.
        settings: how they are served.
    """
    store = store_path if isinstance(store_path, Store) else Store.open(store_path)
    context = Context(store, settings or UiSettings())
    shell = Shell(context)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await shell.start(context.settings.shell_delay_seconds)
        yield
        await shell.stop()
        context.close()

    app = Application(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.context, app.shell = context, shell
    app.include_router(build_auth(context))
    app.include_router(build_api(context))
    app.include_router(build_pictures(context))
    app.include_router(build_downloads(context))
    app.include_router(build_reports(context))
    app.add_api_route("/health", _show_health, methods=["GET"])
    for folder in ("label", "shell"):
        app.mount(f"/static/{folder}", StaticFiles(directory=STATIC / folder))
    app.mount("/", shell)
    app.add_exception_handler(HFIError, _explain)
    app.add_exception_handler(RequestValidationError, _explain_form)
    app.add_middleware(Gate, context=context, function_role=shell.function_role)
    return app


async def _show_health() -> dict[str, bool]:
    return {"isUp": True}


async def _explain(request: Request, error: Exception) -> Response:
    """One of our own errors: its sentence, and its class as the code."""
    status = error.http_status if isinstance(error, HFIError) else 500
    if status >= 500:
        log.error("%s", error)
    code = type(error).__name__.removesuffix("Error")
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in code).strip("_")
    return error_response(status, words, str(error))


async def _explain_form(request: Request, error: Exception) -> Response:
    """A request that is not of the form agreed."""
    problem = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": ""}
    field = ".".join(str(part) for part in problem["loc"] if part != "body")
    return error_response(422, "form", f"The request's {field or 'form'} is not as expected: {problem['msg']}.", field)
