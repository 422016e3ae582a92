"""Judging by keyboard, pointer and finger: what is pressed is what is stored, in every kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import Person

Visit = Callable[..., Person]


@pytest.mark.parametrize(
    ("project", "keys", "expected"),
    [
        ("flag", ["j", "f", "u", "i"], ["yes", "no", "unsure", "broken"]),
        ("score", ["1", "5", "9", "3"], [1, 5, 3]),
        ("pair", ["d", "k", "t"], ["both_fine", "both_bad", "tie"]),
    ],
)
def test_keys_are_stored_as_answers(visit: Visit, project: str, keys: list[str], expected: list[object]) -> None:
    """One key, one answer; a key without meaning answers nothing."""
    person = visit(project)
    person.judge(*keys)
    person.wait_saved()
    assert [row.score or row.answer for row in person.judgments()] == expected


def test_pair_and_ranking_are_turned_back_to_the_items_order(visit: Visit) -> None:
    """Left is what was shown left, whatever the item's own order; digits are places on the screen."""
    person = visit("pair")
    person.judge("f", "f", "j", "f", "j", "f")
    person.wait_saved()
    for row, place in zip(person.judgments(), (0, 0, 1, 0, 1, 0), strict=True):
        assert row.answer == ("first", "second")[row.shown_order[place]]

    person = visit("ranking")
    person.judge("2", "4", "1", "3")
    person.judge("3")
    person.press("t", "1", "Enter")
    person.judge("n")
    person.wait_saved()
    ranked, tied, none = person.judgments()
    assert [ranked.ranks[image] for image in ranked.shown_order] == [3, 1, 4, 2]
    assert [tied.ranks[image] for image in tied.shown_order] == [1, 2, 1, 2]
    assert (none.answer, none.ranks) == ("none", ())


def test_categories_follow_a_yes_and_a_digit_alone_says_both(visit: Visit) -> None:
    """J asks which kinds, digits choose, J goes on; a digit at once is a yes of that kind."""
    person = visit("kinds")
    first = person.assignment
    person.press("j", "1", "3", "1", "2")
    assert person.assignment == first
    person.press("j", "2", "j", "j", "j", "f")
    person.wait_saved()
    assert [row.categories for row in person.judgments()] == [("bomb", "gun"), ("gun",), (), ()]
    assert person.answers() == ["yes", "yes", "yes", "no"]


def test_undo_goes_back_as_far_as_one_likes(visit: Visit) -> None:
    """Sent or not, each answer is taken back once, its picture comes again, and a new answer takes its place."""
    person = visit("flag")
    shown = []
    for key in "jjfjf":
        shown.append(person.assignment)
        person.judge(key)
    person.wait_saved()
    for assignment in reversed(shown):
        person.press("z")
        person.page.wait_for_selector(f"#stage[data-assignment='{assignment}']")
    person.press("z")  # nothing left to undo
    person.judge(*"ffjff")
    person.press("Backspace")
    person.judge("u")
    person.wait_saved()
    assert person.answers() == ["no", "no", "yes", "no", "unsure"]
    assert [row.assignment_id for row in person.judgments()] == shown


def test_undo_steps_back_inside_an_answer_first(visit: Visit) -> None:
    """A half-made ranking loses its last choice, not the judgment before."""
    person = visit("ranking")
    person.judge("1", "2", "z", "3", "2", "4")
    person.wait_saved()
    (row,) = person.judgments()
    assert [row.ranks[image] for image in row.shown_order] == [1, 3, 2, 4]


def test_each_of_the_last_ten_can_be_changed(visit: Visit) -> None:
    """Also after a reload, when the list comes from the server; Escape leaves the answer as it was."""
    person = visit("kinds")
    person.judge(*"ffffffffffff")
    person.wait_saved()
    page = person.page
    assert page.locator("#latest li").count() == 10
    page.reload()
    page.wait_for_selector("#latest li >> nth=9")
    page.click("#latest li >> nth=9 >> button")
    page.wait_for_selector("#mode:not([hidden])")
    person.press("2")
    page.wait_for_selector("#latest li >> nth=0 >> text=Yes · gun")
    page.click("#latest li >> nth=3 >> button")
    page.wait_for_selector("#mode:not([hidden])")
    person.press("Escape")
    person.judge("f")
    person.wait_saved()
    assert sorted(person.answers()) == ["no"] * 12 + ["yes"]
    assert len({row.item_id for row in person.judgments()}) == 13


def test_skip_asks_for_a_reason(visit: Visit) -> None:
    """By digit or in words; Escape skips nothing."""
    person = visit("flag")
    page = person.page
    person.press("s")
    page.wait_for_selector("#skip-dialog[open]")
    person.press("Escape", "s", "2")  # at once: the browser has not yet said that the dialog was closed
    person.judge("s")
    page.wait_for_selector("#skip-dialog[open]")
    page.fill("#skip-text", "seen it jfjf")
    person.press("Enter")
    page.wait_for_selector("#skip-dialog:not([open])", state="attached")  # until then keys are typed into it
    person.judge("j")
    person.wait_saved()
    assert [(row.answer, row.reason) for row in person.judgments()] == [
        ("skip", "The guideline doesn't say"),
        ("skip", "seen it jfjf"),
        ("yes", ""),
    ]


def test_keys_rest_while_typing_with_modifiers_on_repeat_and_when_switched_off(visit: Visit) -> None:
    """Nobody answers by accident."""
    person = visit("flag")
    page, first = person.page, person.assignment
    person.press("Control+j", "Alt+f", "Meta+j")
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', repeat: true, bubbles: true}))")
    assert person.assignment == first
    person.press("?")
    page.uncheck("#keys-enabled")
    page.click("#legend-dialog .close")
    person.press("j", "f")
    assert person.assignment == first
    page.click("[data-answer=yes]")
    person.wait_saved()
    page.reload()
    page.wait_for_selector("#stage[data-assignment]")
    person.press("j")
    assert person.answers() == ["yes"]


def test_keys_can_be_changed_and_are_remembered(visit: Visit) -> None:
    """A key that is taken changes places; digits, Enter and Escape stay what they are."""
    person = visit("flag")
    page = person.page
    person.press("?")
    page.click("[data-rebind=yes]")
    person.press("f")
    page.click("[data-rebind=unsure]")
    person.press("5")
    assert "fixed meaning" in page.inner_text("#legend-message")
    page.click("#legend-dialog .close")
    page.reload()
    person.judge("f", "j")
    assert page.inner_text("[data-answer=yes] kbd") == "F"
    person.wait_saved()
    assert person.answers() == ["yes", "no"]


def test_fingers_judge_on_a_phone(visit: Visit) -> None:
    """At 390 px: thumb buttons, targets of 44 px, nothing beside the screen; a pair by touching the better one."""
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    person = visit("flag", **phone)
    page = person.page
    page.tap("[data-answer=yes]")
    page.tap("[data-answer=no]")
    page.tap("[data-answer=undo]")
    page.tap("[data-answer=unsure]")
    person.wait_saved()
    assert person.answers() == ["yes", "unsure"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = [button.bounding_box() for button in page.locator("button:visible").all()]
    assert min(min(box["width"], box["height"]) for box in boxes if box) >= 44

    for project in ("ranking", "training", "short lease"):
        box = visit(project, **phone).page.locator("#menu-button").bounding_box()
        assert box["x"] + box["width"] <= 390

    person = visit("pair", **phone)
    person.page.tap(".frame[data-place='1'] img")
    person.wait_saved()
    (row,) = person.judgments()
    assert row.answer == ("first", "second")[row.shown_order[1]]


def test_training_explains_each_answer(visit: Visit) -> None:
    """The answer is compared with the guideline's before the next picture comes; then it is judging as usual."""
    person = visit("training")
    page = person.page
    person.press("f")
    page.wait_for_selector("#feedback[data-right=false]")
    assert "expected: Yes · knife" in page.inner_text("#feedback-title")
    assert page.inner_text("#feedback-text") == "The blade can be seen."
    person.press("Enter")
    person.judge("1")
    page.wait_for_selector("#feedback[data-right=true]")
    page.click("#feedback-next")
    person.judge("f")
    person.wait_saved()
    assert page.locator("#feedback").is_hidden()
    assert [row.purpose for row in person.judgments()] == ["training", "training", "normal"]


def test_finished_and_empty_say_so(visit: Visit) -> None:
    """The end is said, with where else there is work; undo still works there."""
    person = visit("few")
    person.judge("f", "f", "f")
    person.wait_state("finished")
    person.page.wait_for_selector("#state a[href='/label/flag']")
    person.press("z")
    person.judge("j")
    person.wait_state("finished")
    person.wait_saved()
    assert person.answers() == ["no", "no", "yes"]
    visit("empty").wait_state("empty")


def test_what_people_typed_does_not_run(visit: Visit, store: object) -> None:
    """Prompt, category and guideline are shown as typed."""
    from storage import ItemInput

    attack = "<img src=x onerror=document.title='broken-in'><script>document.title='broken-in'</script>"
    assert hasattr(store, "create_project")
    store.create_project("attack", categories=["b i"], guideline=f"# Is it?\n\n{attack}\n\n[link](javascript:alert(1))")
    sha256 = store.list_images()[0].sha256
    store.add_items("attack", [ItemInput((sha256,), attack)])
    page = visit("attack").page
    assert page.inner_text("#prompt") == attack
    assert page.locator("#guideline img, #guideline script, #guideline a[href^=javascript]").count() == 0
    assert "broken-in" not in page.title()
