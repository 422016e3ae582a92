"""People and account: inviting, roles, keeping out; one's own password, sessions, keys and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storage import Store
from storage.accounts import LoginRefusedError
from tests.ui.page_visits import build_visited_store, refusal, sentence, visit
from tests.ui.people import PASSWORD
from ui.pages.account import (
    change_password,
    end_other_sessions,
    end_token,
    make_token,
    reset_keys,
    save_settings,
    show_account,
)
from ui.pages.people import (
    disable_person,
    enable_person,
    end_invitation,
    give_password,
    invite,
    set_role,
    show_people,
)

NEW_PASSWORD = "a longer staple"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store", n_items=1) as opened:
        opened.set_password("boss", PASSWORD)
        yield opened


def at_browser(store: Store, secret: str = "", role: str = "owner") -> Any:
    """A visit from a browser with this session."""
    request = SimpleNamespace(
        cookies={"hfi_session": secret}, headers={"origin": "http://127.0.0.1:7860"}, client=SimpleNamespace(host="::1")
    )
    return replace(visit(store, role), request=request)


def test_an_invitation_is_a_link_that_is_shown_once_and_works_once(store: Store) -> None:
    said = invite(at_browser(store), "reviewer", 7)
    found = re.search(r"http://127\.0\.0\.1:7860/join/([\w-]+)", said.values[0])
    assert found and found[1] not in said.values[1] + show_people(visit(store))[2]
    user = store.accept_invitation(found[1], "new one", NEW_PASSWORD)
    assert user.role == "reviewer" and "No link is open" in show_people(visit(store))[2]
    assert "days" in refusal(invite, at_browser(store), "reviewer", 0) and "role" in refusal(
        invite, at_browser(store), "king", 7
    )


def test_an_invitation_can_be_ended(store: Store) -> None:
    invite(at_browser(store), "annotator", 7)
    [open_one] = store.list_invitations()
    assert str(open_one.id) in sentence(end_invitation(visit(store), str(open_one.id)))
    assert "no open link" in refusal(end_invitation, visit(store), str(open_one.id))
    assert "no open link" in refusal(end_invitation, visit(store), None)


def test_roles_are_given_and_the_last_owner_keeps_theirs(store: Store) -> None:
    said = set_role(visit(store), "ann", "researcher")
    assert "researcher" in sentence(said) and store.get_annotator("ann").role == "researcher"
    assert "only owner" in refusal(set_role, visit(store), "boss", "annotator")
    assert "no annotator" in refusal(set_role, visit(store), "nobody", "owner")


def test_somebody_is_kept_out_and_let_in_again(store: Store) -> None:
    secret = store.create_session("ann")
    assert "kept out" in disable_person(visit(store), "ann").values[0]
    assert store.find_session_user(secret) is None
    enable_person(visit(store), "ann")
    assert not store.get_annotator("ann").is_disabled
    assert "only owner" in refusal(disable_person, visit(store), "boss")
    store.withdraw_annotator("ann")
    assert "withdrawn" in refusal(enable_person, visit(store), "ann")


def test_a_forgotten_password_is_set_anew(store: Store) -> None:
    assert "new password" in sentence(give_password(visit(store), "ann", NEW_PASSWORD))
    assert store.check_login("ann", NEW_PASSWORD).name == "ann"
    assert "characters" in refusal(give_password, visit(store), "ann", "short")


def test_ones_own_password_takes_the_present_one(store: Store) -> None:
    secret = store.create_session("boss")
    here = at_browser(store, secret)
    assert "differ" in refusal(change_password, here, PASSWORD, NEW_PASSWORD, NEW_PASSWORD + "!")
    assert "don't fit" in refusal(change_password, here, "wrong", NEW_PASSWORD, NEW_PASSWORD)
    said = change_password(here, PASSWORD, NEW_PASSWORD, NEW_PASSWORD)
    assert "Log in again" in sentence(said) and set(said.values) == {""}
    assert store.find_session_user(secret) is None and store.check_login("boss", NEW_PASSWORD)
    with pytest.raises(LoginRefusedError):
        store.check_login("boss", PASSWORD)


def test_other_sessions_end_and_this_one_stays(store: Store) -> None:
    here, there = store.create_session("boss"), store.create_session("boss")
    assert "another one" in show_account(at_browser(store, here))[0]
    said = end_other_sessions(at_browser(store, here))
    assert sentence(said).startswith("1 ") and "another one" not in said.values[0] and "this one" in said.values[0]
    assert store.find_session_user(here) and store.find_session_user(there) is None


def test_keys_and_colours_are_those_of_the_labelling_page(store: Store) -> None:
    store.put_setting("boss", "keys", {"keys": {"yes": "k"}, "enabled": True})
    save_settings(visit(store), False, "dark")
    _, keys, enabled, theme, *_ = show_account(visit(store))
    assert "<kbd>k</kbd>" in keys and not enabled and theme == "dark"
    assert store.get_setting("boss", "keys") == {"keys": {"yes": "k"}, "enabled": False}
    reset_keys(visit(store))
    assert store.get_setting("boss", "keys") == {"keys": {}, "enabled": False}
    assert "colours" in refusal(save_settings, visit(store), True, "pink")


def test_a_token_is_shown_once_and_can_be_ended(store: Store) -> None:
    said = make_token(visit(store), "notebook", "30")
    found = re.search(r"hfi_[\w-]+", said.values[2])
    assert found and store.find_token_user(found[0]) == store.get_annotator("boss")
    assert found[0] not in show_account(visit(store))[4] and "notebook" in show_account(visit(store))[4]
    [token] = store.list_api_tokens("boss")
    assert "no token" in refusal(end_token, visit(store, "annotator"), str(token["id"]))  # somebody else's
    end_token(visit(store), str(token["id"]))
    assert store.find_token_user(found[0]) is None
    assert "label" in refusal(make_token, visit(store), "", "30")
    assert "holds" in refusal(make_token, visit(store), "notebook", "9999")
