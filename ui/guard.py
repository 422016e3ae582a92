"""The gate: what every request passes before any route sees it.

host -> origin -> role of the route -> size of the body -> role of the page's function -> route -> security headers
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.access import FUNCTION_PATHS, NOBODY, is_at_least, least_role
from ui.context import Context

USER_KEY = "hfi.user"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
UPLOAD_PATH = "/gradio_api/upload"
BATCH_PATH = "/api/v1/judgments"
STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Gradio evaluates templates and sets styles inline; everything still comes from this host alone.
SHELL_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
# A report is one file with everything in it: it may ask no host at all, not even this one.
REPORT_PATHS = ("/report/",)
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
OWN_PATHS = ("/api/", "/img/", "/thumb/", "/label/", "/login", "/logout", "/start/", "/join/", "/health")
OWN_STATIC = ("/static/label/", "/static/shell/")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

FunctionRole = Callable[[dict[str, Any]], str | None]


def error_response(status: int, code: str, message: str, field: str = "") -> JSONResponse:
    """The one form in which routes refuse."""
    return JSONResponse({"error": {"code": code, "message": message, "field": field}}, status_code=status)


class Gate:
    """The outermost layer of the application.

    Args:
        app: everything behind the gate.
        context: settings, and who is asking.
        function_role: the least role for the body of a call of a page's function; None = nobody may.
    """

    def __init__(self, app: ASGIApp, context: Context, function_role: FunctionRole) -> None:
        self.app = app
        self.context = context
        self.function_role = function_role

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route speaks websocket
            return
        request = Request(scope, receive)
        guarded_send = _with_headers(send, request.scope["path"])
        refusal = self._refuse_host(request) or self._refuse_origin(request) or await self._refuse_role(request)
        if refusal is None:
            refusal, receive = await self._take_body(request)
        if refusal is not None:
            await refusal(scope, request.receive, guarded_send)
            return
        await self.app(scope, receive, guarded_send)

    def _refuse_host(self, request: Request) -> Response | None:
        if _host_name(request.headers.get("host", "")) in self.context.settings.trusted_hosts:
            return None
        message = "The pages don't answer under this host name. Start `hfi ui` with --allow-host NAME."
        return error_response(400, "host", message)

    def _refuse_origin(self, request: Request) -> Response | None:
        """Writing takes a request from our own pages: browsers say where one comes from, others send no cookie."""
        if request.method in SAFE_METHODS:
            return None
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site is not None and site != "same-origin":
            is_own = False
        elif origin is not None:
            is_own = urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
        else:
            is_own = site == "same-origin" or self.context.settings.cookie_name not in request.cookies
        return (
            None if is_own else error_response(403, "origin", "This request does not come from the pages themselves.")
        )

    async def _refuse_role(self, request: Request) -> Response | None:
        least = least_role(request.method, request.scope["path"])
        if least == NOBODY:
            return None
        user = await self.context.run(self.context.find_user, request)
        if user is None:
            return self._ask_to_log_in(request)
        if least is None:
            return error_response(404, "no_route", "There is nothing here.")
        if not is_at_least(user.role, least):
            return error_response(403, "role", f"This takes the role {least}; {user.name!r} is {user.role}.")
        request.scope[USER_KEY] = user
        return None

    @staticmethod
    def _ask_to_log_in(request: Request) -> Response:
        path: str = request.scope["path"]
        is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not is_page or path.startswith(("/api/", "/gradio_api/")):
            return error_response(401, "login", "You are not logged in (any more). Log in first.")
        return RedirectResponse(f"/login?next={quote(request.scope['path'])}", status_code=303)

    async def _take_body(self, request: Request) -> tuple[Response | None, Receive]:
        """Read the body of a writing request within its limit; uploads are only counted as they stream by."""
        if request.method in SAFE_METHODS:
            return None, request.receive
        limit = self._limit(request.scope["path"])
        too_long = error_response(413, "too_long", f"The request is longer than {limit} bytes.")
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > limit:
            return too_long, request.receive
        if request.scope["path"] == UPLOAD_PATH:
            return None, _counted(request.receive, limit)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return too_long, request.receive
        if request.scope["path"] in FUNCTION_PATHS:
            refusal = self._refuse_function(request, bytes(body))
            if refusal is not None:
                return refusal, request.receive
        return None, _replayed(bytes(body), request.receive)

    def _limit(self, path: str) -> int:
        settings = self.context.settings
        if path == UPLOAD_PATH:
            return settings.max_upload_bytes
        if path.startswith("/gradio_api/"):
            return settings.max_form_bytes
        return settings.max_batch_bytes if path == BATCH_PATH else settings.max_payload_bytes

    def _refuse_function(self, request: Request, body: bytes) -> Response | None:
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        least = self.function_role(content) if isinstance(content, dict) else None
        user = request.scope[USER_KEY]
        if least is not None and is_at_least(user.role, least):
            return None
        return error_response(403, "role", f"{user.name!r} ({user.role}) may not do this.")


def _host_name(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


def _counted(receive: Receive, limit: int) -> Receive:
    n_bytes = 0

    async def counted() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        return message if n_bytes <= limit else {"type": "http.disconnect"}

    return counted


def _replayed(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def replayed() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send, path: str) -> Send:
    is_own = path.startswith(OWN_PATHS) or path.startswith(OWN_STATIC)
    policy = REPORT_POLICY if path.startswith(REPORT_PATHS) else STRICT_POLICY if is_own else SHELL_POLICY

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            headers["Content-Security-Policy"] = policy
            if "cache-control" not in Headers(raw=message["headers"]):
                headers["Cache-Control"] = _cache_rule(path)
        await send(message)

    return guarded


def _cache_rule(path: str) -> str:
    if path.startswith("/assets/"):  # Gradio's own files: hundreds, with their hash in the name
        return "private, max-age=86400"
    return "no-cache" if path.startswith("/static/") else "no-store"
