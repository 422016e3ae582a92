"""Pictures of Gradio's pages, wide and narrow, light and dark, to be looked at.

python -m tests.browser.page_screenshots [FOLDER [NAME ...]]        default: build/screenshots, all
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from storage import Store
from tests.browser.serving import REPOSITORY, Server, Sizes, fill_store, find_chromium, free_port
from tests.storage.builders import flag_by_number, judge_all

VIEWS = {1280: {"width": 1280, "height": 900}, 390: {"width": 390, "height": 844}}
SCHEMES = ("light", "dark")
PROJECT = "kinds"
PAGES = {
    "projects": "",
    "setup": "setup",
    "setup-guideline": f"setup?project={quote(PROJECT)}",
    "setup-pictures": f"setup?project={quote(PROJECT)}&step=pictures",
    "gallery": f"gallery?project={quote(PROJECT)}",
    "gallery-covered": "gallery?project=sensitive",
    "quality": f"quality?project={quote(PROJECT)}",
    "quality-people": f"quality?project={quote(PROJECT)}#People",
    "quality-days": f"quality?project={quote(PROJECT)}#Days",
    "quality-disagreement": f"quality?project={quote(PROJECT)}#Disagreement",
    "quality-withdraw": f"quality?project={quote(PROJECT)}#Withdraw",
    "export": f"export?project={quote(PROJECT)}",
    "generate": f"generate?project={quote(PROJECT)}",
    "concept": f"concept?project={quote(PROJECT)}",
    "library": f"library?project={quote(PROJECT)}",
    "jobs": "jobs",
    "people": "people",
    "account": "account",
}
SETTLE_MS = 1500


def open_tab(page: Any, name: str) -> None:
    """Open a tab, which may be in the menu of those that found no room."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.click(".overflow-menu > button")
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.click()


def take_pictures(folder: Path, names: tuple[str, ...] = tuple(PAGES)) -> None:
    """Write one file a page, width and scheme."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        path = Path(scratch) / "store"
        fill_store(path, Sizes(annotators=("ada", "bo", "cy")))
        with Store.open(path) as store:
            judge_all(store, PROJECT, ("ada", "bo", "cy"), flag_by_number)
            store.add_annotator("olga", role="owner")
            secret = store.create_session("olga")
        server = Server(path, free_port())
        server.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for scheme in SCHEMES:
            for width, view in VIEWS.items():
                context = browser.new_context(viewport=view, color_scheme=scheme)  # type: ignore[arg-type]
                context.set_default_timeout(300_000)
                context.add_cookies([{"name": "hfi_session", "value": secret, "url": server.address}])
                page = context.new_page()
                for name in names:
                    address, _, tab = PAGES[name].partition("#")
                    page.goto(f"{server.address}/{address}")
                    page.wait_for_selector(".header .who")
                    page.wait_for_function("!document.querySelector('.waiting')")
                    if tab:
                        open_tab(page, tab)
                    page.wait_for_timeout(SETTLE_MS)
                    page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
                context.close()
        browser.close()
        server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=REPOSITORY / "build" / "screenshots")
    parser.add_argument("names", nargs="*", default=list(PAGES), help="Which of them; all if none is named.")
    settings = parser.parse_args()
    take_pictures(settings.folder, tuple(settings.names))
