"""The package's own names: loaded when they are used, and the same functions as in their rooms."""

from __future__ import annotations

import importlib

import pytest

import hfi


@pytest.mark.parametrize("name", hfi.__all__)
def test_every_name_leads_to_its_home(name: str) -> None:
    module, attribute = hfi._HOMES[name]
    assert getattr(hfi, name) is getattr(importlib.import_module(module), attribute)
    assert name in dir(hfi)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'remove'"):
        hfi.remove  # noqa: B018


def test_the_rooms_keep_their_names() -> None:
    import hfi.erase

    assert hfi.erase.erase is hfi.erase_concept
