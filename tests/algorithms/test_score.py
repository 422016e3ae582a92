"""The score model on planted data, its formulas on hand-worked numbers, its files on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hfi import score
from hfi.config import ScoreConfig
from hfi.errors import InvalidInputError, ModelFolderError, OneSidedLabelsError
from hfi.evaluate.metrics import auroc
from hfi.score import bradley_terry_loss, embed_images, fit_platt, load_clip, load_score_model, train_score_model
from tests import tiny

CONFIG = ScoreConfig(num_members=2, hidden_dim=16, learning_rate=5e-3, max_epochs=60, patience_epochs=15)


def planted(
    num_images: int = 300, dim: int = 16, flip: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Embeddings whose first coordinate decides, true labels, labels with flips, and prompts of four images each."""
    rng = np.random.default_rng(0)
    truth = rng.random(num_images) < 0.4
    x = rng.normal(size=(num_images, dim))
    x[:, 0] += 8 * truth
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    noisy = truth ^ (rng.random(num_images) < flip)
    return x.astype(np.float32), truth, noisy.astype(float), [f"prompt {i // 4}" for i in range(num_images)]


def test_train_score_model_finds_a_planted_concept_through_label_noise() -> None:
    x, truth, labels, groups = planted()
    model, report = train_score_model(x, labels, groups, CONFIG)
    mean, std = model.score(x)
    assert auroc(truth, mean) > 0.95
    assert report.auroc_low < report.auroc < report.auroc_high
    assert report.num_held_out + report.num_train == len(x)
    assert mean.min() >= 0 and mean.max() <= 1 and std.min() >= 0
    # a calibrated score is right on average, and doubts as the labels do: 0.1 of them are wrong
    assert abs(mean.mean() - labels.mean()) < 0.08
    assert 0.7 < mean[truth].mean() < 0.95
    assert 0.05 < mean[~truth].mean() < 0.25


def compared(truth: np.ndarray, num_pairs: int, flip: float, seed: int = 0) -> list[tuple[int, int]]:
    """(chosen, rejected) rows of pictures that differ in the concept, `flip` of them the wrong way round."""
    rng = np.random.default_rng(seed)
    shown, others = np.flatnonzero(truth), np.flatnonzero(~truth)
    pairs = [(int(rng.choice(shown)), int(rng.choice(others))) for _ in range(num_pairs)]
    return [pair[::-1] if rng.random() < flip else pair for pair in pairs]


def test_comparisons_alone_teach_the_order_and_labels_only_calibrate() -> None:
    x, truth, _, groups = planted()
    # labels of chance: were they learned from, nothing would be found
    chance = np.random.default_rng(1).permutation(truth.astype(float))
    model, report = train_score_model(x, chance, groups, CONFIG, preferences=compared(truth, 900, 0.1))
    with torch.no_grad():
        raw = score.member_scores(model.weights, torch.from_numpy(x).expand(2, -1, -1)).mean(0).numpy()
    assert auroc(truth, raw) > 0.95
    model, report = train_score_model(x, truth.astype(float), groups, CONFIG, preferences=compared(truth, 900, 0.1))
    assert report.auroc is not None and report.auroc > 0.95
    # a tenth of the comparisons is wrong, and nobody can foresee which
    assert report.pair_accuracy is not None and 0.75 < report.pair_accuracy.estimate < 0.97
    assert report.pair_accuracy.n < 900 * 0.2
    mean, _ = model.score(x)
    assert mean[truth].mean() > 0.7 and mean[~truth].mean() < 0.3


def test_comparisons_across_the_split_are_neither_learned_nor_measured() -> None:
    x, truth, _, groups = planted()
    _, plain = train_score_model(x, truth.astype(float), groups, CONFIG)
    held_out = set(plain.held_out_rows)
    pairs = compared(truth, 300, 0.0)
    mixed = [pair for pair in pairs if len(held_out & set(pair)) == 1]
    inside = [pair for pair in pairs if not held_out & set(pair)]
    assert mixed and inside
    with_mixed, report = train_score_model(x, truth.astype(float), groups, CONFIG, preferences=inside + mixed)
    without, _ = train_score_model(x, truth.astype(float), groups, CONFIG, preferences=inside)
    assert np.array_equal(with_mixed.score(x)[0], without.score(x)[0])
    assert report.pair_accuracy is None
    with pytest.raises(InvalidInputError, match="judge more pairs"):
        train_score_model(x, truth.astype(float), groups, CONFIG, preferences=mixed)


def test_train_score_model_repeats_itself() -> None:
    x, _, labels, groups = planted(80)
    (first, _), (second, _) = (train_score_model(x, labels, groups, CONFIG) for _ in range(2))
    assert np.array_equal(first.score(x)[0], second.score(x)[0])
    other, _ = train_score_model(x, labels, groups, CONFIG.model_copy(update={"seed": 1}))
    assert not np.array_equal(first.score(x)[0], other.score(x)[0])


def test_split_by_group_never_shares_a_prompt() -> None:
    groups = [f"prompt {i % 7}" for i in range(50)]
    for seed in range(20):
        held_out = score.split_by_group(groups, 0.3, np.random.default_rng(seed))
        sides = [
            {group for group, is_out in zip(groups, held_out, strict=True) if is_out == side} for side in (True, False)
        ]
        assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_bradley_terry_loss_hand_worked_and_mirrored() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    assert bradley_terry_loss(chosen, rejected).tolist() == pytest.approx([np.log(1 + np.exp(-1)), np.log(2)], abs=1e-6)
    difference = bradley_terry_loss(rejected, chosen) - bradley_terry_loss(chosen, rejected)
    assert difference.tolist() == pytest.approx((chosen - rejected).tolist(), abs=1e-6)
    assert torch.equal(bradley_terry_loss(chosen + 5, rejected + 5), bradley_terry_loss(chosen, rejected))


def test_fit_platt_recovers_a_known_calibration() -> None:
    raw = np.random.default_rng(0).normal(size=5000)
    labels = 1 / (1 + np.exp(-(2.0 * raw - 0.5)))
    assert fit_platt(raw, labels) == pytest.approx((2.0, -0.5), abs=1e-3)
    assert np.isfinite(fit_platt(np.array([-1.0, 1.0]), np.array([0.0, 1.0]))).all()


def test_score_model_saved_and_loaded_is_the_same_and_damage_is_named(tmp_path: Path) -> None:
    x, _, labels, groups = planted(80)
    model, _ = train_score_model(x, labels, groups, CONFIG)
    model.save(tmp_path)
    assert np.array_equal(load_score_model(tmp_path).score(x), model.score(x))
    with pytest.raises(InvalidInputError, match="8 numbers"):
        model.score(x[:, :8])
    weights = load_file(tmp_path / score.WEIGHTS_NAME)
    weights["b2"][0] = float("nan")
    save_file(weights, tmp_path / score.WEIGHTS_NAME)
    with pytest.raises(ModelFolderError, match="not finite"):
        load_score_model(tmp_path)
    save_file({name: tensor for name, tensor in weights.items() if name != "w2"}, tmp_path / score.WEIGHTS_NAME)
    with pytest.raises(ModelFolderError, match="tensors"):
        load_score_model(tmp_path)
    (tmp_path / score.WEIGHTS_NAME).write_bytes(b"x")
    with pytest.raises(ModelFolderError, match="no readable"):
        load_score_model(tmp_path)


def test_train_score_model_refuses_bad_input() -> None:
    x, _, labels, groups = planted(40)
    with pytest.raises(OneSidedLabelsError, match="every picture shows"):
        train_score_model(x, np.ones(40), groups, CONFIG)
    with pytest.raises(InvalidInputError, match=r"outside 0\.\.1"):
        train_score_model(x, labels * 2, groups, CONFIG)
    with pytest.raises(InvalidInputError, match="same prompt"):
        train_score_model(x, labels, ["one"] * 40, CONFIG)
    with pytest.raises(InvalidInputError, match="39 labels"):
        train_score_model(x, labels[:39], groups, CONFIG)
    x[3, 0] = np.nan
    with pytest.raises(InvalidInputError, match="image 3"):
        train_score_model(x, labels, groups, CONFIG)


def test_embed_images_equals_clip_and_has_length_one(model_folder: Path) -> None:
    clip = load_clip(model_folder, device="cpu")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(5)]
    embeddings = embed_images(clip, images, batch_size=2)
    assert embeddings.shape == (5, tiny.TEXT_WIDTH) and embeddings.dtype == np.float32
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(clip.mean).view(3, 1, 1)) / torch.tensor(clip.std).view(3, 1, 1)
    expected = clip.model.get_image_features(pixels).pooler_output.detach().numpy()
    assert np.allclose(embeddings, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    assert embed_images(clip, [Image.new("RGB", (50, 90))]).shape == (1, tiny.TEXT_WIDTH)


def test_load_clip_names_what_is_wrong(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"config\.json is missing"):
        load_clip(tmp_path)
    with pytest.raises(ModelFolderError, match="not a CLIP"):
        load_clip(model_folder / "vae")
