"""A request gives the same picture whatever it is batched with."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from hfi.config import GenerateConfig
from hfi.errors import EmptyPromptListError
from hfi.generate import GenerationRequest, generate, request_grid

CONFIG = GenerateConfig(num_inference_steps=3, guidance_scale=3.0, batch_size=2)
REQUESTS = [*request_grid(["a bomb", "a cat"], [0, 1]), GenerationRequest("a dog", 5, negative_prompt="a red dog")]


def arrays(pipeline: StableDiffusionPipeline, requests: list[GenerationRequest], config: GenerateConfig) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for _, image in generate(pipeline, requests, config)])


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_generate_is_independent_of_the_batch(pipeline: StableDiffusionPipeline, batch_size: int) -> None:
    expected = arrays(pipeline, REQUESTS, CONFIG)
    other = arrays(pipeline, REQUESTS, CONFIG.model_copy(update={"batch_size": batch_size}))
    assert np.abs(expected - other).max() <= 1
    assert np.array_equal(arrays(pipeline, REQUESTS, CONFIG), expected)


def test_generate_yields_in_order_and_counts(pipeline: StableDiffusionPipeline) -> None:
    counts: list[tuple[int, int]] = []
    results = list(generate(pipeline, REQUESTS, CONFIG, on_image=lambda done, total: counts.append((done, total))))
    assert [request for request, _ in results] == REQUESTS
    assert counts == [(done, 5) for done in range(1, 6)]


def test_generate_uses_the_configurations_negative_prompt_and_size(pipeline: StableDiffusionPipeline) -> None:
    steered = CONFIG.model_copy(update={"negative_prompt": "a cat", "height_px": 16, "width_px": 24})
    (_, image), *_ = generate(pipeline, REQUESTS[:1], steered)
    (_, plain), *_ = generate(pipeline, REQUESTS[:1], steered.model_copy(update={"negative_prompt": ""}))
    assert image.size == (24, 16)
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(plain, dtype=int)).max() > 0


def test_generate_refuses_an_empty_list(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(EmptyPromptListError):
        list(generate(pipeline, [], CONFIG))
