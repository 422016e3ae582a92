"""Running the pages: the store is opened, the demo made, the owner's link printed, the server started."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from hfi.jobs.start import WorkerKeeper
from storage import Store
from storage.errors import HFIError
from ui.settings import UiSettings


class PortTakenError(HFIError):
    """Another program listens there."""

    http_status = 409


def open_port(settings: UiSettings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        PortTakenError: another program listens there, or the address is not this computer's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(256)  # from here on browsers wait instead of being refused
    except OSError as error:
        listener.close()
        raise PortTakenError(
            f"Can't listen on {settings.host}:{settings.port} ({error.strerror}). Choose another --port or --host."
        ) from None
    return listener


def serve(store_path: Path, settings: UiSettings, say: Callable[[str], None] = print) -> None:
    """Serve the pages until Ctrl-C.

    Args:
        store_path: the store's folder; made if it is not there.
        settings: where and how.
        say: where lines for the person at the terminal go.
    """
    import uvicorn

    from ui.app import build_app
    from ui.demo_project import add_demo_project

    listener = open_port(settings)
    store = Store.open(store_path)
    if settings.has_demo:
        add_demo_project(store)
    address = _address(settings, listener.getsockname()[1])
    for line in _first_lines(store, settings, address):
        say(line)
    config = uvicorn.Config(
        build_app(store, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=60,
    )
    keeper = WorkerKeeper(store_path) if settings.has_worker else None
    if keeper is not None:
        keeper.start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        if keeper is not None:
            keeper.stop()


def _first_lines(store: Store, settings: UiSettings, address: str) -> Iterator[str]:
    """What the person at the terminal needs to know."""
    secret, whose = store.create_owner_link(), "First start: make your account with this link"
    if secret is None and settings.has_owner_link:
        secret, whose = store.create_invitation("owner", days=1), "A link for another owner"
    if secret is not None:
        yield f"{whose} (it works once, for a day):\n\n  {address}/start/{secret}\n"
    if settings.host not in ("127.0.0.1", "localhost", "::1") and not settings.is_https:
        yield "Others can reach these pages, and without HTTPS read along. Put a proxy that speaks HTTPS before them."
    yield f"The pages are at {address}  (Ctrl-C ends them)"


def _address(settings: UiSettings, port: int) -> str:
    host = settings.host if settings.host not in ("0.0.0.0", "::") else "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
