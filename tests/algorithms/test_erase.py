"""Erasing changes the chosen weights of a copy and nothing else; interrupted runs end where uninterrupted ones do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from hfi.config import EraseConfig
from hfi.erase import EraseResult, anchors, bank, erase_sdd, export_folder, sdd, target_pairs, training
from hfi.errors import ConflictError, InvalidInputError, ModelFolderError, TrainingDivergedError
from hfi.inversion import ConceptToken
from hfi.pipelines import encode_prompts, load_pipeline, predict_noise
from tests import tiny

CONFIG = EraseConfig(num_train_steps=3, batch_size=2, learning_rate=1e-3, checkpoint_every_n_steps=2)
TARGETS = ["a bomb", "an axe", "a <concept>"]
RETAINED = ["a cat", "a dog"]
TOKEN = ConceptToken("<concept>", torch.full((1, tiny.TEXT_WIDTH), 0.02))


@pytest.fixture(autouse=True)
def small_banks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches a bank, used twice: a few steps then cross the border between two banks."""
    monkeypatch.setattr(sdd, "BANK_BATCHES", 2)
    monkeypatch.setattr(bank, "ROLLOUT_STEPS", 2)


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def erase(pipeline: StableDiffusionPipeline, config: EraseConfig = CONFIG, **options: Any) -> EraseResult:
    inputs: dict[str, Any] = {
        "latents": latents(3),
        "tokens": [TOKEN],
        "retain_prompts": RETAINED,
        "retain_latents": latents(2, seed=1),
    }
    return erase_sdd(pipeline, TARGETS, config, **(inputs | options))


def weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}


@pytest.mark.parametrize("trainable", ["cross_attention", "cross_attention_kv", "full"])
def test_only_the_chosen_weights_change_and_all_of_them(pipeline: StableDiffusionPipeline, trainable: str) -> None:
    before = weights(pipeline.unet)
    result = erase(pipeline, CONFIG.model_copy(update={"trainable": trainable}))
    after, original = weights(result.unet), weights(pipeline.unet)
    parts = training.TRAINABLE_NAMES[trainable]
    chosen = {name for name in before if any(part in name for part in parts)}
    assert chosen and {name for name in before if not torch.equal(before[name], after[name])} == chosen
    assert all(torch.equal(before[name], original[name]) for name in before)
    assert all(parameter.grad is None for parameter in pipeline.unet.parameters())
    assert not any(parameter.requires_grad for parameter in (*result.unet.parameters(), *pipeline.unet.parameters()))
    assert result.num_trainable == sum(before[name].numel() for name in chosen)
    assert len(result.losses) == len(result.erase_losses) == len(result.retain_losses) == 3


@pytest.mark.parametrize("num_steps", [0, 1])
def test_erase_runs_exactly_the_steps_asked_for(pipeline: StableDiffusionPipeline, num_steps: int) -> None:
    steps: list[tuple[int, int]] = []
    config = CONFIG.model_copy(update={"num_train_steps": num_steps})
    result = erase(pipeline, config, on_step=lambda *step: steps.append(step))
    assert steps == [(done, num_steps) for done in range(1, num_steps + 1)]
    is_same = all(map(torch.equal, weights(pipeline.unet).values(), weights(result.unet).values()))
    assert is_same == (num_steps == 0)


@pytest.mark.parametrize("points", ["noised", "rollout"])
def test_resumed_ends_where_uninterrupted_does(pipeline: StableDiffusionPipeline, tmp_path: Path, points: str) -> None:
    config = CONFIG.model_copy(update={"num_train_steps": 7, "latents": points})
    expected = erase(pipeline, config, checkpoint_dir=tmp_path / "whole")

    def interrupt(num_steps_done: int, _total: int) -> None:
        if num_steps_done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erase(pipeline, config, checkpoint_dir=tmp_path / "parts", on_step=interrupt)
    resumed = erase(pipeline, config, checkpoint_dir=tmp_path / "parts")
    assert resumed.first_step == 4
    assert resumed.losses == expected.losses
    assert all(map(torch.equal, weights(resumed.unet).values(), weights(expected.unet).values()))
    again = erase(pipeline, config, checkpoint_dir=tmp_path / "parts")
    assert again.first_step == 7 and again.losses == expected.losses
    other = erase(pipeline, config.model_copy(update={"seed": 1}), checkpoint_dir=tmp_path / "parts")
    assert other.first_step == 0


@pytest.mark.parametrize(
    "options",
    [
        {"timesteps": "beta"},
        {"negative_guidance": 0.0},
        {"retain_weight": 0.0},
        {"latents": "rollout", "timesteps": "beta"},
        {"anchor": "rest"},
    ],
)
def test_every_choice_runs(pipeline: StableDiffusionPipeline, options: dict[str, Any]) -> None:
    result = erase(pipeline, CONFIG.model_copy(update=options))
    assert torch.tensor(result.losses).isfinite().all()
    assert (sum(result.retain_losses) == 0) == (options.get("retain_weight") == 0)


@pytest.mark.parametrize("given", [{}, {"retain_prompts": RETAINED}, {"latents": latents(3)}])
def test_rollouts_stand_in_for_pictures_that_are_not_given(
    pipeline: StableDiffusionPipeline, given: dict[str, Any]
) -> None:
    config = CONFIG.model_copy(update={"latents": "noised" if "latents" in given else "rollout", "num_train_steps": 1})
    result = erase_sdd(pipeline, ["a bomb"] * 3, config, **given)
    assert result.losses[0] > 0


def test_erasing_brings_the_concept_to_its_target_and_keeps_the_rest(pipeline: StableDiffusionPipeline) -> None:
    with torch.no_grad():  # random cross-attention hardly looks at the prompt
        for name, parameter in pipeline.unet.named_parameters():
            if "attn2.to_out" in name or "attn2.to_v" in name:
                parameter.mul_(6)
    config = CONFIG.model_copy(
        update={"num_train_steps": 60, "batch_size": 8, "learning_rate": 3e-3, "negative_guidance": 0}
    )
    result = erase(pipeline, config)
    noisy, timesteps = latents(8, seed=5), torch.full((8,), 600)
    target, null, kept = encode_prompts(pipeline, ["a bomb", "", "a cat"])

    def distance(unet: UNet2DConditionModel, prompt: torch.Tensor, goal: torch.Tensor) -> float:
        with torch.no_grad():
            student = predict_noise(pipeline, noisy, timesteps, prompt.expand(8, -1, -1), unet=unet)
            reference = predict_noise(pipeline, noisy, timesteps, goal.expand(8, -1, -1))
        return float((student - reference).square().mean())

    before = distance(pipeline.unet, target, null)
    assert distance(result.unet, target, null) < 0.7 * before
    assert distance(result.unet, kept, kept) < before


def test_divergence_stops_before_the_step(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    pipeline.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match=r"nan at step 0 \(seed 0\)"):
        erase(pipeline, checkpoint_dir=tmp_path)
    assert not (tmp_path / training.CHECKPOINT_NAME).exists()


def test_take_step_with_a_loss_that_is_not_finite_changes_nothing(pipeline: StableDiffusionPipeline) -> None:
    state = training.start_training(pipeline.unet, CONFIG)
    before = [parameter.detach().clone() for parameter in state.params]
    loss = sum(parameter.sum() for parameter in state.params) * float("nan")
    training.take_step_(state, loss, (loss, loss), CONFIG)
    assert all(map(torch.equal, before, state.params))
    assert all(map(torch.equal, before, state.average))


def test_sdd_target_moves_away_from_the_concept() -> None:
    anchor, concept = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    assert torch.equal(sdd.sdd_target(anchor, concept, 0.0), anchor)
    assert torch.equal(sdd.sdd_target(anchor, concept, 1.0), -concept)


def test_concept_words_are_those_that_only_flagged_prompts_say() -> None:
    flagged = ["a red bomb", "a blue bomb", "a red axe", "an axe and a cat"]
    unflagged = ["a red cat", "a blue dog", "a red dog", "a cat and a dog"]
    words = anchors.concept_words(flagged, unflagged)
    assert words == {"bomb", "axe"}
    assert anchors.without_concept("an Axe and a cat", words) == "an and a cat"
    assert anchors.without_concept("a <concept>, red bomb", words, ["<concept>"]) == "a , red"
    assert anchors.concept_words([], unflagged) == set()


def test_update_average_hand_worked() -> None:
    average = [torch.tensor([1.0, 2.0])]
    training.update_average_(average, [torch.tensor([3.0, 2.0])], 0.75)
    assert average[0].tolist() == [1.5, 2.0]
    assert training.average_decay(0.99, 0) == pytest.approx(0.1)
    assert training.average_decay(0.99, 10_000) == 0.99


@pytest.mark.parametrize(("how", "variance"), [("uniform", 1 / 12), ("beta", 1 / 28)])
def test_draw_positions_has_the_moments_of_its_law(how: str, variance: float) -> None:
    positions = bank.draw_positions(20_000, how, torch.Generator().manual_seed(0))
    assert positions.min() >= 0 and positions.max() < 1
    assert positions.mean().item() == pytest.approx(0.5, abs=0.01)
    assert positions.var().item() == pytest.approx(variance, rel=0.05)


def test_bank_rows_use_every_point_equally_often() -> None:
    rows = torch.cat(list(bank.bank_rows(6, 4, 6, torch.Generator().manual_seed(0))))
    assert torch.bincount(rows).tolist() == [4] * 6


def test_rollout_points_start_at_pure_noise_and_name_the_next_timestep(pipeline: StableDiffusionPipeline) -> None:
    embeds = encode_prompts(pipeline, ["a bomb", "a cat"])
    generator = torch.Generator().manual_seed(0)
    points = bank.rollout_points(
        pipeline, pipeline.unet, embeds, encode_prompts(pipeline, [""]), 20, "uniform", 3.0, generator
    )
    assert len(points) == 20 and points.latents.shape == (20, 4, 8, 8)
    assert set(points.timesteps.tolist()) == {1, 501}  # two steps of DDIM with offset 1
    start = points.latents[points.timesteps == 501]
    assert start.std().item() == pytest.approx(1, abs=0.1)


def test_target_pairs_for_tokens_prompts_and_both() -> None:
    prompts: Sequence[str | None] = ["a bomb", None, "an axe"]
    assert target_pairs("prompts", prompts) == ([0, 2], ["a bomb", "an axe"])
    assert target_pairs("tokens", prompts, [TOKEN], [0, 0, -1]) == ([0, 1], ["a <concept>"] * 2)
    assert target_pairs("both", prompts, [TOKEN], [0, -1, -1])[0] == [0, 0, 2]
    with pytest.raises(InvalidInputError, match="no tokens"):
        target_pairs("tokens", prompts)


def test_erase_refuses_bad_input(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(InvalidInputError, match="Nothing to erase"):
        erase_sdd(pipeline, [], CONFIG, latents=None)
    with pytest.raises(InvalidInputError, match="2 target pictures and 3 target prompts"):
        erase(pipeline, latents=latents(2))
    with pytest.raises(InvalidInputError, match="noised"):
        erase(pipeline, latents=None)
    with pytest.raises(InvalidInputError, match="anchors"):
        erase(pipeline, anchors=["a cat"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_export_folder_loads_as_the_model_that_was_trained(
    pipeline: StableDiffusionPipeline, tmp_path: Path, dtype: str
) -> None:
    result = erase(pipeline)
    folder = export_folder(pipeline, result.unet, tmp_path / "erased", dtype)
    loaded = load_pipeline(folder, device="cpu")
    same = [torch.equal(a, b) for a, b in zip(loaded.unet.parameters(), result.unet.parameters(), strict=True)]
    assert all(same) == (dtype == "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["erased"]
    assert str(tmp_path) not in (folder / "unet" / "config.json").read_text()
    assert json.loads((folder / "model_index.json").read_text())["safety_checker"] == [None, None]
    with pytest.raises(ConflictError):
        export_folder(pipeline, result.unet, folder)


def test_export_folder_keeps_nothing_of_a_model_that_is_not_the_one_trained(
    pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    result = erase(pipeline, CONFIG.model_copy(update={"num_train_steps": 0}))
    result.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ModelFolderError, match="nothing was kept"):
        export_folder(pipeline, result.unet, tmp_path / "erased")
    assert list(tmp_path.iterdir()) == []
