"""The tiny model folder and pipelines that the tests of the algorithms work on."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from hfi.pipelines import load_pipeline
from tests import tiny


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline folder with a CLIP beside it; never written to."""
    return tiny.save_pipeline(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def loaded_pipeline(model_folder: Path) -> StableDiffusionPipeline:
    """The tiny pipeline as `load_pipeline` gives it; never changed."""
    return load_pipeline(model_folder, device="cpu")


@pytest.fixture
def pipeline(loaded_pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A tiny pipeline of the test's own, so that it may change it."""
    return copy.deepcopy(loaded_pipeline)
