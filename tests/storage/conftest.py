"""Stores for tests, closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import Store
from tests.storage.builders import build_flag_store, judge_all


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Twelve unjudged pictures in the flag project "weapons"."""
    with build_flag_store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def judged(store: Store) -> Store:
    """The same, judged by three people."""
    judge_all(store, "weapons")
    return store
