"""The demo project of a new store: pictures that ship with the package, ready to be judged."""

from __future__ import annotations

from storage import Store


def add_demo_project(store: Store) -> None:
    """Fill a store without projects with the demo; any other store is left alone."""
