"""Erasing changes the chosen weights of a copy and nothing else; interrupted runs end where uninterrupted ones do."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from hfi.erase import Concept, EraseResult, bank, export_folder, sdd, target_pairs, training
from hfi.erase import erase as erase_concept
from hfi.erase.concept import anchor_prompts, check_concept, split_texts
from hfi.errors import ConflictError, InvalidInputError, ModelFolderError, TrainingDivergedError, UnknownTokenError
from hfi.inversion import ConceptToken
from hfi.pipelines import encode_prompts, load_pipeline, predict_noise
from tests import tiny
from tests.algorithms.erasing import CONFIG, TEXT_ONLY, TOKEN, changed, erase, is_same, latents, weights

SETS = ("cross_attention", "cross_attention_kv", "self_attention", "non_cross_attention", "full")


@pytest.fixture(autouse=True)
def short_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "ROLLOUT_STEPS", 2)


def changed_names(before: dict[str, torch.Tensor], result: EraseResult) -> set[str]:
    after = weights(result.unet)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("trainable", SETS)
def test_only_the_chosen_weights_change_and_all_of_them(pipeline: StableDiffusionPipeline, trainable: str) -> None:
    before = weights(pipeline.unet)
    result = erase(pipeline, changed(trainable=trainable))
    chosen = {name for name in before if training.is_trainable(name, trainable)}
    assert chosen and changed_names(before, result) == chosen
    assert is_same(before, weights(pipeline.unet))
    assert all(parameter.grad is None for unet in (pipeline.unet, result.unet) for parameter in unet.parameters())
    assert not any(parameter.requires_grad for parameter in (*result.unet.parameters(), *pipeline.unet.parameters()))
    assert result.num_trainable == sum(before[name].numel() for name in chosen)
    assert len(result.losses) == len(result.erase_losses) == len(result.retain_losses) == 3
    assert result.seconds > 0 and result.peak_memory_mib > 0


@pytest.mark.parametrize("method", ["sdd", "robust"])
def test_bfloat16_is_the_arithmetic_of_every_prediction_and_of_no_weight(
    pipeline: StableDiffusionPipeline, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(method=method, precision="bfloat16")
    kinds: list[tuple[torch.dtype, torch.dtype]] = []
    convolve = UNet2DConditionModel.forward

    def look(unet: UNet2DConditionModel, *inputs: Any, **options: Any) -> Any:
        out = convolve(unet, *inputs, **options)
        kinds.append((inputs[0].dtype, out[0].dtype))
        return out

    monkeypatch.setattr(UNet2DConditionModel, "forward", look)
    result = erase(pipeline, config)
    assert set(kinds) == {(torch.float32, torch.bfloat16)}
    assert {weight.dtype for weight in weights(result.unet).values()} == {torch.float32}
    exact = erase(pipeline, changed(method=method))
    assert kinds[-1][1] == torch.float32, "the setting ends with the erasure"
    assert result.losses != exact.losses
    assert result.losses[0] == pytest.approx(exact.losses[0], rel=0.05)


def test_runs_from_before_there_was_a_precision_are_known_by_the_same_settings() -> None:
    assert "precision" not in CONFIG.model_dump(mode="json")
    settings = changed(precision="bfloat16").model_dump(mode="json")
    assert training.changed_settings(changed(precision="bfloat16")).endswith("precision=bfloat16")
    assert settings["precision"] == "bfloat16" and type(CONFIG).model_validate(settings).precision == "bfloat16"


@pytest.mark.parametrize("method", ["sdd", "esd", "abo"])
def test_the_retain_term_has_a_batch_size_of_its_own(pipeline: StableDiffusionPipeline, method: str) -> None:
    shapes = []

    def look(state: training.TrainingState) -> None:
        shapes.append([tuple(state.bank[f"{name}_rows"].shape) for name in ("erase", "retain")])

    settings = changed(method=method, num_train_steps=2, batch_size=1, bank_batches=2, bank_passes=2)
    assert "retain_batch_size" not in settings.model_dump(mode="json"), "known by the same settings as before"
    with training.watching_training(look):
        result = erase(pipeline, settings.model_copy(update={"retain_batch_size": 3}))
        erase(pipeline, settings)
    assert shapes == [[(4, 1), (4, 3)]] * 2 + [[(4, 1), (4, 1)]] * 2
    assert all(0 <= loss < float("inf") for loss in (*result.erase_losses, *result.retain_losses))
    assert result.retain_losses[1] > 0, "after a step the student is no longer the original"


def test_the_sets_of_weights_are_what_their_names_say() -> None:
    names = ["a.attn1.to_q.weight", "a.attn2.to_q.weight", "a.attn2.to_k.weight", "conv_in.weight"]
    chosen = {which: [training.is_trainable(name, which) for name in names] for which in SETS}
    assert chosen["cross_attention"] == [False, True, True, False]
    assert chosen["cross_attention_kv"] == [False, False, True, False]
    assert chosen["self_attention"] == [True, False, False, False]
    assert chosen["non_cross_attention"] == [True, False, False, True]
    assert chosen["full"] == [True] * 4
    with pytest.raises(InvalidInputError, match="no set of weights 'attention'"):
        training.is_trainable("a", "attention")


def test_student_shares_the_frozen_weights_and_teacher_gets_no_gradient(pipeline: StableDiffusionPipeline) -> None:
    state = training.start_training(pipeline.unet, CONFIG, has_teacher=True)
    original = dict(pipeline.unet.named_parameters())
    for name, parameter in state.student.named_parameters():
        is_shared = parameter.data_ptr() == original[name].data_ptr()
        assert is_shared != training.is_trainable(name, "cross_attention")
    assert state.teacher is not None
    noise = predict_noise(
        pipeline, latents(1), torch.tensor([500]), encode_prompts(pipeline, ["a bomb"]), unet=state.student
    )
    training.take_step_(state, noise.square().mean(), (noise.sum(), noise.sum()), CONFIG)
    assert all(parameter.grad is not None for parameter in state.params)
    assert not any(p.requires_grad or p.grad is not None for p in (*state.teacher.parameters(), *original.values()))
    own = [p for n, p in state.teacher.named_parameters() if training.is_trainable(n, "cross_attention")]
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(own, state.average, strict=True))


def test_result_shares_nothing_with_the_pipeline(pipeline: StableDiffusionPipeline) -> None:
    before = weights(pipeline.unet)
    result = erase(pipeline, changed(num_train_steps=1))
    with torch.no_grad():
        for parameter in result.unet.parameters():
            parameter.zero_()
    assert is_same(before, weights(pipeline.unet))


@pytest.mark.parametrize("method", ["sdd", "esd", "abo"])
@pytest.mark.parametrize("num_steps", [0, 1])
def test_erase_runs_exactly_the_steps_asked_for(pipeline: StableDiffusionPipeline, num_steps: int, method: str) -> None:
    steps: list[tuple[int, int]] = []
    config = changed(num_train_steps=num_steps, method=method)
    result = erase(pipeline, config, on_step=lambda done, total, _: steps.append((done, total)))
    assert steps == [(done, num_steps) for done in range(1, num_steps + 1)]
    assert is_same(weights(pipeline.unet), weights(result.unet)) == (num_steps == 0)


@pytest.mark.parametrize(
    "updates",
    [
        {"latents": "noised"},
        {"latents": "rollout"},
        {"sdd_target": "teacher"},
        {"method": "esd", "latents": "rollout"},
        {"method": "abo"},
        {"method": "robust", "robust_rounds": 2, "robust_invert_steps": 2},
    ],
    ids=str,
)
def test_resumed_ends_where_uninterrupted_does(
    pipeline: StableDiffusionPipeline, tmp_path: Path, updates: dict[str, Any]
) -> None:
    config = changed(num_train_steps=7, **updates)
    expected = erase(pipeline, config, checkpoint_dir=tmp_path / "whole")

    def interrupt(num_steps_done: int, total: int, losses: Mapping[str, float]) -> None:
        if num_steps_done == total - 2:  # of the last round, if there are rounds
            raise KeyboardInterrupt
        if num_steps_done == 1:
            time.sleep(0.5)

    with pytest.raises(KeyboardInterrupt):
        erase(pipeline, config, checkpoint_dir=tmp_path / "parts", on_step=interrupt)
    started = time.monotonic()
    resumed = erase(pipeline, config, checkpoint_dir=tmp_path / "parts")
    seconds_of_call = time.monotonic() - started
    rounds = 1 if config.method == "robust" else 0
    assert resumed.first_step == 4 + 7 * rounds
    assert resumed.losses == expected.losses
    assert is_same(weights(resumed.unet), weights(expected.unet))
    assert resumed.seconds > seconds_of_call  # what was spent before the interruption counts too
    again = erase(pipeline, config, checkpoint_dir=tmp_path / "parts")
    assert again.first_step == 7 + 7 * rounds and again.losses == expected.losses
    other = erase(pipeline, changed(config, seed=1), checkpoint_dir=tmp_path / "parts")
    assert other.first_step == 0


@pytest.mark.parametrize("content", [b"", b"half of a checkpoint"])
def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from(
    pipeline: StableDiffusionPipeline, tmp_path: Path, content: bytes
) -> None:
    expected = erase(pipeline)
    (tmp_path / training.CHECKPOINT_NAME).write_bytes(content)
    (tmp_path / f"{training.CHECKPOINT_NAME}.unfinished").write_bytes(content)
    result = erase(pipeline, checkpoint_dir=tmp_path)
    assert result.first_step == 0 and result.losses == expected.losses


def test_erasing_brings_the_concept_to_its_target_and_keeps_the_rest(pipeline: StableDiffusionPipeline) -> None:
    with torch.no_grad():  # random cross-attention hardly looks at the prompt
        for name, parameter in pipeline.unet.named_parameters():
            if "attn2.to_out" in name or "attn2.to_v" in name:
                parameter.mul_(6)
    result = erase(
        pipeline, changed(num_train_steps=60, batch_size=8, learning_rate=3e-3, negative_guidance=0, bank_passes=4)
    )
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
    with pytest.raises(TrainingDivergedError, match=r"nan at step 0 \(seed 0\) with method=sdd, .*learning_rate=0.001"):
        erase(pipeline, checkpoint_dir=tmp_path)
    assert not (tmp_path / training.CHECKPOINT_NAME).exists()


def test_an_exploding_loss_stops_before_damage(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    config = changed(learning_rate=1e3, num_train_steps=20, trainable="full", max_gradient_norm=1e9)
    with pytest.raises(TrainingDivergedError, match="Lower --learning-rate"):
        erase(pipeline, config, checkpoint_dir=tmp_path)
    assert not (tmp_path / training.CHECKPOINT_NAME).exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 100.0])
def test_take_step_with_a_loss_that_is_not_finite_or_exploded_changes_nothing(
    pipeline: StableDiffusionPipeline, bad: float
) -> None:
    state = training.start_training(pipeline.unet, CONFIG, has_teacher=True)
    state.losses.append(torch.tensor([0.5, 0.5, 0.0]))  # so the limit is 20 x 0.5
    before = [parameter.detach().clone() for parameter in state.params]
    loss = sum(parameter.sum() for parameter in state.params) * 0.0 + bad
    training.take_step_(state, loss, (loss, loss), CONFIG)
    assert all(map(torch.equal, before, state.params))
    assert all(map(torch.equal, before, state.average))
    with pytest.raises(TrainingDivergedError, match="at step 1"):
        training.check_losses(state, CONFIG)


def test_loss_limit_follows_the_first_step_and_is_never_below_that_of_predicting_nothing() -> None:
    first = torch.tensor([0.5, 0.4, 0.1])
    assert float(training.loss_limit([first, 9 * first], CONFIG)) == pytest.approx(10)
    assert float(training.loss_limit([0 * first], CONFIG)) == 2  # 1 x (1 + retain weight)


def test_sdd_target_moves_away_from_the_concept() -> None:
    anchor, concept = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    assert torch.equal(sdd.sdd_target(anchor, concept, 0.0), anchor)
    assert torch.equal(sdd.sdd_target(anchor, concept, 1.0), -concept)


def test_anchor_prompts_are_as_given_or_as_configured() -> None:
    concept = Concept(["a bomb", "a red bomb"], retain_prompts=["a cat", "a red dog"])
    assert anchor_prompts(concept, CONFIG) == ["", ""]
    assert anchor_prompts(concept, changed(anchor="rest")) == ["a", "a red"]
    assert anchor_prompts(concept, changed(anchor="concept", anchor_concept="a cat")) == ["a cat"] * 2
    assert anchor_prompts(concept, changed(anchor="swap")) == ["a cat", "a red dog"]
    assert anchor_prompts(Concept(["a bomb"]), changed(anchor="swap")) == [""], "no other word is known"
    assert anchor_prompts(Concept(["a bomb"], anchors=["a dog"]), CONFIG) == ["a dog"]


@pytest.mark.parametrize("anchor", ["rest", "swap"])
def test_a_concept_without_words_of_its_own_is_mapped_to_nothing(anchor: str) -> None:
    """Mapped to itself it would stay as it is, and nobody would be told."""
    concept = Concept(["a sea", "a red sea"], retain_prompts=["a sea", "a red sea", "a cat"])
    assert anchor_prompts(concept, changed(anchor=anchor)) == ["", ""]


def test_a_token_is_mapped_to_what_its_pictures_prompt_becomes() -> None:
    token = ConceptToken("<gun>", torch.zeros(1, tiny.TEXT_WIDTH))
    made_with = ["a red gun", "a blue gun", ""]
    kept = ["a red dog", "a blue dog", "a cat"]
    concept = Concept(["a <gun>"] * 3, tokens=[token], picture_prompts=made_with, retain_prompts=kept)
    assert anchor_prompts(concept, changed(anchor="swap")) == ["a red dog", "a blue dog", ""]
    assert anchor_prompts(concept, changed(anchor="swap", latents="rollout")) == [""] * 3, "nothing of it is sampled"
    alone = Concept(["a <gun>"], tokens=[token], retain_prompts=kept)
    assert anchor_prompts(alone, changed(anchor="swap")) == [""]
    with pytest.raises(InvalidInputError, match="1 picture_prompts for 3 targets"):
        check_concept(dataclasses.replace(concept, picture_prompts=["a gun"]), CONFIG, has_pictures=True)


def test_a_token_that_was_learned_in_prompts_is_erased_in_them() -> None:
    token = ConceptToken("<drawn>", torch.zeros(1, tiny.TEXT_WIDTH))
    made_with, captions = ["a drawn dog", "a drawn cat", "a cat"], ["a {} dog", "a {} cat", ""]
    rows, prompts = target_pairs("both", made_with, [token], [0, 0, 0], captions=captions)
    assert (rows, prompts[:3]) == ([0, 1, 2] * 2, ["a <drawn> dog", "a <drawn> cat", "a <drawn>"])
    assert prompts[3:] == made_with
    kept = ["a flat dog", "a flat cat", "a dog"]
    concept = Concept(prompts[:3], tokens=[token], picture_prompts=made_with, captions=captions, retain_prompts=kept)
    assert anchor_prompts(concept, changed(anchor="rest")) == ["a dog", "a cat", "a"]
    assert anchor_prompts(concept, changed(anchor="swap")) == ["a flat dog", "a flat cat", "a cat"]
    rollout = changed(anchor="swap", latents="rollout")
    assert anchor_prompts(concept, rollout) == ["a flat dog", "a flat cat", ""], "sampled is what the captions say"
    with pytest.raises(InvalidInputError, match="1 captions for 3 targets"):
        check_concept(dataclasses.replace(concept, captions=["a {}"]), CONFIG, has_pictures=True)


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


def test_target_pairs_for_tokens_prompts_both_and_text() -> None:
    prompts: Sequence[str | None] = ["a bomb", None, "an axe"]
    assert target_pairs("prompts", prompts) == ([0, 2], ["a bomb", "an axe"])
    assert target_pairs("tokens", prompts, [TOKEN], [0, 0, -1]) == ([0, 1], ["a <concept>"] * 2)
    assert target_pairs("both", prompts, [TOKEN], [0, -1, -1])[0] == [0, 0, 2]
    texts = split_texts("weapon; ;blood ")
    assert target_pairs("text", prompts, texts=texts)[1] == ["weapon"] * 3 + ["blood"] * 3
    with pytest.raises(InvalidInputError, match="no tokens"):
        target_pairs("tokens", prompts)


def test_erase_refuses_bad_input(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(InvalidInputError, match="Nothing to erase"):
        erase_concept(pipeline, "  ", CONFIG)
    with pytest.raises(InvalidInputError, match="2 target pictures and 3 target prompts"):
        erase(pipeline, latents=latents(2))
    with pytest.raises(InvalidInputError, match="noised"):
        erase(pipeline, latents=None)
    with pytest.raises(InvalidInputError, match="anchors"):
        erase(pipeline, anchors=["a cat"])
    broken = latents(3)
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(InvalidInputError, match="target picture 1 has values that are not numbers"):
        erase(pipeline, latents=broken)
    with pytest.raises(InvalidInputError, match="multiples of 4"):
        erase(pipeline, latents=None, images=[Image.new("RGB", (33, 32))] * 3)
    other = ConceptToken("<concept>", TOKEN.learned_embeds, card={"vocabulary_sha256": "0" * 64})
    with pytest.raises(UnknownTokenError, match="learned on another model"):
        erase(pipeline, tokens=[other])
    with pytest.raises(InvalidInputError, match="flagged pictures again"):
        erase_concept(pipeline, TEXT_ONLY, changed(method="robust", latents="rollout"))


def test_one_flagged_picture_and_nothing_to_retain_is_enough(pipeline: StableDiffusionPipeline) -> None:
    result = erase_concept(pipeline, Concept(["a bomb"], images=[Image.new("RGB", (32, 32))]), CONFIG)
    assert torch.tensor(result.losses).isfinite().all() and sum(result.retain_losses) > 0


@pytest.mark.parametrize("method", ["sdd", "esd", "abo", "closed_form"])
def test_words_and_tokens_by_themselves_are_concepts(pipeline: StableDiffusionPipeline, method: str) -> None:
    config = changed(method=method, latents="rollout", num_train_steps=1)
    for concept in ("a bomb", TOKEN):
        result = erase_concept(pipeline, concept, config)
        assert not is_same(weights(pipeline.unet), weights(result.unet))


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
    result = erase(pipeline, changed(num_train_steps=0))
    result.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ModelFolderError, match="nothing was kept"):
        export_folder(pipeline, result.unet, tmp_path / "erased")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_such_weights_is_refused(pipeline: StableDiffusionPipeline) -> None:
    unet = tiny.build_pipeline().unet
    for name in list(dict(unet.named_modules())):
        if name.endswith("attn1"):
            unet.get_submodule(name.rpartition(".")[0]).attn1 = None
    with pytest.raises(InvalidInputError, match="no self_attention weights"):
        training.start_training(unet, changed(trainable="self_attention"), has_teacher=False)
