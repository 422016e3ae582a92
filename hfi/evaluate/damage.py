"""What a change did to pictures that should have stayed: distances to the original at the same seed, and as a set.

    symbol  variable            meaning
    x, y    first, second       embeddings of two sets of pictures, one row each
    k       kernel              (x.y / dim + 1)^3
    KID     kernel_distance     unbiased squared MMD under k
    FID     frechet_distance    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^1/2)

A distance between sets can fall while a model gets worse (erased models often have a *lower* FID than the original),
so sets never stand alone: CLIP score, layout and LPIPS compare pictures of one prompt and one seed.

Sources: KID arXiv 1801.01401; FID arXiv 1706.08500; CLIP score arXiv 2104.08718; LPIPS arXiv 1801.03924. The layout
distance is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hfi.clip import Clip
from hfi.errors import ConfigError, InvalidInputError, ModelFolderError

LAYOUT_SIZE_PX = 16
CLIP_SCORE_SCALE = 100.0


# ---------------------------------------- pictures of the same seed


def layout_distances(first: Sequence[Image.Image], second: Sequence[Image.Image]) -> Float[np.ndarray, " images"]:
    """How differently two pictures are laid out: 1 - correlation of where their edges are, from 0 (same) to 2.

    Edges: length of the gradient of the luminance, averaged to 16 x 16. What is drawn may change while the layout
    stays; a picture without any edge has correlation 0 with every other.
    """
    if len(first) != len(second) or not first:
        raise InvalidInputError(
            f"Layouts are compared in pairs, but there are {len(first)} and {len(second)} pictures."
        )
    x, y = (np.stack([_edge_map(image) for image in images]) for images in (first, second))
    x, y = (maps - maps.mean(axis=1, keepdims=True) for maps in (x, y))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    correlation = np.where(lengths > 1e-9, (x * y).sum(axis=1) / np.maximum(lengths, 1e-9), 0.0)
    is_same = np.abs(x - y).max(axis=1) < 1e-9
    return np.where(is_same, 0.0, 1 - correlation)


def _edge_map(image: Image.Image) -> Float[np.ndarray, " cells"]:
    side = 4 * LAYOUT_SIZE_PX
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), dtype=np.float64) / 255
    down, right = np.gradient(grey)
    edges = np.hypot(down, right)
    return edges.reshape(LAYOUT_SIZE_PX, 4, LAYOUT_SIZE_PX, 4).mean(axis=(1, 3)).ravel()


@torch.no_grad()
def embed_texts(clip: Clip, token_ids: Tensor) -> Float[np.ndarray, "texts dim"]:
    """CLIP text embeddings of length 1 for token ids padded to the model's length.

    Raises:
        ModelFolderError: this CLIP has no text side.
    """
    if not hasattr(clip.model, "text_model"):
        raise ModelFolderError("This CLIP has only its image side: give a CLIP with both for the CLIP score.")
    pooled = clip.model.text_model(token_ids.to(clip.device)).pooler_output
    return torch.nn.functional.normalize(clip.model.text_projection(pooled), dim=-1).cpu().numpy()


def clip_scores(
    images: Float[np.ndarray, "images dim"], texts: Float[np.ndarray, "images dim"]
) -> Float[np.ndarray, " images"]:
    """100 max(cos(picture, its prompt), 0) for embeddings of length 1. Source: arXiv 2104.08718."""
    return CLIP_SCORE_SCALE * np.maximum((images * texts).sum(axis=1), 0)


def lpips_distances(
    first: Sequence[Image.Image], second: Sequence[Image.Image], backbone: Path
) -> Float[np.ndarray, " pairs"]:
    """LPIPS (AlexNet) of pairs of pictures, through torchmetrics, with the network's weights from a local file.

    Raises:
        ConfigError: torchvision is not installed, or the file does not hold AlexNet's weights.
    """
    network = _load_lpips(backbone)
    with torch.no_grad():
        values = [network(_to_pixels([a]), _to_pixels([b])).item() for a, b in zip(first, second, strict=True)]
    return np.array(values)


def _load_lpips(backbone: Path) -> torch.nn.Module:
    if find_spec("torchvision") is None:
        raise ConfigError("LPIPS needs the package torchvision, which is not installed: install it, or leave it out.")
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(net="alex", pnet_rand=True)  # its linear layers are inside the package, its backbone is not
    try:
        weights = torch.load(backbone, map_location="cpu", weights_only=True)
        convolutions = {k.removeprefix("features."): v for k, v in weights.items() if k.startswith("features.")}
        for slice_name, slice_module in network.net.named_children():
            names = [name for name, _ in slice_module.named_parameters()]
            getattr(network.net, slice_name).load_state_dict({name: convolutions[name] for name in names})
    except Exception as error:  # pickles, missing keys and wrong shapes share no base class
        raise ConfigError(f"{backbone} does not hold torchvision's AlexNet weights: {error}.") from error
    return network.eval()


# ---------------------------------------- sets of pictures


def kernel_distance(first: Float[np.ndarray, "n dim"], second: Float[np.ndarray, "m dim"]) -> float:
    """KID: unbiased squared MMD with the kernel (x.y / dim + 1)^3; near 0, also below it, for equal distributions.

    Raises:
        InvalidInputError: fewer than two pictures in a set.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    n, m = len(x), len(y)
    if n < 2 or m < 2:
        raise InvalidInputError(f"A kernel distance needs two pictures in each set, but there are {n} and {m}.")
    within = [(_kernel(z, z).sum() - np.trace(_kernel(z, z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(sum(within) - 2 * _kernel(x, y).mean())


def kernel_distance_over_subsets(
    first: Float[np.ndarray, "n dim"],
    second: Float[np.ndarray, "m dim"],
    subset_size: int = 100,
    num_subsets: int = 100,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and standard deviation of `kernel_distance` over random subsets, as it is published."""
    generator = np.random.default_rng(seed)
    size = min(subset_size, len(first), len(second))
    values = [
        kernel_distance(*(z[generator.choice(len(z), size, replace=False)] for z in (first, second)))
        for _ in range(num_subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def frechet_distance(first: Float[np.ndarray, "n dim"], second: Float[np.ndarray, "m dim"]) -> float:
    """FID's formula on any embeddings. tr (C_x C_y)^1/2 is the sum of the roots of the product's eigenvalues.

    Raises:
        InvalidInputError: fewer than two pictures in a set.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    if len(x) < 2 or len(y) < 2:
        raise InvalidInputError(f"A Fréchet distance needs two pictures in each set: {len(x)} and {len(y)} are given.")
    covariances = [np.atleast_2d(np.cov(z, rowvar=False)) for z in (x, y)]
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(np.complex128)).real.sum()
    mean_term = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    return float(mean_term + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * roots)


def inception_distance(first: Sequence[Image.Image], second: Sequence[Image.Image], weights: Path) -> float:
    """FID on Inception features, through torchmetrics, with the network's weights from a local file.

    Raises:
        ConfigError: torch-fidelity is not installed, or the file cannot be used.
    """
    if find_spec("torch_fidelity") is None:
        raise ConfigError("FID needs the package torch-fidelity, which is not installed: install it, or leave it out.")
    from torchmetrics.image.fid import FrechetInceptionDistance

    try:
        metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights), normalize=True)
    except Exception as error:  # pickles, missing keys and wrong shapes share no base class
        raise ConfigError(f"{weights} does not hold torch-fidelity's Inception weights: {error}.") from error
    for images, is_real in ((first, True), (second, False)):
        for image in images:
            metric.update(_to_pixels([image]) / 2 + 0.5, real=is_real)
    return float(metric.compute())


def _to_pixels(images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
    """Pixels in -1..1."""
    arrays = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---------------------------------------- neighbours


def near_to_far(
    concepts: Float[np.ndarray, "concepts dim"], neighbours: Float[np.ndarray, "neighbours dim"]
) -> tuple[list[int], Float[np.ndarray, " neighbours"]]:
    """Neighbours by their distance to the nearest concept: 1 - cosine of text embeddings of length 1.

    Returns:
        Their places from near to far, and the distance of each in the order given.
    """
    distances = 1 - (neighbours @ concepts.T).max(axis=1)
    return np.argsort(distances, kind="stable").tolist(), distances
