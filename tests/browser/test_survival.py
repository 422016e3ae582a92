"""Whatever happens to the network, the server, the tab or the clock: nothing is lost and nothing is doubled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from storage import Store
from tests.browser.conftest import Person, log_in
from tests.browser.serving import Server

Visit = Callable[..., Person]
JUDGMENTS = "**/api/v1/judgments"
CLOCK = "const now = Date.now.bind(Date); window.shift = 0; Date.now = () => now() + window.shift;"


def count_items(person: Person) -> int:
    """How many different items the person's standing judgments are about."""
    return len({row.item_id for row in person.judgments()})


def test_network_may_vanish(visit: Visit) -> None:
    """What was fetched is judged, undone and judged again without a connection; the rest comes by itself afterwards."""
    person = visit("flag")
    person.wait_ahead()
    person.context.set_offline(True)
    person.judge(*"jfjf", "z", "z", *"ff")
    assert person.unsent() >= 4
    while person.page.locator("#stage").is_visible():
        person.press("u")
    person.wait_state("offline")
    person.page.wait_for_timeout(500)  # the count is drawn after the picture
    n_judged = int(person.page.inner_text("#progress").split()[0])
    person.press("z")
    person.judge("u")
    assert person.answers() == []
    person.context.set_offline(False)
    person.page.wait_for_selector("#stage[data-assignment]")
    person.wait_saved()
    assert person.answers() == ["yes", "no", "no", "no"] + ["unsure"] * (n_judged - 4)
    assert count_items(person) == n_judged >= 9


def test_lost_acknowledgements_double_nothing(visit: Visit) -> None:
    """The server stored it, the answer got lost: it is sent again, and an undo goes to the server."""
    person = visit("flag")

    def swallow(route: Any) -> None:
        route.fetch()
        route.abort()

    person.page.route(JUDGMENTS, swallow)
    person.judge("j", "f")
    person.page.wait_for_selector("#unsent[data-state=waiting]")
    assert len(person.judgments()) >= 1
    person.press("z")
    person.judge("j")
    person.page.unroute_all(behavior="wait")  # one may be in the middle of it
    person.page.click("#unsent")
    person.page.click("#outbox-retry")
    person.wait_saved()
    assert person.answers() == ["yes", "yes"]
    assert count_items(person) == 2


def test_reload_keeps_what_is_unsent(visit: Visit) -> None:
    """The next page sends what the last one could not, and shows nothing that was answered already."""
    person = visit("flag")
    page = person.page
    page.route(JUDGMENTS, lambda route: route.abort())
    person.judge("j", "f", "j")
    page.reload()
    page.wait_for_selector("#stage[data-assignment]")
    assert person.unsent() == 3
    person.judge("f", "f")
    page.unroute(JUDGMENTS)
    page.reload()
    person.judge("j")
    person.wait_saved()
    assert person.answers() == ["yes", "no", "yes", "no", "no", "yes"]
    assert count_items(person) == 6


def test_two_tabs_share_the_work(visit: Visit) -> None:
    """No picture is shown in both, and a closed tab's answers are sent by the other."""
    person = visit("flag")
    one, two = person.page, person.open()
    shown: list[str | None] = []
    for page in (one, two, two, one, two, one):
        shown.append(page.locator("#stage").get_attribute("data-assignment"))
        person.judge("f", page=page)
    one.route(JUDGMENTS, lambda route: route.abort())
    person.judge("j", page=one)
    one.close()
    two.reload()
    person.judge("u", page=two)
    person.wait_saved(two)
    assert len(set(shown)) == 6
    assert sorted(person.answers()) == ["no"] * 6 + ["unsure", "yes"]
    assert count_items(person) == 8


def test_expired_leases_lose_nothing(visit: Visit) -> None:
    """The answer counts although the lease ended meanwhile, and the item is not asked twice."""
    person = visit("short lease")
    person.wait_ahead()
    claims = "**/claim"
    person.page.route(claims, lambda route: route.abort())
    person.judge("j")
    time.sleep(2.5)
    person.judge("f", "j")
    person.wait_saved()
    person.page.unroute(claims)
    time.sleep(1.5)
    person.judge("f", "f", "f", "f")
    person.wait_saved()
    assert person.answers() == ["yes", "no", "yes", "no", "no", "no", "no"]
    assert count_items(person) == 7


def test_server_may_die_and_come_back(visit: Visit, server: Server) -> None:
    """Killed in the middle: judging goes on with what is there, and everything arrives once it is up again."""
    person = visit("score")
    person.wait_ahead()
    person.judge("1", "2")
    server.stop(is_killed=True)
    person.judge("3", "4", "z", "5")
    server.start(pages_after_seconds=60)  # nobody asks for them here, and building them takes seconds
    person.wait_saved()
    person.judge("1")
    person.wait_saved()
    assert [row.score for row in person.judgments()] == [1, 2, 3, 5, 1]
    assert count_items(person) == 5


def test_clock_may_jump(visit: Visit) -> None:
    """A year back, two forward: order, leases and undo don't care; the store keeps its own time."""
    person = visit("flag", is_open=False)
    person.context.add_init_script(CLOCK)
    page = person.open()
    person.judge("j", "f")
    page.evaluate("window.shift = -365 * 86400000")
    person.judge("j", "z", "u")
    page.evaluate("window.shift = 730 * 86400000")
    person.judge("f", "z", "j")
    person.wait_saved()
    assert person.answers() == ["yes", "no", "unsure", "yes"]
    stored = [row.created_at_us for row in person.judgments()]
    assert max(stored) - min(stored) < 600e6


def test_ended_login_keeps_the_work_for_its_owner(visit: Visit, store: Store) -> None:
    """It waits through someone else's session in the same browser and is sent once its owner is back."""
    person, other = visit("flag"), visit("flag", is_open=False)
    store.end_sessions(person.name)
    person.judge("j", "f")
    page = person.page
    page.wait_for_selector("#unsent[data-state=waiting] >> text=log in")
    secret = store.create_session(other.name)
    person.context.add_cookies([{"name": "hfi_session", "value": secret, "url": person.server.address}])
    page.click("#unsent")
    page.click("#outbox-retry")
    page.wait_for_selector("#unsent >> text=other account")
    assert (person.unsent(), person.answers(), other.answers()) == (2, [], [])
    log_in(person)
    page.reload()
    person.judge("j")
    person.wait_saved()
    assert person.answers() == ["yes", "no", "yes"]
    assert other.answers() == []


def test_logging_out_warns_before_it_forgets(visit: Visit) -> None:
    """With something unsent there is a question first; staying keeps it, and nothing is left behind after leaving."""
    person = visit("flag")
    page = person.page
    page.route(JUDGMENTS, lambda route: route.abort())
    person.judge("j", "f")
    for answer, is_left in (("#logout-stay", False), ("#logout-discard", True)):
        page.click("#menu-button")
        page.click("#menu [data-action=logout]")
        page.wait_for_selector("#logout-dialog[open] >> text=2 judgments")
        page.click(answer)
        if is_left:
            page.wait_for_url("**/login")
        assert person.unsent() == (0 if is_left else 2)
    assert person.answers() == []


def test_refused_judgment_is_kept_and_shown(visit: Visit) -> None:
    """The server says no to one: the others are stored, this one stays in sight and can be sent again."""
    person = visit("flag")
    page = person.page

    def spoil(route: Any) -> None:
        body = route.request.post_data.replace('"answer":"unsure"', '"answer":"perhaps"')
        route.continue_(post_data=body)

    page.route(JUDGMENTS, spoil)
    person.judge("j", "u", "f")
    for _ in range(200):  # the count is drawn after the picture, so it may still be that of before the last key
        if person.answers() == ["yes", "no"]:
            break
        page.wait_for_timeout(50)
    assert person.answers() == ["yes", "no"]
    page.wait_for_selector("#unsent >> text=1 unsent · 1 refused")
    page.unroute(JUDGMENTS)
    page.click("#unsent")
    page.wait_for_selector("#outbox-refused >> text=Unsure")
    page.click("#outbox-retry")
    person.wait_saved()
    assert sorted(person.answers()) == ["no", "unsure", "yes"]
