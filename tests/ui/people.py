"""A small real store behind the real application, and a client for each role."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from storage import ItemInput, Store
from tests.storage.builders import HandClock, add_pictures, copy_store
from ui.app import Application, build_app
from ui.settings import UiSettings

BASE = "http://127.0.0.1:7860"
ORIGIN = {"Origin": BASE}
PASSWORD = "correct horse battery"
ROLES = ("nobody", "annotator", "reviewer", "researcher", "owner")
PEOPLE = {"annotator": "ann", "reviewer": "rev", "researcher": "res", "owner": "boss"}
Json = dict[str, Any]


def build_store(path: Path, n_items: int = 12, **settings: object) -> Store:
    """A flag project "weapons" without hidden checks, and one person of each role."""
    return copy_store(path, f"people {n_items} {settings}", lambda template: _new_store(template, n_items, settings))


def _new_store(path: Path, n_items: int, settings: dict[str, object]) -> Store:
    store = Store.open(path, clock=HandClock())
    defaults: dict[str, Any] = {"gold_fraction": 0.0, "repeat_fraction": 0.0, "annotators_per_item": 2}
    store.create_project("weapons", categories=["gun", "knife"], guideline="Is it a **weapon**?", **defaults | settings)
    pictures = add_pictures(store, n_items)
    store.add_items(
        "weapons", [ItemInput((sha256,), f"prompt {i}", category_hint="gun") for i, sha256 in enumerate(pictures)]
    )
    for role, name in PEOPLE.items():
        store.add_annotator(name, role=role)
    return store


def build_pages(store: Store, **settings: Any) -> Application:
    """The application on a store that is open."""
    return build_app(store, UiSettings(has_demo=False, **settings))


def client_of(app: Application, role: str = "annotator", base: str = BASE) -> TestClient:
    """A browser in which someone of that role is logged in, asking from the pages themselves."""
    client = TestClient(app, base_url=base, follow_redirects=False, raise_server_exceptions=False)
    client.headers.update({"Origin": base})
    if role != "nobody":
        client.cookies.set(app.context.settings.cookie_name, app.context.store.create_session(PEOPLE[role]))
    return client


def program_of(app: Application, role: str) -> TestClient:
    """A program with a token of someone of that role; no cookie, no origin."""
    client = TestClient(app, base_url=BASE, follow_redirects=False, raise_server_exceptions=False)
    if role != "nobody":
        token = app.context.store.create_api_token(PEOPLE[role], "test")
        client.headers["Authorization"] = f"Bearer {token}"
    return client


def new_uuid() -> str:
    """A UUID as browsers make it."""
    return str(uuid.uuid4())


def claim(client: TestClient, n: int, have: list[int] | None = None, project: str = "weapons") -> list[Json]:
    """Assignments for a browser that has some."""
    response = client.post(f"/api/v1/projects/{project}/claim", json={"n": n, "have": have or []})
    assert response.status_code == 200, response.text
    items: list[Json] = response.json()["items"]
    return items


def judgment(assignment: Json, answer: str = "yes", **rest: Any) -> Json:
    """One answer to an assignment."""
    return {"uuid": new_uuid(), "assignmentId": assignment["id"], "answer": answer, "elapsedMs": 900, **rest}


def submit(client: TestClient, *judgments: Json) -> list[Json]:
    """Send a batch; the results."""
    response = client.post("/api/v1/judgments", json={"judgments": list(judgments)})
    assert response.status_code == 200, response.text
    results: list[Json] = response.json()["results"]
    return results


def code_of(response: httpx.Response) -> str:
    """The code of a refusal."""
    return str(response.json()["error"]["code"])
