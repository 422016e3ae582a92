"""Gradio's pages, built in the background: importing Gradio takes longer than a person waits for a login page."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ui.access import least_role_of_function
from ui.context import Context
from ui.guard import USER_KEY

log = logging.getLogger("hfi.ui")


class Shell:
    """An application that is Gradio's once it is there; requests wait for it until then."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.blocks: Any = None
        self._app: ASGIApp | None = None
        self._ready = asyncio.Event()
        self._exits = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_built(self) -> bool:
        """Whether the pages can be asked for."""
        return self._app is not None

    async def start(self, delay_seconds: float = 0.0) -> None:
        """Begin to build the pages, after the first answers are out."""
        self._task = asyncio.create_task(self._build_later(delay_seconds))

    async def _build_later(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        try:
            self.blocks, app = await asyncio.to_thread(build_shell, self.context)
            await self._exits.enter_async_context(app.router.lifespan_context(app))
            self._app = app
        except Exception:
            log.exception("The pages could not be built; judging goes on without them.")
        finally:
            self._ready.set()

    async def stop(self) -> None:
        """End what Gradio has started."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._exits.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to Gradio."""
        await self._ready.wait()
        if self._app is None:
            response = PlainTextResponse("The pages could not be built; see the log of `hfi ui`.", status_code=503)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def mounted_routes(self) -> list[Any]:
        """Gradio's routes; none before its pages are built."""
        return list(getattr(self._app, "routes", []))

    def function_role(self, body: dict[str, Any]) -> str | None:
        """The least role for the function that a call's body names; None if there is none."""
        index = body.get("fn_index")
        functions = self.blocks.fns if self.blocks is not None else {}
        if not isinstance(index, int) or index not in functions:
            return None
        function = functions[index].fn
        return "annotator" if function is None else least_role_of_function(function)


def quiet_environment() -> None:
    """Gradio and its libraries talk to nobody; they read this once, when they are imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def build_shell(context: Context) -> tuple[Any, Any]:
    """Import Gradio, build the pages and mount them; seconds."""
    quiet_environment()
    import gradio as gr
    from fastapi import FastAPI, Request
    from fastapi.middleware.cors import CORSMiddleware

    from ui.pages import build_pages
    from ui.theme import mount_options

    blocks = build_pages(context)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(CORSMiddleware, allow_origins=[])

    def user_name(request: Request) -> str | None:
        user = request.scope.get(USER_KEY)
        return user.name if user is not None else None

    # Gradio says so of every app of several pages, whatever it is asked for.
    warnings.filterwarnings("ignore", "SSR mode is not supported", UserWarning)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth_dependency=user_name,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=context.settings.max_upload_bytes,
        **mount_options(),
    )
    return blocks, app
