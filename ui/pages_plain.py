"""Pages without scripts: logging in and out, joining by link. Templates escape everything that is put into them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

FOLDER = Path(__file__).parent / "templates"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)


def show_page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Fill in one of ``ui/templates``."""
    return HTMLResponse(_environment().get_template(template).render(**values), status_code=status)


def show_login(next_path: str, name: str = "", error: str = "", status: int = 200) -> HTMLResponse:
    """Ask for name and password; ``next_path`` is where it goes on."""
    return show_page("login.html", status, next_path=next_path, name=name, error=error)


def show_join(path: str, role: str, name: str = "", error: str = "", status: int = 200) -> HTMLResponse:
    """Ask a person who came by a link for a name and a password."""
    return show_page("join.html", status, path=path, role=role, name=name, error=error)


def show_message(title: str, message: str, status: int = 200) -> HTMLResponse:
    """Say one thing."""
    return show_page("message.html", status, title=title, message=message)


def show_logout(name: str) -> HTMLResponse:
    """Ask whether to log out: following a link never does it."""
    return show_page("logout.html", name=name)
