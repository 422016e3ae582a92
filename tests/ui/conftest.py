"""The application and its people, made anew for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.ui import people
from ui.app import Application


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Application]:
    """The application without Gradio's pages, which take seconds to build."""
    application = people.build_pages(people.build_store(tmp_path))
    yield application
    application.context.close()


@pytest.fixture
def annotator(app: Application) -> TestClient:
    """A browser in which the annotator is logged in."""
    return people.client_of(app)
