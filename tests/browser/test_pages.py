"""Gradio's pages in a real browser: every page for everybody, nothing that was typed runs, one project from its
making to its snapshot."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from storage import GenerationParams, ItemInput, JudgmentInput, Store
from tests.browser.serving import Server
from tests.browser.test_accessibility import find_violations

PATIENCE_MS = 300_000  # the first page waits until Gradio is imported
SCRIPT = "<script>window.hit=1</script><img src=x onerror=window.hit=1>${window.hit=1}{{constructor}}"
OF_A_PROJECT = ("setup", "gallery", "quality", "export")
OF_A_PROJECT += ("generate", "concept", "erase", "results", "judge_again", "library")
PATHS = ("", *OF_A_PROJECT, "jobs", "people", "account")


class Lead:
    """An owner at a browser; what goes wrong unseen is noted."""

    def __init__(self, server: Server, context: Any, store: Store) -> None:
        self.server, self.store = server, store
        self.problems: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", self._note_request)

    def _note_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.netloc != urlsplit(self.server.address).netloc:
            self.problems.append(f"foreign host: {request.url}")

    def open(self, path: str, project: str = "") -> Any:
        """A page, with everything that it looks up."""
        query = f"?project={quote(project)}" if project else ""
        self.page.goto(f"{self.server.address}/{path}{query}")
        self.page.wait_for_selector(".header .who")
        self.page.wait_for_function("!document.querySelector('.waiting')")
        return self.page

    def said(self, text: str) -> None:
        """Wait until a notice says so."""
        self.page.wait_for_selector(f".notice:has-text({text!r})")


@pytest.fixture
def lead(server: Server, browser: Any, store: Store) -> Iterator[Lead]:
    """A new owner, logged in."""
    name = f"lead {uuid.uuid4().hex[:8]}"
    store.add_annotator(name, role="owner")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": "hfi_session", "value": store.create_session(name), "url": server.address}])
    opened = Lead(server, context, store)
    yield opened
    context.close()
    assert opened.problems == []


@pytest.mark.thorough
def test_every_page_is_for_everybody(lead: Lead) -> None:
    """axe-core finds nothing serious in light and dark, and nothing sticks out at 390 px."""
    found = []
    for path in PATHS:
        page = lead.open(path, "kinds" if path in OF_A_PROJECT else "")
        found += find_violations(page, path or "projects")
        page.set_viewport_size({"width": 390, "height": 844})
        too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        found += [f"{path or 'projects'}: {too_wide} px too wide at 390 px"] if too_wide > 0 else []
        page.set_viewport_size({"width": 1280, "height": 900})
    assert found == []


@pytest.mark.thorough
def test_nothing_that_was_typed_runs(lead: Lead, tmp_path: Path) -> None:
    """Prompt, model, guideline, note, consent and file name: shown as they were typed, wherever they are shown."""
    store, project = lead.store, f"odd {uuid.uuid4().hex[:8]}"
    store.create_project(project, guideline=SCRIPT, gold_fraction=0.0, repeat_fraction=0.0)
    store.set_care(project, consent_wording=SCRIPT)
    picture = store.add_image(Image.new("RGB", (16, 16), (len(project), 5, 9))).sha256
    params = GenerationParams(SCRIPT, seed=1, negative_prompt=SCRIPT, model_id=SCRIPT, guard=SCRIPT)
    store.add_generation(project, picture, params)
    [item] = store.add_items(project, [ItemInput((picture,), SCRIPT)])
    for name, answer in ((f"a {project}", "yes"), (f"b {project}", "no")):
        store.add_annotator(name)
        [lease] = store.claim(project, name)
        words = {"reason": SCRIPT, "note": SCRIPT}
        store.submit_judgments([JudgmentInput(str(uuid.uuid4()), name, answer, lease.id, **words)])

    page = lead.open("gallery", project)
    page.click("[data-choice]")
    page.wait_for_selector(".detail")
    assert SCRIPT[:30] in page.inner_text(".detail h2")
    assert_not_hit(page)

    page = lead.open("quality", project)
    page.click("button[role=tab]:has-text('Disagreement')")
    page.click("[data-choice]")
    page.wait_for_selector(".dispute")
    assert "<script>" in page.inner_text(".voices") and str(item.id) in page.inner_text(".dispute h2")
    assert_not_hit(page)

    page = lead.open("setup", project)
    page.wait_for_selector(".versions details")
    page.wait_for_function("[...document.querySelectorAll('.guideline')].some((e) => e.innerText.includes('<script>'))")
    assert_not_hit(page)
    page.click("button[role=tab]:has-text('Pictures')")
    odd = tmp_path / "<img src=x onerror=window.hit=1>.png"
    odd.write_bytes(b"no picture")
    page.set_input_files("input[type=file]", str(odd))
    page.wait_for_selector(".file-preview")
    page.click("button:has-text('Add to the project')")
    page.wait_for_selector(".notice:has-text('Refused')")
    assert_not_hit(page)
    for path in ("", "export", "people"):
        assert_not_hit(lead.open(path))


def assert_not_hit(page: Any) -> None:
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None


def test_a_project_from_its_making_to_its_snapshot(lead: Lead, tmp_path: Path) -> None:
    """Create, upload, look, decide as a reviewer, freeze."""
    name, page = f"made {uuid.uuid4().hex[:8]}", lead.open("setup")
    page.get_by_label("Name", exact=False).first.fill("a/b")
    page.click("button:has-text('Create the project')")
    page.wait_for_selector(".notice.bad:has-text('is not allowed')")
    page.get_by_label("Name", exact=False).first.fill(name)
    page.click("button:has-text('Create the project')")
    page.wait_for_selector("button[role=tab][aria-selected=true]:has-text('Pictures')")

    page.wait_for_selector(".strip.wide .no-pictures")
    files = []
    for number in range(3):
        files.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (32, 32), (number, 200, len(name))).save(files[-1])
    page.set_input_files("input[type=file]", files)
    page.wait_for_selector(".file-preview")
    page.click("button:has-text('Add to the project')")
    lead.said("3 pictures stored, 3 new items")
    assert len(lead.store.list_items(name)) == 3

    [item, *_] = lead.store.list_items(name)
    owner = lead.store.list_users()[-1].name
    lead.store.submit_judgments([JudgmentInput(str(uuid.uuid4()), owner, "yes", item_id=item.id)])
    page = lead.open("gallery", name)
    page.wait_for_function("document.querySelectorAll('[data-choice]').length === 3")
    page.click("[data-choice]")
    page.wait_for_selector(".detail")
    page.get_by_label("Prompt contains").fill("no such words")
    page.wait_for_selector("text=No picture is like that")

    page = lead.open("export", name)
    page.click("button:has-text('Freeze a snapshot')")
    lead.said("Frozen as")
