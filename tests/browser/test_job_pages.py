"""The pages that start jobs, in a real browser with a real worker: wrong input, one job watched through a reload."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from hfi.jobs.start import start_worker, stop_worker
from storage import Store
from tests.browser.serving import Server
from tests.browser.test_accessibility import find_violations
from tests.browser.test_pages import Lead, lead  # noqa: F401  (a fixture)

PROJECT = "drawn"


@pytest.fixture(scope="module")
def worker(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the server's store."""
    started = start_worker(server.store_path, devices="cpu")
    yield started
    stop_worker(started)


def wait_state(page: Any, state: str) -> None:
    """Until the watched job is in a state."""
    page.wait_for_selector(f".watch-line .tag.{state}")


@pytest.mark.thorough
def test_a_job_from_its_start_to_its_pictures(lead: Lead, store: Store, worker: Any) -> None:  # noqa: F811
    page = lead.open("generate", PROJECT)
    page.get_by_label("Steps").fill("0")
    page.get_by_label("Seeds").fill("nine")
    page.click("button:has-text('Generate'):not([role=tab])")
    page.wait_for_selector(".wrong:has-text('0 is too small')")
    page.wait_for_selector(".wrong:has-text('at least one')")
    page.wait_for_selector(".wrong:has-text('are no seeds')")
    lead.said("Nothing was started: look at the 3 fields")

    page.get_by_label("Prompts").fill("a dagger\na bomb")
    page.get_by_label("Seeds").fill("5")
    page.get_by_label("Steps").fill("2")
    page.click("button:has-text('Generate'):not([role=tab])")
    lead.said("Started.")
    assert page.locator(".wrong").count() == 0
    page.wait_for_function("location.search.includes('job=generate-')")
    job_id = re.findall(r"job=(generate-\w+-\d)", page.url)[0]
    page.click("button:has-text('Generate'):not([role=tab])")
    lead.said("You have started the same already: here it is.")

    page.reload()
    page.wait_for_selector(f".watch-body:has-text('{job_id}')")
    wait_state(page, "done")
    page.wait_for_function("document.querySelectorAll('.board.small img').length === 2")
    page.wait_for_selector(".watch-body:has-text('It took')")
    assert len(store.list_generated(PROJECT, ["a dagger", "a bomb"], [5], model_id="mini", scheduler="DDIMScheduler",
                                    num_inference_steps=2, guidance_scale=3.0)) == 2  # fmt: skip
    assert not page.get_by_role("button", name="Cancel").is_visible()
    assert find_violations(page, "generate") == []

    page = lead.open("jobs")
    page.wait_for_selector("table.jobs [data-choice]")
    page.click(f"[data-choice='{job_id}']")
    wait_state(page, "done")
    page.click("button:has-text('Log')")
    page.wait_for_selector("pre.log:has-text('generate')")
    assert find_violations(page, "jobs") == []


@pytest.mark.slow
def test_a_cancelled_job_can_be_tried_again(lead: Lead, worker: Any) -> None:  # noqa: F811
    page = lead.open("generate", PROJECT)
    page.get_by_label("Prompts").fill("a skull")
    page.get_by_label("Seeds").fill("0-199")
    page.click("button:has-text('Generate'):not([role=tab])")
    lead.said("Started.")
    page.get_by_role("button", name="Cancel").click()
    wait_state(page, "cancelled")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".watch-line .tag:is(.waiting, .running)")
    page.get_by_role("button", name="Cancel").click()
    wait_state(page, "cancelled")
