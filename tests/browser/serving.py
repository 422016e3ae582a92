"""The real application on a small filled store, in a process of its own, for a real browser.

python -m tests.browser.serving FOLDER PORT        fills the store if it is new, and serves it
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage import ItemInput, Store

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDELINE = """# Does the picture show a weapon?

Say **yes** if a weapon can be seen, whole or in part: a knife, a gun, a bomb, an axe.

- A *toy* counts if it could be taken for a real one.
- A tool counts when somebody threatens with it.
- Say *unsure* rather than guess.

Blurred and unfinished pictures count as what they most look like.
"""
START_SECONDS = 600
STOP_SECONDS = 5
ALL_SAVED = (
    "!Object.keys(localStorage).some((key) => key.startsWith('hfi.outbox|')) && "
    "document.querySelector('#unsent[data-n=\"0\"][data-state=saved]') !== null"
)


def draw_pictures(store: Store, n: int, size_px: int, seed: int = 0) -> list[tuple[str, str]]:
    """Store ``n`` pictures of the embedded model's world; returns (sha256, caption) of each."""
    import numpy as np
    from PIL import Image

    from hfi.mini.world import WORLDS, caption, random_scene, render

    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        scene = random_scene(WORLDS["cpu"], rng)
        picture = Image.fromarray(render(scene)).resize((size_px, size_px), Image.Resampling.LANCZOS)
        # No two alike: the store keeps equal pictures once.
        picture.putpixel((0, 0), (number % 256, number // 256, seed % 256))
        made.append((store.add_image(picture).sha256, caption(scene, rng)))
    return made


@dataclass(frozen=True)
class Sizes:
    """How much the store is filled with."""

    n_items: int = 30
    size_px: int = 64
    annotators: tuple[str, ...] = ("ada",)
    lease_seconds: float = 1800.0
    more: dict[str, object] = field(default_factory=dict)


def fill_store(path: Path, sizes: Sizes) -> None:
    """A project of every kind, and some in which something is special; the tests name them."""
    with Store.open(path) as store:
        for name in sizes.annotators:
            store.add_annotator(name)
        pictures = draw_pictures(store, sizes.n_items * 4, sizes.size_px)
        common = {
            "guideline": GUIDELINE,
            "annotators_per_item": 100,
            "gold_fraction": 0.0,
            "repeat_fraction": 0.0,
            "lease_seconds": sizes.lease_seconds,
        }
        categories = ["knife", "gun", "bomb"]
        singles = [ItemInput((sha256,), text) for sha256, text in pictures[: sizes.n_items]]
        hinted = [
            ItemInput(item.images, item.prompt, category_hint=categories[number % 3])
            for number, item in enumerate(singles)
        ]
        groups = {n: [pictures[first : first + n] for first in range(0, sizes.n_items * n, n)] for n in (2, 4)}
        several = {n: [ItemInput(tuple(row[0] for row in group), group[0][1]) for group in groups[n]] for n in groups}
        for name, kind, items, settings in (
            ("flag", "flag", singles, {}),
            ("kinds", "flag", hinted, {"categories": categories}),
            ("score", "score", singles, {"guideline": "How sharp is the picture? 1: a blur, 5: every line is clear."}),
            ("pair", "pair", several[2], {"guideline": "Which picture shows better what the words say?"}),
            ("ranking", "ranking", several[4], {"guideline": "Which picture is best? And then?"}),
            ("sensitive", "flag", hinted, {"categories": categories, "is_sensitive": True}),
            ("training", "flag", singles, {"categories": categories}),
            ("short lease", "flag", singles, {"lease_seconds": 2.0}),
            ("few", "flag", singles[:3], {}),
            ("reported", "flag", [ItemInput((sha256,), text) for sha256, text in pictures[-6:]], {}),
            ("empty", "flag", [], {}),
            ("drawn", "flag", [], {}),  # what jobs draw goes here and changes no other test's project
        ):
            store.create_project(name, kind=kind, **{**common, **settings})
            store.add_items(name, items)
        for item in store.list_items("training")[:2]:
            store.add_gold("training", item.id, "yes", "The blade can be seen.", categories=["knife"], is_training=True)


@dataclass
class Server:
    """A server in a child process that can be stopped and started again on the same port and store."""

    store_path: Path
    port: int
    child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, pages_after_seconds: float = 1.5) -> None:
        """Start it and wait until it answers; Gradio's pages are built after a while."""
        command = [sys.executable, "-m", "tests.browser.serving", str(self.store_path), str(self.port)]
        command.append(str(pages_after_seconds))
        with (self.store_path / "server.log").open("ab") as log:
            self.child = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=2)
                return
            except (urllib.error.URLError, OSError):
                assert self.child.poll() is None, (self.store_path / "server.log").read_text()
                time.sleep(0.1)
        raise TimeoutError(f"The server did not answer within {START_SECONDS} s.")

    def stop(self, *, is_killed: bool = False) -> None:
        """End it, politely or not."""
        if self.child is None:
            return
        if not is_killed:
            self.child.terminate()
            # On a busy machine it may take its time: it is a test's server, and the store outlives a kill.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout=STOP_SECONDS)
        self.child.kill()
        self.child.wait()
        self.child = None


def wait_until(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Wait until an expression of the page is true."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"It did not come true within {seconds} s: {expression}"
        page.wait_for_timeout(50)


def find_chromium() -> str | None:
    """The browser of the system, if it has one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(store_path: str, port: str, pages_after_seconds: str = "1.5") -> None:
    """Serve a store until told to stop."""
    import uvicorn

    from ui.app import build_app
    from ui.settings import UiSettings

    settings = UiSettings(port=int(port), has_demo=False, shell_delay_seconds=float(pages_after_seconds))
    app = build_app(store_path, settings)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    serve(*sys.argv[1:])
