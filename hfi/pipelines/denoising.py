"""Predict noise and sample, whatever the family: guidance, noise from velocities, the sampler's loop.

Sources: DDIM (arXiv 2010.02502), DPM-Solver++ (arXiv 2211.01095), classifier-free guidance (arXiv 2207.12598),
v-prediction (arXiv 2202.00512), the size conditions of SDXL (arXiv 2307.01952, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from hfi.config import Precision, Sampler
from hfi.errors import InvalidInputError
from hfi.pipelines.loading import Pipeline, is_xl

MAX_SEED = 2**63 - 1

# Called after a sampler step with (num_steps_done, latents).
StepCallback = Callable[[int, Tensor], None]
# Called at a sampler step with (step_index, what the UNet predicts under each condition); gives what to follow.
Guide = Callable[[int, tuple[Tensor, ...]], Tensor]

# ---------------------------------------- prediction


def noise_from_velocity(
    velocity: Float[Tensor, "batch channels height width"],
    latents: Float[Tensor, "batch channels height width"],
    alphas_cumprod: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """eps = sqrt(a_t) v + sqrt(1 - a_t) z_t. Source: arXiv 2202.00512, appendix D."""
    a = alphas_cumprod.view(-1, 1, 1, 1)
    return a.sqrt() * velocity + (1 - a).sqrt() * latents


def clean_latents(
    noise_pred: Float[Tensor, "batch channels height width"],
    latents: Float[Tensor, "batch channels height width"],
    alphas_cumprod: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """z_0 = (z_t - sqrt(1 - a_t) eps) / sqrt(a_t). Source: DDIM, arXiv 2010.02502, equation 9."""
    a = alphas_cumprod.view(-1, 1, 1, 1)
    return (latents - (1 - a).sqrt() * noise_pred) / a.sqrt()


def guided_noise(null_pred: Tensor, cond_pred: Tensor, guidance_scale: float) -> Tensor:
    """null + w (cond - null); 1.0 gives the conditional prediction. Source: arXiv 2207.12598, in diffusers' scale."""
    return null_pred + guidance_scale * (cond_pred - null_pred)


def add_noise(
    pipeline: Pipeline,
    latents: Float[Tensor, "batch channels height width"],
    noise: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) noise. Source: DDPM, arXiv 2006.11239, equation 4."""
    return pipeline.scheduler.add_noise(latents, noise, timesteps)


def cross_attention_states(
    pipeline: Pipeline, prompt_embeds: Float[Tensor, "batch rows dim"]
) -> Float[Tensor, "batch tokens dim"]:
    """The rows of prompt embeddings that cross-attention reads: all but SDXL's pooled one."""
    return prompt_embeds[:, :-1] if is_xl(pipeline) else prompt_embeds


def _conditions(
    pipeline: Pipeline,
    prompt_embeds: Float[Tensor, "batch rows dim"],
    latents: Float[Tensor, "_ channels height width"],
) -> dict[str, Any]:
    """What the UNet is told beside latents and timestep; SDXL also reads the pooled prompt and the picture's size."""
    states = cross_attention_states(pipeline, prompt_embeds)
    if not is_xl(pipeline):
        return {"encoder_hidden_states": states}
    height_px, width_px = (side * pipeline.vae_scale_factor for side in latents.shape[-2:])
    sizes = [height_px, width_px, 0, 0, height_px, width_px]  # original size, upper left corner of the crop, size
    added = {
        "text_embeds": prompt_embeds[:, -1, : pipeline.text_encoder_2.config.projection_dim],
        "time_ids": torch.tensor([sizes], dtype=latents.dtype, device=latents.device).expand(len(prompt_embeds), -1),
    }
    return {"encoder_hidden_states": states, "added_cond_kwargs": added}


_precision: ContextVar[Precision] = ContextVar("precision", default="float32")


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """UNets compute in this precision within the block; their weights, and what comes out of them, keep their own."""
    token = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(token)


def _call_unet(unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, told: dict[str, Any]) -> Tensor:
    if _precision.get() == "float32":
        return unet(latents, timesteps, **told, return_dict=False)[0]
    with torch.autocast(latents.device.type, dtype=torch.bfloat16):
        return unet(latents, timesteps, **told, return_dict=False)[0].to(latents.dtype)


def predict_noise(
    pipeline: Pipeline,
    latents: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"],
    prompt_embeds: Float[Tensor, "batch rows dim"],
    unet: UNet2DConditionModel | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """The noise the UNet sees in `latents`, whatever the model predicts (epsilon or v).

    Args:
        timesteps: Training indices, 0..999, 999 noisiest; one for each latent.
        unet: Used instead of the pipeline's own, for a student or a teacher.
    """
    model = pipeline.unet if unet is None else unet
    prediction = _call_unet(model, latents, timesteps, _conditions(pipeline, prompt_embeds, latents))
    if pipeline.scheduler.config.prediction_type == "v_prediction":
        alphas = pipeline.scheduler.alphas_cumprod.to(latents.device)[timesteps]
        return noise_from_velocity(prediction, latents, alphas)
    return prediction


# ---------------------------------------- sampling


def build_scheduler(pipeline: Pipeline, sampler: Sampler) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """A scheduler of one's own for one sampling, with the noise levels and the kind of prediction of the pipeline's."""
    if sampler == "ddim":
        return DDIMScheduler.from_config(pipeline.scheduler.config)
    return DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type="dpmsolver++", solver_order=2, lower_order_final=True
    )


def initial_latents(
    pipeline: Pipeline,
    seeds: Sequence[int],
    height_px: int | None = None,
    width_px: int | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Starting noise, one CPU generator a seed: a picture never depends on which others it is sampled with.

    Raises:
        InvalidInputError: A seed is outside 0..2^63-1, or a size is not a multiple of the autoencoder's factor.
    """
    factor = pipeline.vae_scale_factor
    default = pipeline.unet.config.sample_size
    default_height, default_width = (default, default) if isinstance(default, int) else default
    for name, size in (("height_px", height_px), ("width_px", width_px)):
        if size is not None and size % factor:
            raise InvalidInputError(f"{name} is {size}, but must be a multiple of {factor}: the autoencoder needs it.")
    shape = (
        1,
        pipeline.unet.config.in_channels,
        height_px // factor if height_px else default_height,
        width_px // factor if width_px else default_width,
    )
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise InvalidInputError(f"The seed {seed} is outside 0..2^63-1: choose another.")
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(noise).to(pipeline.unet.device) * pipeline.scheduler.init_noise_sigma


@torch.no_grad()
def sample_latents(
    pipeline: Pipeline,
    prompt_embeds: Float[Tensor, "batch rows dim"],
    null_embeds: Float[Tensor, "nulls rows dim"],
    latents: Float[Tensor, "batch channels height width"],
    num_inference_steps: int,
    guidance_scale: float,
    on_step: StepCallback | None = None,
    *,
    unet: UNet2DConditionModel | None = None,
    num_steps: int | None = None,
    sampler: Sampler = "ddim",
) -> Float[Tensor, "batch channels height width"]:
    """Run the sampler from starting noise; one UNet call a step for both halves of the guidance.

    Args:
        null_embeds: The empty or negative prompt: one row for all, or one for each picture.
        num_inference_steps: Length of the sampler's list of timesteps.
        guidance_scale: 1.0 means none; the null half is then not computed.
        on_step: Called after each step with (num_steps_done, latents).
        unet: Used instead of the pipeline's own.
        num_steps: Stop after this many steps (0..num_inference_steps) with noisy latents; default: run all.
        sampler: How a step is made of predictions; both start from the same noise.
    """
    if guidance_scale == 1.0:
        conditions, guide = [prompt_embeds], _unguided
    else:
        # guidance is linear, so it may be applied to velocities as it is to noise
        conditions = [null_embeds, prompt_embeds]
        guide = lambda _, preds: guided_noise(*preds, guidance_scale)  # noqa: E731
    return sample_guided(
        pipeline, conditions, latents, num_inference_steps, guide, on_step, unet=unet, num_steps=num_steps,
        sampler=sampler,
    )  # fmt: skip


def _unguided(_step_index: int, preds: tuple[Tensor, ...]) -> Tensor:
    return preds[0]


@torch.no_grad()
def sample_guided(
    pipeline: Pipeline,
    conditions: Sequence[Float[Tensor, "_ rows dim"]],
    latents: Float[Tensor, "batch channels height width"],
    num_inference_steps: int,
    guide: Guide,
    on_step: StepCallback | None = None,
    *,
    unet: UNet2DConditionModel | None = None,
    num_steps: int | None = None,
    sampler: Sampler = "ddim",
) -> Float[Tensor, "batch channels height width"]:
    """Run the sampler from starting noise, following what `guide` makes of the predictions under several conditions.

    Args:
        conditions: Prompt embeddings; each has one row for all, or one for each picture. One UNet call a step.
        guide: Called with (step_index, predictions in the order of the conditions); predictions are what the model
            predicts, noise or velocity.
        num_inference_steps: Length of the sampler's list of timesteps.
        on_step: Called after each step with (num_steps_done, latents).
        unet: Used instead of the pipeline's own.
        num_steps: Stop after this many steps (0..num_inference_steps) with noisy latents; default: run all.
        sampler: How a step is made of predictions; both start from the same noise.
    """
    model = pipeline.unet if unet is None else unet
    scheduler = build_scheduler(pipeline, sampler)
    scheduler.set_timesteps(num_inference_steps, device=latents.device)
    count = len(conditions)
    embeds = torch.cat([condition.expand(len(latents), -1, -1) for condition in conditions])
    told = _conditions(pipeline, embeds, latents)
    for step_index, timestep in enumerate(scheduler.timesteps[:num_steps]):
        predictions = _call_unet(model, latents.repeat(count, 1, 1, 1), timestep, told)
        prediction = guide(step_index, predictions.chunk(count))
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        if on_step is not None:
            on_step(step_index + 1, latents)
    return latents
