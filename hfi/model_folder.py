"""A model folder on disk: is it complete, and what is its hash? Never imports torch."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from hfi.errors import ModelFolderError

WEIGHT_SUFFIXES = (".safetensors", ".bin")
PARTS_WITH_WEIGHTS = ("unet", "vae", "text_encoder")
PARTS = (*PARTS_WITH_WEIGHTS, "tokenizer", "scheduler")


def check_model_folder(folder: Path) -> None:
    """Raise ModelFolderError naming the first part of a diffusers folder that is missing, or a family not supported."""
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        raise ModelFolderError(f"{folder} is not a model folder: model_index.json is missing. Give a diffusers folder.")
    try:
        family = json.loads(index_path.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ModelFolderError(f"{index_path} is not a JSON object: copy the model folder again.") from error
    if family != "StableDiffusionPipeline":
        raise ModelFolderError(f"{folder} is a {family}: only Stable Diffusion 1.x / 2.x folders are supported.")
    for part in PARTS:
        _check_model_part(folder, part)


def _check_model_part(folder: Path, part: str) -> None:
    remedy = "Copy the complete model folder again."
    if not (folder / part).is_dir():
        raise ModelFolderError(f"{folder} lacks the part {part}/. {remedy}")
    if not any((folder / part).glob("*.json")):
        raise ModelFolderError(f"{folder / part} lacks its JSON configuration. {remedy}")
    if part in PARTS_WITH_WEIGHTS and not _weight_files(folder / part):
        raise ModelFolderError(f"{folder / part} lacks its weights ({' or '.join(WEIGHT_SUFFIXES)}). {remedy}")


def _weight_files(part_folder: Path) -> list[Path]:
    return sorted(path for path in part_folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)


def weights_variant(folder: Path) -> str | None:
    """`fp16` for a folder that holds nothing but half-precision files, as some downloads do."""
    names = [path.name for path in _weight_files(folder / "unet")]
    return "fp16" if names and all(".fp16." in name for name in names) else None


def model_sha256(folder: str | Path) -> str:
    """One hash over the weights and configurations of a pipeline folder: names and contents, in sorted order.

    Folders that are not part of the pipeline (such as `eye/` beside it) do not count. Files are read once for each
    (path, modification time, size).
    """
    root = Path(folder)
    check_model_folder(root)
    paths = [root / "model_index.json", *(path for part in PARTS for path in (root / part).iterdir() if path.is_file())]
    digest = hashlib.sha256()
    for path in sorted(paths):
        stat = path.stat()
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(_file_sha256(str(path.resolve()), stat.st_mtime_ns, stat.st_size).encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _file_sha256(path: str, mtime_ns: int, size_bytes: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
