"""The change of a model as a LoRA: each changed matrix's difference, cut off after its largest singular values.

Written in kohya's layout, which diffusers' `load_lora_weights`, A1111 and ComfyUI read. The cut leaves an error, and so
do biases and norms, which a LoRA does not hold; both are measured and stated.
Source: LoRA, arXiv 2106.09685; the best approximation of a rank is the truncated SVD (Eckart and Young, 1936).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from hfi.erase.delta import changed_weights
from hfi.errors import InvalidInputError

# Layers whose names diffusers does not translate back from kohya's.
NOT_TRANSLATED = ("add_embedding.", "class_embedding.")


@dataclass(frozen=True)
class LoraLayer:
    """One layer's change: up @ down."""

    down: Float[Tensor, "rank ..."]
    up: Float[Tensor, "out ..."]


@dataclass(frozen=True)
class LoraFit:
    """All layers, and the share of the change that they leave out: ||difference - LoRA|| / ||difference||."""

    layers: dict[str, LoraLayer]
    error: float


def truncated(
    difference: Float[Tensor, "out in"], rank: int
) -> tuple[Float[Tensor, "kept in"], Float[Tensor, "out kept"]]:
    """The best (down, up) of a rank: their product is nearest to the difference in the Frobenius norm."""
    left, values, right = torch.linalg.svd(difference, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    return root[:, None] * right[:kept], left[:, :kept] * root


def fit_lora(base: UNet2DConditionModel, changed: UNet2DConditionModel, rank: int) -> LoraFit:
    """Fit every changed matrix (a convolution counts as one) by a product of a rank.

    Raises:
        InvalidInputError: Nothing changed that a LoRA can hold.
    """
    before = base.state_dict()
    layers: dict[str, LoraLayer] = {}
    left_out = total = 0.0
    for name, weight in changed_weights(base, changed).items():
        difference = weight.detach().cpu().float() - before[name].cpu().float()
        total += float(difference.square().sum())
        if difference.ndim not in (2, 4) or not name.endswith(".weight") or name.startswith(NOT_TRANSLATED):
            left_out += float(difference.square().sum())
            continue
        matrix = difference.flatten(1)
        down, up = truncated(matrix, rank)
        left_out += float((matrix - up @ down).square().sum())
        if difference.ndim == 4:
            down, up = down.view(-1, *difference.shape[1:]), up[:, :, None, None]
        layers[name.removesuffix(".weight")] = LoraLayer(down, up)
    if not layers:
        raise InvalidInputError("Only biases and norms changed, which a LoRA does not hold: choose --format delta.")
    return LoraFit(layers, (left_out / total) ** 0.5)


def add_lora_(unet: UNet2DConditionModel, fit: LoraFit) -> None:
    """Add the layers' changes to the base model's weights, in place: what a loader of the file must arrive at."""
    weights = unet.state_dict()
    with torch.no_grad():
        for name, layer in fit.layers.items():
            weight = weights[f"{name}.weight"]
            change = layer.up.flatten(1) @ layer.down.flatten(1)
            weight += change.view(weight.shape).to(weight)


def write_lora(fit: LoraFit, file: Path, dtype: torch.dtype, metadata: dict[str, str]) -> None:
    """Write kohya's layout: `lora_unet_<module with underscores>.lora_down|lora_up.weight`.

    Without `.alpha`, which every loader takes for a scale of 1; diffusers misreads its names.
    """
    tensors: dict[str, Tensor] = {}
    for name, layer in fit.layers.items():
        key = "lora_unet_" + name.replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = layer.down.to(dtype).contiguous()
        tensors[f"{key}.lora_up.weight"] = layer.up.to(dtype).contiguous()
    save_file(tensors, file, metadata={"format": "pt", **metadata})
