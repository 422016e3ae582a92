"""Save a changed model, whole or not at all, and check that it is the model that was trained.

Everything is written beside its place, loaded again as others would load it, compared on fixed seeds, and only then
renamed: a kill or a full disk leaves nothing behind that could be taken for a model.
"""

from __future__ import annotations

import copy
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from hfi.erase.delta import apply_delta_, write_delta
from hfi.erase.lora import LoraFit, add_lora_, fit_lora, write_lora
from hfi.erase.single_file import write_config, write_single_file
from hfi.errors import ConflictError, ModelFolderError, NoSpaceError
from hfi.pipelines import (
    Pipeline,
    encode_prompts,
    initial_latents,
    load_pipeline,
    predict_noise,
    quiet_loading,
    with_parts,
)

CHECK_SEEDS = (11, 12, 13)
CHECK_PROMPTS = ("", "a photo", "a person")  # words for the text encoders, which a file may hold as well
# Largest difference of a predicted noise (whose spread is 1) after saving and loading.
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}
DTYPES = {"float32": torch.float32, "float16": torch.float16}
CARD_NAME = "README.md"

Format = Literal["folder", "single-file", "delta", "lora"]
Dtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class SavedModel:
    """A model that was saved, loaded again and compared.

    Attributes:
        path: The folder or file.
        difference: Largest difference, between the loaded model and the one that was to be saved, of a predicted noise
            and of a decoded pixel (in [-1, 1]).
        lora_error: LoRA only: share of the change in the weights that the file leaves out.
        prediction_error: LoRA only: share of the change in the predictions on the fixed seeds that it leaves out.
    """

    path: Path
    difference: float
    lora_error: float | None = None
    prediction_error: float | None = None


def export_model(
    pipeline: Pipeline,
    unet: UNet2DConditionModel,
    target: str | Path,
    format: Format = "folder",
    *,
    dtype: Dtype = "float32",
    lora_rank: int = 32,
    origin: Mapping[str, str] | None = None,
) -> SavedModel:
    """Save `unet`, changed from the pipeline's own, in a format that others read.

    Args:
        pipeline: The original model; it is left as it was.
        target: Folder (`folder`) or `.safetensors` file; must not exist.
        format: Diffusers folder; one file in the layout of the original code, with `<name>.config/` beside it; the
            UNet's changed weights by name; or a LoRA.
        dtype: Precision of the saved weights.
        lora_rank: Rank of each layer of a LoRA.
        origin: What it was made from, written into a file's metadata: plain names and texts.

    Raises:
        ConflictError: The target exists.
        NoSpaceError: The disk is full.
        InvalidInputError: The model does not fit the format, or nothing changed.
        ModelFolderError: The loaded model predicts something else than the one in memory.
    """
    path = Path(target)
    metadata = {f"hfi.{name}": text for name, text in (origin or {}).items()}
    if format == "folder":
        return SavedModel(*_export_folder(pipeline, unet, path, dtype))
    if format == "single-file":
        return SavedModel(*_export_single_file(pipeline, unet, path, dtype, metadata))
    if format == "delta":
        return SavedModel(*_export_delta(pipeline, unet, path, dtype, metadata))
    fit = fit_lora(pipeline.unet, unet, lora_rank)
    metadata |= {"hfi.lora_error": f"{fit.error:.6f}"}
    path, difference = _export_lora(pipeline, fit, path, dtype, metadata)
    return SavedModel(path, difference, fit.error, _prediction_error(pipeline, unet, fit))


def export_folder(pipeline: Pipeline, unet: UNet2DConditionModel, folder: str | Path, dtype: Dtype = "float32") -> Path:
    """Write the pipeline with `unet` in place of its own as a folder that `from_pretrained` loads unchanged.

    Raises: as `export_model`.
    """
    return export_model(pipeline, unet, folder, "folder", dtype=dtype).path


# ---------------------------------------- formats


def _export_folder(pipeline: Pipeline, unet: UNet2DConditionModel, path: Path, dtype: Dtype) -> tuple[Path, float]:
    with _placed(path, path.name) as unfinished:
        with quiet_loading():
            _in_precision(with_parts(pipeline, unet=unet), DTYPES[dtype]).save_pretrained(unfinished / path.name)
        difference = _checked(pipeline, unet, path, dtype, lambda: _load_like(pipeline, unfinished / path.name))
    return path, difference


def _export_single_file(
    pipeline: Pipeline, unet: UNet2DConditionModel, path: Path, dtype: Dtype, metadata: dict[str, str]
) -> tuple[Path, float]:
    config = f"{path.stem}.config"
    with _placed(path, config, path.name) as unfinished:  # the file last: without its configuration it is no model
        changed = with_parts(pipeline, unet=unet)
        write_config(changed, unfinished / config)
        write_single_file(changed, unfinished / path.name, DTYPES[dtype], metadata)
        difference = _checked(pipeline, unet, path, dtype, lambda: _load_like(pipeline, unfinished / path.name))
    return path, difference


def _export_delta(
    pipeline: Pipeline, unet: UNet2DConditionModel, path: Path, dtype: Dtype, metadata: dict[str, str]
) -> tuple[Path, float]:
    def load() -> Pipeline:
        loaded = copy.deepcopy(pipeline.unet)
        apply_delta_(loaded, unfinished / path.name)
        return with_parts(pipeline, unet=loaded)

    with _placed(path, path.name) as unfinished:
        write_delta(pipeline.unet, unet, unfinished / path.name, DTYPES[dtype], metadata)
        difference = _checked(pipeline, unet, path, dtype, load)
    return path, difference


def _export_lora(
    pipeline: Pipeline, fit: LoraFit, path: Path, dtype: Dtype, metadata: dict[str, str]
) -> tuple[Path, float]:
    def load() -> Pipeline:
        loaded = with_parts(pipeline, unet=copy.deepcopy(pipeline.unet))
        loaded.load_lora_weights(unfinished, weight_name=path.name)
        return loaded

    with _placed(path, path.name) as unfinished:
        write_lora(fit, unfinished / path.name, DTYPES[dtype], metadata)
        difference = _checked(pipeline, _with_lora(pipeline, fit), path, dtype, load)
    return path, difference


def _with_lora(pipeline: Pipeline, fit: LoraFit) -> UNet2DConditionModel:
    unet = copy.deepcopy(pipeline.unet)
    add_lora_(unet, fit)
    return unet


def _prediction_error(pipeline: Pipeline, unet: UNet2DConditionModel, fit: LoraFit) -> float:
    """||LoRA's predictions - the changed model's|| / ||the changed model's - the original's|| on the fixed seeds."""
    wanted = predictions_on_fixed_seeds(pipeline, unet)
    left = predictions_on_fixed_seeds(pipeline, _with_lora(pipeline, fit)) - wanted
    whole = predictions_on_fixed_seeds(pipeline, pipeline.unet) - wanted
    return float(left.norm() / whole.norm().clamp_min(1e-12))


def _in_precision(pipeline: Pipeline, dtype: torch.dtype) -> Pipeline:
    if dtype == torch.float32:
        return pipeline
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return with_parts(pipeline, **{name: copy.deepcopy(module).to(dtype) for name, module in modules.items()})


def _load_like(pipeline: Pipeline, path: Path) -> Pipeline:
    return load_pipeline(path, device=str(pipeline.unet.device.type))


# ---------------------------------------- whole or not at all


@contextmanager
def _placed(target: Path, *names: str) -> Iterator[Path]:
    """Give a folder to write into; if the block ends well, what is there under `names` takes its place, in order.

    Raises:
        ConflictError: Something of that name is at the place already.
        NoSpaceError: The disk is full.
    """
    for name in names:
        if (target.parent / name).exists():
            raise ConflictError(f"{target.parent / name} exists already: choose another name, or remove it first.")
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        unfinished.mkdir()
        yield unfinished
        for name in names:
            os.replace(unfinished / name, target.parent / name)
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):  # safetensors has no errno
            raise NoSpaceError(
                f"There is no space left to save {target}: free some and run the command again."
            ) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    """Remove what processes that were killed while saving to this target left beside it."""
    for folder in target.parent.glob(f".{target.name}.unfinished-*"):
        process_id = folder.name.rpartition("-")[2]
        if not process_id.isdecimal() or process_id == str(os.getpid()) or not _is_running(int(process_id)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _checked(
    pipeline: Pipeline, unet: UNet2DConditionModel, target: Path, dtype: Dtype, load: Callable[[], Pipeline]
) -> float:
    """Load what was saved and compare it with `unet` in memory.

    Raises:
        ModelFolderError: The difference is larger than the precision explains.
    """
    with quiet_loading():
        saved = load()
    difference = _largest(predictions_on_fixed_seeds(saved, saved.unet) - predictions_on_fixed_seeds(pipeline, unet))
    if saved.vae is not pipeline.vae:
        latents = initial_latents(pipeline, CHECK_SEEDS[:1])
        with torch.no_grad():
            pixels = [part.vae.decode(latents, return_dict=False)[0] for part in (saved, pipeline)]
        difference = max(difference, _largest(pixels[0] - pixels[1]))
    if not difference <= TOLERANCE[dtype]:
        raise ModelFolderError(
            f"The model saved for {target} is off by {difference:.2g} when it is loaded: nothing was kept. Save again."
        )
    return difference


@torch.no_grad()
def predictions_on_fixed_seeds(
    pipeline: Pipeline, unet: UNet2DConditionModel
) -> Float[Tensor, "points channels height width"]:
    """What a UNet predicts for three prompts at three points from noisy to nearly clean."""
    latents = initial_latents(pipeline, CHECK_SEEDS)
    timesteps = torch.tensor([999, 500, 20], device=latents.device)
    return predict_noise(pipeline, latents, timesteps, encode_prompts(pipeline, CHECK_PROMPTS), unet=unet)


def _largest(difference: Tensor) -> float:
    """Largest absolute value; NaN counts as infinite."""
    return float(difference.abs().nan_to_num(nan=float("inf")).max())
