"""Loading, hashing and sampling: our own loop gives what diffusers gives, and a broken folder is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionPipeline
from PIL import Image

from hfi import pipelines
from hfi.errors import EmptyPromptListError, InvalidInputError, ModelFolderError
from hfi.pipelines import denoising
from tests import tiny

PROMPTS = ["a bomb", "a photo of a cat and a dog", "zebra"]


def sample(
    pipeline: StableDiffusionPipeline, prompts: list[str], guidance_scale: float = 3.0, **options: Any
) -> torch.Tensor:
    return pipelines.sample_latents(
        pipeline,
        pipelines.encode_prompts(pipeline, prompts),
        pipelines.encode_null_prompt(pipeline),
        pipelines.initial_latents(pipeline, range(len(prompts))),
        4,
        guidance_scale,
        **options,
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_sample_latents_equals_diffusers_on_the_same_latents(prediction_type: str, guidance_scale: float) -> None:
    pipeline = tiny.build_pipeline(prediction_type=prediction_type)
    expected = pipeline(
        PROMPTS,
        latents=pipelines.initial_latents(pipeline, range(3)),
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        output_type="latent",
    ).images
    assert torch.allclose(sample(pipeline, PROMPTS, guidance_scale), expected, atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_dpm_solver_equals_diffusers_with_its_scheduler(prediction_type: str) -> None:
    pipeline = tiny.build_pipeline(prediction_type=prediction_type)
    found = sample(pipeline, PROMPTS, sampler="dpm-solver++")
    assert not torch.allclose(found, sample(pipeline, PROMPTS), atol=1e-3)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    expected = pipeline(
        PROMPTS,
        latents=pipelines.initial_latents(pipeline, range(3)),
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    assert torch.allclose(found, expected, atol=1e-5)


def test_decode_latents_equals_diffusers_pictures(pipeline: StableDiffusionPipeline) -> None:
    expected = pipeline(
        PROMPTS, latents=pipelines.initial_latents(pipeline, range(3)), num_inference_steps=4, guidance_scale=3.0
    ).images
    images = pipelines.decode_latents(pipeline, sample(pipeline, PROMPTS))
    assert all(np.array_equal(image, other) for image, other in zip(images, expected, strict=True))


def test_initial_latents_equal_diffusers_for_one_generator(pipeline: StableDiffusionPipeline) -> None:
    expected = pipeline.prepare_latents(1, 4, 32, 32, torch.float32, "cpu", torch.Generator().manual_seed(7))
    assert torch.equal(pipelines.initial_latents(pipeline, [3, 7])[1:], expected)


def test_guided_noise_at_one_is_the_conditional_prediction() -> None:
    null_pred, cond_pred = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pipelines.guided_noise(null_pred, cond_pred, 1.0), cond_pred)
    assert torch.equal(pipelines.guided_noise(null_pred, cond_pred, 0.0), null_pred)


def test_clean_latents_takes_the_noise_out_again() -> None:
    alphas = torch.tensor([0.9, 0.3])
    clean, noise = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    a = alphas.view(-1, 1, 1, 1)
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    assert torch.allclose(denoising.clean_latents(noise, noisy, alphas), clean, atol=1e-5)


def test_noise_from_velocity_gives_back_the_noise() -> None:
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    alphas = torch.tensor([0.9, 0.5, 0.1])
    a = alphas.view(-1, 1, 1, 1)
    latents, velocity = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
    assert torch.allclose(pipelines.noise_from_velocity(velocity, latents, alphas), noise, atol=1e-6)


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_sample_latents_runs_exactly_the_steps_asked_for(pipeline: StableDiffusionPipeline, num_steps: int) -> None:
    done: list[int] = []
    latents = sample(pipeline, PROMPTS[:1], num_steps=num_steps, on_step=lambda count, _: done.append(count))
    assert done == list(range(1, num_steps + 1))
    assert torch.equal(latents, pipelines.initial_latents(pipeline, [0])) == (num_steps == 0)


def test_encode_prompts_encodes_each_prompt_as_if_alone(pipeline: StableDiffusionPipeline) -> None:
    together = pipelines.encode_prompts(pipeline, [PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    assert torch.equal(together[0], together[2])
    assert torch.allclose(together[1:2], pipelines.encode_prompts(pipeline, PROMPTS[1:2]), atol=1e-6)
    with pytest.raises(EmptyPromptListError):
        pipelines.encode_prompts(pipeline, [])


def test_encode_images_inverts_decode_in_shape_and_refuses_mixed_sizes(pipeline: StableDiffusionPipeline) -> None:
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    assert pipelines.encode_images(pipeline, images).shape == (2, 4, 8, 8)
    with pytest.raises(InvalidInputError, match="sizes"):
        pipelines.encode_images(pipeline, [*images, Image.new("RGB", (64, 64))])
    with pytest.raises(InvalidInputError, match="No picture"):
        pipelines.encode_images(pipeline, [])


@pytest.mark.parametrize(("side", "parts"), [(32, [4, 1]), (64, [1] * 5), (96, [1] * 5)], ids=["four", "one", "larger"])
def test_the_autoencoder_sees_so_many_pixels_at_once(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch, side: int, parts: list[int]
) -> None:
    """Its activations at 512 px would fill a card: 32 pictures are drawn together, but not decoded together."""
    monkeypatch.setattr("hfi.pipelines.images.VAE_BATCH_PX", 64 * 64)
    seen: list[int] = []
    hook = pipeline.vae.encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    back = pipeline.vae.decoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    images = [Image.new("RGB", (side, side), (20 * number, 0, 90)) for number in range(5)]
    latents = pipelines.encode_images(pipeline, images)
    assert [image.size for image in pipelines.decode_latents(pipeline, latents)] == [(side, side)] * 5
    hook.remove()
    back.remove()
    assert seen == 2 * parts


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_load_pipeline_names_the_missing_part(model_folder: Path, tmp_path: Path, part: str) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    shutil.rmtree(folder / part)
    with pytest.raises(ModelFolderError, match=f"lacks the part {part}/"):
        pipelines.load_pipeline(folder)


def test_load_pipeline_refuses_cut_off_weights_other_families_and_no_folder(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelFolderError, match="is no whole"):
        pipelines.load_pipeline(folder)
    weights.unlink()
    with pytest.raises(ModelFolderError, match="unet lacks its weights"):
        pipelines.load_pipeline(folder)
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelFolderError, match="FluxPipeline"):
        pipelines.load_pipeline(folder)
    with pytest.raises(ModelFolderError, match="no model folder"):
        pipelines.load_pipeline(tmp_path / "nothing")


def test_load_pipeline_takes_ddim_whatever_the_folder_names(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    pipeline = pipelines.load_pipeline(folder)
    pipeline.scheduler = PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True)
    pipeline.save_pretrained(folder)
    loaded = pipelines.load_pipeline(folder)
    assert type(loaded.scheduler).__name__ == "DDIMScheduler"
    assert not loaded.scheduler.config.clip_sample
    assert loaded.unet.dtype == torch.float32


def test_model_sha256_follows_the_pipeline_and_nothing_else(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    before = pipelines.model_sha256(folder)
    assert before == pipelines.model_sha256(model_folder)
    (folder / "notes.txt").write_text("x")
    assert pipelines.model_sha256(folder) == before
    with (folder / "unet" / "config.json").open("a") as file:
        file.write(" ")
    assert pipelines.model_sha256(folder) != before


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_initial_latents_refuses_seeds_out_of_range(pipeline: StableDiffusionPipeline, seed: int) -> None:
    with pytest.raises(InvalidInputError, match="seed"):
        pipelines.initial_latents(pipeline, [seed])


def test_initial_latents_refuses_sizes_the_autoencoder_cannot_take(pipeline: StableDiffusionPipeline) -> None:
    assert pipelines.initial_latents(pipeline, [0], 16, 40).shape == (1, 4, 4, 10)
    with pytest.raises(InvalidInputError, match="multiple of 4"):
        pipelines.initial_latents(pipeline, [0], height_px=33)
