"""From an empty store to a changed, measured and judged model with nothing but the pages, on the embedded model.

Every page is photographed on the way: build/research_loop/<place>.png.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hfi.jobs.start import start_worker, stop_worker
from storage import Store
from tests.browser.serving import REPOSITORY, Server, find_chromium, free_port
from tests.browser.test_pages import Lead

PROJECT = "loop"
PICTURES = REPOSITORY / "build" / "research_loop"
JOB_SECONDS = 1200  # each imports torch; a busy machine needs minutes for that alone


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The pages on a store in which there is nobody but an owner, and a worker beside them."""
    find_chromium() or pytest.skip("The page tests need a browser: install Debian's package chromium.")
    pytest.importorskip("playwright.sync_api", reason="The page tests need playwright: pip install 'hfi[test]'.")
    path: Path = tmp_path_factory.mktemp("loop") / "store"
    with Store.open(path) as store:
        store.add_annotator("olga", role="owner")
    running = Server(path, free_port())
    running.start()
    worker = start_worker(path, devices="cpu")
    yield running
    stop_worker(worker)
    running.stop()


class Researcher(Lead):
    """An owner who goes from page to page."""

    def photograph(self, place: str) -> None:
        """Keep a picture of the page as it is."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=PICTURES / f"{place}.png", full_page=True)

    def choose(self, label: str, option: str) -> None:
        """Choose in a dropdown."""
        self.page.get_by_label(label, exact=True).locator("visible=true").first.click()
        whole = re.compile(rf"^\W*{re.escape(option)}\W*$")
        self.page.get_by_role("option").filter(has_text=whole).first.click()

    def fill(self, **texts: str) -> None:
        """Type into fields; their labels with underscores for spaces."""
        for label, text in texts.items():
            self.page.get_by_label(label.replace("_", " ")).locator("visible=true").first.fill(text)

    def press(self, button: str) -> None:
        """Press a button by its words."""
        self.page.get_by_role("button", name=button, exact=True).locator("visible=true").first.click()

    def wait_done(self, place: str) -> None:
        """Until the watched job has ended, as it should."""
        ended = ".watch-line .tag:is(.done, .failed, .cancelled)"
        self.page.wait_for_selector(ended)
        state = self.page.inner_text(ended)
        self.photograph(place)
        assert state == "done", self.page.inner_text(".watch-body")

    def judge(self, project: str, answers: dict[str, str], otherwise: str) -> int:
        """Answer everything as a program of a logged-in person does; by the prompt's first words that fit."""
        n_answered, context = 0, self.page.context.request
        headers = {"Origin": self.server.address}
        while True:
            url = f"{self.server.address}/api/v1/projects/{project}/claim"
            claimed = context.post(url, data={"n": 20, "have": []}, headers=headers)
            assert claimed.ok, claimed.text()
            items = claimed.json()["items"]
            if not items:
                return n_answered
            prompts = {item.id: item.prompt for item in self.store.list_items(project)}
            judgments = [
                {
                    "uuid": str(uuid.uuid4()), "assignmentId": item["id"], "elapsedMs": 900,
                    "answer": next((a for word, a in answers.items() if word in prompts[item["itemId"]]), otherwise),
                }
                for item in items
            ]  # fmt: skip
            body = {"account": "olga", "judgments": judgments}
            found = context.post(f"{self.server.address}/api/v1/judgments", data=body, headers=headers).json()
            assert [row["status"] for row in found["results"]] == ["stored"] * len(items), found
            n_answered += len(items)


@pytest.fixture
def olga(server: Server, browser: Any) -> Iterator[Researcher]:
    """The owner, logged in."""
    with Store.open(server.store_path) as store:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        cookie = {"name": "hfi_session", "value": store.create_session("olga"), "url": server.address}
        context.add_cookies([cookie])
        opened = Researcher(server, context, store)
        opened.page.set_default_timeout(JOB_SECONDS * 1000)
        yield opened
        context.close()
        assert opened.problems == []


@pytest.mark.slow
def test_from_an_empty_store_to_a_changed_model_with_the_pages_alone(olga: Researcher) -> None:
    page = olga.open("")
    olga.photograph("01-projects-empty")

    page = olga.open("setup")
    page.get_by_label("Name", exact=False).first.fill(PROJECT)
    olga.photograph("02-setup")
    olga.press("Create the project")
    page.wait_for_selector("button[role=tab][aria-selected=true]:has-text('Pictures')")

    page = olga.open("generate", PROJECT)
    olga.fill(Prompts="a knife\na cat", Seeds="0-3", Steps="4")
    olga.press("Generate")
    olga.wait_done("03-generate")
    page.wait_for_function("document.querySelectorAll('.board-place img').length === 8")

    page.goto(f"{olga.server.address}/label/{PROJECT}")
    page.wait_for_selector("#stage[data-assignment]")
    olga.photograph("04-label")
    while olga.judge(PROJECT, {"knife": "yes"}, "no"):
        pass
    assert len(olga.store.list_judgments(PROJECT)) >= 8

    page = olga.open("concept", PROJECT)
    olga.press("Train the score model")
    olga.wait_done("05-concept")

    page = olga.open("erase", PROJECT)
    page.wait_for_selector(".ready:has-text('4 of them flagged')")
    olga.choose("What is erased", "Flagged prompts")
    olga.fill(Steps="2", Draw_samples_every="1")
    page.get_by_role("button", name="Weights and training").click()
    olga.fill(Pictures_at_once="1")
    page.get_by_role("button", name="Samples, weak tokens, device").click()
    olga.fill(Prompts_that_are_drawn_as_samples="a knife")
    olga.press("Instant preview")
    olga.wait_done("06-erase-preview")
    page.wait_for_selector(".before-after img")
    preview = page.url
    olga.press("Erase")
    page.wait_for_function("(before) => location.href !== before", arg=preview)
    olga.wait_done("07-erase")
    page.wait_for_function("document.querySelectorAll('.looks-table thead th').length === 4")

    page.click("text=Measure this model")
    page.wait_for_selector(".header .who")
    olga.choose("Protocol", "Own settings")
    page.wait_for_selector("text=Pictures of the concept")
    olga.fill(Pictures_of_the_concept="2", Pictures_of_anything_else="2", Steps="2")
    olga.press("Measure")
    olga.wait_done("08-results-job")
    page.wait_for_selector("table.methods")
    olga.photograph("09-results")
    address = page.get_attribute("table.methods a:has-text('Open')", "href")
    page.goto(f"{olga.server.address}{address}")
    page.wait_for_selector("text=Same words, same seed")
    olga.photograph("10-report")

    page = olga.open("judge_again", PROJECT)
    olga.fill(Pairs_of_each_two_models="2", People_who_judge_each_pair="1")
    olga.press("Send to the label page")
    olga.said("pairs wait on the label page")
    olga.judge(f"{PROJECT}-again", {}, "first")
    olga.press("Look again")
    page.wait_for_selector(".verdict-place:has-text('1 person') , .verdict-place:has-text('person has judged')")
    olga.photograph("11-judge-again")
    for path in ("gallery", "quality", "export", "library", "jobs"):
        olga.open(path, PROJECT)
        page.wait_for_timeout(1500)
        olga.photograph(f"12-{path}")

    made = [run.kind for run in olga.store.list_runs(status="done")]
    assert sorted(set(made)) == ["erase", "evaluate", "generate", "judge-again", "score"] and made.count("erase") == 2
