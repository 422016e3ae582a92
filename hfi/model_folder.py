"""A model folder on disk: is it complete and safe to open, and what is its hash? Never imports torch."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from hfi.errors import ModelFolderError

WEIGHT_SUFFIX = ".safetensors"
# Formats that torch unpickles: opening such a file may run any code that its author put in.
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
DTYPES = frozenset({"F16", "BF16", "F32", "F64", "I64"})  # I64: the numbered positions of some text encoders
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
PARTS_OF_FAMILY = {
    "StableDiffusionPipeline": _PARTS,
    "StableDiffusionXLPipeline": (*_PARTS, "text_encoder_2", "tokenizer_2"),
}
PARTS_WITHOUT_WEIGHTS = frozenset({"tokenizer", "tokenizer_2", "scheduler"})


def check_model_folder(folder: Path) -> None:
    """Check that a diffusers folder is complete, of a family we know, and has weights in safetensors.

    Raises:
        ModelFolderError: names the first part that is missing, pickled or not whole, and what to do about it.
    """
    for part in model_parts(folder):
        _check_model_part(folder, part)


def model_parts(folder: Path) -> tuple[str, ...]:
    """The parts that a model folder of its family must have.

    Raises:
        ModelFolderError: it is no model folder, or of a family that we cannot load.
    """
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        raise ModelFolderError(f"{folder} is not a model folder: model_index.json is missing. Give a diffusers folder.")
    try:
        family = json.loads(index_path.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ModelFolderError(f"{index_path} is not a JSON object: copy the model folder again.") from error
    if family not in PARTS_OF_FAMILY:
        raise ModelFolderError(f"{folder} is a {family}: only Stable Diffusion 1.x, 2.x and XL folders are supported.")
    return PARTS_OF_FAMILY[family]


def _check_model_part(folder: Path, part: str) -> None:
    remedy = "Copy the complete model folder again."
    if not (folder / part).is_dir():
        raise ModelFolderError(f"{folder} lacks the part {part}/. {remedy}")
    if not any((folder / part).glob("*.json")):
        raise ModelFolderError(f"{folder / part} lacks its JSON configuration. {remedy}")
    if part in PARTS_WITHOUT_WEIGHTS:
        return
    weights = _weight_files(folder / part)
    if not weights:
        _refuse_pickles(folder, part)
        raise ModelFolderError(f"{folder / part} lacks its weights ({WEIGHT_SUFFIX}). {remedy}")
    for path in weights:
        check_weights_file(path)


def _refuse_pickles(folder: Path, part: str) -> None:
    pickles = sorted(path.name for path in (folder / part).iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ModelFolderError(
            f"{folder / part} has its weights only as a pickle ({pickles[0]}), which may run any code when it is "
            f"opened, so it is refused. Fetch the model's {WEIGHT_SUFFIX} files or, if you trust its author, convert "
            f"it: python -c \"from diffusers import DiffusionPipeline as P; P.from_pretrained('{folder}', "
            f"use_safetensors=False).save_pretrained('{folder.name}-safe')\""
        )


def check_weights_file(path: Path) -> None:
    """Check by its header alone that a safetensors file is whole and holds numbers of the kinds that models have.

    Raises:
        ModelFolderError: it is not, or does not.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as tensors:
            names = list(tensors.keys())
            odd = [name for name in names if tensors.get_slice(name).get_dtype() not in DTYPES]
    except (SafetensorError, OSError) as error:
        raise ModelFolderError(f"{path} is no whole {WEIGHT_SUFFIX} file ({error}). Copy it again.") from error
    if odd:
        raise ModelFolderError(
            f"{path}: tensor {odd[0]!r} is not of a kind that models are made of ({', '.join(sorted(DTYPES))}). "
            "Fetch the model in half, bfloat16 or single precision."
        )
    if not names:
        raise ModelFolderError(f"{path} holds no tensors. Copy it again.")


def _weight_files(part_folder: Path) -> list[Path]:
    return sorted(path for path in part_folder.iterdir() if path.suffix == WEIGHT_SUFFIX)


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
    files = (path for part in model_parts(root) for path in (root / part).iterdir() if path.is_file())
    paths = [root / "model_index.json", *files]
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
