"""Between pictures and latents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hfi.errors import InvalidInputError
from hfi.pipelines.loading import Pipeline

# Pixels in the autoencoder at once: 16 pictures of 64 px, or one of 256 px or more. Its activations outweigh everything
# else; more at once is slower on a CPU and of no use to a GPU at 512 px (docs/LOG.md).
VAE_BATCH_PX = 16 * 64 * 64


@torch.no_grad()
def decode_latents(pipeline: Pipeline, latents: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
    """Latents (scaled) -> RGB pictures."""
    images: list[Image.Image] = []
    factor = pipeline.vae_scale_factor
    for chunk in latents.split(_pictures_at_once(factor * latents.shape[-1], factor * latents.shape[-2])):
        pixels = pipeline.vae.decode(chunk / pipeline.vae.config.scaling_factor, return_dict=False)[0]
        pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().float().numpy()
        images.extend(Image.fromarray(array) for array in (pixels * 255).round().astype(np.uint8))
    return images


@torch.no_grad()
def encode_images(pipeline: Pipeline, images: Sequence[Image.Image]) -> Float[Tensor, "batch channels height width"]:
    """Pictures -> latents (scaled): the mean of the autoencoder's posterior, so that the result is repeatable.

    Raises:
        InvalidInputError: No picture, different sizes, or a size the autoencoder cannot take.
    """
    if not images:
        raise InvalidInputError("No picture was given: give at least one.")
    sizes = {image.size for image in images}
    factor = pipeline.vae_scale_factor
    if len(sizes) > 1 or any(side % factor for side in images[0].size):
        raise InvalidInputError(
            f"Pictures have the sizes {sorted(sizes)[:3]}: they must be equal, multiples of {factor} px. Resize them."
        )
    latents = []
    batch_size = _pictures_at_once(*images[0].size)
    for start in range(0, len(images), batch_size):
        arrays = np.stack([np.asarray(image.convert("RGB")) for image in images[start : start + batch_size]])
        pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).to(pipeline.vae.device, pipeline.vae.dtype) / 127.5 - 1
        latents.append(pipeline.vae.encode(pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor)
    return torch.cat(latents)


def _pictures_at_once(width: int, height: int) -> int:
    return max(1, VAE_BATCH_PX // (width * height))
