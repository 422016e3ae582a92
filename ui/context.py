"""What every page and route gets: the store, the settings, and who is asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from hfi.jobs.queue import JobQueue
from storage import Store
from storage.errors import HFIError
from storage.records import User
from ui.access import is_at_least
from ui.settings import UiSettings

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class NotLoggedInError(HFIError):
    """Nobody is logged in."""

    http_status = 401


class NotAllowedError(HFIError):
    """The role is not enough."""

    http_status = 403


class Context:
    """The store, the settings, and the threads that call the store.

    A connection belongs to a thread, so routes call the store in a few threads that stay: ``await context.run(...)``.
    What writes goes through one thread, ``await context.write(...)``: SQLite lets one writer in at a time, and the
    others would ask again and again, up to 100 ms apart, where a queue lets the next one in at once.
    """

    def __init__(self, store: Store, settings: UiSettings) -> None:
        self.store = store
        self.settings = settings
        self.jobs = JobQueue(store)  # opened by its first call, not here
        self._threads = ThreadPoolExecutor(settings.num_store_threads, thread_name_prefix="store")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")

    def find_user(self, request: Any) -> User | None:
        """Who is asking, by cookie or by ``Authorization: Bearer``; takes FastAPI's request or Gradio's."""
        secret = request.cookies.get(self.settings.cookie_name)
        if secret:
            return self.store.find_session_user(secret)
        scheme, _, token = str(request.headers.get("authorization", "")).partition(" ")
        return self.store.find_token_user(token.strip()) if scheme.lower() == "bearer" and token else None

    def require(self, request: Any, role: str) -> User:
        """Who is asking, if they have at least this role; the first line of every page's callback.

        Raises:
            NotLoggedInError: nobody is logged in (any more).
            NotAllowedError: the role is not enough.
        """
        user = self.find_user(request) if request is not None else None
        if user is None:
            raise NotLoggedInError("You are not logged in any more. Log in again.")
        if not is_at_least(user.role, role):
            raise NotAllowedError(f"This takes the role {role}; {user.name!r} is {user.role}. Ask an owner.")
        return user

    async def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call a function that reads the store, or takes its time before it writes, in one of the store's threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *args, **kwargs))

    async def write(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call a function that writes to the store, after those that came before it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, partial(function, *args, **kwargs))

    def close(self) -> None:
        """End the threads and close the store."""
        self._writer.shutdown(wait=True)
        self._threads.shutdown(wait=True)
        self.jobs.close()
        self.store.close()
