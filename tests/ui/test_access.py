"""A walk over all routes and all functions of the pages as everyone: who may what is the table, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.ui.people import ROLES, code_of, program_of
from tests.ui.whole_server import routes_of
from ui.access import NOBODY, PAGES, ROUTES, is_at_least, least_role, least_role_of_function
from ui.app import Application

# What answers without login, written out a second time: a route that joins them must be added here by hand.
WITHOUT_LOGIN = {
    "/health",
    "/login",
    "/start/{token}",
    "/join/{token}",
    "/static/label/{file:path}",
    "/static/shell/{file:path}",
    "/favicon.ico",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NOT_OURS = {"login", "role", "no_route", "origin"}  # codes with which the gate refuses


def sample(path: str) -> str:
    """A path with something put in for each of its parts."""
    return re.sub(r"\{[^}]*\}", "1", path)


def is_refused_by_gate(response: Any) -> bool:
    if response.status_code == 303 and response.headers["location"].startswith("/login?next="):
        return True
    if response.request.method == "HEAD":  # has no body to tell the reason in
        return response.status_code in (401, 403, 404)
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return is_json and response.status_code in (401, 403, 404) and _code(response) in NOT_OURS


def _code(response: Any) -> str:
    content = response.json() if response.content else {}
    return code_of(response) if isinstance(content, dict) and isinstance(content.get("error"), dict) else ""


def test_every_own_route_is_in_the_table(app: Application) -> None:
    own = [(method, path) for method, path in routes_of(app.routes) if not path.startswith("/static")]
    assert len(own) > 20
    assert [route for route in own if least_role(route[0], sample(route[1])) is None and route[0] != "HEAD"] == []


def test_only_these_routes_answer_without_login() -> None:
    assert {path for _, path, role in ROUTES if role == NOBODY} == WITHOUT_LOGIN


def test_every_own_route_answers_exactly_its_roles(app: Application) -> None:
    clients = {role: program_of(app, role) for role in ROLES}
    own = sorted({(m, p) for m, p in routes_of(app.routes) if m != "HEAD" and not p.startswith("/static")})
    for method, path in own:
        least = least_role(method, sample(path))
        assert least is not None
        for role, client in clients.items():
            response = client.request(method, sample(path), json={} if method != "GET" else None)
            assert is_refused_by_gate(response) is not is_at_least(role, least), (method, path, role, response.text)


def test_roles_contain_each_other() -> None:
    for low, least in enumerate(ROLES):
        for high, role in enumerate(ROLES):
            assert is_at_least(role, least) is (high >= low)
    assert not is_at_least("admin", "annotator")
    assert not is_at_least("owner", "admin")


def test_function_of_no_page_answers_nobody() -> None:
    assert least_role_of_function(print) is None
    assert least_role_of_function(lambda: None) is None


# --- Gradio's pages, built once ------------------------------------------------------------------------------------


class Pages:
    """The whole application in a process of its own, asked by everyone in turn."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.routes: list[tuple[str, str]] = facts["routes"]
        self.functions: list[tuple[int, str, str | None, str | None]] = facts["functions"]
        self.tokens: dict[str, str] = facts["tokens"]
        self.client = httpx.Client(base_url=facts["address"], timeout=120)

    def ask(self, role: str, method: str, path: str, **rest: Any) -> httpx.Response:
        """One request by someone of that role."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role != "nobody" else {}
        return self.client.request(method, path, headers=headers, **rest)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """The application with Gradio's pages."""
    command = [sys.executable, "-m", "tests.ui.whole_server", str(tmp_path_factory.mktemp("pages"))]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    watchdog = threading.Timer(300, server.kill)
    watchdog.start()
    line = server.stdout.readline()
    try:
        found = Pages(json.loads(line))
        assert len(found.routes) > 50, "the walk has lost its way through Gradio's routes"
        assert len(found.functions) > 20
        yield found
        found.client.close()
    finally:
        watchdog.cancel()
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_page_can_ask_whether_its_server_is_back(pages: Pages) -> None:
    for role in ROLES[1:]:  # everyone but nobody
        answer = pages.ask(role, "GET", "/gradio_api/app_id")
        assert answer.status_code == 200 and answer.json()["app_id"]


def test_every_route_of_gradio_answers_exactly_its_roles(pages: Pages) -> None:
    for method, path in pages.routes:
        target = sample(path)
        if "heartbeat" in target or target == "/gradio_api/queue/data":
            continue  # they answer until the browser leaves; their refusals are tested below
        least = least_role(method, target)
        for role in ROLES:
            if least is not None and is_at_least(role, least) and least != NOBODY:
                continue
            response = pages.ask(role, method, target, json={} if method in ("POST", "PUT") else None)
            assert is_refused_by_gate(response) or least == NOBODY, (method, path, role, response.status_code)


@pytest.mark.parametrize(
    "path", ["/", "/config", "/gradio_api/info", "/gradio_api/queue/data", "/gradio_api/heartbeat/1", "/theme.css"]
)
def test_nobody_sees_nothing_of_the_pages(pages: Pages, path: str) -> None:
    assert pages.ask("nobody", "GET", path).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/queue/join",
        "/gradio_api/run/predict",
        "/gradio_api/upload",
        "/gradio_api/component_server",
        "/gradio_api/call/anything",
        "/gradio_api/api/predict",
        "/gradio_api/vibe-edit",
        "/gradio_api/run-history/connect",
        "/login/",
    ],
)
def test_nobody_writes_to_gradio(pages: Pages, path: str) -> None:
    assert pages.ask("nobody", "POST", path, json={"fn_index": 0}).status_code == 401


@pytest.mark.parametrize(
    "path", ["/gradio_api/openapi.json", "/docs", "/openapi.json", "/monitoring", "/gradio_api/proxy=http://x.example/"]
)
def test_owner_is_refused_what_no_page_needs(pages: Pages, path: str) -> None:
    assert pages.ask("owner", "GET", path).status_code == 404


def test_every_function_is_in_the_table_with_what_its_page_asks_for(pages: Pages) -> None:
    for _, name, least, asked in pages.functions:
        assert least in PAGES.values(), f"{name} is on no page of the table"
        assert asked is not None and is_at_least(least, asked), f"{name} asks for more than the table"


def test_every_function_answers_exactly_its_roles(pages: Pages) -> None:
    for index, name, least, _ in pages.functions:
        assert least is not None
        for role in (role for role in ROLES if not is_at_least(role, least)):
            for path in ("/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/cancel"):
                body = {"fn_index": index, "data": [], "session_hash": "x", "event_id": "x"}
                response = pages.ask(role, "POST", path, json=body)
                assert is_refused_by_gate(response), (name, role, path, response.text)


def test_function_answers_who_may(pages: Pages) -> None:
    loads = {name: (index, least) for index, name, least, _ in pages.functions if name.endswith(".show_header")}
    assert len(loads) == len(PAGES)
    for name, (index, least) in loads.items():
        for role in (role for role in ROLES if is_at_least(role, least or "")):
            body = {"fn_index": index, "data": [], "session_hash": "x"}
            response = pages.ask(role, "POST", "/gradio_api/run/predict", json=body)
            assert response.status_code == 200 and "data" in response.json(), (name, role, response.text)


@pytest.mark.parametrize("body", [{}, {"fn_index": -1}, {"fn_index": "0"}, {"fn_index": 10**6}, [], "x", 1])
def test_call_that_names_no_function_is_refused(pages: Pages, body: object) -> None:
    response = pages.ask("owner", "POST", "/gradio_api/run/predict", json=body)
    assert (response.status_code, code_of(response)) == (403, "role")


def test_pages_name_no_other_host(pages: Pages) -> None:
    policy = pages.ask("owner", "GET", "/").headers["content-security-policy"]
    assert "http:" not in policy and "https:" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy
