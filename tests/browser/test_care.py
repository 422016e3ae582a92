"""Care: consent before the first picture, covered until held, refusing, breaks, limits, reporting."""

from __future__ import annotations

from collections.abc import Callable

from storage import Store
from tests.browser.conftest import Person

Visit = Callable[..., Person]


def visit_sensitive(visit: Visit, **options: object) -> Person:
    """A person who has consented and sees the first covered picture."""
    person = visit("sensitive", **options)
    person.wait_state("consent")
    person.page.click("#state .primary")
    person.page.wait_for_selector("#stage[data-assignment]")
    return person


def is_covered(person: Person) -> bool:
    """Whether the picture on the screen, once there is one, is blurred and grey."""
    person.page.wait_for_selector("#stage[data-assignment] img")
    look = person.page.evaluate("getComputedStyle(document.querySelector('#stage img')).filter")
    return "blur" in look and "grayscale" in look


def test_consent_comes_before_the_first_picture(visit: Visit, store: Store) -> None:
    """No picture is fetched before; saying no shows none; what one agreed to is stored."""
    person = visit("sensitive")
    person.wait_state("consent")
    person.press("j", "f", "b")
    fetched = "performance.getEntriesByType('resource').filter((entry) => /img|thumb/.test(entry.name)).length"
    assert person.page.evaluate(fetched) == 0
    assert not store.has_consent("sensitive", person.name)
    person.page.click("#state .primary")
    person.page.wait_for_selector("#stage[data-assignment]")
    assert store.has_consent("sensitive", person.name)


def test_pictures_are_covered_until_held(visit: Visit) -> None:
    """Space, a finger on the picture or the button uncover while held; for how long is stored."""
    person = visit_sensitive(visit)
    page = person.page
    assert is_covered(person)
    page.keyboard.down(" ")
    assert not is_covered(person)
    page.wait_for_timeout(60)
    page.keyboard.up(" ")
    assert is_covered(person)
    person.judge("f")
    assert is_covered(person)
    page.hover("#stage img")
    page.mouse.down()
    assert not is_covered(person)
    page.mouse.up()
    page.hover("#reveal")
    page.mouse.down()
    assert not is_covered(person)
    page.mouse.up()
    assert is_covered(person)
    person.judge("f", "f")
    person.wait_saved()
    revealed = [row.revealed_ms for row in person.judgments()]
    assert revealed[0] >= 50 and revealed[1] > 0 and revealed[2] == 0
    assert "2 uncovered" in page.inner_text("#exposure")


def test_a_kind_can_be_refused(visit: Visit, store: Store) -> None:
    """X refuses the kind of this picture at once and for good; the menu refuses and allows kinds by name."""
    person = visit_sensitive(visit)
    hints = {item.id: item.category_hint for item in store.list_items("sensitive")}
    refused = hints[store.get_assignment(person.assignment).item_id]
    person.press("x")
    person.page.wait_for_selector("#stage[data-assignment]")
    assert store.list_opt_outs("sensitive", person.name) == [refused]
    person.judge(*"ffffff")
    person.wait_saved()
    assert refused not in {hints[row.item_id] for row in person.judgments() if row.answer == "no"}

    page = person.page
    page.click("#menu-button")
    page.click("#menu [data-action=limits]")
    for kind in ("knife", "gun", "bomb"):
        page.set_checked(f"#limits-rows input[value={kind}]", kind == "bomb")
    page.click("#limits-save")
    page.wait_for_selector("#toast >> text=Kept")
    person.judge(*"fff")
    person.wait_saved()
    assert store.list_opt_outs("sensitive", person.name) == ["bomb"]
    assert "bomb" not in {hints[row.item_id] for row in person.judgments()[-3:]}


def test_break_hides_the_picture_and_gives_leases_back(visit: Visit, store: Store) -> None:
    """B rests, B goes on; nothing is judged in between."""
    person = visit("flag")
    person.judge("f")
    person.press("b")
    person.wait_state("break")
    person.press("j", "f")
    for _ in range(100):
        if not store.list_leases("flag", person.name):
            break
        person.page.wait_for_timeout(50)
    assert store.list_leases("flag", person.name) == []
    person.press("b")
    person.judge("j")
    person.wait_saved()
    assert person.answers() == ["no", "yes"]


def test_break_is_proposed_and_the_day_has_an_end(visit: Visit, store: Store) -> None:
    """After 25 minutes a break is proposed and can be declined; at the daily cap nothing more is shown."""
    person = visit("flag", is_open=False)
    user_id, project_id = store.get_annotator(person.name).id, store.get_project("flag").id
    a_minute = (60_000, 1, False)
    store.add_exposure(project_id, user_id, [a_minute] * 26)
    page = person.open()
    person.judge("f")
    page.wait_for_selector("#toast >> text=A short break?")
    person.judge("j")
    page.click("#toast-action")
    person.wait_state("break")
    store.add_exposure(project_id, user_id, [a_minute] * 160)
    page.click("#state .primary")
    person.wait_state("cap")
    person.wait_saved()
    assert person.answers() == ["no", "yes"]


def test_illegal_content_is_hidden_from_everyone(visit: Visit, store: Store) -> None:
    """Only after a question; then at once, for the next person too, and without a judgment."""
    person = visit("reported")
    page, assignment = person.page, person.assignment
    (sha256,) = store.get_assignment(assignment).images
    for answer in ("#report-no", "#report-yes"):
        page.click("#menu-button")
        page.click("#menu [data-action=report]")
        page.wait_for_selector("#report-dialog[open]")
        assert not store.get_image(sha256).is_quarantined
        page.click(answer)
    person.wait_state("reported")
    person.wait_saved()
    assert store.get_image(sha256).is_quarantined
    assert page.request.get(f"{person.server.address}/img/{sha256}").status == 410
    page.click("#state .primary")
    person.judge("f")
    person.wait_saved()
    assert [sha256 in store.get_assignment(row.assignment_id or 0).images for row in person.judgments()] == [False]
