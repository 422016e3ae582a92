"""SDXL: two text encoders, a pooled embedding and size conditions, behind the same functions as every other family."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from hfi import pipelines
from hfi.config import InvertConfig
from hfi.inversion import ConceptToken, add_tokens_, encode_prompts_with_tokens, invert
from tests import tiny

PROMPTS = ["a bomb", "a photo of a cat and a dog"]
WIDTH = tiny.TEXT_WIDTH + tiny.SECOND_WIDTH
TOKEN = ConceptToken("<concept>", torch.linspace(-0.1, 0.1, 2 * WIDTH).reshape(2, WIDTH))


@pytest.fixture
def pipeline() -> StableDiffusionXLPipeline:
    """A tiny SDXL of the test's own."""
    return tiny.build_pipeline_xl()


@pytest.mark.parametrize("has_zeros", [True, False])
@pytest.mark.parametrize("size_px", [(32, 32), (16, 24)])
def test_sample_latents_equals_diffusers_on_the_same_latents(has_zeros: bool, size_px: tuple[int, int]) -> None:
    pipeline = tiny.build_pipeline_xl(force_zeros_for_empty_prompt=has_zeros)
    latents = pipelines.initial_latents(pipeline, range(2), *size_px)
    sampling = {"num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "latent"}
    expected = pipeline(PROMPTS, latents=latents, height=size_px[0], width=size_px[1], **sampling).images
    embeds, null_embeds = pipelines.encode_prompts(pipeline, PROMPTS), pipelines.encode_null_prompt(pipeline)
    assert torch.allclose(pipelines.sample_latents(pipeline, embeds, null_embeds, latents, 3, 5.0), expected, atol=1e-5)
    assert bool(null_embeds.any()) != has_zeros


def test_embeddings_equal_diffusers_and_carry_the_pooled_row(pipeline: StableDiffusionXLPipeline) -> None:
    states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    embeds = pipelines.encode_prompts(pipeline, PROMPTS)
    assert torch.allclose(pipelines.cross_attention_states(pipeline, embeds), states, atol=1e-6)
    assert torch.allclose(embeds[:, -1, : tiny.POOLED_WIDTH], pooled, atol=1e-6)
    assert not embeds[:, -1, tiny.POOLED_WIDTH :].any()


def test_predict_noise_is_one_step_of_the_sampler(pipeline: StableDiffusionXLPipeline) -> None:
    latents, embeds = pipelines.initial_latents(pipeline, [0, 1]), pipelines.encode_prompts(pipeline, PROMPTS)
    seen: list[torch.Tensor] = []

    def keep(_step: int, predictions: tuple[torch.Tensor, ...]) -> torch.Tensor:
        seen.append(predictions[0])
        return predictions[0]

    pipelines.sample_guided(pipeline, [embeds], latents, 2, keep)
    timesteps = torch.tensor([501, 501])  # the first of two
    with torch.no_grad():
        assert torch.allclose(pipelines.predict_noise(pipeline, latents, timesteps, embeds), seen[0], atol=1e-6)


def test_learned_rows_are_spliced_into_both_encoders(pipeline: StableDiffusionXLPipeline) -> None:
    prompts = ["a <concept> on the red background", "<concept>"]
    before = pipelines.encode_prompts(pipeline, PROMPTS)
    spliced = encode_prompts_with_tokens(pipeline, prompts, [TOKEN])
    assert torch.equal(pipelines.encode_prompts(pipeline, PROMPTS), before)
    changed = ConceptToken("<concept>", TOKEN.learned_embeds.clone())
    changed.learned_embeds[:, -1] += 0.1  # of the second encoder alone
    other = encode_prompts_with_tokens(pipeline, prompts, [changed])
    assert torch.equal(other[:, :-1, : tiny.TEXT_WIDTH], spliced[:, :-1, : tiny.TEXT_WIDTH])
    assert not torch.allclose(other, spliced)
    add_tokens_(pipeline, [TOKEN])
    assert torch.allclose(pipelines.encode_prompts(pipeline, prompts), spliced, atol=1e-6)


def test_invert_learns_rows_of_both_encoders_and_leaves_the_pipeline(pipeline: StableDiffusionXLPipeline) -> None:
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    config = InvertConfig(num_train_steps=2, batch_size=2, initializer="bomb", num_concepts=1)
    (token,) = invert(pipeline, images, [1.0, 1.0], config)
    start = pipelines.embedding_table(pipeline)[pipeline.tokenizer("bomb", add_special_tokens=False).input_ids[0]]
    moved = (token.learned_embeds[0] - start).abs()
    assert token.learned_embeds.shape == (1, WIDTH)
    assert bool(moved[: tiny.TEXT_WIDTH].any()) and bool(moved[tiny.TEXT_WIDTH :].any())
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())


def test_decode_and_encode_work_as_for_every_family(pipeline: StableDiffusionXLPipeline) -> None:
    (image,) = pipelines.decode_latents(pipeline, pipelines.initial_latents(pipeline, [3]))
    assert image.size == (32, 32)
    assert pipelines.encode_images(pipeline, [image]).shape == (1, 4, 8, 8)
