"""Measure the labelling page in a real browser: from key to next picture, and whether every judgment is there once.

    python -m tests.browser.measure_labelling [--judgments 300] [--runs 3] [--out build/labelling.json]

Each run judges by keyboard, as a new annotator, with an undo every 10th time and a change in the last-ten list every
25th. In the same run a plain Gradio page shows the same pictures, as many at a time as the kind does, by queued clicks.
Prints a table; exit status 1 if a judgment is lost or doubled. Screenshots: `python -m tests.browser.screenshots`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from storage import ItemInput, Store
from tests.browser.serving import ALL_SAVED, REPOSITORY, Server, draw_pictures, find_chromium, free_port, wait_until

KINDS = ("flag", "score", "pair", "ranking")
PICTURES_AN_ITEM = {"flag": 1, "score": 1, "pair": 2, "ranking": 4}
SIZE_PX = 512
PAUSE_MS = 60  # between two keys: quicker than any person, slow enough for the frame to be shown; and up to
JITTER_MS = 17  # so much more, by chance, because people press keys anywhere in a frame
N_CLICKS = 60
COUNTS = ("judged", "lost", "doubled", "other", "not_decoded")

# Runs in the page. Three moments are told: when the frame that holds the next picture begins (the time the browser
# gives it; at 60 Hz the wait for it alone is 0 to 16.7 ms), when its callbacks run, and when it is on its way to the
# screen (a message posted there arrives).
PROBE = """
window.measured = { frame: [], callback: [], key: [], acknowledged: [], notDecoded: 0 };
const painted = (then) => requestAnimationFrame((frame) => {
  const channel = new MessageChannel();
  const callback = performance.now();
  channel.port1.onmessage = () => then(frame, callback);
  channel.port2.postMessage(0);
});
document.addEventListener("keydown", (event) => {
  const stage = document.getElementById("stage");
  const before = stage.dataset.assignment;
  painted((frame, callback) => {
    if (stage.dataset.assignment === before || !stage.dataset.assignment) return;
    window.measured.frame.push(Math.max(0, frame - event.timeStamp));
    window.measured.callback.push(callback - event.timeStamp);
    window.measured.key.push(performance.now() - event.timeStamp);
    window.measured.notDecoded += [...stage.querySelectorAll("img")].some((img) => !img.complete || !img.naturalWidth);
  });
}, { capture: true });
const send = window.fetch;
window.fetch = async (path, options) => {
  const began = performance.now();
  const response = await send(path, options);
  if (String(path) === "/api/v1/judgments") window.measured.acknowledged.push(performance.now() - began);
  return response;
};
"""
CLICK = """async () => {
  const shown = () => [...document.querySelectorAll(".picture img")].filter((img) => img.src.includes("/file="));
  const before = new Set(shown().map((img) => img.src));
  const isNew = (img) => !before.has(img.src) && img.complete && img.naturalWidth;
  const began = performance.now();
  document.querySelector("#next button, button#next").click();
  for (;;) {
    await new Promise(requestAnimationFrame);
    const images = shown();
    if (images.length === document.querySelectorAll(".picture").length && images.every(isNew)) break;
  }
  const channel = new MessageChannel();
  await new Promise((resolve) => { channel.port1.onmessage = resolve; channel.port2.postMessage(0); });
  return performance.now() - began;
}"""
GRADIO = """
import sys, itertools, pathlib
import gradio as gr
n_pictures = int(sys.argv[3])
pictures = itertools.cycle(sorted(pathlib.Path(sys.argv[1]).rglob("*.png"))[:60])
def draw():
    chosen = [str(next(pictures)) for _ in range(n_pictures)]
    return chosen if n_pictures > 1 else chosen[0]
with gr.Blocks(analytics_enabled=False) as page:
    with gr.Row():
        shown = [gr.Image(type="filepath", elem_classes="picture", height=512) for _ in range(n_pictures)]
    gr.Button("Next", elem_id="next").click(draw, None, shown)
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[2]), allowed_paths=[sys.argv[1]], quiet=True)
"""


def fill(path: Path, n_items: int, n_people: int) -> None:
    """A project of every kind with ``n_items`` items over the same pictures."""
    with Store.open(path) as store:
        pictures = [sha256 for sha256, _ in draw_pictures(store, min(400, n_items), SIZE_PX)]
        rng = random.Random(0)
        for number in range(n_people):
            store.add_annotator(f"person {number}")
        for kind in KINDS:
            store.create_project(kind, kind, annotators_per_item=50, gold_fraction=0.0, repeat_fraction=0.0)
            m = PICTURES_AN_ITEM[kind]
            groups = [(sha256,) for sha256 in pictures] if m == 1 else []
            groups += [tuple(rng.sample(pictures, m)) for _ in range(n_items - len(groups))]
            store.add_items(kind, [ItemInput(group, f"prompt {number}") for number, group in enumerate(groups)])


def choose_keys(kind: str, rng: random.Random) -> tuple[list[str], tuple[Any, ...]]:
    """Keys that make one answer, and what the store should then hold: (answer, score, ranks), by place shown."""
    if kind == "flag":
        key = rng.choice("jfu")
        return [key], ({"j": "yes", "f": "no", "u": "unsure"}[key], None, ())
    if kind == "score":
        score = rng.randint(1, 5)
        return [str(score)], ("scored", score, ())
    if kind == "pair":
        key = rng.choice("fjdkt")
        return [key], ({"f": "first", "j": "second", "d": "both_fine", "k": "both_bad", "t": "tie"}[key], None, ())
    order = rng.sample(range(4), 4)
    return [str(place + 1) for place in order], ("ranked", None, tuple(order.index(place) + 1 for place in range(4)))


class Judge:
    """Presses keys, and remembers what the store should hold afterwards."""

    def __init__(self, page: Any, kind: str, rng: random.Random) -> None:
        self.page, self.kind, self.rng = page, kind, rng
        self.expected: dict[int, tuple[Any, ...]] = {}

    def answer(self) -> None:
        """Judge what is on the screen."""
        self.page.wait_for_selector("#stage[data-assignment]")
        assignment = int(self.page.locator("#stage").get_attribute("data-assignment"))
        keys, self.expected[assignment] = choose_keys(self.kind, self.rng)
        for key in keys:
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(PAUSE_MS + self.rng.uniform(0, JITTER_MS))

    def undo(self) -> None:
        """Take the last one back and answer it again."""
        self.page.keyboard.press("z")
        self.page.wait_for_timeout(PAUSE_MS)
        self.answer()

    def change(self) -> None:
        """Answer the third of the last ten again."""
        self.page.click("#latest li >> nth=2 >> button")
        self.page.wait_for_selector("#mode:not([hidden])")
        self.answer()


def judge_by_keyboard(page: Any, kind: str, n: int, rng: random.Random) -> dict[int, tuple[Any, ...]]:
    """``n`` judgments with undo and change; returns what should stand, by assignment."""
    judge = Judge(page, kind, rng)
    for number in range(1, n + 1):
        judge.answer()
        if number % 10 == 0:
            judge.undo()
        if number % 25 == 0:
            judge.change()
    wait_until(page, ALL_SAVED)
    return judge.expected


def compare(store: Store, kind: str, person: str, expected: dict[int, tuple[Any, ...]]) -> dict[str, int]:
    """How many judgments are missing, doubled or other than pressed."""
    rows = [row for row in store.list_judgments(kind) if row.annotator == person]
    found: dict[int, tuple[Any, ...]] = {}
    for row in rows:
        turned = {"first": "second", "second": "first"} if row.shown_order == (1, 0) else {}
        ranks = tuple(row.ranks[image] for image in row.shown_order) if row.ranks else ()
        found[row.assignment_id or 0] = (turned.get(row.answer, row.answer), row.score, ranks)
    n_items = len({row.item_id for row in rows})
    n_other = sum(found.get(assignment, answer) != answer for assignment, answer in expected.items())
    return {
        "judged": len(expected),
        "lost": len(set(expected) - set(found)),
        "doubled": len(rows) - n_items,
        "other": n_other,
    }


def measure_kind(browser: Any, server: Server, store: Store, kind: str, person: str, n: int) -> dict[str, Any]:
    """One run of one kind."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    secret = store.create_session(person)
    context.add_cookies([{"name": "hfi_session", "value": secret, "url": server.address}])
    context.add_init_script(PROBE)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{server.address}/label/{kind}")
    page.wait_for_selector("#stage[data-assignment]")
    page.wait_for_timeout(1000)
    expected = judge_by_keyboard(page, kind, n, random.Random(person))
    measured = page.evaluate("window.measured")
    context.close()
    names = ("frame", "callback", "key", "acknowledged")
    times = {f"{name}_ms": measured[name] for name in names}
    return {**compare(store, kind, person, expected), **times, "not_decoded": measured["notDecoded"]}


@contextmanager
def plain_gradio(pictures: Path, n_pictures: int) -> Iterator[str]:
    """A page of Gradio with pictures and a button, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-c", GRADIO, str(pictures), str(port), str(n_pictures)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        child.kill()
        child.wait()


def measure_gradio(browser: Any, pictures: Path, n_pictures: int) -> list[float]:
    """Milliseconds from a queued click to the next pictures."""
    with plain_gradio(pictures, n_pictures) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector("#next")
        page.wait_for_timeout(1000)
        times = [page.evaluate(CLICK) for _ in range(N_CLICKS + 3)][3:]
        page.close()
        return times


def spread(values: list[float]) -> tuple[float, float]:
    """(median, 95th percentile)."""
    return float(np.median(values)), float(np.percentile(values, 95))


def measure(n: int, n_runs: int) -> dict[str, Any]:
    """All kinds and Gradio, ``n_runs`` times."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "store"
        fill(path, n + 40, n_runs)
        server = Server(path, free_port())
        server.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            with Store.open(path) as store:
                runs = []
                for run in range(n_runs):
                    kinds = {kind: measure_kind(browser, server, store, kind, f"person {run}", n) for kind in KINDS}
                    sizes = sorted(set(PICTURES_AN_ITEM.values()))
                    clicks = {str(size): measure_gradio(browser, path / "objects", size) for size in sizes}
                    runs.append({**kinds, "gradio_ms": clicks})
                return {"judgments": n, "runs": runs}
        finally:
            browser.close()
            server.stop()


def median_spread(runs: list[list[float]]) -> tuple[float, float]:
    """The medians over the runs of (median, 95th percentile)."""
    medians, highs = zip(*(spread(run) for run in runs), strict=True)
    return statistics.median(medians), statistics.median(highs)


def summarise(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a kind; times in ms are medians over the runs."""
    rows = []
    for kind in KINDS:
        gradio = median_spread([run["gradio_ms"][str(PICTURES_AN_ITEM[kind])] for run in result["runs"]])
        runs = [run[kind] for run in result["runs"]]
        row = {"kind": kind} | {name: sum(run[name] for run in runs) for name in COUNTS}
        for name in ("frame", "callback", "key", "acknowledged"):
            row[f"{name}_median"], row[f"{name}_p95"] = median_spread([run[f"{name}_ms"] for run in runs])
        ratios = {"ratio_median": gradio[0] / row["key_median"], "ratio_p95": gradio[1] / row["key_p95"]}
        rows.append({**row, "gradio_median": gradio[0], "gradio_p95": gradio[1], **ratios})
    return rows


def main() -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=300, help="Judgments of each kind in each run.")
    parser.add_argument("--runs", type=int, default=3, help="Runs; times are medians over them.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "labelling.json")
    settings = parser.parse_args()
    result = measure(settings.judgments, settings.runs)
    rows = summarise(result)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps({"summary": rows, **result}, indent=1))
    for row in rows:
        shown = {name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()}
        print("  ".join(f"{name} {value}" for name, value in shown.items()))
    return int(any(row["lost"] or row["doubled"] or row["other"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
