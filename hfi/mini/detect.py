"""The eye and the judge: load, save and ask them what is in a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hfi.config import resolve_model_folder
from hfi.mini.networks import ResidualBlock, SceneDetector
from hfi.mini.world import IMAGE_SIZE_PX, World


@dataclass(frozen=True)
class Sight:
    """What a detector sees: probabilities [n, objects], [n, styles], [n, backgrounds]."""

    objects: np.ndarray
    styles: np.ndarray
    backgrounds: np.ndarray


def save_detector(model: SceneDetector, world: World, folder: Path) -> None:
    """Write weights (half precision) and what the outputs mean."""
    folder.mkdir(parents=True, exist_ok=True)
    architecture = "residual" if any(isinstance(m, ResidualBlock) for m in model.modules()) else "depthwise"
    config: dict[str, Any] = {"architecture": architecture, **asdict(world)}
    weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


class Detector:
    """A trained scene detector, ready to be asked."""

    def __init__(self, model: SceneDetector, world: World, name: str, sha256: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.world = world
        self.name = name
        self.sha256 = sha256

    @torch.inference_mode()
    def see(self, images: Sequence[Image.Image], batch_size: int = 64) -> Sight:
        """Probabilities for every picture; pictures of another size are scaled to 64 x 64.

        Args:
            images: RGB pictures.
            batch_size: pictures looked at together.
        """
        found: list[tuple[np.ndarray, ...]] = []
        for start in range(0, len(images), batch_size):
            pixels = torch.stack([_to_tensor(image) for image in images[start : start + batch_size]])
            objects, styles, backgrounds = self.model(pixels)
            found.append((objects.sigmoid().numpy(), styles.softmax(1).numpy(), backgrounds.softmax(1).numpy()))
        if not found:
            world = self.world
            return Sight(*(np.zeros((0, len(names))) for names in (world.objects, world.styles, world.backgrounds)))
        return Sight(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _to_tensor(image: Image.Image) -> torch.Tensor:
    image = image.convert("RGB")
    if image.size != (IMAGE_SIZE_PX, IMAGE_SIZE_PX):
        image = image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1.0)


def load_detector(name: str, model_folder: str = "mini") -> Detector:
    """Load `eye` or `judge` from the embedded model's folder (or another folder made by `hfi mini train`)."""
    folder = Path(resolve_model_folder(model_folder)) / name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    world = World(tuple(config["objects"]), tuple(config["styles"]), tuple(config["backgrounds"]))
    model = SceneDetector(world, config["architecture"])
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
    )
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return Detector(model, world, name, digest)
