"""Train the embedded model from its sprites: `hfi mini train --recipe cpu|gpu`.

Eight stages, each resumable from its own checkpoint: tokenizer, clip, clip_image, vae, eye, judge, unet, decoder.
Pictures are drawn while training, so there is no dataset to keep; combinations that `world.is_held_out` names are never
drawn.

Sources: CLIP (arXiv 2103.00020), latent diffusion (arXiv 2112.10752), min-SNR weighting (arXiv 2303.09556), EMA as in
DDPM (arXiv 2006.11239).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTokenizer

from hfi.config import Precision
from hfi.mini import networks
from hfi.mini.recipe import RECIPES, MiniRecipe
from hfi.mini.steps import Average, Checkpoint, OnStep, autocast, step_rng, training_steps
from hfi.mini.vocabulary import group_of, words_for
from hfi.mini.world import (
    GROUP_WORDS,
    TWO_SHARE,
    WORLDS,
    Scene,
    World,
    caption,
    random_scene,
    render,
    vocabulary_words,
    with_article,
)
from hfi.pipelines import resolve_device
from hfi.progress import NullProgress, Progress

Stage = Literal["tokenizer", "clip", "clip_image", "vae", "eye", "judge", "unet", "decoder"]
STAGES: tuple[Stage, ...] = ("tokenizer", "clip", "clip_image", "vae", "eye", "judge", "unet", "decoder")


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [n, h, w, 3] -> float [n, 3, h, w] in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def draw_batch(
    world: World, rng: np.random.Generator, size: int, *, two_share: float = TWO_SHARE
) -> tuple[list[Scene], np.ndarray]:
    """Scenes and their pictures, uint8 [size, 64, 64, 3]; `two_share` of them with two objects."""
    scenes = [random_scene(world, rng, two_share=two_share) for _ in range(size)]
    return scenes, np.stack([render(scene) for scene in scenes])


def train_clip(recipe: MiniRecipe, build: Path, on_step: OnStep | None = None) -> None:
    """Contrastive training of the text and image towers; 1-in-2 pictures are degraded so that sampled pictures embed
    well too."""
    tokenizer = CLIPTokenizer.from_pretrained(build / "tokenizer")
    torch.manual_seed(recipe.seed)
    model = networks.build_clip(tokenizer).to(recipe.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.clip_learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    parts = {"model": model, "optimizer": optimizer}
    world = WORLDS[recipe.world]
    checkpoint = Checkpoint(build / "clip.pt")
    for step, update in training_steps(
        "clip",
        recipe.clip_steps,
        recipe.clip_learning_rate,
        checkpoint,
        parts,
        recipe.checkpoint_every_n_steps,
        on_step,
    ):
        rng = step_rng(recipe.seed, 1, step)
        scenes, images = draw_batch(world, rng, recipe.clip_batch)
        tokens = tokenizer([caption(s, rng, group_share=0.05) for s in scenes], padding=True, return_tensors="pt")
        pixels = degrade(to_pixels(images), rng).to(recipe.device)
        with autocast(recipe):
            output = model(input_ids=tokens.input_ids.to(recipe.device), pixel_values=pixels, return_dict=True)
        targets = torch.arange(len(scenes), device=recipe.device)
        update(contrast_loss(output.text_embeds, output.image_embeds, model.logit_scale, targets), model)
    model.save_pretrained(build / "clip")


def train_clip_image(recipe: MiniRecipe, build: Path, on_step: OnStep | None = None) -> None:
    """A new image tower of smaller patches, from its start: the text tower, which the UNet listens to, stays as it is
    (LiT, arXiv 2111.07991).

    A linear head that names the objects of a picture from its embedding learns along and is thrown away: contrast
    between 64 captions alone taught a tower of this size too slowly (docs/LOG.md).
    """
    from transformers import CLIPModel

    tokenizer = CLIPTokenizer.from_pretrained(build / "tokenizer")
    first = CLIPModel.from_pretrained(build / "clip")
    world = WORLDS[recipe.world]
    torch.manual_seed(recipe.seed + 7)
    model = networks.build_clip(tokenizer, recipe.clip_image_patch_px)
    for name in ("text_model", "text_projection"):
        getattr(model, name).load_state_dict(getattr(first, name).state_dict())
    model.logit_scale.data.copy_(first.logit_scale)
    model.to(recipe.device).text_model.requires_grad_(False)
    names_objects = nn.Linear(model.config.projection_dim, len(world.objects)).to(recipe.device)
    trainable = [p for p in (*model.parameters(), *names_objects.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.clip_learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    parts = {"model": model, "optimizer": optimizer, "names_objects": names_objects}
    checkpoint = Checkpoint(build / "clip_image.pt")
    for step, update in training_steps(
        "clip_image",
        recipe.clip_image_steps,
        recipe.clip_learning_rate,
        checkpoint,
        parts,
        recipe.checkpoint_every_n_steps,
        on_step,
    ):
        rng = step_rng(recipe.seed, 7, step)
        scenes, images = draw_batch(world, rng, recipe.clip_batch)
        captions = [_caption_for_image_tower(scene, rng) for scene in scenes]
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        pixels = degrade(to_pixels(images), rng).to(recipe.device)
        with autocast(recipe):
            output = model(input_ids=tokens.input_ids.to(recipe.device), pixel_values=pixels, return_dict=True)
        is_same = torch.tensor([[a == b for b in captions] for a in captions], device=recipe.device)
        targets = is_same.float() / is_same.sum(dim=1, keepdim=True)
        contrast = contrast_loss(output.text_embeds, output.image_embeds, model.logit_scale, targets)
        object_logits = names_objects(10.0 * output.image_embeds.float())
        objects = scene_targets(world, scenes)[0].to(recipe.device)
        update(contrast + 10.0 * F.binary_cross_entropy_with_logits(object_logits, objects), model)
    model.save_pretrained(build / "clip_image")


def contrast_loss(
    text_embeds: Float[Tensor, "n dim"],
    image_embeds: Float[Tensor, "n dim"],
    log_scale: Float[Tensor, ""],
    targets: Int[Tensor, " n"] | Float[Tensor, "n n"],
) -> Float[Tensor, ""]:
    """Cross-entropy of texts against pictures and of pictures against texts, their mean (arXiv 2103.00020, figure 3).

    Args:
        text_embeds: of length 1.
        image_embeds: of length 1.
        log_scale: logarithm of what similarities are multiplied by.
        targets: which picture belongs to each text: its place, or probabilities over all of them.
    """
    logits = log_scale.exp() * text_embeds.float() @ image_embeds.float().T
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def _caption_for_image_tower(scene: Scene, rng: np.random.Generator) -> str:
    """Complete for two fifths; else only the objects, or only their groups, so that style and background do not drown
    them. Equal captions in a batch are all positives."""
    kind = rng.random()
    if kind < 0.4:
        return caption(scene, rng, is_complete=True)
    words = [GROUP_WORDS[group_of(name)] if kind > 0.75 else words_for(name)[0] for name in scene.objects]
    return " and ".join(with_article(word) for word in words)


def degrade(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and small colour shifts on half of the pictures; float [n, 3, h, w] in -1..1 before and after."""
    count = pixels.shape[0]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.rand(count, 1, 1, 1, generator=generator)
    noisy = torch.lerp(pixels, blurred, amount) + 0.12 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(
        pixels.shape, generator=generator
    )
    noisy = noisy * (1 + 0.15 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)) + 0.1 * (
        torch.rand(count, 3, 1, 1, generator=generator) - 0.5
    )
    is_degraded = (torch.rand(count, 1, 1, 1, generator=generator) < 0.5).float()
    return torch.lerp(pixels, noisy, is_degraded).clamp_(-1.0, 1.0)


def train_vae(recipe: MiniRecipe, build: Path, on_step: OnStep | None = None) -> None:
    """Autoencoder: L1 on pixels and on their differences to the neighbour, plus a small KL term; then its latent
    scale is measured."""
    torch.manual_seed(recipe.seed + 1)
    model = networks.build_vae().to(recipe.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.vae_learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    parts = {"model": model, "optimizer": optimizer}
    world = WORLDS[recipe.world]
    checkpoint = Checkpoint(build / "vae.pt")
    for step, update in training_steps(
        "vae", recipe.vae_steps, recipe.vae_learning_rate, checkpoint, parts, recipe.checkpoint_every_n_steps, on_step
    ):
        rng = step_rng(recipe.seed, 2, step)
        _, images = draw_batch(world, rng, recipe.vae_batch)
        crops = random_crops(to_pixels(images), recipe.vae_crop_px, rng)
        pixels = crops.to(recipe.device, memory_format=torch.channels_last)
        with autocast(recipe):
            posterior = model.encode(pixels).latent_dist
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            noise = torch.randn(posterior.mean.shape, generator=generator).to(recipe.device)
            decoded = model.decode(posterior.mean + posterior.std * noise).sample
        kl = recipe.kl_weight * posterior.kl().float().mean() / posterior.mean[0].numel()
        update(reconstruction_loss(decoded.float(), pixels) + kl, model)
    with torch.no_grad():
        _, images = draw_batch(world, step_rng(recipe.seed, 2, -1 % 2**31), 256)
        chunks = to_pixels(images).to(recipe.device).split(64)
        latents = torch.cat([model.encode(chunk).latent_dist.mean for chunk in chunks])
    model.register_to_config(scaling_factor=round(1.0 / float(latents.std()), 5))
    model.save_pretrained(build / "vae")


def reconstruction_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 on pixels and on their differences to the neighbour, and the mean square."""
    return F.l1_loss(decoded, pixels) + 0.5 * edge_loss(decoded, pixels) + F.mse_loss(decoded, pixels)


def random_crops(pixels: Tensor, size_px: int, rng: np.random.Generator) -> Tensor:
    """One random square of each picture, at multiples of 4 pixels so that crops and whole pictures share a grid."""
    room = (pixels.shape[-1] - size_px) // 4
    corners = 4 * rng.integers(0, room + 1, size=(len(pixels), 2))
    return torch.stack([p[:, y : y + size_px, x : x + size_px] for p, (y, x) in zip(pixels, corners, strict=True)])


def edge_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 between horizontal and vertical neighbour differences."""
    across = F.l1_loss(decoded.diff(dim=3), pixels.diff(dim=3))
    return across + F.l1_loss(decoded.diff(dim=2), pixels.diff(dim=2))


def train_detector(
    name: Literal["eye", "judge"], recipe: MiniRecipe, build: Path, on_step: OnStep | None = None
) -> None:
    """The eye or the judge: multi-label training on degraded rendered scenes; different architecture, seed and
    pictures."""
    stage = {"eye": 3, "judge": 4}[name]
    world = WORLDS[recipe.world]
    torch.manual_seed(recipe.seed + 100 * stage)
    model = networks.SceneDetector(world, "residual" if name == "eye" else "depthwise")
    model.to(recipe.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.detector_learning_rate, weight_decay=0.02)
    parts = {"model": model, "optimizer": optimizer}
    checkpoint = Checkpoint(build / f"{name}.pt")
    for step, update in training_steps(
        name,
        recipe.detector_steps,
        recipe.detector_learning_rate,
        checkpoint,
        parts,
        recipe.checkpoint_every_n_steps,
        on_step,
    ):
        rng = step_rng(recipe.seed, stage, step)
        scenes, images = draw_batch(world, rng, recipe.detector_batch)
        objects, styles, backgrounds = (part.to(recipe.device) for part in scene_targets(world, scenes))
        pixels = degrade(to_pixels(images), rng).to(recipe.device, memory_format=torch.channels_last)
        with autocast(recipe):
            logits = model(pixels)
        loss = 10.0 * F.binary_cross_entropy_with_logits(logits[0].float(), objects)
        loss = loss + F.cross_entropy(logits[1].float(), styles)
        update(loss + 0.5 * F.cross_entropy(logits[2].float(), backgrounds), model)
    from hfi.mini.detect import save_detector

    save_detector(model, world, build / name)


def scene_targets(world: World, scenes: list[Scene]) -> tuple[Tensor, Tensor, Tensor]:
    """Multi-hot objects [n, objects], style index [n], background index [n]."""
    objects = torch.zeros(len(scenes), len(world.objects))
    for row, scene in enumerate(scenes):
        objects[row, [world.objects.index(name) for name in scene.objects]] = 1.0
    styles = torch.tensor([world.styles.index(scene.style) for scene in scenes])
    return objects, styles, torch.tensor([world.backgrounds.index(scene.background) for scene in scenes])


def encode_latents(recipe: MiniRecipe, build: Path, on_step: OnStep | None = None) -> tuple[Tensor, list[Scene]]:
    """The pictures that the UNet learns from, encoded once: scaled latents float16 [n, 4, 16, 16] and their scenes.

    The last `num_pair_latents` of them hold two objects each, which is what takes longest to learn. Encoded in shards
    of 1,000 that are kept, so that an interruption costs one shard.
    """
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(build / "vae").to(recipe.device, memory_format=torch.channels_last).eval()
    world, shard_size = WORLDS[recipe.world], 1_000
    folder = build / "latents"
    folder.mkdir(exist_ok=True)
    shards: list[Tensor] = []
    scenes: list[Scene] = []
    num_mixed = recipe.num_latents // shard_size
    num_shards = num_mixed + recipe.num_pair_latents // shard_size
    for index in range(num_shards):
        two_share = TWO_SHARE if index < num_mixed else 1.0
        drawn, images = draw_batch(world, step_rng(recipe.seed, 5, index), shard_size, two_share=two_share)
        scenes += drawn
        path = folder / f"{index:04d}.pt"
        if not path.exists():
            with torch.inference_mode():
                parts = [
                    vae.encode(chunk.to(recipe.device, memory_format=torch.channels_last)).latent_dist.mean.cpu()
                    for chunk in to_pixels(images).split(50)
                ]
            torch.save((torch.cat(parts) * vae.config.scaling_factor).half(), path.with_suffix(".unfinished"))
            os.replace(path.with_suffix(".unfinished"), path)
        shards.append(torch.load(path, weights_only=True))
        if on_step is not None:
            on_step("latents", index, num_shards, 0.0)
    return torch.cat(shards), scenes


def min_snr_weight(alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Loss weight of an epsilon-predicting model at each timestep: min(SNR, gamma) / SNR (arXiv 2303.09556, eq. 5)."""
    snr = alphas_cumprod / (1.0 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr


def train_unet(recipe: MiniRecipe, build: Path, on_step: OnStep | None = None) -> None:
    """Noise prediction from captions; the text encoder is CLIP's and stays frozen. The saved weights are the moving
    average."""
    from transformers import CLIPModel

    latents, scenes = encode_latents(recipe, build, on_step)
    tokenizer = CLIPTokenizer.from_pretrained(build / "tokenizer")
    text_model = CLIPModel.from_pretrained(build / "clip").text_model.eval().requires_grad_(False).to(recipe.device)
    scheduler = networks.build_scheduler()
    loss_weights = min_snr_weight(scheduler.alphas_cumprod, recipe.min_snr_gamma).to(recipe.device)
    torch.manual_seed(recipe.seed + 2)
    unet = networks.build_unet().to(recipe.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=recipe.unet_learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    average = Average(unet, recipe.ema_decay)
    parts = {"model": unet, "optimizer": optimizer, "average": average}
    for step, update in training_steps(
        "unet",
        recipe.unet_steps,
        recipe.unet_learning_rate,
        Checkpoint(build / "unet.pt"),
        parts,
        recipe.checkpoint_every_n_steps,
        on_step,
    ):
        rng = step_rng(recipe.seed, 6, step)
        chosen = rng.integers(len(scenes), size=recipe.unet_batch)
        captions = ["" if rng.random() < recipe.caption_dropout else caption(scenes[i], rng) for i in chosen]
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        clean = latents[torch.from_numpy(chosen)].float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        noisy = noisy.to(recipe.device, memory_format=torch.channels_last)
        noise, timesteps = noise.to(recipe.device), timesteps.to(recipe.device)
        prompt_embeds = encode_captions(tokenizer, text_model, captions)
        with autocast(recipe):
            noise_pred = unet(noisy, timesteps, prompt_embeds).sample
        per_picture = F.mse_loss(noise_pred.float(), noise, reduction="none").mean(dim=(1, 2, 3))
        update((per_picture * loss_weights[timesteps]).mean(), unet)
        average.update_(unet, step)
    save_average(unet, average, build / "unet")


@torch.no_grad()
def encode_captions(
    tokenizer: CLIPTokenizer, text_model: nn.Module, captions: list[str]
) -> Float[Tensor, "captions tokens dim"]:
    """What the UNet listens to: the text tower's last states, of all tokens a caption may have."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    device = next(text_model.parameters()).device
    states: Tensor = text_model(input_ids=tokens.input_ids.to(device)).last_hidden_state
    return states


def save_average(unet: nn.Module, average: Average, folder: Path) -> None:
    """Write the averaged UNet as a diffusers folder."""
    average.copy_to_(unet)
    unet.save_pretrained(folder)  # type: ignore[operator]


def train(
    recipe_name: str,
    out: Path,
    progress: Progress | None = None,
    device: str = "auto",
    precision: Precision | None = None,
) -> Path:
    """Run every stage of a recipe that is not done yet and assemble the model folder.

    Args:
        recipe_name: `cpu` or `gpu`.
        out: where checkpoints go (`out/<recipe>`) and the model (`out/<recipe>/model`); run again, it goes on from
            there.
        progress: told about every stage.
        device: `auto`, `cpu` or `cuda`.
        precision: arithmetic of the networks; None = the recipe's. Weights stay in float32.

    Returns:
        The model's folder, which `--model` takes.
    """
    from hfi.mini.assemble import assemble

    recipe = RECIPES[recipe_name]()
    recipe = replace(recipe, device=resolve_device(device).type, precision=precision or recipe.precision)
    build = out / recipe_name
    build.mkdir(parents=True, exist_ok=True)
    listener = progress or NullProgress()
    for stage in STAGES:
        if not (build / stage).exists():
            listener.start(f"train {stage}")
            run_stage(stage, recipe, build, reporter(listener))
            listener.finish()
    assemble(build, build / "model")
    return build / "model"


def reporter(progress: Progress) -> OnStep:
    """Turn a training's figures into progress: the first call of a stage sets its length."""
    seen: dict[str, int] = {}

    def on_step(stage: str, step: int, num_steps: int, loss: float) -> None:
        if stage not in seen:
            progress.start(f"train {stage}", num_steps)
        progress.advance(step - seen.get(stage, 0), loss=loss)
        seen[stage] = step

    return on_step


def run_stage(stage: Stage, recipe: MiniRecipe, build: Path, on_step: OnStep | None = None) -> None:
    """Run one stage; the stages before it must be done."""
    if stage == "tokenizer":
        networks.train_tokenizer(vocabulary_words(), build / "tokenizer")
    elif stage == "clip":
        train_clip(recipe, build, on_step)
    elif stage == "clip_image":
        train_clip_image(recipe, build, on_step)
    elif stage == "vae":
        train_vae(recipe, build, on_step)
    elif stage == "unet":
        train_unet(recipe, build, on_step)
    elif stage == "decoder":
        from hfi.mini.train_decoder import train_decoder

        train_decoder(recipe, build, on_step)
    else:
        train_detector(stage, recipe, build, on_step)
