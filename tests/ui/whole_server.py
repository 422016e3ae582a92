"""The whole application with Gradio's pages, in a process of its own: its routes, its functions, and a token a role.

    python -m tests.ui.whole_server FOLDER        prints one line of JSON when everything is built, and serves on

A process of its own: Gradio leaves event loops and sockets to the garbage collector, and warnings are errors here.
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.routing import Mount

from tests.faults.annotators import free_port
from tests.ui.people import PEOPLE, build_store
from ui.access import least_role_of_function
from ui.app import Application, build_app
from ui.settings import UiSettings


def routes_of(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of every route, mounted applications and included routers too."""
    for route in routes:
        if isinstance(route, Mount):
            yield from routes_of(getattr(route.app, "routes", None) or [], prefix + route.path)
        elif getattr(route, "original_router", None) is not None:
            included = getattr(getattr(route, "include_context", None), "prefix", "")
            yield from routes_of(route.original_router.routes, prefix + included)
        elif hasattr(route, "path"):
            for method in sorted(getattr(route, "methods", None) or {"GET"}):
                yield method, prefix + route.path


def describe(app: Application, port: int) -> dict[str, Any]:
    """What the walk needs to know from the inside; waits until the pages are built."""
    while not app.shell.is_built:
        time.sleep(0.05)
    functions = []
    for index, block in app.shell.blocks.fns.items():
        if block.fn is not None:
            asked = inspect.getclosurevars(block.fn).nonlocals.get("role")
            name = f"{block.fn.__module__}.{block.fn.__name__}"
            functions.append((index, name, least_role_of_function(block.fn), asked))
    store = app.context.store
    return {
        "address": f"http://127.0.0.1:{port}",
        "routes": sorted(set(routes_of(app.shell.mounted_routes()))),
        "functions": functions,
        "tokens": {role: store.create_api_token(name, "walk") for role, name in PEOPLE.items()},
    }


def main() -> None:
    """Serve until killed."""
    import uvicorn

    folder, port = Path(sys.argv[1]), free_port()
    build_store(folder).close()
    app = build_app(folder, UiSettings(port=port, has_demo=False, shell_delay_seconds=0))
    threading.Thread(target=lambda: print(json.dumps(describe(app, port)), flush=True), daemon=True).start()
    uvicorn.run(app, port=port, log_level="critical")


if __name__ == "__main__":
    main()
