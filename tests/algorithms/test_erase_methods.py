"""Each eraser: its formulas by hand, every choice it offers, its trajectory at a fixed seed, every family of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from diffusers import StableDiffusionPipeline

from hfi.config import EraseConfig, EraseMethod, InvertConfig
from hfi.erase import Concept, bank, closed_form, estimate, robust
from hfi.erase import erase as erase_concept
from hfi.erase.abo import abo_loss, abo_target, guidance_term
from hfi.erase.closed_form import edit_map, evoking_states, gram_matrix, paired_places, share_left
from hfi.erase.concept import Side, prepare_terms
from hfi.erase.esd import TRAINED_BY_VARIANT, esd_target
from hfi.erase.estimate import expected_seconds
from hfi.erase.training import is_trainable
from hfi.errors import InvalidInputError
from hfi.inversion import ConceptToken, encode_prompts_with_tokens, invert
from hfi.pipelines import Pipeline, embedding_width, encode_prompts, predict_noise
from hfi.recipes import published_erase
from tests import tiny
from tests.algorithms.erasing import CONCEPT, CONFIG, TEXT_ONLY, TOKEN, changed, erase, is_same, latents, weights

GOLDEN = Path(__file__).with_name("golden_erase.json")
# `python -m pytest tests/algorithms/test_erase_methods.py -k golden` compares; this script writes them anew:
# python -c "from tests.algorithms.test_erase_methods import write_golden; write_golden()"
TRAJECTORIES: dict[str, dict[str, Any]] = {
    "sdd": {},
    "sdd published": {"latents": "rollout", "timesteps": "beta", "sdd_target": "student", "sdd_prompts": "sample_one"},
    "esd": {"method": "esd"},
    "abo": {"method": "abo"},
    "closed_form": {"method": "closed_form"},
    "robust": {"method": "robust", "robust_rounds": 2, "robust_invert_steps": 2},
}


@pytest.fixture(autouse=True)
def short_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "ROLLOUT_STEPS", 2)


def constant(value: float) -> torch.Tensor:
    return torch.full((1, 4, 2, 2), float(value))


# ---------------------------------------- formulas


def test_esd_target_hand_worked() -> None:
    # 1 - 0.5 (3 - 1) = 0; kept concept 2: 2 - 0.5 (3 - 1) = 1
    assert torch.equal(esd_target(constant(1), constant(3), constant(1), 0.5), constant(0))
    assert torch.equal(esd_target(constant(2), constant(3), constant(1), 0.5), constant(1))


def test_esd_with_the_codes_guidance_of_2_is_the_papers_eta_of_1() -> None:
    concept, null = latents(1, seed=2), latents(1, seed=3)
    codes = concept - 2 * (concept - null)
    assert torch.allclose(esd_target(null, concept, null, 1.0), codes, atol=1e-6)


def test_abo_target_and_loss_hand_worked() -> None:
    concept, null, alternative = constant(3), constant(1), constant(1.5)
    assert torch.equal(guidance_term(concept, null), constant(2))
    assert torch.equal(abo_target(concept, null, None, 0.5), constant(-1))
    assert torch.equal(abo_target(concept, null, alternative, 0.5), constant(0.5))
    # (2 - -1)^2 + 0.5 (2 - 1)^2 = 9.5
    assert abo_loss(constant(2), constant(-1), constant(2), constant(1), 0.5).item() == pytest.approx(9.5)


def test_edit_map_hand_worked() -> None:
    old, states, values = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[2.0]])
    nothing = torch.zeros(1, 1)
    # (2 * 3 + 1 * 2) / (9 + 1) = 0.8; with K = 10: (6 + 2 + 20) / 20 = 1.4
    assert edit_map(old, states, values, nothing, 1.0).item() == pytest.approx(0.8)
    assert edit_map(old, states, values, nothing + 10, 1.0).item() == pytest.approx(1.4)


def test_edit_map_is_the_minimum_of_its_least_squares_problem() -> None:
    generator = torch.Generator().manual_seed(0)
    old, states, kept, values = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4, 5), (3, 5), (6, 5), (3, 4))
    )
    new = edit_map(old, states, values, gram_matrix(kept), 0.1).requires_grad_()
    loss = (states @ new.T - values).square().sum() + 0.1 * (new - old).square().sum()
    loss = loss + (kept @ new.T - kept @ old.T).square().sum()
    (gradient,) = torch.autograd.grad(loss, new)
    assert gradient.abs().max().item() < 1e-10


def test_evoking_states_hand_worked() -> None:
    # (0.8 * 2) / (0.64 + 0.36) * 3 = 4.8
    found = evoking_states([torch.tensor([[0.8]])], [torch.tensor([[2.0]])], torch.tensor([[3.0]]), 0.36)
    assert found.item() == pytest.approx(4.8)


def test_share_left_is_1_before_and_0_when_erased() -> None:
    states, old, values = torch.eye(2), torch.eye(2), torch.zeros(2, 2)
    assert share_left([old], [values], [old], states) == 1
    assert share_left([0 * old], [values], [old], states) == 0
    assert share_left([0.5 * old], [values], [old], states) == pytest.approx(0.25)


def test_paired_places_are_as_many_as_both_prompts_have() -> None:
    assert paired_places(range(1, 4), range(1, 4)) == [(1, 1), (2, 2), (3, 3)]
    assert paired_places(range(14, 16), range(1, 16)) == [(14, 1), (15, 2)]
    assert paired_places(range(3, 4), range(1, 2)) == [(3, 1)]


@pytest.mark.parametrize(("states", "places"), [("all", [2, 3]), ("tail", [2, 3]), ("last", [2])])
def test_closed_form_erases_the_states_that_no_kept_prompt_has(
    pipeline: StableDiffusionPipeline, states: str, places: list[int]
) -> None:
    """ "a <concept>" begins like "a cat"; what follows is its own: the token, the end, and the padding."""
    found = closed_form._collect_states(
        pipeline,
        Concept(["a <concept>"], tokens=[TOKEN], retain_prompts=["a cat"]),
        changed(method="closed_form", closed_form_states=states),
    )
    expected = encode_prompts_with_tokens(pipeline, ["a <concept>"], [TOKEN])[0].double()
    assert torch.allclose(found.erased[: len(places)], expected[places], atol=1e-6)
    assert len(found.erased) == (1 if states == "last" else tiny.MAX_TOKENS - 2)
    with pytest.raises(InvalidInputError, match="also a prompt that is kept"):
        erase_concept(pipeline, Concept(["a cat"], retain_prompts=["a cat"]), changed(method="closed_form"))


def test_a_side_trains_the_own_the_only_or_any_prompt() -> None:
    generator = torch.Generator().manual_seed(0)
    one, three, ids = torch.zeros(1, 2, 2), torch.zeros(3, 2, 2), torch.tensor([2, 0, 1, 2])
    assert Side(three, three, None).trained_ids(ids, generator).tolist() == [2, 0, 1, 2]
    assert Side(one, three, None).trained_ids(ids, generator).tolist() == [0] * 4
    drawn = Side(three, one, None).trained_ids(torch.zeros(60, dtype=torch.long), generator)
    assert set(drawn.tolist()) == {0, 1, 2}


def test_sdds_two_readings_join_the_prompts_of_one_side(pipeline: StableDiffusionPipeline) -> None:
    one, both = changed(sdd_prompts="sample_one"), changed(sdd_prompts="sample_joint")
    joint = encode_prompts(pipeline, ["a bomb, an axe"])
    own = encode_prompts(pipeline, ["a bomb", "an axe"])
    concept = Concept(["a bomb", "an axe"], latents=latents(2))
    first, second = prepare_terms(pipeline, concept, one).target, prepare_terms(pipeline, concept, both).target
    assert torch.equal(first.embeds, joint) and torch.allclose(first.sampling_embeds, own, atol=1e-6)
    assert torch.allclose(second.embeds, own, atol=1e-6) and torch.equal(second.sampling_embeds, joint)
    with pytest.raises(InvalidInputError, match="reads 16: erase fewer at once"):
        prepare_terms(pipeline, Concept([f"the {word} cat" for word in tiny.WORDS[6:14]], latents=latents(8)), one)


# ---------------------------------------- every choice


def choices(name: str) -> list[str]:
    return list(get_args(EraseConfig.model_fields[name].annotation))


CHOICES: list[dict[str, Any]] = [
    *({"timesteps": value} for value in choices("timesteps")),
    *({"latents": value} for value in choices("latents")),
    *({"sdd_target": value} for value in choices("sdd_target")),
    *({"sdd_target": "student", "negative_guidance": 0.0, "retain_weight": 0.0} for _ in range(1)),
    *({"sdd_prompts": value, "latents": "rollout"} for value in choices("sdd_prompts")),
    *({"method": "esd", "esd_variant": value} for value in choices("esd_variant")),
    {"method": "esd", "esd_erase_from": "a cat", "latents": "rollout"},
    {"method": "esd", "retain_weight": 0.0},
    {"method": "abo", "latents": "rollout", "retain_weight": 0.0},
    {"method": "abo", "anchor": "concept", "anchor_concept": "a cat"},
    *({"method": "closed_form", "closed_form_states": value} for value in choices("closed_form_states")),
    {"method": "closed_form", "closed_form_rounds": 0},
    *(
        {"method": "robust", "robust_method": value, "robust_rounds": 2, "robust_invert_steps": 1}
        for value in choices("robust_method")
    ),
    {"anchor": "rest"},
    {"anchor": "rest", "sdd_prompts": "sample_one", "latents": "rollout"},
    {"anchor": "swap"},
    {"anchor": "swap", "method": "closed_form"},
    {"anchor": "concept", "anchor_concept": "a cat"},
    {"negative_guidance": 0.0},
]


@pytest.mark.parametrize("updates", CHOICES, ids=str)
def test_every_choice_runs_and_changes_only_its_weights(
    pipeline: StableDiffusionPipeline, updates: dict[str, Any]
) -> None:
    config = changed(num_train_steps=2, **updates)
    before = weights(pipeline.unet)
    result = erase(pipeline, config)
    assert torch.tensor(result.losses).isfinite().all() and result.losses
    if config.method != "closed_form" and config.robust_method != "closed_form":
        assert (sum(result.retain_losses) == 0) == (config.retain_weight == 0)
    which = config.trainable
    if config.method == "esd":
        which = TRAINED_BY_VARIANT[config.esd_variant]
    elif "closed_form" in (config.method, config.robust_method):
        which = "cross_attention_kv"
    after = weights(result.unet)
    assert {n for n in before if not torch.equal(before[n], after[n])} == {n for n in before if is_trainable(n, which)}
    assert is_same(before, weights(pipeline.unet))


@pytest.mark.parametrize("method", get_args(EraseMethod))
def test_published_constants_run_without_what_is_ours(pipeline: StableDiffusionPipeline, method: str) -> None:
    config = published_erase(method)
    assert config.method == method and (config.latents == "rollout" or method == "closed_form")
    short = config.model_copy(update={"num_train_steps": 1, "robust_rounds": 2, "robust_invert_steps": 1})
    result = erase(pipeline, short)
    assert torch.tensor(result.losses).isfinite().all() and sum(result.retain_losses) == 0


def test_every_method_is_tested_above() -> None:
    assert {updates.get("method", "sdd") for updates in CHOICES} == set(get_args(EraseMethod))


@pytest.mark.parametrize(
    ("updates", "sentence"),
    [
        ({"esd_variant": "u"}, "esd_variant belongs to method esd, but the method is sdd"),
        ({"targets": "text"}, "text must be given if, and only if, targets is 'text'"),
        ({"anchor_concept": "a cat"}, "anchor_concept must be given if, and only if, anchor is 'concept'"),
        ({"trainable": "attention"}, "trainable"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(updates: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        changed(**updates)
    assert changed(method="robust", robust_method="esd", esd_variant="u").esd_variant == "u"


# ---------------------------------------- what each method is for


def louder(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """Random cross-attention hardly looks at the prompt; this one does."""
    with torch.no_grad():
        for name, parameter in pipeline.unet.named_parameters():
            if "attn2.to_out" in name or "attn2.to_v" in name:
                parameter.mul_(6)
    return pipeline


def prediction(pipeline: Pipeline, unet: Any, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        embeds = encode_prompts(pipeline, [prompt]).expand(4, -1, -1)
        return predict_noise(pipeline, latents(4, seed=7), torch.full((4,), 500), embeds, unet=unet)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).square().mean())


@pytest.mark.parametrize("updates", [{"closed_form_states": "all"}, {"closed_form_states": "tail"}], ids=str)
def test_closed_form_maps_the_concept_to_its_anchor_and_keeps_the_rest(
    pipeline: StableDiffusionPipeline, updates: dict[str, Any]
) -> None:
    louder(pipeline)
    concept = Concept(["a bomb"], retain_prompts=["a cat", "a dog", "a red cat"])
    null, kept = (prediction(pipeline, pipeline.unet, prompt) for prompt in ("", "a cat"))
    before = distance(prediction(pipeline, pipeline.unet, "a bomb"), null)
    damage = {}
    for weight in (0.0, 1.0, 10.0):
        config = changed(
            method="closed_form", closed_form_rounds=1, closed_form_regularization=1e-3, retain_weight=weight, **updates
        )
        result = erase_concept(pipeline, concept, config)
        damage[weight] = distance(prediction(pipeline, result.unet, "a cat"), kept)
        if weight <= 1:
            assert distance(prediction(pipeline, result.unet, "a bomb"), null) < 0.5 * before
            assert result.losses[0] == 1 and result.losses[1] < 0.5
    assert damage[10.0] < damage[1.0] < damage[0.0]


def test_abo_holds_the_unconditional_prediction_better_the_larger_its_weight(pipeline: StableDiffusionPipeline) -> None:
    louder(pipeline)
    null = prediction(pipeline, pipeline.unet, "")
    drifts = []
    for null_weight in (0.0, 10.0):
        config = changed(
            method="abo", num_train_steps=25, learning_rate=3e-3, retain_weight=0.0, abo_null_weight=null_weight
        )
        drifts.append(distance(prediction(pipeline, erase(pipeline, config).unet, ""), null))
    assert drifts[1] < 0.5 * drifts[0]


def test_robust_finds_a_token_between_rounds_and_erases_it_too(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], int]] = []
    eraser = robust.ERASERS["sdd"]

    def noting(pipeline: Pipeline, concept: Concept, config: EraseConfig, *args: Any, **options: Any) -> Any:
        seen.append((list(concept.prompts), config.seed))
        return eraser(pipeline, concept, config, *args, **options)

    monkeypatch.setitem(robust.ERASERS, "sdd", noting)
    steps: list[tuple[int, int]] = []
    config = changed(method="robust", robust_rounds=3, robust_invert_steps=2, num_train_steps=2)
    result = erase(pipeline, config, on_step=lambda done, total, _: steps.append((done, total)))
    assert [token.placeholder for token in result.tokens] == ["<again-1>", "<again-2>"]
    assert seen[0] == (list(CONCEPT.prompts), 0)
    assert seen[1] == ([*CONCEPT.prompts, *["a <again-1>"] * 3], 1)
    assert {"a <again-1>", "a <again-2>"} <= set(seen[2][0]) and len(seen[2][0]) == 6
    assert len(result.losses) == 6 and steps == [(done, 10) for done in range(1, 11)]


def test_robust_looks_for_what_is_left_in_the_captions_that_tokens_were_learned_in(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Concept] = []
    eraser = robust.ERASERS["sdd"]

    def noting(pipeline: Pipeline, concept: Concept, *args: Any, **options: Any) -> Any:
        seen.append(concept)
        return eraser(pipeline, concept, *args, **options)

    monkeypatch.setitem(robust.ERASERS, "sdd", noting)
    config = changed(method="robust", robust_rounds=2, robust_invert_steps=1, num_train_steps=1)
    captions = ["a {} cat", "", "a {} dog"]
    result = erase(pipeline, config, captions=captions)
    assert list(seen[1].prompts[3:]) == ["a <again-1> cat", "a <again-1>", "a <again-1> dog"]
    assert list(seen[1].captions or []) == captions * 2
    assert result.tokens[0].card["templates"] == "prompts"


def test_robust_inverts_on_the_erased_model_and_not_on_the_original(pipeline: StableDiffusionPipeline) -> None:
    config = changed(method="robust", robust_rounds=2, robust_invert_steps=3, trainable="full", num_train_steps=3)
    (found,) = erase(pipeline, config).tokens
    (on_original,) = erase(pipeline, changed(config, num_train_steps=0)).tokens
    assert not torch.equal(found.learned_embeds, on_original.learned_embeds)


# ---------------------------------------- families


@pytest.mark.parametrize("method", get_args(EraseMethod))
def test_velocity_models_are_erased_through_their_noise(method: str) -> None:
    """A model that is said to predict velocities gets other targets than one that predicts noise, all finite."""
    config = changed(method=method, **({"robust_rounds": 1} if method == "robust" else {}))
    velocity, noise = (
        erase(tiny.build_pipeline(prediction_type=kind).to("cpu"), config) for kind in ("v_prediction", "epsilon")
    )
    assert torch.tensor(velocity.losses).isfinite().all()
    assert (velocity.losses == noise.losses) == (method == "closed_form")


@pytest.mark.parametrize("method", get_args(EraseMethod))
def test_sdxl_is_erased_by_every_method(method: str) -> None:
    pipeline = tiny.build_pipeline_xl()
    pipeline.unet.requires_grad_(False)
    token = ConceptToken("<concept>", torch.full((1, embedding_width(pipeline)), 0.02))
    concept = Concept(
        ["a bomb", "a <concept>"],
        latents=latents(2),
        tokens=[token],
        retain_prompts=["a cat"],
        retain_latents=latents(1),
    )
    extra = {"robust_rounds": 2, "robust_invert_steps": 1} if method == "robust" else {}
    before = weights(pipeline.unet)
    result = erase_concept(pipeline, concept, changed(method=method, num_train_steps=1, **extra))
    assert torch.tensor(result.losses).isfinite().all()
    assert is_same(before, weights(pipeline.unet)) and not is_same(before, weights(result.unet))


def test_invert_then_erase_without_a_store(pipeline: StableDiffusionPipeline) -> None:
    from PIL import Image

    pictures = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in (20, 200)]
    (token,) = invert(pipeline, pictures, [1.0, 2.0], InvertConfig(num_train_steps=1, batch_size=1, stopping="steps"))
    result = erase_concept(pipeline, token, changed(method="closed_form"))
    assert result.losses[-1] < 1


# ---------------------------------------- cost


def test_expected_seconds_hand_worked() -> None:
    # a bank of one batch takes 5 - 1 s, one of 16 takes 64; 2 banks for 65 steps of 1 s
    config = EraseConfig(num_train_steps=65)
    assert expected_seconds([5.0, 1.0, 1.0], config) == pytest.approx(2 * 64 + 65)
    rounds = EraseConfig(method="robust", robust_rounds=2, robust_invert_steps=10, num_train_steps=65)
    assert expected_seconds([5.0, 1.0, 1.0, 2.0, 2.0, 2.0], rounds) == pytest.approx(2 * 193 + 20)
    assert expected_seconds([1.0, 2.0], EraseConfig(method="closed_form", closed_form_rounds=1)) == 3


@pytest.mark.parametrize("method", ["sdd", "closed_form", "robust"])
def test_estimate_probes_and_leaves_the_pipeline_alone(pipeline: StableDiffusionPipeline, method: str) -> None:
    before = weights(pipeline.unet)
    cost = estimate(pipeline, CONCEPT, changed(method=method, num_train_steps=100))
    assert cost.seconds > 0 and cost.peak_memory_mib > 0 and cost.probe_seconds > 0
    assert cost.num_steps == {"sdd": 100, "closed_form": 4, "robust": 3 * 100 + 2 * 80}[method]
    assert str(cost).startswith("About ")
    assert is_same(before, weights(pipeline.unet))


# ---------------------------------------- trajectories


def trajectory(name: str) -> list[float]:
    config = changed(num_train_steps=5, **TRAJECTORIES[name])
    concept = CONCEPT if name != "sdd published" else TEXT_ONLY
    return erase_concept(tiny.build_pipeline(), concept, config).losses


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_golden_trajectory(name: str) -> None:
    """The same seed gives the same losses as ever; a change that is meant is written down by `write_golden`."""
    assert trajectory(name) == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=1e-4)


def write_golden() -> None:
    """Store the losses of today's code."""
    bank.ROLLOUT_STEPS = 2
    GOLDEN.write_text(json.dumps({name: trajectory(name) for name in TRAJECTORIES}, indent=1) + "\n")


assert CONFIG.bank_batches == 2  # trajectories cross the border between two banks
