"""How soon a job's step is on the page, and what watching costs the server; by hand.

HFI_JOB_KINDS=tests.jobs.slow_job python -m tests.browser.measure_job_pages [SECONDS]        default: 40

A job of the tests' own kind takes a step every tenth of a second and writes each down; the page notes
when it changed. A step's delay is the time from its being written down to the page's showing it, or a later one.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from hfi.jobs.queue import JobQueue
from hfi.jobs.start import start_worker, stop_worker
from storage import Store
from tests.browser.serving import Server, find_chromium, free_port, wait_until
from tests.browser.watch_long_job import PATIENCE_SECONDS, read_step
from tests.jobs.slow_job import SlowRequest

STEP_SECONDS = 0.1
# The page itself notes when it changed: asking it again and again would keep it from its work.
NOTE_CHANGES = """() => {
  window.noted = [];
  new MutationObserver(() => {
    const text = document.querySelector(".watch-body")?.textContent || "";
    const step = /([\\d,]+) of [\\d,]+/.exec(text);
    if (step) window.noted.push([Date.now() / 1000, Number(step[1].replaceAll(",", ""))]);
  }).observe(document.getElementById("main"), { childList: true, subtree: true, characterData: true });
}"""


def note_steps(store_path: Path, written: dict[int, float], is_over: threading.Event) -> None:
    """Note when each step was first seen in the job's own checkpoint."""
    while not is_over.wait(0.02):
        for file in store_path.glob("artifacts/*/checkpoint.json"):
            try:
                step = int(json.loads(file.read_text())["step"])
            except (OSError, ValueError, KeyError):
                continue
            written.setdefault(step, time.time())


def main(seconds: float) -> None:
    """Watch for a while, then print the delays and the server's share of a core."""
    from playwright.sync_api import sync_playwright

    written: dict[int, float] = {}
    delays: list[float] = []
    is_over = threading.Event()
    with tempfile.TemporaryDirectory(dir="build") as scratch, sync_playwright() as playwright:
        path = Path(scratch) / "store"
        with Store.open(path) as store:
            store.add_annotator("olga", role="owner")
            store.create_project("watched")
            secret, queue = store.create_session("olga"), JobQueue(store)
            steps = int((seconds + 600) / STEP_SECONDS)
            request = SlowRequest(
                project="watched", num_steps=steps, seconds_per_step=STEP_SECONDS, checkpoint_every_n_steps=1
            )
            job_id = queue.submit(request).job.id
            queue.close()
        server, worker = Server(path, free_port()), start_worker(path, devices="cpu")
        server.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        threading.Thread(target=note_steps, args=(path, written, is_over), daemon=True).start()
        try:
            context = browser.new_context()
            context.set_default_timeout(PATIENCE_SECONDS * 1000)
            context.add_cookies([{"name": "hfi_session", "value": secret, "url": server.address}])
            page = context.new_page()
            page.goto(f"{server.address}/jobs?job={job_id}")
            wait_until(page, "/ of /.test(document.querySelector('.watch-body')?.innerText || '')", 300)
            assert server.child is not None
            served = psutil.Process(server.child.pid)
            used, began, shown = sum(served.cpu_times()[:2]), time.monotonic(), read_step(page)
            page.evaluate(NOTE_CHANGES)
            time.sleep(seconds)
            share = (sum(served.cpu_times()[:2]) - used) / (time.monotonic() - began)
            for seen_at, step in page.evaluate("window.noted"):
                delays += [seen_at - written[made] for made in range(shown + 1, step + 1) if made in written]
                shown = max(shown, step)
        finally:
            is_over.set()
            browser.close()
            server.stop()
            stop_worker(worker)
    delays.sort()
    print(
        f"{len(delays)} steps seen: median {statistics.median(delays):.2f} s, 95 % within "
        f"{delays[int(0.95 * len(delays))]:.2f} s, longest {delays[-1]:.2f} s; the server took "
        f"{100 * share:.1f} % of a core, Gradio and the list of jobs included"
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 40.0)
