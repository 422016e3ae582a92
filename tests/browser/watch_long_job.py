"""A job of several minutes, watched on its page through a reload, a restart of the server and the death of the worker.

python -m tests.browser.watch_long_job [MINUTES]        default: 10; by hand, it takes as long as that

The job draws pictures with the embedded model until the time is up; what the page shows is written down every few
seconds. It ends with an error if the page ever lost the job, or showed less than it had shown before.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hfi.config import GenerateConfig
from hfi.job_requests import GenerateRequest
from hfi.jobs.queue import JobQueue
from hfi.jobs.start import start_worker, stop_worker
from storage import Store
from tests.browser.serving import Server, find_chromium, free_port, wait_until

PROJECT = "long"
MAX_PICTURES = 50_000
LOOK_EVERY_SECONDS = 5.0
PATIENCE_SECONDS = 900.0  # a server and a worker that start on a busy machine; nothing waits so long on a quiet one
STEP = re.compile(r"([\d,]+) of [\d,]+")


def build_long_store(path: Path) -> tuple[str, str]:
    """A store with one job that draws until it is cancelled; the secret of its owner's session, and the job's id."""
    with Store.open(path) as store:
        store.add_annotator("olga", role="owner")
        store.create_project(PROJECT)
        config = GenerateConfig(num_inference_steps=12, batch_size=8)
        request = GenerateRequest(project=PROJECT, config=config, prompts=("a cat",), seeds=tuple(range(MAX_PICTURES)))
        queue = JobQueue(store)
        job_id = queue.submit(request, user="olga").job.id
        queue.close()
        return store.create_session("olga"), job_id


def read_step(page: Any) -> int:
    """The step that the page shows; -1 while it shows none."""
    found = STEP.search(page.inner_text(".watch-body")) if page.locator(".watch-body").count() else None
    return int(found[1].replace(",", "")) if found else -1


def watch(page: Any, seconds: float, least: int) -> int:
    """Look for a while, and until the step has moved; it must never go back."""
    start, shown = time.monotonic(), least
    while time.monotonic() - start < seconds or (shown == least and time.monotonic() - start < PATIENCE_SECONDS):
        page.wait_for_timeout(LOOK_EVERY_SECONDS * 1000)
        step = read_step(page)
        print(f"{time.strftime('%H:%M:%S')}  step {step}", flush=True)
        if step >= 0:
            assert step >= shown, f"the page went back from {shown} to {step}"
            shown = step
    assert shown > least, f"nothing moved within {PATIENCE_SECONDS:.0f} s"
    return shown


def main(minutes: float) -> None:
    """Watch; then reload; then restart the server; then kill the worker and start another; each for a quarter."""
    from playwright.sync_api import sync_playwright

    quarter = 60 * minutes / 4
    with tempfile.TemporaryDirectory(dir="build") as scratch, sync_playwright() as playwright:
        path = Path(scratch) / "store"
        secret, job_id = build_long_store(path)
        server, worker = Server(path, free_port()), start_worker(path, devices="cpu")
        server.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            context = browser.new_context()
            context.set_default_timeout(PATIENCE_SECONDS * 1000)
            context.add_cookies([{"name": "hfi_session", "value": secret, "url": server.address}])
            page = context.new_page()
            page.goto(f"{server.address}/generate?project={PROJECT}&job={job_id}")
            wait_until(page, "/ of /.test(document.querySelector('.watch-body')?.innerText || '')", PATIENCE_SECONDS)
            shown = watch(page, quarter, 0)
            print("the page is reloaded")
            page.reload()
            shown = watch(page, quarter, shown)
            print("the server is killed and started again")
            server.stop(is_killed=True)
            server.start()
            shown = watch(page, quarter, shown)
            print("the worker is killed; another one goes on with the job")
            worker.kill()
            worker.wait()
            worker = start_worker(path, devices="cpu")
            shown = watch(page, quarter, shown)
            page.get_by_role("button", name="Cancel").click()
            page.wait_for_selector(".watch-line .tag.cancelled")
            print(f"{shown} pictures; cancelled from the page")
        finally:
            browser.close()
            stop_worker(worker)
            server.stop()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
