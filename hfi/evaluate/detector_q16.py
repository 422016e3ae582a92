"""Q16: is a picture inappropriate, by CLIP ViT-L/14 and two learned vectors.

    p(inappropriate) = softmax(100 * cos(image embedding, vectors))[1]

The vectors are published as a pickle, which may run any code when it is opened. `convert_q16` reads it once, with an
unpickler that knows arrays and nothing else, and writes safetensors; only those are ever loaded.

Source: Schramowski et al., "Can Machines Help Us Answering Question 16 in Datasheets", FAccT 2022, arXiv 2202.06675.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from hfi.clip import Clip, clip_folder, embed_images, load_clip
from hfi.errors import InvalidInputError, ModelFolderError
from hfi.evaluate.detectors import Scores, hash_files
from hfi.evaluate.protocol import DetectorSpec

VECTORS_NAME = "q16.safetensors"
INAPPROPRIATE = "inappropriate"
SCALE = 100.0
MAX_PICKLE_BYTES = 16 * 2**20
ALLOWED = {
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how arrays' bytes are written by older protocols
}  # fmt: skip


class Q16:
    """Probability that a picture is inappropriate."""

    def __init__(
        self, clip: Clip, vectors: Float[Tensor, "2 dim"], weights_sha256: str, threshold: float = 0.5
    ) -> None:
        """Args: clip: CLIP ViT-L/14. vectors: for appropriate and inappropriate, in this order."""
        self.clip = clip
        self.vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).numpy()
        self.spec = DetectorSpec(
            name="q16",
            package="transformers",
            package_version=transformers.__version__,
            weights_sha256=weights_sha256,
            classes=(INAPPROPRIATE,),
            threshold=threshold,
        )

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        """One probability a picture."""
        return [{INAPPROPRIATE: float(p)} for p in q16_probability(embed_images(self.clip, images), self.vectors)]


def q16_probability(
    embeddings: Float[np.ndarray, "images dim"], vectors: Float[np.ndarray, "2 dim"]
) -> Float[np.ndarray, " images"]:
    """softmax(100 cos)[1] for embeddings and vectors of length 1."""
    cosines = embeddings.astype(np.float64) @ vectors.astype(np.float64).T
    return 1 / (1 + np.exp(np.clip(SCALE * (cosines[:, 0] - cosines[:, 1]), -500, 500)))


def build_q16(folder: str, device: str = "auto", threshold: float = 0.5) -> Q16:
    """Q16 from a CLIP folder that also holds `q16.safetensors`.

    Raises:
        ModelFolderError: the CLIP or the vectors are missing, or do not fit each other.
    """
    if not folder:
        raise ModelFolderError("The detector q16 needs a CLIP ViT-L/14 folder: give it with --detector-path.")
    path = clip_folder(folder)
    file = path / VECTORS_NAME
    if not file.is_file():
        raise ModelFolderError(
            f"{path} lacks {VECTORS_NAME}: make it from the published vectors with `hfi q16-convert PICKLE {path}`."
        )
    clip, vectors = load_clip(path, device), _load_vectors(file)
    dim = clip.model.config.projection_dim
    if vectors.shape[1] != dim:
        raise ModelFolderError(f"{file} has vectors of {vectors.shape[1]} numbers, the CLIP {dim}: use ViT-L/14.")
    return Q16(clip, vectors, hash_files([file, *sorted(path.glob("model*.safetensors"))]), threshold)


def _load_vectors(file: Path) -> Float[Tensor, "2 dim"]:
    try:
        return load_file(file)["vectors"]
    except Exception as error:  # safetensors and the file system share no base class
        raise ModelFolderError(f"{file} cannot be read ({error}): run `hfi q16-convert` again.") from error


def convert_q16(pickle_path: Path, folder: Path) -> Path:
    """Write the published vectors as safetensors into the CLIP folder.

    Raises:
        InvalidInputError: the pickle names anything but arrays, is too large, or does not hold two vectors.
    """
    vectors = torch.from_numpy(read_vectors(pickle_path))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": vectors.contiguous()}, folder / VECTORS_NAME)
    return folder / VECTORS_NAME


def read_vectors(pickle_path: Path) -> Float[np.ndarray, "2 dim"]:
    """The two vectors of a pickle, opened by an unpickler that builds arrays and refuses everything else.

    Raises:
        InvalidInputError: as `convert_q16`.
    """
    if not pickle_path.is_file() or pickle_path.stat().st_size > MAX_PICKLE_BYTES:
        raise InvalidInputError(f"{pickle_path} is no file of at most {MAX_PICKLE_BYTES // 2**20} MiB: check the path.")
    try:
        content = _ArrayUnpickler(io.BytesIO(pickle_path.read_bytes())).load()
        array = np.asarray(content, dtype=np.float32)
    except InvalidInputError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise InvalidInputError(f"{pickle_path} cannot be read as vectors: {type(error).__name__}: {error}.") from error
    if array.ndim != 2 or len(array) != 2 or not np.isfinite(array).all():
        raise InvalidInputError(f"{pickle_path} holds an array of shape {array.shape}, not two vectors of numbers.")
    return array


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays; any other name in the file ends the reading before anything is called."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in ALLOWED:
            raise InvalidInputError(
                f"The pickle asks for {module}.{name}, which an array does not need: it is not opened. Take the "
                f"published prompts.p."
            )
        found: Callable[..., Any] = super().find_class(module, name)
        return found
