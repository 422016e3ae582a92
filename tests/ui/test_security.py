"""The table of refusals, line by line; roles and routes are walked in test_access, tries to log in in test_auth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from storage.doctor import examine_store
from tests.ui.people import BASE, build_pages, build_store, claim, client_of, code_of, judgment, program_of, submit
from ui.app import Application
from ui.texts import render_markdown

CLAIM = "/api/v1/projects/weapons/claim"


# --- requests from elsewhere ------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:7860.evil.example"},
        {"Origin": BASE, "Sec-Fetch-Site": "cross-site"},
        {"Origin": BASE, "Sec-Fetch-Site": "same-site"},
        {"Origin": BASE, "Sec-Fetch-Site": "none"},
        {},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", CLAIM), ("PUT", "/api/v1/me/keys"), ("POST", "/logout")])
def test_writing_from_elsewhere_is_refused(app: Application, headers: dict[str, str], method: str, path: str) -> None:
    client = client_of(app)
    del client.headers["Origin"]
    response = client.request(method, path, json={"n": 1}, headers=headers)
    assert (response.status_code, code_of(response)) == (403, "origin")
    assert app.context.store.list_leases("weapons", "ann") == []


def test_login_from_elsewhere_is_refused(app: Application) -> None:
    client = client_of(app, "nobody")
    assert client.post("/login", data={"name": "ann"}, headers={"Origin": "https://evil.example"}).status_code == 403


def test_other_hosts_may_not_read_answers(app: Application) -> None:
    client = client_of(app)
    headers = {"Origin": "https://evil.example"}
    assert "access-control-allow-origin" not in client.get("/api/v1/me", headers=headers).headers
    asked = client.options(CLAIM, headers=headers | {"Access-Control-Request-Method": "POST"})
    assert asked.status_code in (401, 403, 404, 405) and "access-control-allow-origin" not in asked.headers


def test_no_answer_can_be_framed_sniffed_or_scripted(app: Application) -> None:
    client = client_of(app)
    paths = ("/label/weapons", "/login", "/api/v1/me", "/static/shell/tokens.css", "/nothing", "/img/x", "/logout")
    for response in [client.get(path) for path in paths]:
        policy = response.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-content-type-options"] == "nosniff"
        if response.url.path != "/nothing":
            assert "unsafe" not in policy and policy.startswith("default-src 'none'")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80:80", "", "192.168.0.9:7860"])
def test_unknown_host_name_is_refused(app: Application, host: str) -> None:
    response = client_of(app).get("/login", headers={"Host": host})
    assert (response.status_code, code_of(response)) == (400, "host")


def test_host_name_given_by_option_is_accepted(tmp_path: Path) -> None:
    app = build_pages(build_store(tmp_path), allowed_hosts=("Labels.example",), is_https=True)
    client = client_of(app, base="https://labels.example")
    assert client.get("/api/v1/me").status_code == 200
    client.cookies.clear()
    app.context.store.set_password("ann", "correct horse battery")
    response = client.post("/login", data={"name": "ann", "password": "correct horse battery"})
    assert (
        response.headers["set-cookie"].startswith("__Host-hfi_session=") and "Secure" in response.headers["set-cookie"]
    )
    app.context.close()


# --- files ------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/img/../../../etc/passwd",
        "/img/..%2f..%2fstore.db",
        "/img/%2e%2e%2f%2e%2e%2fstore.db",
        "/img/store.db",
        "/img/" + "a" * 63,
        "/img/" + "A" * 64,
        "/img/" + "a" * 64,
        "/thumb/..%2f..%2fstore.db",
        "/static/label/../../app.py",
        "/static/label/..%2f..%2fapp.py",
        "/static/shell/%2e%2e/%2e%2e/settings.py",
        "/static/label//etc/passwd",
    ],
)
def test_path_out_of_the_store_is_not_found(app: Application, path: str) -> None:
    response = client_of(app, "owner").get(path)
    assert response.status_code in (401, 403, 404)
    assert b"SQLite format" not in response.content and b"root:" not in response.content


# --- long and odd text ------------------------------------------------------


def test_long_request_is_refused_before_it_is_read(app: Application) -> None:
    client = client_of(app, "owner")
    body = json.dumps({"isGiven": True, "filler": "x" * 17_000}).encode()
    response = client.post("/api/v1/projects/weapons/consent", content=body)
    assert (response.status_code, code_of(response)) == (413, "too_long")
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(10**9)}
    assert client.post("/gradio_api/upload", content=b"x", headers=headers).status_code == 413


def test_long_request_that_does_not_say_so_is_refused(app: Application) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1000

    response = client_of(app).post("/api/v1/projects/weapons/consent", content=chunks())
    assert response.status_code == 413


def test_request_of_another_form_is_refused_with_the_field(annotator: TestClient) -> None:
    bad = ({"n": "3"}, {"n": -1}, {"n": 10_000}, {"n": 1, "have": [1.5]}, {"n": 1, "other": 1}, {"have": []})
    for body in bad:
        response = annotator.post(CLAIM, json=body)
        assert (response.status_code, code_of(response)) == (422, "form")
        assert response.json()["error"]["field"]
    assert annotator.post(CLAIM, content=b"{", headers={"Content-Type": "application/json"}).status_code == 422
    assert annotator.post("/api/v1/judgments", json={"judgments": [{}] * 51}).status_code == 422


def test_text_is_cleaned_and_otherwise_kept_as_typed(app: Application, annotator: TestClient) -> None:
    items = claim(annotator, 2)
    odd = "  caf\u0065\u0301 \u202eevil\u0000 <script>=1+1</script> \u200bok "
    results = submit(annotator, judgment(items[0], "skip", reason=odd), judgment(items[1], "skip", reason="x" * 2001))
    assert [result["status"] for result in results] == ["stored", "invalid"]
    stored = app.context.store.list_judgments("weapons")[0].reason
    assert stored == "caf\u00e9 evil <script>=1+1</script> ok"


# --- scripts in text ------------------------------------------------------

SCRIPTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "![x](https://evil.example/x.png)",
    "<a href='javascript:alert(1)'>x</a>",
    '"><svg onload=alert(1)>',
    "`<b>`",
    "| <i>x</i> |\n|---|\n| <u>y</u> |",
    "[x]: javascript:alert(1)\n\n[x]",
    "<https://evil.example/<script>>",
)


@pytest.mark.parametrize("text", SCRIPTS)
def test_guideline_is_harmless_html(text: str) -> None:
    html = render_markdown(text).lower()
    for tag in ("<script", "<img", "<svg", "<a href='", "<b>", "<i>", "<u>"):
        assert tag not in html
    assert 'href="javascript' not in html and 'href="data' not in html


def test_guideline_reaches_the_page_as_harmless_html(app: Application, annotator: TestClient) -> None:
    app.context.store.add_guideline("weapons", "# A\n<script>alert(1)</script>")
    guideline = annotator.get("/api/v1/projects/weapons").json()["guideline"]
    assert guideline["version"] == 2
    assert guideline["html"].startswith("<h1>A</h1>") and "<script" not in guideline["html"]


def test_what_was_typed_into_a_form_is_escaped(app: Application) -> None:
    client = client_of(app, "nobody")
    text = '"><script>alert(1)</script>'
    page = client.post("/login", data={"name": text, "password": "x", "next": "/" + text}).text
    assert "<script" not in page and "&lt;script&gt;" in page
    secret = app.context.store.create_invitation("annotator", "boss")
    page = client.post(f"/join/{secret}", data={"name": text, "password": "x", "repeated": "x"}).text
    assert "<script" not in page
    assert "<script" not in client.get("/join/<script>alert(1)<").text


def test_names_that_could_be_markup_are_refused(app: Application) -> None:
    store = app.context.store
    from storage.errors import InvalidInputError

    for name in ("<b>", "a/b", "a\nb", "=1+1", "x" * 41, " a", "a\u202eb"):
        with pytest.raises(InvalidInputError):
            store.create_project(name)
        with pytest.raises(InvalidInputError):
            store.add_annotator(name)


# --- secrets and traces ------------------------------------------------------


def test_acts_are_in_the_audit_and_the_store_is_sound(app: Application) -> None:
    store = app.context.store
    secret = store.create_invitation("reviewer", "boss")
    store.accept_invitation(secret, "new", "correct horse battery")
    store.set_role("new", "annotator", "boss")
    store.disable_account("new", "boss")
    client = client_of(app)
    submit(client, *[judgment(item) for item in claim(client, 3)])
    actions = {entry["action"] for entry in store.list_audit()}
    assert {"account.invite", "account.join", "account.role", "account.disable", "account.login"} <= actions
    assert not any(secret in json.dumps(entry) for entry in store.list_audit())
    assert examine_store(store.path) == []


def test_refusal_never_shows_a_traceback_or_a_path(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    from ui import labelling

    def broken(*arguments: object) -> None:
        raise RuntimeError("secret detail in /home/someone")

    monkeypatch.setattr(labelling, "show_projects", broken)
    response = program_of(app, "annotator").get("/api/v1/projects")
    assert response.status_code == 500
    assert "secret" not in response.text and "Traceback" not in response.text


def test_pages_talk_to_no_other_host_and_load_no_torch() -> None:
    """Gradio's own news and analytics are off before it is imported, whatever the environment says."""
    code = (
        "import os, sys; import ui.shell as s; "
        "print([m for m in ('gradio', 'torch') if m in sys.modules], s.quiet_environment(), "
        "os.environ['GRADIO_ANALYTICS_ENABLED'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "True"}
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert run.stdout.split() == ["[]", "None", "False", "1"], run.stderr
