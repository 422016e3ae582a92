"""Training points for erasing: noised latents of judged pictures, or points of a model's own sampling.

What the frozen original predicts at a point never changes, so points are made for many steps at once, with their
targets, and each is used a few times before the bank is made anew. That saves most of the original's forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from hfi.config import EraseConfig
from hfi.erase.concept import Side
from hfi.parallel import gather_, own_part, share_chunks
from hfi.pipelines import Pipeline, add_noise, encode_null_prompt, predict_noise, sample_latents

MAX_CHUNK_SIZE = 64  # points predicted together,
CHUNK_PX = 2**16  # or as many as have this many latent pixels: 16 of Stable Diffusion 1.5, 4 of XL
NULL_SHARE = 0.125  # part of the retain points whose prompt is the empty one, so that guidance keeps its footing
ROLLOUT_STEPS = 25  # sampler steps of a trajectory; SDD's code uses 50
POINTS_PER_TRAJECTORY = 8  # points kept of each trajectory


@dataclass(frozen=True)
class Points:
    """Where the student is trained: latents, their timestep, and which prompt (by index) goes with each."""

    latents: Float[Tensor, "points channels height width"]
    timesteps: Int[Tensor, " points"]
    prompt_ids: Int[Tensor, " points"]

    def __len__(self) -> int:
        return len(self.timesteps)


def draw_positions(count: int, how: str, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Positions in (0, 1) along a trajectory, 1 the noisiest.

    Args:
        how: `uniform`: one from each of `count` equal parts, in random order; `beta`: Beta(3, 3), as HFI trains SDD.
    """
    if how == "uniform":
        return (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    # the median of five uniforms is Beta(3, 3); torch's own Beta sampler takes no generator
    return torch.rand(count, 5, generator=generator).median(dim=1).values


def noised_points(
    pipeline: Pipeline,
    latents: Float[Tensor, "pictures channels height width"],
    prompt_ids: Int[Tensor, " pictures"],
    count: int,
    how: str,
    generator: torch.Generator,
) -> Points:
    """`count` points from noising the latents of pictures, each picture about equally often."""
    order = torch.cat([torch.randperm(len(latents), generator=generator) for _ in range(-(-count // len(latents)))])
    chosen = order[:count].to(latents.device)
    num_timesteps = pipeline.scheduler.config.num_train_timesteps
    positions = draw_positions(count, how, generator)
    timesteps = (positions * num_timesteps).long().clamp_max(num_timesteps - 1).to(latents.device)
    noise = torch.randn((count, *latents.shape[1:]), generator=generator).to(latents.device)
    return Points(add_noise(pipeline, latents[chosen], noise, timesteps), timesteps, prompt_ids[chosen])


@torch.no_grad()
def rollout_points(
    pipeline: Pipeline,
    unet: UNet2DConditionModel,
    prompt_embeds: Float[Tensor, "prompts tokens dim"],
    null_embeds: Float[Tensor, "1 tokens dim"],
    count: int,
    how: str,
    guidance_scale: float,
    generator: torch.Generator,
) -> Points:
    """`count` points on trajectories that `unet` samples for prompts drawn evenly; several points of each trajectory.

    Point k of a trajectory is its latents after k steps, with the timestep that comes next: k = 0 is pure noise.
    Source: SDD, arXiv 2307.05977, where every point has a trajectory of its own.
    """
    num_trajectories = -(-count // POINTS_PER_TRAJECTORY)
    device, config = prompt_embeds.device, unet.config
    prompt_ids = torch.randint(len(prompt_embeds), (num_trajectories,), generator=generator).to(device)
    size = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
    shape = (num_trajectories, config.in_channels, size, size)
    start = torch.randn(shape, generator=generator).to(device) * pipeline.scheduler.init_noise_sigma
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(ROLLOUT_STEPS)
    path = [start]
    embeds = prompt_embeds[prompt_ids]
    sample_latents(
        pipeline,
        embeds,
        null_embeds,
        start,
        ROLLOUT_STEPS,
        guidance_scale,
        lambda _, latents: path.append(latents),
        unet=unet,
    )
    positions = draw_positions(num_trajectories * POINTS_PER_TRAJECTORY, how, generator)
    # position 1 is the noisiest, which is the start of the trajectory
    num_steps_done = ((1 - positions) * ROLLOUT_STEPS).long().clamp_max(ROLLOUT_STEPS - 1)
    trajectory = torch.arange(num_trajectories).repeat(POINTS_PER_TRAJECTORY)
    latents = torch.stack([path[k][i] for k, i in zip(num_steps_done.tolist(), trajectory.tolist(), strict=True)])
    timesteps = scheduler.timesteps[num_steps_done].to(device)
    return Points(latents[:count], timesteps[:count], prompt_ids[trajectory.to(device)][:count])


@torch.no_grad()
def predict_in_chunks(
    pipeline: Pipeline,
    points: Points,
    embeds: Float[Tensor, "prompts tokens dim"],
    prompt_ids: Int[Tensor, " points"],
) -> Float[Tensor, "points channels height width"]:
    """What the frozen original predicts at each point under the prompt of that index."""
    size = max(1, min(MAX_CHUNK_SIZE, CHUNK_PX // points.latents[0, 0].numel()))
    chunks = [slice(start, start + size) for start in range(0, len(points), size)]
    predictions = torch.zeros_like(points.latents)
    for c in (chunks[number] for number in share_chunks(len(chunks))):
        predictions[c] = predict_noise(pipeline, points.latents[c], points.timesteps[c], embeds[prompt_ids[c]])
    return gather_(predictions)


def bank_rows(num_points: int, batch_size: int, num_steps: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Rows of each of the next `num_steps` batches: passes over the bank, each in an order of its own."""
    needed = num_steps * batch_size
    orders = [torch.randperm(num_points, generator=generator) for _ in range(-(-needed // num_points))]
    return torch.cat(orders)[:needed].split(batch_size)


# ---------------------------------------- a bank: points of both terms with what the student is to predict there


def steps_in_bank(config: EraseConfig) -> int:
    """Optimizer steps that one bank serves."""
    return config.bank_batches * config.bank_passes


def batch_sizes(config: EraseConfig) -> dict[str, int]:
    """Points of a step of each term."""
    return {"erase": config.batch_size, "retain": config.retain_batch_size or config.batch_size}


def bank_generator(seed: int, step: int) -> torch.Generator:
    """Randomness of the bank made at a step: its own, so that it does not depend on where a run was interrupted."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step + 7) % 2**63)


def draw_points(
    pipeline: Pipeline,
    sampler: UNet2DConditionModel,
    side: Side,
    config: EraseConfig,
    generator: torch.Generator,
    *,
    is_noised: bool,
) -> Points:
    """A bank's points of one side: its pictures noised, or trajectories that `sampler` samples for its prompts.

    The points' `prompt_ids` are rows of `side.embeds`.
    """
    count = config.bank_batches * config.batch_size
    if is_noised and side.latents is not None:
        every_picture = torch.arange(len(side.latents), device=side.latents.device)
        points = noised_points(pipeline, side.latents, every_picture, count, config.timesteps, generator)
    else:
        points = rollout_points(
            pipeline,
            sampler,
            side.sampling_embeds,
            encode_null_prompt(pipeline),
            count,
            config.timesteps,
            config.sampling_guidance_scale,
            generator,
        )
    return Points(points.latents, points.timesteps, side.trained_ids(points.prompt_ids, generator))


def retain_tensors(
    pipeline: Pipeline, retain: Side, config: EraseConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Points of the retain term with what the frozen original predicts there; none if it has no weight."""
    if config.retain_weight == 0:
        return {}
    config = config.model_copy(update={"batch_size": batch_sizes(config)["retain"]})
    points = draw_points(pipeline, pipeline.unet, retain, config, generator, is_noised=True)
    is_null = torch.rand(len(points), generator=generator).to(points.prompt_ids.device) < NULL_SHARE
    prompt_ids = points.prompt_ids.masked_fill(is_null, len(retain.embeds) - 1)
    points = Points(points.latents, points.timesteps, prompt_ids)
    return bank_tensors("retain", points, targets=predict_in_chunks(pipeline, points, retain.embeds, prompt_ids))


def bank_tensors(name: str, points: Points, **predictions: Tensor) -> dict[str, Tensor]:
    """The points of a term, and predictions at them, as plain tensors by name, ready for a checkpoint."""
    named = {"latents": points.latents, "timesteps": points.timesteps, "prompts": points.prompt_ids, **predictions}
    return {f"{name}_{what}": tensor for what, tensor in named.items()}


def shuffled_rows(config: EraseConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """For each term the rows of each batch that the bank serves."""
    steps = steps_in_bank(config)
    return {
        f"{name}_rows": torch.stack(list(bank_rows(config.bank_batches * size, size, steps, generator)))
        for name, size in batch_sizes(config).items()
    }


@dataclass(frozen=True)
class Batch:
    """One step's points of one term, with the prompts that the student is trained under, and stored predictions."""

    latents: Float[Tensor, "batch channels height width"]
    timesteps: Int[Tensor, " batch"]
    prompt_ids: Int[Tensor, " batch"]
    embeds: Float[Tensor, "batch rows dim"]
    predictions: dict[str, Tensor]


def take_batch(bank: dict[str, Tensor], name: str, side: Side, position: int) -> Batch:
    """The batch at a position among those that the bank serves; this process's part of it."""
    rows = own_part(bank[f"{name}_rows"][position])
    taken = {
        key.removeprefix(f"{name}_"): tensor[rows.to(tensor.device)]
        for key, tensor in bank.items()
        if key.startswith(f"{name}_") and key != f"{name}_rows"
    }
    ids = taken.pop("prompts")
    return Batch(taken.pop("latents"), taken.pop("timesteps"), ids, side.embeds[ids], taken)
