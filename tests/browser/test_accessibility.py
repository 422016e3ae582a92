"""For everybody: axe-core finds no serious violation in any state, and what happens is said aloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Person
from tests.browser.serving import wait_until

Visit = Callable[..., Person]
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="Needs axe-playwright-python.")
SERIOUS = ("serious", "critical")
# What stands on a page is the same in both schemes: in the dark only the colours are looked at again.
RULES: dict[str, dict[str, Any]] = {"light": {}, "dark": {"runOnly": {"type": "rule", "values": ["color-contrast"]}}}
# What turns for ever, as Gradio's waiting signs do, is no change of colours that would end.
NOTHING_MOVES = (
    "document.getAnimations().every((one) => one.playState !== 'running'"
    " || one.effect.getComputedTiming().endTime === Infinity)"
)


def find_violations(page: Any, state: str) -> list[str]:
    """axe-core's serious findings on a page as it is now, in light, and of its colours in dark, once nothing moves.

    Half-way through an animation, a colour is neither what it was nor what it will be.
    """
    found = []
    for scheme, rules in RULES.items():
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        wait_until(page, NOTHING_MOVES)
        for violation in axe.Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]:
            if violation["impact"] in SERIOUS:
                nodes = [node["html"][:120] for node in violation["nodes"][:3]]
                found.append(f"{state}, {scheme}: {violation['id']} {nodes}")
    return found


@pytest.mark.parametrize("project", ["kinds", "score", "pair", "ranking"])
def test_no_serious_violation_while_judging(visit: Visit, project: str) -> None:
    """In each kind, wide and narrow."""
    page = visit(project, reduced_motion="reduce").page
    found = find_violations(page, project)
    page.set_viewport_size({"width": 390, "height": 844})
    wait_until(page, "innerWidth === 390")
    assert found + find_violations(page, f"{project}, 390 px") == []


def test_no_serious_violation_in_dialogs_and_states(visit: Visit) -> None:
    """Legend, reasons, limits, last ten, break; consent and a covered picture."""
    person = visit("kinds", reduced_motion="reduce")
    page = person.page
    person.judge("f", "2", "j")
    page.wait_for_selector("#answers.is-choosing")
    found = find_violations(page, "choosing categories")
    for key, dialog in (("?", "legend"), ("s", "skip")):
        person.press(key)
        page.wait_for_selector(f"#{dialog}-dialog[open]")
        found += find_violations(page, dialog)
        person.press("Escape")
        page.wait_for_selector(f"#{dialog}-dialog:not([open])", state="attached")
    page.click("#menu-button")
    page.wait_for_selector("#menu:not([hidden])")
    found += find_violations(page, "menu")
    person.press("Escape")
    page.wait_for_selector("#menu[hidden]", state="attached")
    person.press("b")
    person.wait_state("break")
    found += find_violations(page, "break")

    person = visit("sensitive", reduced_motion="reduce")
    person.wait_state("consent")
    found += find_violations(person.page, "consent")
    person.page.click("#state .primary")
    person.page.wait_for_selector("#stage[data-assignment]")
    assert found + find_violations(person.page, "covered") == []


def test_answers_are_announced_and_reachable_by_tab(visit: Visit) -> None:
    """What was answered is said; a tabbed button answers by Enter and by Space and keeps the focus."""
    person = visit("flag")
    page = person.page
    person.press("j")
    person.wait_until("document.querySelector('#live').textContent.startsWith('Yes.')")
    page.focus("[data-answer=no]")
    person.press("Tab", "Shift+Tab", "Enter", "Space")
    assert page.evaluate("document.activeElement.dataset.answer") == "no"
    person.wait_saved()
    assert person.answers() == ["yes", "no", "no"]
