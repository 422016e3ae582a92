"""Save a changed model as a diffusers folder, whole or not at all, and check that it is the model that was trained."""

from __future__ import annotations

import copy
import errno
import os
import shutil
from pathlib import Path
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from hfi.errors import ConflictError, ModelFolderError, NoSpaceError
from hfi.pipelines import (
    Pipeline,
    encode_null_prompt,
    initial_latents,
    load_pipeline,
    predict_noise,
    quiet_loading,
    with_parts,
)

CHECK_SEEDS = (11, 12, 13)
# Largest difference of a predicted noise (whose spread is 1) after saving and loading.
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}
DTYPES = {"float32": torch.float32, "float16": torch.float16}


def export_folder(
    pipeline: Pipeline,
    unet: UNet2DConditionModel,
    folder: str | Path,
    dtype: Literal["float32", "float16"] = "float32",
) -> Path:
    """Write the pipeline with `unet` in place of its own as a folder that `from_pretrained` loads unchanged.

    It is written beside its place, loaded again and compared on fixed seeds, and only then renamed: a kill or a full
    disk leaves nothing behind that could be taken for a model.

    Args:
        folder: Where it will be; must not exist.
        dtype: Precision of the weights on disk.

    Raises:
        ConflictError: The folder exists.
        NoSpaceError: The disk is full.
        ModelFolderError: The loaded model predicts something else than the one in memory.
    """
    target = Path(folder)
    if target.exists():
        raise ConflictError(f"{target} exists already: choose another folder, or remove it first.")
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(pipeline, unet, unfinished, DTYPES[dtype])
        difference = largest_difference(pipeline, unet, unfinished)
        if not difference <= TOLERANCE[dtype]:
            raise ModelFolderError(
                f"The model saved for {target} predicts noise off by {difference:.2g}: nothing was kept. Save again."
            )
        os.replace(unfinished, target)
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):  # safetensors has no errno
            raise NoSpaceError(
                f"There is no space left to save {target}: free some and run the command again."
            ) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _write(pipeline: Pipeline, unet: UNet2DConditionModel, folder: Path, dtype: torch.dtype) -> None:
    changed = with_parts(pipeline, unet=unet)
    if dtype != torch.float32:
        modules = {name: part for name, part in changed.components.items() if isinstance(part, torch.nn.Module)}
        changed = with_parts(changed, **{name: copy.deepcopy(module).to(dtype) for name, module in modules.items()})
    with quiet_loading():
        changed.save_pretrained(folder)


@torch.no_grad()
def predictions_on_fixed_seeds(
    pipeline: Pipeline, unet: UNet2DConditionModel
) -> Float[Tensor, "points channels height width"]:
    """What a UNet predicts for the empty prompt at three points from noisy to nearly clean."""
    latents = initial_latents(pipeline, CHECK_SEEDS)
    timesteps = torch.tensor([999, 500, 20], device=latents.device)
    embeds = encode_null_prompt(pipeline).expand(len(latents), -1, -1)
    return predict_noise(pipeline, latents, timesteps, embeds, unet=unet)


def largest_difference(pipeline: Pipeline, unet: UNet2DConditionModel, folder: Path) -> float:
    """Load a folder and compare its predictions with those of `unet` in memory; NaN counts as infinite."""
    saved = load_pipeline(folder, device=str(pipeline.unet.device.type))
    difference = predictions_on_fixed_seeds(saved, saved.unet) - predictions_on_fixed_seeds(pipeline, unet)
    return float(difference.abs().nan_to_num(nan=float("inf")).max())
