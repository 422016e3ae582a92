"""Prompts and seeds -> pictures, in batches; a request gives the same picture whatever it is batched with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from hfi.config import GenerateConfig, SamplerConfig
from hfi.errors import EmptyPromptListError
from hfi.guidance import Guard, sample_guarded
from hfi.pipelines import Pipeline, decode_latents, encode_null_prompt, encode_prompts, initial_latents, sample_latents


@dataclass(frozen=True)
class GenerationRequest:
    """One picture to make: a prompt, a seed (0..2^63-1) and what to steer away from."""

    prompt: str
    seed: int
    negative_prompt: str = ""


def generate(
    pipeline: Pipeline,
    requests: Sequence[GenerationRequest],
    config: SamplerConfig,
    on_image: Callable[[int, int], None] | None = None,
    guard: Guard | None = None,
) -> Iterator[tuple[GenerationRequest, Image.Image]]:
    """Yield a picture for each request, in the order of the requests, as each batch is done.

    The starting noise comes from the request's own seed, so the batch size changes speed and memory only. What is left
    are the roundings of matrix kernels, which depend on the size of a batch: at most one of 255 levels in rare pixels.

    Args:
        config: Steps, guidance and batch size; a GenerateConfig adds the picture's size and a negative prompt for the
            requests that have none of their own.
        on_image: Called with (number of pictures done, number of requests) after each picture.
        guard: What is held back; `hfi.guidance.build_guard` makes one. A guard named in the configuration needs its
            concept tokens loaded, so it is not made here.

    Raises:
        EmptyPromptListError: There is no request.
        InvalidInputError: A seed or a size is out of range.
    """
    if not requests:
        raise EmptyPromptListError("There is nothing to generate: give at least one prompt and one seed.")
    for start in range(0, len(requests), config.batch_size):
        batch = requests[start : start + config.batch_size]
        for offset, pair in enumerate(zip(batch, _generate_batch(pipeline, batch, config, guard), strict=True)):
            yield pair
            if on_image is not None:
                on_image(start + offset + 1, len(requests))


def _generate_batch(
    pipeline: Pipeline, batch: Sequence[GenerationRequest], config: SamplerConfig, guard: Guard | None
) -> list[Image.Image]:
    height_px, width_px, negative_prompt = None, None, ""
    if isinstance(config, GenerateConfig):
        height_px, width_px, negative_prompt = config.height_px, config.width_px, config.negative_prompt
    negatives = [request.negative_prompt or negative_prompt for request in batch]
    inputs = (
        encode_prompts(pipeline, [request.prompt for request in batch]),
        encode_prompts(pipeline, negatives) if any(negatives) else encode_null_prompt(pipeline),
        initial_latents(pipeline, [request.seed for request in batch], height_px, width_px),
        config.num_inference_steps,
        config.guidance_scale,
    )
    if guard is None:
        latents = sample_latents(pipeline, *inputs, sampler=config.sampler)
    else:
        latents = sample_guarded(pipeline, *inputs, guard, negatives, sampler=config.sampler)
    return decode_latents(pipeline, latents)


def draw(
    pipeline: Pipeline, prompts: Sequence[str], first_seed: int = 0, config: SamplerConfig | None = None
) -> list[Image.Image]:
    """A picture of each prompt, the i-th with seed `first_seed` + i: the same words and seeds for every model.

    Raises:
        EmptyPromptListError: There is no prompt.
        InvalidInputError: A seed is out of range.
    """
    requests = [GenerationRequest(prompt, first_seed + i) for i, prompt in enumerate(prompts)]
    return [image for _, image in generate(pipeline, requests, config or SamplerConfig())]


def request_grid(prompts: Sequence[str], seeds: Sequence[int], negative_prompt: str = "") -> list[GenerationRequest]:
    """Every prompt with every seed, prompts outermost."""
    return [GenerationRequest(prompt, seed, negative_prompt) for prompt in prompts for seed in seeds]
