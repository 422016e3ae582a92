"""Who may what: one table of every route and every function of the pages with the least role it takes.

What is not in the table answers nobody. ``ui.guard`` applies it to every request before anything else runs.
"""

from __future__ import annotations

import re
from functools import lru_cache

NOBODY = "nobody"  # no login needed
ROLES_UPWARDS = ("annotator", "reviewer", "researcher", "owner")
READ, WRITE = ("GET", "HEAD"), ("POST",)

# (methods, path, least role); the first that fits counts. {x} is one part of a path, {x:path} any number.
ROUTES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    # without login
    (READ, "/health", NOBODY),
    (READ, "/login", NOBODY),
    (WRITE, "/login", NOBODY),
    (READ, "/start/{token}", NOBODY),
    (WRITE, "/start/{token}", NOBODY),
    (READ, "/join/{token}", NOBODY),
    (WRITE, "/join/{token}", NOBODY),
    (READ, "/static/label/{file:path}", NOBODY),
    (READ, "/static/shell/{file:path}", NOBODY),
    (READ, "/favicon.ico", NOBODY),
    # own pages and pictures
    (READ, "/logout", "annotator"),
    (WRITE, "/logout", "annotator"),
    (READ, "/label/{project}", "annotator"),
    (READ, "/img/{sha256}", "annotator"),
    (READ, "/thumb/{sha256}", "annotator"),
    (READ, "/download/{run}", "researcher"),
    (READ, "/artifact/{run}/{file:path}", "researcher"),
    (READ, "/report/{run}", "researcher"),
    (READ, "/report/{runs}/compare.html", "researcher"),
    # labelling
    (READ, "/api/v1/me", "annotator"),
    (("PUT",), "/api/v1/me/keys", "annotator"),
    (("PUT",), "/api/v1/me/theme", "annotator"),
    (READ, "/api/v1/projects", "annotator"),
    (READ, "/api/v1/projects/{project}", "annotator"),
    (WRITE, "/api/v1/projects/{project}/consent", "annotator"),
    (("PUT",), "/api/v1/projects/{project}/opt-outs", "annotator"),
    (WRITE, "/api/v1/projects/{project}/claim", "annotator"),
    (READ, "/api/v1/projects/{project}/latest", "annotator"),
    (WRITE, "/api/v1/projects/{project}/pause", "annotator"),
    (WRITE, "/api/v1/judgments", "annotator"),
    (WRITE, "/api/v1/judgments/{uuid}/undo", "annotator"),
    (WRITE, "/api/v1/items/{assignment}/report", "annotator"),
    # the shell: what Gradio serves of itself
    (READ, "/", "annotator"),
    (READ, "/config", "annotator"),
    (READ, "/config/", "annotator"),
    (READ, "/theme.css", "annotator"),
    (READ, "/static/{file:path}", "annotator"),
    (READ, "/assets/{file:path}", "annotator"),
    (READ, "/manifest.json", "annotator"),
    (READ, "/gradio_api/theme.css", "annotator"),
    (READ, "/gradio_api/info", "annotator"),
    (READ, "/gradio_api/startup-events", "annotator"),
    (READ, "/gradio_api/app_id", "annotator"),  # a page asks for it to come back after the server was away
    (READ, "/gradio_api/heartbeat/{session}", "annotator"),
    (READ, "/gradio_api/queue/data", "annotator"),
    (WRITE, "/gradio_api/queue/join", "annotator"),
    (WRITE, "/gradio_api/run/predict", "annotator"),
    (WRITE, "/gradio_api/cancel", "annotator"),
    (WRITE, "/gradio_api/reset", "annotator"),
    (READ, "/gradio_api/file={file:path}", "reviewer"),
    (WRITE, "/gradio_api/upload", "researcher"),
    (READ, "/gradio_api/upload_progress", "researcher"),
)
# Routes through which a browser calls a function of a page: the function's own role counts as well.
FUNCTION_PATHS = frozenset({"/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"})

# The pages by their module in ui/pages; a page's path and each of its functions take the page's role ...
PAGES: dict[str, str] = {
    "projects": "annotator",
    "account": "annotator",
    "gallery": "reviewer",
    "quality": "reviewer",
    "setup": "researcher",
    "export": "researcher",
    "generate": "researcher",
    "concept": "researcher",
    "erase": "researcher",
    "results": "researcher",
    "judge_again": "researcher",
    "library": "researcher",
    "jobs": "researcher",
    "people": "owner",
}
# ... unless the function (page.function) is named here.
FUNCTIONS: dict[str, str] = {
    "gallery.add_gold": "researcher",
    "quality.withdraw": "owner",
}


def is_at_least(role: str, least: str) -> bool:
    """Whether ``role`` may what ``least`` may; unknown words may nothing and are enough for nothing."""
    if least == NOBODY:
        return True
    if role not in ROLES_UPWARDS or least not in ROLES_UPWARDS:
        return False
    return ROLES_UPWARDS.index(role) >= ROLES_UPWARDS.index(least)


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[frozenset[str], re.Pattern[str], str], ...]:
    pages = tuple((READ, f"/{page}", role) for page, role in PAGES.items())
    return tuple((frozenset(methods), _pattern(path), role) for methods, path, role in (*ROUTES, *pages))


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+(?::path)?\})", path)
    return re.compile("".join(_part(part) for part in parts))


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    return ".+" if part.endswith(":path}") else "[^/]+"


def least_role(method: str, path: str) -> str | None:
    """The least role for a request; None if nobody may."""
    for methods, pattern, role in _patterns():
        if method in methods and pattern.fullmatch(path):
            return role
    return None


def least_role_of_function(function: object) -> str | None:
    """The least role for calling a page's function; None if nobody may."""
    page = getattr(function, "__module__", "").removeprefix("ui.pages.")
    name = getattr(function, "__name__", "")
    return FUNCTIONS.get(f"{page}.{name}", PAGES.get(page))
