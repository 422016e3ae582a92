"""The routes of the labelling page; who may call them is decided in ``ui.access``, what they do in ``ui.labelling``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from storage.records import User
from ui import labelling
from ui.api_models import (
    BatchPayload,
    ClaimPayload,
    ConsentPayload,
    KeysPayload,
    OptOutsPayload,
    PausePayload,
    ReportPayload,
    ThemePayload,
    UndoPayload,
)
from ui.context import Context, NotLoggedInError
from ui.guard import USER_KEY

Json = dict[str, Any]


async def current_user(request: Request) -> User:
    """Who the gate let in; a second lock for routes that someone forgot to guard.

    Raises:
        NotLoggedInError: nobody.
    """
    user = request.scope.get(USER_KEY)
    if not isinstance(user, User):
        raise NotLoggedInError("You are not logged in any more. Log in again.")
    return user


Asker = Annotated[User, Depends(current_user)]


def build_api(context: Context) -> APIRouter:
    """All of ``/api/v1``."""
    router = APIRouter(prefix="/api/v1")
    _add_account_routes(router, context)
    _add_project_routes(router, context)
    _add_judgment_routes(router, context)
    return router


def _add_account_routes(router: APIRouter, context: Context) -> None:
    store = context.store

    def show_me(user: User) -> Json:
        keys = store.get_setting(user.name, "keys") or {}
        theme = store.get_setting(user.name, "theme") or "auto"
        head = {"name": user.name, "role": user.role, "theme": theme}
        return {**head, "keys": keys.get("keys", {}), "areKeysEnabled": keys.get("enabled", True)}

    def put_keys(user: User, payload: KeysPayload) -> Json:
        changes = {name: value for name, value in payload.model_dump().items() if value is not None}
        store.put_setting(user.name, "keys", {**(store.get_setting(user.name, "keys") or {}), **changes})
        return show_me(user)

    def put_theme(user: User, theme: str) -> Json:
        store.put_setting(user.name, "theme", theme)
        return show_me(user)

    @router.get("/me")
    async def me(user: Asker) -> Json:
        return await context.run(show_me, user)

    @router.put("/me/keys")
    async def keys(user: Asker, payload: KeysPayload) -> Json:
        return await context.write(put_keys, user, payload)

    @router.put("/me/theme")
    async def theme(user: Asker, payload: ThemePayload) -> Json:
        return await context.write(put_theme, user, payload.theme)


def _add_project_routes(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.get("/projects")
    async def projects(user: Asker) -> Json:
        return await context.run(labelling.show_projects, store, user)

    @router.get("/projects/{project}")
    async def project_page(user: Asker, project: str) -> Json:
        return await context.run(labelling.show_project, store, user, project)

    @router.post("/projects/{project}/consent")
    async def consent(user: Asker, project: str, payload: ConsentPayload) -> Json:
        return await context.write(labelling.set_consent, store, user, project, payload.isGiven)

    @router.put("/projects/{project}/opt-outs")
    async def opt_outs(user: Asker, project: str, payload: OptOutsPayload) -> Json:
        return await context.write(labelling.set_opt_outs, store, user, project, payload.categories)

    @router.post("/projects/{project}/claim")
    async def claim(user: Asker, project: str, payload: ClaimPayload) -> Json:
        return await context.write(labelling.claim, store, user, project, payload.n, payload.have)

    @router.get("/projects/{project}/latest")
    async def latest(user: Asker, project: str, n: Annotated[int, Query(ge=1, le=50)] = 10) -> Json:
        return await context.run(labelling.show_latest, store, user, project, n)

    @router.post("/projects/{project}/pause")
    async def pause(user: Asker, project: str, payload: PausePayload | None = None) -> Json:
        minutes = payload.minutes if payload else 0.0
        return await context.write(labelling.pause, store, user, project, minutes)


def _add_judgment_routes(router: APIRouter, context: Context) -> None:
    store = context.store

    @router.post("/judgments")
    async def submit(user: Asker, payload: BatchPayload) -> Json:
        return await context.write(labelling.submit, store, user, payload.account, payload.judgments)

    @router.post("/judgments/{uuid}/undo")
    async def undo(user: Asker, uuid: str, payload: UndoPayload) -> Json:
        return await context.write(labelling.undo, store, user, uuid, payload.undoUuid)

    @router.post("/items/{assignment}/report")
    async def report(user: Asker, assignment: int, payload: ReportPayload | None = None) -> Json:
        note = payload.note if payload else ""
        return await context.write(labelling.report, store, user, assignment, note)
