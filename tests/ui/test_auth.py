"""Logging in and out, one-time links, tries, sessions, tokens, roles."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from storage import Store
from storage.accounts import LoginRefusedError
from storage.errors import ConflictError, InvalidInputError, NotFoundError
from tests.storage.builders import HandClock
from tests.ui.people import BASE, PASSWORD, build_pages, client_of, program_of
from ui.app import Application
from ui.auth import safe_next

FORM = {"name": "ada", "password": PASSWORD, "repeated": PASSWORD}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one owner, "ada", and a clock set by hand."""
    made = Store.open(tmp_path / "store", clock=HandClock())
    secret = made.create_owner_link()
    assert secret is not None
    made.accept_invitation(secret, "ada", PASSWORD)
    return made


def clock_of(store: Store) -> HandClock:
    assert isinstance(store.clock, HandClock)
    return store.clock


def test_first_start_link_makes_the_owner_once(tmp_path: Path) -> None:
    app = build_pages(Store.open(tmp_path))
    first, secret = app.context.store.create_owner_link(), app.context.store.create_owner_link()
    client = client_of(app, "nobody")
    assert client.get(f"/start/{first}").status_code == 410  # a newer link ends the older one
    assert "owner" in client.get(f"/start/{secret}").text
    response = client.post(f"/start/{secret}", data=FORM)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    assert client.get("/api/v1/me").json()["role"] == "owner"
    assert client.get(f"/start/{secret}").status_code == client.post(f"/start/{secret}", data=FORM).status_code == 410
    assert app.context.store.create_owner_link() is None
    app.context.close()


def test_join_refuses_bad_names_and_passwords_and_the_link_stays(app: Application) -> None:
    secret = app.context.store.create_invitation("annotator", "boss")
    client = client_of(app, "nobody")
    bad = ({"name": "ann"}, {"name": "<b>"}, {"password": "short", "repeated": "short"}, {"repeated": "other words"})
    for change in bad:
        response = client.post(f"/join/{secret}", data=FORM | change)
        assert response.status_code in (409, 422) and 'role="alert"' in response.text
    assert client.post(f"/join/{secret}", data=FORM).status_code == 303


def test_invitation_expires_and_can_be_revoked(store: Store) -> None:
    late, revoked = store.create_invitation("reviewer", "ada", days=1), store.create_invitation("reviewer", "ada")
    store.revoke_invitation(store.list_invitations()[1].id, "ada")
    assert store.find_invitation_role(late) == "reviewer"
    clock_of(store).seconds += 86_401
    for secret in (late, revoked, "never made"):
        assert store.find_invitation_role(secret) is None
        with pytest.raises(NotFoundError, match="Ask for a new one"):
            store.accept_invitation(secret, "bo", PASSWORD)


def test_login_waits_longer_and_longer_after_five_wrong_tries(store: Store) -> None:
    for _ in range(5):
        with pytest.raises(LoginRefusedError, match="don't fit"):
            store.check_login("ada", "wrong", "10.0.0.1")
    for wait in (30, 60, 120):
        with pytest.raises(LoginRefusedError, match="Too many") as refused:
            store.check_login("ada", PASSWORD, "10.0.0.2")  # right, and from elsewhere: still to wait
        assert refused.value.wait_seconds == pytest.approx(wait)
        clock_of(store).seconds += wait
        with pytest.raises(LoginRefusedError, match="don't fit"):
            store.check_login("ada", "wrong", "10.0.0.1")
    clock_of(store).seconds += 240
    assert store.check_login("ada", PASSWORD, "10.0.0.1").name == "ada"
    with pytest.raises(LoginRefusedError, match="don't fit"):
        store.check_login("ada", "wrong", "10.0.0.1")  # counting began anew


def test_login_waits_for_an_address_that_tries_many_names(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.accounts.N_FREE_TRIES", {"account": 5, "address": 3})
    for number in range(3):
        with pytest.raises(LoginRefusedError, match="don't fit"):
            store.check_login(f"guess {number}", "wrong", "10.0.0.1")
    with pytest.raises(LoginRefusedError, match="Too many"):
        store.check_login("ada", PASSWORD, "10.0.0.1")
    assert store.check_login("ada", PASSWORD, "10.0.0.2").name == "ada"


def test_login_page_logs_in_and_out(app: Application) -> None:
    store = app.context.store
    store.set_password("ann", PASSWORD)
    client = client_of(app, "nobody")
    wrong = client.post("/login", data={"name": "ann", "password": "wrong", "next": "/label/weapons"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    right = client.post("/login", data={"name": "ANN", "password": PASSWORD, "next": "/label/weapons"})
    assert (right.status_code, right.headers["location"]) == (303, "/label/weapons")
    secret = client.cookies[app.context.settings.cookie_name]
    assert client.get("/login").headers["location"] == "/"
    assert client.get("/logout").status_code == 200 and client.get("/api/v1/me").status_code == 200
    assert client.post("/logout").headers["location"] == "/login"
    assert store.find_session_user(secret) is None
    assert client.get("/api/v1/me").status_code == 401


def test_login_blocked_says_when_to_try_again(app: Application) -> None:
    app.context.store.set_password("ann", PASSWORD)
    client = client_of(app, "nobody")
    for _ in range(5):
        client.post("/login", data={"name": "ann", "password": "wrong"})
    blocked = client.post("/login", data={"name": "ann", "password": PASSWORD})
    assert blocked.status_code == 429 and 0 < int(blocked.headers["retry-after"]) <= 31


def test_session_ends_by_time_by_disabling_and_by_a_new_password(store: Store) -> None:
    store.add_annotator("bo")
    old = store.create_session("bo")
    clock_of(store).seconds += 14 * 86_400 + 1
    assert store.find_session_user(old) is None
    first, second = store.create_session("bo"), store.create_session("bo")
    assert [session.is_this for session in store.list_sessions("bo", second)] == [False, True]
    assert store.end_sessions("bo", second) == 1
    assert store.find_session_user(first) is None and store.find_session_user(second) is not None
    store.set_password("bo", PASSWORD)
    assert store.find_session_user(second) is None
    third, token = store.create_session("bo"), store.create_api_token("bo", "script")
    store.disable_account("bo", "ada")
    assert store.find_session_user(third) is None and store.find_token_user(token) is None
    with pytest.raises(LoginRefusedError):
        store.check_login("bo", PASSWORD)
    store.enable_account("bo", "ada")
    assert store.check_login("bo", PASSWORD).name == "bo"
    assert store.find_session_user(third) is None and store.find_token_user(token) is None


def test_token_lets_a_program_in_until_it_is_revoked(app: Application) -> None:
    client = program_of(app, "annotator")
    assert client.get("/api/v1/me").json()["name"] == "ann"
    store = app.context.store
    store.revoke_api_token("ann", store.list_api_tokens("ann")[0]["id"])
    assert client.get("/api/v1/me").status_code == 401


def test_last_owner_stays_owner(store: Store) -> None:
    for act in (lambda: store.set_role("ada", "reviewer", "ada"), lambda: store.disable_account("ada", "ada")):
        with pytest.raises(ConflictError, match="only owner"):
            act()
    store.add_annotator("bo")
    store.set_role("bo", "owner", "ada")
    assert store.set_role("ada", "reviewer", "bo").role == "reviewer"


def test_password_rules_and_hashes(store: Store) -> None:
    for password in ("nine char", "x" * 201):
        with pytest.raises(InvalidInputError, match="10 to 200"):
            store.set_password("ada", password)
    stored = store.connection.execute("SELECT password_hash FROM user WHERE name = 'ada'").fetchone()[0]
    assert stored.startswith("scrypt$15$8$1$") and PASSWORD not in stored


def test_no_secret_is_in_the_database(store: Store) -> None:
    secrets = [store.create_session("ada"), store.create_api_token("ada", "script"), store.create_invitation("owner")]
    dump = "\n".join(store.connection.iterdump())
    assert not any(secret in dump for secret in (*secrets, PASSWORD))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("/label/a b?x=1", "/label/a b?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\nSet-Cookie: x=1", "/"),
        ("", "/"),
    ],
)
def test_login_goes_on_within_this_host_alone(asked: str, given: str) -> None:
    assert safe_next(asked) == given


def test_page_asks_to_log_in_and_comes_back(app: Application) -> None:
    client = TestClient(app, base_url=BASE, follow_redirects=False)
    response = client.get("/label/weapons", headers={"Accept": "text/html"})
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=/label/weapons")
