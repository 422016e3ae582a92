"""Measures of damage against torchmetrics, scipy and examples worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import linalg
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from hfi.clip import Clip, embed_images
from hfi.errors import ConfigError, InvalidInputError
from hfi.evaluate.damage import (
    clip_scores,
    embed_texts,
    frechet_distance,
    inception_distance,
    kernel_distance,
    kernel_distance_over_subsets,
    layout_distances,
    lpips_distances,
    near_to_far,
)
from tests.tiny import IMAGE_SIZE_PX, build_clip, build_tokenizer

GENERATOR = np.random.default_rng(7)
FIRST = GENERATOR.normal(size=(60, 8)).astype(np.float32)
SECOND = (GENERATOR.normal(size=(60, 8)) * 1.3 + 0.4).astype(np.float32)


class Features(torch.nn.Module):
    """Rows of numbers are their own features."""

    num_features = 8

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


def test_kernel_distance_equals_torchmetrics() -> None:
    theirs = poly_mmd(torch.from_numpy(FIRST).double(), torch.from_numpy(SECOND).double()).item()
    assert kernel_distance(FIRST, SECOND) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_kernel_distance_over_subsets_agrees_with_torchmetrics() -> None:
    metric = KernelInceptionDistance(feature=Features(), subsets=200, subset_size=30)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        metric.update(torch.from_numpy(FIRST), real=True)
        metric.update(torch.from_numpy(SECOND), real=False)
        mean, sd = (value.item() for value in metric.compute())
    ours = kernel_distance_over_subsets(FIRST, SECOND, subset_size=30, num_subsets=200)
    assert ours[0] == pytest.approx(mean, abs=4 * sd / 200**0.5)
    assert ours[1] == pytest.approx(sd, rel=0.2)


def test_kernel_distance_of_one_distribution_is_around_zero_and_may_be_below() -> None:
    values = [kernel_distance(*GENERATOR.normal(size=(2, 40, 4))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
    assert min(values) < 0
    with pytest.raises(InvalidInputError, match="two pictures"):
        kernel_distance(FIRST[:1], SECOND)


def test_frechet_distance_equals_torchmetrics_and_the_matrix_root() -> None:
    metric = FrechetInceptionDistance(feature=Features(), normalize=True, input_img_size=(3, 8, 8))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(FIRST).double(), real=True)
    metric.update(torch.from_numpy(SECOND).double(), real=False)
    ours = frechet_distance(FIRST, SECOND)
    assert ours == pytest.approx(metric.compute().item(), rel=1e-5)
    x, y = np.cov(FIRST, rowvar=False), np.cov(SECOND, rowvar=False)
    root = linalg.sqrtm(x @ y).real
    means = ((FIRST.mean(axis=0) - SECOND.mean(axis=0)) ** 2).sum()
    assert ours == pytest.approx(means + np.trace(x + y - 2 * root), rel=1e-5)
    assert frechet_distance(FIRST, FIRST) == pytest.approx(0, abs=1e-4)


def disc(x: int, y: int, fill: str, ground: str = "white") -> Image.Image:
    picture = Image.new("RGB", (64, 64), ground)
    ImageDraw.Draw(picture).ellipse((x - 12, y - 12, x + 12, y + 12), fill=fill)
    return picture


def test_layout_distance_sees_where_things_are_and_not_their_colour() -> None:
    same, recoloured, moved = layout_distances(
        [disc(20, 20, "red")] * 3, [disc(20, 20, "red"), disc(20, 20, "black", "yellow"), disc(44, 44, "red")]
    )
    assert same == 0
    assert recoloured < 0.05
    assert moved > 0.9
    blank = Image.new("RGB", (64, 64), "white")
    assert layout_distances([blank, blank], [blank, disc(20, 20, "red")]).tolist() == [0, 1]
    with pytest.raises(InvalidInputError, match="in pairs"):
        layout_distances([blank], [])


def test_clip_scores_equal_a_hand_worked_cosine_and_are_never_negative() -> None:
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
    texts = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert clip_scores(rows, texts) == pytest.approx([100, 60, 0])


def test_embed_texts_equals_the_clip_of_transformers() -> None:
    model, tokenizer = build_clip(), build_tokenizer()
    clip = Clip(model, IMAGE_SIZE_PX, (0.5,) * 3, (0.5,) * 3)
    ids = tokenizer(["a cat", "a red apple on white"], padding="max_length", return_tensors="pt").input_ids
    picture = disc(20, 20, "red").resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        theirs = model(input_ids=ids, pixel_values=pixels).logits_per_image / model.logit_scale.exp()
    ours = embed_images(clip, [picture]) @ embed_texts(clip, ids).T
    assert ours == pytest.approx(theirs.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("measure", "package"), [(lpips_distances, "torchvision"), (inception_distance, "torch-fidelity")]
)
def test_measures_that_need_a_package_say_which(measure: object, package: str, tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    try:
        __import__(package.replace("-", "_"))
    except ImportError:
        with pytest.raises(ConfigError, match=f"needs the package {package}"):
            measure([disc(20, 20, "red")], [disc(20, 20, "red")], tmp_path / "weights")  # type: ignore[operator]
    else:
        pytest.skip(f"{package} is installed")


def test_near_to_far_orders_by_the_nearest_concept() -> None:
    concepts = np.array([[1.0, 0.0], [0.0, 1.0]])
    neighbours = np.array([[-1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    order, distances = near_to_far(concepts, neighbours)
    assert order == [1, 2, 0]
    assert distances == pytest.approx([1.0, 0.0, 0.2])
