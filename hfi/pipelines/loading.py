"""Load a model: a diffusers folder, a Hub id, or one safetensors file in the layout of the original code.

Weights are read from safetensors and from nothing else: a pickle may run any code when it is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError, safe_open

from hfi.config import resolve_model_folder
from hfi.errors import DeviceError, ModelFolderError
from hfi.model_folder import check_model_folder, weights_variant

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SINGLE_FILE_SUFFIX = ".safetensors"
# Folder of configurations and tokenizers beside a single file `<name>.safetensors`, so that it loads without network.
CONFIG_SUFFIX = ".config"
XL_KEY = "conditioner.embedders.1.model.token_embedding.weight"

# A pipeline of a family that we know.
Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline
FAMILIES: dict[str, type[StableDiffusionPipeline] | type[StableDiffusionXLPipeline]] = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}
# Parts that a family can do without.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
    },
    "StableDiffusionXLPipeline": {"add_watermarker": False},
}  # fmt: skip


def resolve_device(device: str = "auto") -> torch.device:
    """The device a configuration means; `auto` takes a GPU when there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device is 'cuda', but no GPU is available: use device 'cpu' or 'auto'.")
    return torch.device(device)


def is_xl(pipeline: Pipeline) -> bool:
    """Whether the pipeline is of the family with two text encoders."""
    return isinstance(pipeline, StableDiffusionXLPipeline)


def pipeline_class(folder: Path) -> type[StableDiffusionPipeline] | type[StableDiffusionXLPipeline]:
    """The class that a complete model folder names.

    Raises:
        ModelFolderError: It is of a family that we cannot load.
    """
    family = json.loads((folder / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    if family not in FAMILIES:
        raise ModelFolderError(f"{folder} is a {family}: only Stable Diffusion 1.x, 2.x and XL can be loaded.")
    return FAMILIES[family]


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars and no advice while a model loads; the caller reports progress."""
    libraries = (transformers.logging, diffusers.utils.logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, had_bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if had_bars:
                library.enable_progress_bar()


def load_pipeline(model: str | Path, device: str = "auto") -> Pipeline:
    """Load a pipeline, ready for this project: float32, DDIM, no safety checker, no bars.

    Args:
        model: `mini` (the embedded model), a diffusers folder, a Hub id such as `owner/name`, or one `.safetensors`
            file that holds a whole model in the layout of the original code.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ModelFolderError: The folder is missing, lacks a part, or a part cannot be read; the message names it.
    """
    source = Path(resolve_model_folder(str(model)))
    if source.suffix == SINGLE_FILE_SUFFIX and source.is_file():
        return _prepare_pipeline_(_load_single_file(source), resolve_device(device))
    folder = source if source.is_dir() else fetch_model_folder(str(model))
    check_model_folder(folder)
    family = pipeline_class(folder)
    with _as_model_error(str(model)), quiet_loading():
        pipeline = family.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=weights_variant(folder),
            **LEFT_OUT[family.__name__],
        )
    return _prepare_pipeline_(pipeline, resolve_device(device))


def fetch_model_folder(model: str) -> Path:
    """The folder of a Hub id's files, fetched once by diffusers; pickled weights are left where they are.

    Raises:
        ModelFolderError: It is no Hub id, or fetching failed.
    """
    if not HUB_ID.fullmatch(model):
        raise ModelFolderError(
            f"There is no model folder {model}. Give a diffusers folder, a {SINGLE_FILE_SUFFIX} file, a Hub id or "
            f"'mini'."
        )
    try:
        with quiet_loading():
            return Path(DiffusionPipeline.download(model, use_safetensors=True))
    except (OSError, ValueError) as error:
        raise ModelFolderError(
            f"The model {model} is no folder, and fetching it failed ({str(error).splitlines()[0][:200]}). "
            f"Give a diffusers folder, or check the id and the network."
        ) from error


def with_parts(pipeline: Pipeline, **parts: Any) -> Pipeline:
    """A pipeline of the same family that shares all parts with this one but those given, such as `unet`."""
    if is_xl(pipeline):
        options = {
            "force_zeros_for_empty_prompt": pipeline.config.force_zeros_for_empty_prompt,
            "add_watermarker": False,
        }
    else:
        options = {"requires_safety_checker": False}
    rebuilt = type(pipeline)(**{**pipeline.components, **parts}, **options)
    rebuilt.set_progress_bar_config(disable=True)
    return rebuilt


def unpack_single_file(file: Path) -> Path:
    """A single file's model as a folder in the cache of the Hub's library, for whatever needs one; unpacked once.

    Raises:
        ModelFolderError: The file cannot be loaded.
    """
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    folder = Path(HF_HOME) / "hfi" / digest[:32]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as unfinished:
            with quiet_loading():
                load_pipeline(file, "cpu").save_pretrained(Path(unfinished) / "model")
            try:
                os.rename(Path(unfinished) / "model", folder)
            except OSError:  # unless another process unpacked it at the same time
                if not folder.is_dir():
                    raise
    return folder


@contextmanager
def _as_model_error(model: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # diffusers, transformers and safetensors share no base class
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ModelFolderError(f"The model {model} cannot be loaded: {reason}") from error


def _load_single_file(file: Path) -> Pipeline:
    """Load a single file with the configuration folder beside it; without one, diffusers fetches what it infers."""
    config = file.with_suffix(CONFIG_SUFFIX)
    try:
        with safe_open(str(file), framework="pt") as tensors:
            family = "StableDiffusionXLPipeline" if XL_KEY in tensors.keys() else "StableDiffusionPipeline"  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFolderError(f"{file} is no whole safetensors file ({error}): copy it again.") from error
    if not config.is_dir():
        config = None
    left_out = {name: value for name, value in LEFT_OUT[family].items() if name != "requires_safety_checker"}
    with _as_model_error(str(file)), quiet_loading():
        return FAMILIES[family].from_single_file(
            str(file),
            config=str(config) if config else None,
            local_files_only=config is not None,
            torch_dtype=torch.float32,
            **left_out,
        )


def _prepare_pipeline_(pipeline: Pipeline, device: torch.device) -> Pipeline:
    pipeline.set_progress_bar_config(disable=True)
    if not isinstance(pipeline.scheduler, DDIMScheduler):
        # other schedulers of this family keep no clip_sample in their configuration; DDIM's default would clip latents
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.requires_grad_(False).eval().float()  # transformers keeps the files' precision, diffusers does not
    pipeline.to(device)
    pipeline.unet.to(memory_format=torch.channels_last)  # 1.3 x faster on the CPUs we measured
    return pipeline
