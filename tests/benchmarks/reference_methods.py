"""References that the benchmarks compare with: self-distillation and textual inversion, done as they were published.

Written anew from the papers and from what their code is known to do, waste included, and with nothing of ours beside
loading, so that a ratio says what our way of doing it saves.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

SDD_SAMPLER_STEPS = 50
SDD_GUIDANCE = 3.0
SDD_AVERAGE = 0.999
INVERSION_TEMPLATES = ("a photo of a {}", "a rendering of a {}", "the photo of a {}", "a picture of a {}", "a {}")


def _encode(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    tokens = pipeline.tokenizer(
        list(prompts),
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return pipeline.text_encoder(tokens.input_ids.to(pipeline.device))[0]


def sdd_steps(
    pipeline: StableDiffusionPipeline, concepts: Sequence[str], num_steps: int, learning_rate: float, seed: int
) -> Iterator[Callable[[], UNet2DConditionModel]]:
    """Self-distillation as published (arXiv 2307.05977): one step at a time; each gives access to the teacher.

    Batch 1; every step samples z_t with the teacher from pure noise, 50 DDIM steps in the list, of which k are run;
    prompts are encoded again each step; the moving average covers all parameters; cross-attention trains.
    """
    torch.manual_seed(seed)
    student, teacher = copy.deepcopy(pipeline.unet), copy.deepcopy(pipeline.unet)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("attn2" in name)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.999), weight_decay=1e-4)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    for _ in range(num_steps):
        with torch.no_grad():
            null, one, joint = _encode(pipeline, ["", random.choice(concepts), ", ".join(concepts)]).split(1)
            latents, timestep = _rollout(scheduler, teacher, torch.cat([null, one]))
            target = student(latents, timestep, encoder_hidden_states=null).sample
        prediction = student(latents, timestep, encoder_hidden_states=joint).sample
        loss = torch.nn.functional.mse_loss(prediction, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        with torch.no_grad():
            for averaged, parameter in zip(teacher.parameters(), student.parameters(), strict=True):
                averaged.mul_(SDD_AVERAGE).add_(parameter, alpha=1 - SDD_AVERAGE)
        yield lambda: teacher


def _rollout(scheduler: DDIMScheduler, teacher: UNet2DConditionModel, embeds: Tensor) -> tuple[Tensor, Tensor]:
    """z_t after k of 50 steps with guidance 3, and the timestep that comes next."""
    scheduler.set_timesteps(SDD_SAMPLER_STEPS)
    k = random.randrange(SDD_SAMPLER_STEPS)
    size = teacher.config.sample_size
    latents = torch.randn(1, teacher.config.in_channels, size, size)
    for timestep in scheduler.timesteps[:k]:
        null, cond = teacher(torch.cat([latents] * 2), timestep, encoder_hidden_states=embeds).sample.chunk(2)
        latents = scheduler.step(null + SDD_GUIDANCE * (cond - null), timestep, latents).prev_sample
    return latents, scheduler.timesteps[k]


def inversion_steps(
    pipeline: StableDiffusionPipeline,
    images: Sequence[Image.Image],
    initializer: str,
    num_steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Iterator[Tensor]:
    """Textual inversion as in the example of diffusers: one step at a time; each gives the placeholder's row.

    Pictures are encoded again each step; the whole embedding table is a parameter with AdamW, and every row but the
    placeholder's is restored after each step; the UNet keeps a graph, since gradients pass through it.
    """
    torch.manual_seed(seed)
    tokenizer, encoder = pipeline.tokenizer, copy.deepcopy(pipeline.text_encoder)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<reference>"])
    encoder.resize_token_embeddings(len(tokenizer))
    row = tokenizer.convert_tokens_to_ids("<reference>")
    (start,) = tokenizer(initializer, add_special_tokens=False).input_ids[:1]
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[row] = table[start]
    encoder.requires_grad_(False)
    table.requires_grad_(True)
    original = table.detach().clone()
    is_kept = torch.ones(len(table), dtype=torch.bool)
    is_kept[row] = False
    optimizer = torch.optim.AdamW([table], lr=learning_rate, betas=(0.9, 0.999), weight_decay=1e-2)
    for _ in range(num_steps):
        chosen = [random.choice(images) for _ in range(batch_size)]
        pixels = torch.stack([torch.from_numpy(np.array(image.convert("RGB"))) for image in chosen])
        pixels = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels).latent_dist.sample() * pipeline.vae.config.scaling_factor
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (batch_size,))
        noisy = pipeline.scheduler.add_noise(latents, noise, timesteps)
        texts = [random.choice(INVERSION_TEMPLATES).format("<reference>") for _ in chosen]
        ids = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        states = encoder(ids.input_ids)[0]
        loss = torch.nn.functional.mse_loss(pipeline.unet(noisy, timesteps, encoder_hidden_states=states).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            table[is_kept] = original[is_kept]
        yield table[row].detach().clone()
