"""The tiny model folder and pipelines that the tests of the algorithms work on."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from hfi.pipelines import load_pipeline
from tests import tiny


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline folder with a CLIP beside it; never written to."""
    return tiny.save_pipeline(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def pipeline(model_folder: Path) -> StableDiffusionPipeline:
    """A freshly loaded tiny pipeline, so that a test may change it."""
    return load_pipeline(model_folder, device="cpu")
