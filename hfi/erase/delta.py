"""Only what changed: the weights of the UNet that differ from the original's, by their names, as ESD publishes.

`unet.load_state_dict(safetensors.torch.load_file(path), strict=False)` on the original is all it takes to use one.
Source: the files of ESD, arXiv 2303.07345.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hfi.errors import InvalidInputError, ModelFolderError

BASE_KEY = "hfi.base_model_sha256"


def changed_weights(base: UNet2DConditionModel, changed: UNet2DConditionModel) -> dict[str, Tensor]:
    """The weights that differ from the base model's, as they are in the changed one.

    Raises:
        InvalidInputError: The two are not of the same shape, or nothing differs.
    """
    before, after = base.state_dict(), changed.state_dict()
    check_same_shapes(before, after)
    found = {name: weight for name, weight in after.items() if not torch.equal(weight, before[name].to(weight.device))}
    if not found:
        raise InvalidInputError("The changed model equals its base model: there is no difference to save.")
    return found


def check_same_shapes(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """Raise InvalidInputError naming the first weight that one has and the other has not, or in another shape."""
    for name in sorted(before.keys() | after.keys()):
        shapes = [tuple(side[name].shape) if name in side else None for side in (before, after)]
        if shapes[0] != shapes[1]:
            raise InvalidInputError(
                f"The weight {name} is {shapes[0]} in the base model and {shapes[1]} in the changed one: name with "
                f"--base the model that was changed."
            )


def write_delta(
    base: UNet2DConditionModel, changed: UNet2DConditionModel, file: Path, dtype: torch.dtype, metadata: dict[str, str]
) -> None:
    """Write the weights that changed."""
    weights = changed_weights(base, changed)
    tensors = {name: weight.detach().cpu().to(dtype).contiguous() for name, weight in weights.items()}
    save_file(tensors, file, metadata={"format": "pt", **metadata})


def is_delta(file: Path) -> bool:
    """Whether a safetensors file holds weights of a UNet by their names, and nothing else."""
    try:
        with safe_open(str(file), framework="pt") as tensors:
            names = list(tensors.keys())
    except SafetensorError as error:
        raise ModelFolderError(f"{file} is no whole safetensors file ({error}): copy it again.") from error
    starts = ("down_blocks.", "mid_block.", "up_blocks.", "conv_", "time_embedding.", "add_embedding.")
    return bool(names) and all(name.startswith(starts) and ".lora" not in name for name in names)


def apply_delta_(unet: UNet2DConditionModel, file: str | Path, base_sha256: str = "") -> dict[str, str]:
    """Put the saved weights into the base model's UNet, in place.

    Args:
        base_sha256: Hash of the model that `unet` comes from; compared with the one that the file names, if both are
            known.

    Returns:
        The file's metadata.

    Raises:
        InvalidInputError: The file was made from another base model, or its weights do not fit.
    """
    with safe_open(str(file), framework="pt") as tensors:
        metadata = tensors.metadata() or {}
        weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    named = metadata.get(BASE_KEY, "")
    if named and base_sha256 and named != base_sha256:
        raise InvalidInputError(
            f"{file} changes the model {named[:12]}…, but the base model given is {base_sha256[:12]}…: give the one it "
            f"was made from."
        )
    own = unet.state_dict()
    for name, weight in weights.items():
        if name not in own or own[name].shape != weight.shape:
            raise InvalidInputError(f"{file} has a weight {name} that the base model lacks or has in another shape.")
    unet.load_state_dict(weights, strict=False)
    return metadata
