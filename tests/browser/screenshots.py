"""Pictures of the labelling page in every kind and state, wide and narrow, light and dark, to be looked at.

python -m tests.browser.screenshots [FOLDER [NAME ...]]        default: build/screenshots, all
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from storage import Store
from tests.browser.serving import REPOSITORY, Server, Sizes, fill_store, find_chromium, free_port

SIZES = {1280: {"width": 1280, "height": 800}, 390: {"width": 390, "height": 844}}


def choose(page: Any) -> None:
    """A few judgments, then a yes whose kinds are being chosen."""
    press(page, *"ff2fjj", "j", "2")


def press(page: Any, *keys: str) -> None:
    """Press keys, each on a picture."""
    for key in keys:
        page.wait_for_selector("#stage[data-assignment]")
        page.keyboard.press(key)
    page.wait_for_timeout(400)


def accept(page: Any) -> None:
    """Consent, and see the first covered picture."""
    page.click("#state .primary")
    page.wait_for_selector("#stage[data-assignment]")


def answer_training(page: Any) -> None:
    """A wrong answer, explained."""
    press(page, "f")
    page.wait_for_selector("#feedback[data-right=false]")


def go_offline(page: Any) -> None:
    """Cut the network and judge what is there."""
    page.wait_for_timeout(1500)
    page.context.set_offline(True)
    for _ in range(20):
        page.keyboard.press("f")
    page.wait_for_selector("#state[data-name=offline]")


def finish(page: Any) -> None:
    """Judge all there is."""
    press(page, *"fff")
    page.wait_for_selector("#state[data-name=finished] a[href^='/label']")


def open_menu(page: Any) -> None:
    """The menu."""
    page.click("#menu-button")


def report(page: Any) -> None:
    """The question before a report."""
    open_menu(page)
    page.click("#menu [data-action=report]")


def open_side(page: Any) -> None:
    """Guideline and last ten."""
    press(page, *"f2ufjj")
    if page.viewport_size["width"] < 900:
        open_menu(page)
        page.click("#menu [data-action=guidelines]")


def limits(page: Any) -> None:
    """What one does not want to see."""
    open_menu(page)
    page.click("#menu [data-action=limits]")


# name -> (project, what to do on its page)
STATES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "flag": ("flag", lambda page: press(page, *"fjf")),
    "categories": ("kinds", choose),
    "score": ("score", lambda page: press(page, *"134")),
    "pair": ("pair", lambda page: press(page, *"fd")),
    "ranking": ("ranking", lambda page: press(page, "1", "2", "3", "4", "3", "1", "t")),
    "consent": ("sensitive", lambda page: None),
    "covered": ("sensitive", accept),
    "training": ("training", answer_training),
    "side": ("kinds", open_side),
    "legend": ("kinds", lambda page: press(page, "?")),
    "skip": ("flag", lambda page: press(page, "s")),
    "menu": ("flag", open_menu),
    "report": ("flag", report),
    "limits": ("kinds", limits),
    "break": ("flag", lambda page: press(page, "f", "b")),
    "finished": ("few", finish),
    "empty": ("empty", lambda page: None),
    "offline": ("flag", go_offline),
}


def take(browser: Any, server: Server, store: Store, person: str, name: str, width: int, folder: Path) -> None:
    """One state at one width, in both schemes."""
    project, act = STATES[name]
    context = browser.new_context(viewport=SIZES[width], has_touch=width < 900)
    secret = store.create_session(person)
    context.add_cookies([{"name": "hfi_session", "value": secret, "url": server.address}])
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{server.address}/label/{quote(project)}")
    page.wait_for_selector("#stage[data-assignment], #state:not([hidden]):not([data-name=loading])")
    act(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(250)
        page.screenshot(path=folder / f"label-{name}-{width}-{scheme}.png")
    context.close()


def take_all(folder: Path, names: tuple[str, ...] = tuple(STATES)) -> None:
    """Fill a store, serve it, and take every picture."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    people = tuple(f"person {number}" for number in range(len(names) * len(SIZES)))
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        path = Path(temporary) / "store"
        fill_store(path, Sizes(size_px=512, annotators=people))
        server = Server(path, free_port())
        server.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            with Store.open(path) as store:
                waiting = list(people)
                for width in SIZES:
                    for name in names:
                        take(browser, server, store, waiting.pop(), name, width, folder)
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=REPOSITORY / "build" / "screenshots")
    parser.add_argument("names", nargs="*", default=list(STATES), help="Which of them; all if none is named.")
    settings = parser.parse_args()
    take_all(settings.folder, tuple(settings.names))
