"""The last stage of training the embedded model: its decoder, shown what the UNet makes of noised latents.

Source of the features: LPIPS, arXiv 1801.03924.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfi.mini import networks
from hfi.mini.recipe import MiniRecipe
from hfi.mini.steps import Average, Checkpoint, OnStep, autocast, step_rng, training_steps
from hfi.mini.train import encode_captions, encode_latents, reconstruction_loss, to_pixels
from hfi.mini.world import caption, render
from hfi.pipelines.denoising import clean_latents


def train_decoder(recipe: MiniRecipe, build: Path, on_step: OnStep | None = None) -> None:
    """The autoencoder's decoder, trained further on whole pictures; the encoder, and with it every latent and the UNet,
    stays as it is. A little noise on the latents stands for what the UNet gets wrong.

    After `decoder_plain_steps` of `decoder_steps`, half of the latents are what the UNet itself makes of noised ones,
    and pictures are compared through the eye too: an object in nearly the colour of its background is next to nothing
    in pixels. Never through the judge, which measures.

    Saved to `decoder/`: the whole autoencoder with the moving average of the new decoder.
    """
    from diffusers import AutoencoderKL

    from hfi.mini.detect import load_detector

    latents, scenes = encode_latents(recipe, build, on_step)
    model = AutoencoderKL.from_pretrained(build / "vae").requires_grad_(False)
    model.to(recipe.device, memory_format=torch.channels_last)
    part = nn.ModuleDict({"conv": model.post_quant_conv, "decoder": model.decoder}).requires_grad_(True)
    optimizer = torch.optim.AdamW(part.parameters(), lr=recipe.decoder_learning_rate, betas=(0.9, 0.99), weight_decay=0)
    average = Average(part, recipe.ema_decay)
    parts = {"model": part, "optimizer": optimizer, "average": average}
    rate, checkpoint = recipe.decoder_learning_rate, Checkpoint(build / "decoder.pt")
    eye = load_detector("eye", str(build)).model.trunk.to(recipe.device, memory_format=torch.channels_last)
    estimate = Estimator(build, recipe.device)
    for step, update in training_steps(
        "decoder", recipe.decoder_steps, rate, checkpoint, parts, recipe.checkpoint_every_n_steps, on_step
    ):
        rng = step_rng(recipe.seed, 7, step)
        chosen = rng.integers(len(scenes), size=recipe.decoder_batch)
        pixels = to_pixels(np.stack([render(scenes[row]) for row in chosen])).to(recipe.device)
        noise = torch.from_numpy(rng.standard_normal((len(chosen), *latents.shape[1:]), dtype=np.float32))
        spread = torch.from_numpy(rng.random((len(chosen), 1, 1, 1), dtype=np.float32)) * recipe.decoder_noise
        noise, spread = noise.to(recipe.device), spread.to(recipe.device)
        clean = latents[torch.from_numpy(chosen)].to(recipe.device).float()
        is_plain = step < recipe.decoder_plain_steps
        given = clean + spread * noise
        if not is_plain:
            half = len(chosen) // 2
            captions = [caption(scenes[row], rng) for row in chosen[:half]]
            given[:half] = estimate(clean[:half], noise[:half], captions, rng)
        given = (given / model.config.scaling_factor).contiguous(memory_format=torch.channels_last)
        with autocast(recipe):
            decoded = model.decode(given).sample.float()
        loss = reconstruction_loss(decoded, pixels)
        if not is_plain:
            loss = loss + recipe.decoder_eye_weight * feature_loss(eye, decoded, pixels)
        update(loss, part)
        average.update_(part, step)
    average.copy_to_(part)
    model.save_pretrained(build / "decoder")


class Estimator:
    """What the trained UNet takes for the clean latents of slightly noised ones."""

    max_timestep = 350
    """Of 1,000; later ones leave an average of many pictures, from which no decoder can tell one."""

    def __init__(self, build: Path, device: str = "cpu") -> None:
        from diffusers import UNet2DConditionModel
        from transformers import CLIPModel, CLIPTokenizer

        self.tokenizer = CLIPTokenizer.from_pretrained(build / "tokenizer")
        self.text_model = CLIPModel.from_pretrained(build / "clip").text_model.eval().requires_grad_(False).to(device)
        unet = UNet2DConditionModel.from_pretrained(build / "unet")
        self.unet = unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self.scheduler = networks.build_scheduler()
        self.alphas_cumprod = self.scheduler.alphas_cumprod.to(device)

    @torch.no_grad()
    def __call__(self, clean: Tensor, noise: Tensor, captions: list[str], rng: np.random.Generator) -> Tensor:
        """Latents [n, 4, 16, 16] noised to a random early timestep, and the noise that the UNet predicts taken out."""
        timesteps = torch.from_numpy(rng.integers(self.max_timestep, size=len(clean))).to(clean.device)
        noisy = self.scheduler.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
        prompt_embeds = encode_captions(self.tokenizer, self.text_model, captions)
        noise_pred = self.unet(noisy, timesteps, prompt_embeds).sample
        return clean_latents(noise_pred, noisy, self.alphas_cumprod[timesteps])


def feature_loss(trunk: nn.Sequential, decoded: Tensor, pixels: Tensor) -> Tensor:
    """Squared distance of two pictures in every block of a convolution net, each place scaled to length 1 (LPIPS
    without its learned weights: arXiv 1801.03924)."""
    loss = decoded.new_zeros(())
    for block in trunk:
        decoded, pixels = block(decoded), block(pixels)
        loss = loss + (F.normalize(decoded, dim=1) - F.normalize(pixels, dim=1)).square().sum(dim=1).mean()
    return loss / len(trunk)
