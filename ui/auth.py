"""Logging in and out, and joining by a one-time link."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from storage.accounts import LoginRefusedError
from storage.errors import HFIError
from ui.context import Context
from ui.guard import USER_KEY
from ui.pages_plain import show_join, show_login, show_logout, show_message

LINK_ENDED = "This link was used already or has expired. Ask for a new one."


def safe_next(path: str) -> str:
    """Where to go after logging in: a path of this very host, or the start page."""
    is_path = path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path
    return path if is_path and path.isprintable() and len(path) <= 500 else "/"


def build_auth(context: Context) -> APIRouter:
    """The routes of logging in and out, and of joining."""
    router = APIRouter()
    store = context.store

    @router.get("/login")
    async def login_page(request: Request) -> Response:
        next_path = safe_next(request.query_params.get("next", "/"))
        if await context.run(context.find_user, request) is not None:
            return RedirectResponse(next_path, status_code=303)
        return show_login(next_path)

    @router.post("/login")
    async def login(request: Request) -> Response:
        form = await _read_form(request)
        name, next_path = form.get("name", ""), safe_next(form.get("next", "/"))
        try:
            user = await context.run(store.check_login, name, form.get("password", ""), _address(request))
        except LoginRefusedError as error:
            status = 429 if error.wait_seconds else 401
            page = show_login(next_path, name, str(error), status)
            if error.wait_seconds:
                page.headers["Retry-After"] = str(int(error.wait_seconds) + 1)
            return page
        return await _start_session(context, user.name, next_path)

    @router.get("/logout")
    async def logout_page(request: Request) -> Response:
        return show_logout(request.scope[USER_KEY].name)

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        secret = request.cookies.get(context.settings.cookie_name, "")
        await context.run(store.end_session, secret)
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(context.settings.cookie_name, path="/", secure=context.settings.is_https)
        return response

    async def join_page(token: str, request: Request) -> Response:
        role = await context.run(store.find_invitation_role, token)
        if role is None:
            return show_message("This link has ended", LINK_ENDED, 410)
        return show_join(request.url.path, role)

    async def join(token: str, request: Request) -> Response:
        role = await context.run(store.find_invitation_role, token)
        if role is None:
            return show_message("This link has ended", LINK_ENDED, 410)
        form = await _read_form(request)
        name = form.get("name", "")
        if form.get("password") != form.get("repeated"):
            return show_join(request.url.path, role, name, "The two passwords differ. Type them again.", 422)
        try:
            user = await context.run(store.accept_invitation, token, name, form.get("password", ""))
        except HFIError as error:
            return show_join(request.url.path, role, name, str(error), error.http_status)
        return await _start_session(context, user.name, await context.run(_first_page, context, user.role))

    for path in ("/start/{token}", "/join/{token}"):
        router.add_api_route(path, join_page, methods=["GET"])
        router.add_api_route(path, join, methods=["POST"])
    return router


def _first_page(context: Context, role: str) -> str:
    """The first owner judges the demo project at once; everybody else starts at the list of projects."""
    projects = context.store.list_projects()
    if role == "owner" and len(projects) == 1 and projects[0].is_demo:
        return f"/label/{quote(projects[0].name)}"
    return "/"


async def _start_session(context: Context, name: str, next_path: str) -> Response:
    settings = context.settings
    secret = await context.run(context.store.create_session, name, settings.session_days)
    response = RedirectResponse(next_path, status_code=303)
    response.set_cookie(
        settings.cookie_name,
        secret,
        max_age=int(settings.session_days * 86_400),
        path="/",
        secure=settings.is_https,
        httponly=True,
        samesite="lax",
    )
    return response


async def _read_form(request: Request) -> dict[str, str]:
    """The text fields of a form; anything else in it is left out."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    form = await request.form(max_files=0, max_fields=10)
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
