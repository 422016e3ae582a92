"""Pictures -> CLIP embeddings, for the score model, for clusters and for coverage.

The resizing and normalising are our own few lines, so that no vision library is needed.
Source: CLIP, arXiv 2103.00020.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPVisionModelWithProjection

from hfi.config import resolve_model_folder
from hfi.errors import InvalidInputError, ModelFolderError
from hfi.pipelines import quiet_loading, resolve_device

# Pixels in -1..1, as the embedded CLIP reads them; published CLIPs bring other constants in preprocessor_config.json.
PLAIN_MEAN = (0.5, 0.5, 0.5)
PLAIN_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Clip:
    """The image side of a CLIP and how it wants its pictures."""

    model: CLIPModel | CLIPVisionModelWithProjection
    image_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device


def clip_folder(name: str | Path) -> Path:
    """Where a CLIP name points: `mini` is the embedded one; a model folder that holds `clip/` means that."""
    folder = Path(resolve_model_folder(str(name)))
    return folder / "clip" if (folder / "clip").is_dir() else folder


def load_clip(folder: str | Path = "mini", device: str = "auto") -> Clip:
    """Load a CLIP for embedding pictures, frozen, in float32.

    Args:
        folder: `mini`, a CLIP folder (config.json, weights, and preprocessor_config.json unless pixels are read in
            -1..1), or a model folder that holds one as `clip/`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ModelFolderError: The folder is missing, incomplete or not a CLIP.
    """
    path = clip_folder(folder)
    if not (path / "config.json").is_file():
        raise ModelFolderError(
            f"{path} is not a CLIP folder: config.json is missing. Give a folder saved by CLIPModel."
        )
    try:
        model_class = CLIPVisionModelWithProjection if _has_only_vision(path) else CLIPModel
        with quiet_loading():
            model = model_class.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    except Exception as error:  # transformers and safetensors share no base class
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ModelFolderError(f"The CLIP {path} cannot be loaded: {reason}") from error
    model.requires_grad_(False).eval().to(resolve_device(device))
    vision = getattr(model.config, "vision_config", model.config)
    mean, std = _pixel_constants(path)
    return Clip(model, vision.image_size, mean, std)


def _has_only_vision(path: Path) -> bool:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") not in ("clip", "clip_vision_model"):
        raise ModelFolderError(f"it is a model of type {config.get('model_type')}, not a CLIP.")
    return config["model_type"] == "clip_vision_model"


def _pixel_constants(path: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    file = path / "preprocessor_config.json"
    constants = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mean_r, mean_g, mean_b = constants.get("image_mean", PLAIN_MEAN)
    std_r, std_g, std_b = constants.get("image_std", PLAIN_STD)
    return (mean_r, mean_g, mean_b), (std_r, std_g, std_b)


def prepare_pixels(clip: Clip, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 side side"]:
    """Shorter side to the model's size (bicubic), centre crop, normalise: CLIP's own preprocessing."""
    side = clip.image_size_px
    arrays = np.stack([np.asarray(_crop_centre(_resize_shorter(image.convert("RGB"), side), side)) for image in images])
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(clip.mean).view(3, 1, 1), torch.tensor(clip.std).view(3, 1, 1)
    return (pixels - mean) / std


def _resize_shorter(image: Image.Image, side: int) -> Image.Image:
    if min(image.size) == side:
        return image
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _crop_centre(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


@torch.no_grad()
def embed_images(clip: Clip, images: Sequence[Image.Image], batch_size: int = 64) -> Float[np.ndarray, "images dim"]:
    """CLIP image embeddings, float32, each of length 1.

    Args:
        images: Pictures of any size.
        batch_size: Pictures embedded together; changes speed and memory only.

    Raises:
        InvalidInputError: There is no picture, or the model gave a number that is not finite.
    """
    if not images:
        raise InvalidInputError("No picture was given to embed: give at least one.")
    chunks = []
    for start in range(0, len(images), batch_size):
        pixels = prepare_pixels(clip, images[start : start + batch_size]).to(clip.device)
        vision = clip.model.vision_model(pixel_values=pixels)
        chunks.append(torch.nn.functional.normalize(clip.model.visual_projection(vision.pooler_output), dim=-1).cpu())
    embeddings = torch.cat(chunks).float()
    if not embeddings.isfinite().all():
        raise InvalidInputError("The CLIP gave embeddings that are not finite: its weights are damaged, load it again.")
    return embeddings.numpy()
