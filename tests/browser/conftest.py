"""A real browser on the real application; every page that is opened is watched for errors and for foreign hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from storage import Store
from storage.records import JudgmentRecord
from tests.browser.serving import ALL_SAVED, Server, Sizes, fill_store, find_chromium, free_port, wait_until

ANNOTATORS = tuple(f"person {number}" for number in range(60))
PATIENCE_MS = 60_000


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The application on a filled store."""
    find_chromium() or pytest.skip("The page tests need a browser: install Debian's package chromium.")
    pytest.importorskip("playwright.sync_api", reason="The page tests need playwright: pip install 'hfi[test]'.")
    path = tmp_path_factory.mktemp("pages") / "store"
    fill_store(path, Sizes(annotators=ANNOTATORS))
    running = Server(path, free_port())
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser(server: Server) -> Iterator[Any]:
    """Debian's chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def store(server: Server) -> Iterator[Store]:
    """The store that the pages write into."""
    with Store.open(server.store_path) as opened:
        yield opened


@dataclass
class Person:
    """One annotator at one browser, judging one project."""

    name: str
    project: str
    context: Any
    server: Server
    store: Store
    page: Any = None
    problems: list[str] = field(default_factory=list)

    def open(self) -> Any:
        """A (further) tab on the project, with the first picture on the screen or what stands in its place."""
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", self._note_console)
        page.on("request", self._note_request)
        page.goto(f"{self.server.address}/label/{quote(self.project)}")
        page.wait_for_selector("#stage[data-assignment], #state:not([hidden]):not([data-name=loading])")
        self.page = self.page or page
        return page

    def _note_console(self, message: Any) -> None:
        # A refused or cut connection is written to the console by the browser itself.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(f"console: {message.text}")

    def _note_request(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.server.address).netloc:
            self.problems.append(f"foreign host: {request.url}")

    def press(self, *keys: str, page: Any = None) -> None:
        """Press keys one after the other."""
        for key in keys:
            (page or self.page).keyboard.press(key)

    def judge(self, *keys: str, page: Any = None) -> None:
        """Press keys that answer, waiting each time until there is a picture to answer."""
        for key in keys:
            (page or self.page).wait_for_selector("#stage[data-assignment]")
            self.press(key, page=page)

    def wait_until(self, expression: str, page: Any = None) -> None:
        """Until an expression of the page is true (the page's policy forbids playwright's own way, which evaluates)."""
        wait_until(page or self.page, expression)

    def wait_saved(self, page: Any = None) -> None:
        """Until the server has acknowledged everything, and the page says so."""
        self.wait_until(ALL_SAVED, page)

    def wait_ahead(self, n_pictures: int = 9) -> None:
        """Until so many pictures have been fetched."""
        fetched = "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/img/')).length"
        self.wait_until(f"{fetched} >= {n_pictures}")

    def wait_state(self, name: str) -> None:
        """Until a state stands in place of the picture."""
        self.page.wait_for_selector(f"#state[data-name='{name}']:not([hidden])")

    @property
    def assignment(self) -> int:
        """The number of the assignment on the screen, once there is one."""
        return int(self.page.wait_for_selector("#stage[data-assignment]").get_attribute("data-assignment"))

    def unsent(self) -> int:
        """Entries of the outbox, as the browser keeps them."""
        own = "Object.keys(localStorage).filter((key) => key.startsWith('hfi.outbox|'))"
        return int(self.page.evaluate(f"{own}.length"))

    def judgments(self) -> list[JudgmentRecord]:
        """The person's judgments that stand in the store, oldest first."""
        return [row for row in self.store.list_judgments(self.project) if row.annotator == self.name]

    def answers(self) -> list[str]:
        """Their answers."""
        return [row.answer for row in self.judgments()]


@pytest.fixture
def visit(server: Server, browser: Any, store: Store) -> Iterator[Callable[..., Person]]:
    """Open a project as an annotator of one's own; afterwards nothing may have gone wrong unseen."""
    people: list[Person] = []

    def open_project(project: str, *, is_open: bool = True, **options: Any) -> Person:
        name = ANNOTATORS[next(_taken)]
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = browser.new_context(**options)
        person = Person(name, project, context, server, store)
        log_in(person)
        people.append(person)
        if is_open:
            person.open()
        return person

    yield open_project
    for person in people:
        person.context.close()
        assert person.problems == []


_taken = iter(range(len(ANNOTATORS)))


def log_in(person: Person) -> str:
    """Give a browser a session of its person; returns the session's secret."""
    secret = person.store.create_session(person.name)
    person.context.add_cookies([{"name": "hfi_session", "value": secret, "url": person.server.address}])
    return secret
