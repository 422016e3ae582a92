"""Inversion changes the placeholder rows and nothing else; tokens load everywhere; coverage counts what it says."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from hfi import inversion
from hfi.config import InvertConfig, SamplerConfig
from hfi.errors import InvalidInputError, NoFlaggedImagesError, TrainingDivergedError, UnknownTokenError
from hfi.inversion import tokens as token_files
from hfi.inversion import train
from hfi.inversion.sphere import SphereSearch, sphere_step
from hfi.inversion.tokens import ConceptToken
from hfi.pipelines import embedding_table, encode_prompts
from hfi.score import load_clip
from tests import tiny

CONFIG = InvertConfig(num_train_steps=4, batch_size=2, stopping="steps", initializer="bomb")
GOLDEN = Path(__file__).with_name("golden_inversion.json")
CHOICES = [
    {name: value}
    for name in ("weighting", "start", "stopping", "search")
    for value in get_args(InvertConfig.model_fields[name].annotation)
]


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]


def all_weights(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    parts = {"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize("num_vectors", [1, 2])
def test_invert_changes_only_the_placeholder_rows(pipeline: StableDiffusionPipeline, num_vectors: int) -> None:
    before, words = all_weights(pipeline), len(pipeline.tokenizer)
    config = CONFIG.model_copy(update={"num_vectors": num_vectors})
    steps: list[tuple[int, int]] = []
    tokens = inversion.invert(
        pipeline,
        pictures(5),
        [1, 2, 3, 4, 5],
        config,
        [0, 1, 0, 1, 1],
        ["bomb", ""],
        on_step=lambda done, total, _: steps.append((done, total)),
    )
    after = all_weights(pipeline)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in pipeline.unet.parameters())
    assert len(pipeline.tokenizer) == words
    assert [token.placeholder for token in tokens] == ["<concept-1>", "<concept-2>"]
    assert steps == [(done, 4) for done in (1, 2, 3, 4)]
    for token, word in zip(tokens, ["bomb", ""], strict=True):
        assert token.learned_embeds.shape == (num_vectors, tiny.TEXT_WIDTH)
        assert (token.learned_embeds != train.initial_rows(pipeline, word, config)).all()


@pytest.mark.parametrize("num_steps", [0, 1])
def test_invert_runs_exactly_the_steps_asked_for(pipeline: StableDiffusionPipeline, num_steps: int) -> None:
    (token,) = inversion.invert(pipeline, pictures(1), [1], CONFIG.model_copy(update={"num_train_steps": num_steps}))
    start = train.initial_rows(pipeline, "bomb", CONFIG)
    assert torch.equal(token.learned_embeds, start) == (num_steps == 0)
    assert token.card["num_steps_done"] == num_steps
    assert token.placeholder == "<concept>"


def test_invert_repeats_itself_and_clusters_train_as_if_alone(pipeline: StableDiffusionPipeline) -> None:
    images = pictures(4)
    first, second = (inversion.invert(pipeline, images, [1] * 4, CONFIG, [0, 0, 1, 1]) for _ in range(2))
    assert all(torch.equal(a.learned_embeds, b.learned_embeds) for a, b in zip(first, second, strict=True))
    swapped = [images[0], images[1], images[1], images[0]]  # only the second cluster sees other pictures
    third = inversion.invert(pipeline, swapped, [1] * 4, CONFIG, [0, 0, 1, 1])
    assert torch.allclose(first[0].learned_embeds, third[0].learned_embeds, atol=1e-5)
    assert not torch.allclose(first[1].learned_embeds, third[1].learned_embeds, atol=1e-5)


def test_invert_makes_a_fixed_batch_likelier(pipeline: StableDiffusionPipeline) -> None:
    config = CONFIG.model_copy(update={"num_train_steps": 30, "learning_rate": 0.05, "batch_size": 4})
    tokens = inversion.invert(pipeline, pictures(2), [1, 1], config)
    start = inversion.invert(pipeline, pictures(2), [1, 1], config.model_copy(update={"num_train_steps": 0}))
    losses = [fixed_loss(pipeline, pictures(2), token.learned_embeds) for token in (*start, *tokens)]
    assert losses[1] < losses[0]


def fixed_loss(pipeline: StableDiffusionPipeline, images: list[Image.Image], rows: torch.Tensor) -> float:
    prompts = train._template_prompts(pipeline, ["<concept>"], 1, ["", ""], torch.zeros(2, dtype=torch.long))
    latents = train.encode_images(pipeline, images)
    generator = torch.Generator().manual_seed(99)
    config = CONFIG.model_copy(update={"batch_size": 32})
    batch = train._draw_batch(latents, torch.ones(2), torch.zeros(2, dtype=torch.long), ["", ""], config, generator)
    with torch.no_grad():
        return train._cluster_losses(pipeline, rows, prompts, batch, 1).item()


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_every_choice_runs(pipeline: StableDiffusionPipeline, options: dict[str, str]) -> None:
    (token,) = inversion.invert(pipeline, pictures(3), [1, 2, 3], CONFIG.model_copy(update=options))
    assert token.learned_embeds.isfinite().all()
    assert not torch.equal(token.learned_embeds, train.initial_rows(pipeline, "bomb", CONFIG))


def golden_losses() -> dict[str, list[float]]:
    """First and last losses of every choice, on a model of its own."""
    losses = {}
    for options in CHOICES:
        config = CONFIG.model_copy(update=options)
        (token,) = inversion.invert(tiny.build_pipeline(), pictures(3), [1, 2, 3], config)
        losses[str(options)] = [token.card["first_loss"], token.card["final_loss"]]
    return losses


def test_golden_losses() -> None:
    """The same seed gives the same losses as ever; a change that is meant is written down by `write_golden`."""
    stored = json.loads(GOLDEN.read_text())
    for name, losses in golden_losses().items():
        assert losses == pytest.approx(stored[name], rel=1e-4), name


def write_golden() -> None:
    """Store the losses of today's code."""
    GOLDEN.write_text(json.dumps(golden_losses(), indent=1) + "\n")


def test_sphere_step_hand_worked() -> None:
    right, up = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    # along the sphere the gradient is `up`; the step has the length 0.75, so the direction is (1, -0.75) / 1.25
    moved = sphere_step(right, 5 * up + 3 * right, right, learning_rate=0.75, pull=0.0)
    assert torch.allclose(moved, torch.tensor([[0.8, -0.6]]))
    assert torch.allclose(sphere_step(right, 0 * up, up, 0.75, pull=1e-4), torch.tensor([[0.8, 0.6]]))
    assert torch.equal(sphere_step(right, 2 * right, right, 0.75, pull=0.0), right)


def test_sphere_search_goes_down_at_a_fixed_length() -> None:
    goal, length = torch.tensor([[0.0, 2.0]]), torch.tensor(2.0)
    search = SphereSearch(torch.tensor([[5.0, 0.1]]), length, learning_rate=0.05, pull=0.0)
    losses = []
    for _ in range(40):
        loss = (search.rows - goal).square().sum()
        losses.append(loss.item())
        search.step_(loss)
        assert search.rows.norm().item() == pytest.approx(2, rel=1e-5)
    assert losses[-1] < 0.01 * losses[0]
    before = search.rows.detach().clone()
    search.step_(search.rows.sum() * float("nan"))
    assert torch.equal(search.rows, before)


def test_inversion_on_the_sphere_keeps_the_vocabularys_mean_length(pipeline: StableDiffusionPipeline) -> None:
    config = CONFIG.model_copy(update={"search": "sphere", "num_vectors": 2, "sphere_learning_rate": 0.1})
    (token,) = inversion.invert(pipeline, pictures(2), [1, 1], config)
    mean = embedding_table(pipeline).norm(dim=1).mean()
    assert torch.allclose(token.learned_embeds.norm(dim=1), mean.expand(2), rtol=1e-4)


def test_the_average_of_the_last_steps() -> None:
    iterates = [torch.full((2, 3), float(step)) for step in range(5)]
    average_of_last = train.average_of_last
    assert average_of_last(iterates, 0.5).unique().tolist() == [3.0], "steps 2, 3, 4"
    assert average_of_last(iterates, 1.0).unique().tolist() == [2.0]
    assert average_of_last(iterates, 0.01).unique().tolist() == [4.0]


@pytest.mark.parametrize("search", ["free", "sphere"])
def test_a_token_may_be_the_average_of_its_last_steps(pipeline: StableDiffusionPipeline, search: str) -> None:
    def rows(steps: int, share: float) -> torch.Tensor:
        options = {"num_train_steps": steps, "search": search, "averaged_share": share}
        (token,) = inversion.invert(pipeline, pictures(2), [1, 1], CONFIG.model_copy(update=options))
        return token.learned_embeds

    last = [rows(steps, 0.0) for steps in (1, 2, 3, 4)]
    wanted = torch.stack(last[2:]).mean(dim=0)
    if search == "sphere":
        wanted = wanted / wanted.norm() * last[-1].norm()
    torch.testing.assert_close(rows(4, 0.5), wanted)
    assert not torch.equal(rows(4, 0.5), last[-1])


def test_several_initializers_give_one_vector_their_mean_and_several_vectors_one_each(
    pipeline: StableDiffusionPipeline,
) -> None:
    bomb, axe = (train.initial_rows(pipeline, word, CONFIG) for word in ("bomb", "axe"))
    assert torch.allclose(train.initial_rows(pipeline, "bomb, axe", CONFIG), (bomb + axe) / 2)
    three = train.initial_rows(pipeline, "bomb, axe", CONFIG.model_copy(update={"num_vectors": 3}))
    nearest = [int((row - torch.cat([bomb, axe])).norm(dim=1).argmin()) for row in three]
    assert nearest == [0, 1, 0] and not torch.equal(three[0], three[2])
    with pytest.raises(UnknownTokenError, match="is no word"):
        train.initial_rows(pipeline, "bomb,,axe", CONFIG)


def test_inversion_on_another_unet_sees_that_unet(pipeline: StableDiffusionPipeline) -> None:
    latents, other = train.encode_images(pipeline, pictures(2)), tiny.build_pipeline(seed=1).unet
    own = inversion.invert_latents(pipeline, latents, [1, 1], CONFIG)[0]
    assert torch.equal(own.learned_embeds, inversion.invert(pipeline, pictures(2), [1, 1], CONFIG)[0].learned_embeds)
    assert (
        own.card["first_loss"]
        != inversion.invert_latents(pipeline, latents, [1, 1], CONFIG, unet=other)[0].card["first_loss"]
    )


def test_sampling_and_weighting_agree_in_expectation() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, losses = torch.rand(7, generator=generator) + 0.1, torch.rand(7, generator=generator)
    sampled = (train.draw_probabilities(weights) * losses).sum()
    weighted = (train.loss_factors(weights) * losses).mean()
    assert torch.allclose(sampled, weighted)
    assert train.loss_factors(weights).mean().item() == pytest.approx(1)


@pytest.mark.parametrize("weighting", ["sample", "loss"])
def test_batches_of_either_weighting_have_the_same_expected_loss(weighting: str) -> None:
    weights, losses = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.3, 0.9, 0.1])
    config = CONFIG.model_copy(update={"weighting": weighting, "batch_size": 20_000})
    numbered = torch.arange(3.0).view(3, 1, 1, 1)  # latents that say which picture they are
    batch = train._draw_batch(
        numbered, weights, torch.zeros(3, dtype=torch.long), [""] * 3, config, torch.Generator().manual_seed(0)
    )
    found = (losses[batch.latents.flatten().long()] * batch.factors).mean().item()
    assert found == pytest.approx(float((weights * losses).sum() / weights.sum()), rel=0.02)


def test_each_picture_is_learned_in_its_own_caption_if_it_has_one(pipeline: StableDiffusionPipeline) -> None:
    names, clusters, captions = ["<one>", "<two>"], torch.tensor([0, 0, 1]), ["a red {}", "", "{} on a {} dog"]
    prompts = train._template_prompts(pipeline, names, 1, captions, clusters)
    config = CONFIG.model_copy(update={"batch_size": 40})
    numbered = torch.arange(3.0).view(3, 1, 1, 1)  # latents that say which picture they are
    batch = train._draw_batch(numbered, torch.ones(3), clusters, captions, config, torch.Generator().manual_seed(0))
    plain = [template.format(name) for name in names for template in train.TEMPLATES]
    texts = [*plain, "a red <one>", "", "<two> on a <two> dog"]
    spliced = train.tokenize_spliced(pipeline, texts, {"<one>": range(1), "<two>": range(1, 2)})
    assert torch.equal(prompts.token_ids, spliced.token_ids) and torch.equal(prompts.row_ids, spliced.row_ids)
    seen = {row: {texts[i] for i in batch.prompt_ids[batch.latents.flatten() == row].tolist()} for row in range(3)}
    assert seen == {0: {"a red <one>"}, 1: set(plain[:4]), 2: {"<two> on a <two> dog"}}


def test_captions_change_what_is_learned_and_their_choice_is_on_the_card(pipeline: StableDiffusionPipeline) -> None:
    images = pictures(3)
    (plain,) = inversion.invert(pipeline, images, [1, 1, 1], CONFIG)
    (same,) = inversion.invert(pipeline, images, [1, 1, 1], CONFIG, captions=["", "", ""])
    (own,) = inversion.invert(pipeline, images, [1, 1, 1], CONFIG, captions=["a {} dog", "a cat, {}", ""])
    assert torch.equal(plain.learned_embeds, same.learned_embeds)
    assert not torch.equal(plain.learned_embeds, own.learned_embeds)
    assert [token.card["templates"] for token in (plain, same, own)] == ["plain", "plain", "prompts"]


def test_reward_weights_are_positive_ordered_and_blind_to_a_constant() -> None:
    scores = torch.tensor([-3.0, 0.0, 1.0, 5.0])
    weights = train.reward_weights(scores)
    assert (weights > 0).all() and (weights.diff() > 0).all()
    assert weights.mean().item() == pytest.approx(1)
    assert torch.allclose(train.reward_weights(scores + 100), weights, atol=1e-5)
    assert torch.allclose(train.reward_weights(torch.zeros(3)), torch.ones(3))


def test_has_settled_waits_for_a_flat_end() -> None:
    falling = [1.0 - 0.05 * i for i in range(12)]
    assert not train.has_settled(falling)
    assert not train.has_settled([1.0] * 5)
    assert train.has_settled([*falling, *[0.4] * train.DVAR_WINDOW])


def test_a_saved_token_means_the_same_here_and_in_diffusers(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    rows = torch.randn(3, 2, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    tokens = [ConceptToken(f"<concept-{i}>", rows[i, : 2 if i else 1], card={"reproduction": 0.5}) for i in range(3)]
    inversion.save_concept_tokens(tmp_path, tokens)
    loaded = inversion.load_concept_tokens(tmp_path)
    assert [token.placeholder for token in loaded] == [token.placeholder for token in tokens]
    assert all(torch.equal(a.learned_embeds, b.learned_embeds) for a, b in zip(loaded, tokens, strict=True))
    prompts = ["a photo of a <concept-1> and a cat", "a bomb", "<concept-0>", "red <concept-2>", "the " * 30]
    expected = inversion.encode_prompts_with_tokens(pipeline, prompts, tokens)
    assert torch.allclose(expected[1], encode_prompts(pipeline, ["a bomb"])[0], atol=1e-6)
    other = tiny.build_pipeline()
    for path in sorted(tmp_path.rglob("learned_embeds.safetensors")):
        other.load_textual_inversion(str(path.parent), local_files_only=True)
    inversion.add_tokens_(pipeline, tokens)
    for changed in (pipeline, other):
        assert torch.allclose(encode_prompts(changed, prompts), expected, atol=1e-5)
    with pytest.raises(UnknownTokenError, match="already"):
        inversion.add_tokens_(pipeline, tokens)


def test_a_saved_token_has_the_layout_of_other_programs_too(tmp_path: Path) -> None:
    rows = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    single = ConceptToken("<concept>", rows[:, :16], card={"encoder_widths": [16]})
    double = ConceptToken("<both>", rows, card={"encoder_widths": [16, 8]})
    inversion.save_concept_tokens(tmp_path, [single, double])
    first, second = tmp_path / "concept/webui/concept.safetensors", tmp_path / "both/webui/both.safetensors"
    assert torch.equal(load_file(first)["emb_params"], rows[:, :16])
    parts = load_file(second)
    assert torch.equal(parts["clip_l"], rows[:, :16]) and torch.equal(parts["clip_g"], rows[:, 16:])
    for file, token in ((first, single), (second, double)):
        (loaded,) = inversion.load_concept_tokens(file)
        assert loaded.placeholder == token.placeholder
        assert torch.equal(loaded.learned_embeds, token.learned_embeds)
    assert len(inversion.load_concept_tokens(tmp_path)) == 2
    pipeline = tiny.build_pipeline()
    pipeline.load_textual_inversion(str(first), token="<concept>", local_files_only=True)
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[-2:], rows[:, :16])


def test_a_token_of_another_model_is_refused(pipeline: StableDiffusionPipeline) -> None:
    (token,) = inversion.invert(pipeline, pictures(1), [1], CONFIG)
    assert inversion.encode_prompts_with_tokens(pipeline, ["a <concept>"], [token]).isfinite().all()
    before = token_files.vocabulary_sha256(pipeline)
    inversion.add_tokens_(pipeline, [token])  # more words are no other model
    assert token_files.vocabulary_sha256(pipeline) == before
    with pytest.raises(UnknownTokenError, match="learned on another model"):
        inversion.encode_prompts_with_tokens(tiny.build_pipeline(seed=1), ["a <concept>"], [token])


def test_add_tokens_keeps_the_words_there_were_bit_for_bit(pipeline: StableDiffusionPipeline) -> None:
    before = pipeline.text_encoder.get_input_embeddings().weight.clone()
    inversion.add_tokens_(pipeline, [ConceptToken("<concept>", torch.ones(1, tiny.TEXT_WIDTH))])
    after = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(after[:-1], before)
    assert torch.equal(after[-1], torch.ones(tiny.TEXT_WIDTH))


def test_tokens_that_do_not_fit_are_refused(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(UnknownTokenError, match="rows of 3 numbers"):
        inversion.add_tokens_(pipeline, [ConceptToken("<concept>", torch.zeros(1, 3))])
    with pytest.raises(UnknownTokenError, match="no concept token"):
        inversion.load_concept_tokens(tmp_path)
    ConceptToken("<concept>", torch.full((1, 3), float("nan"))).save(tmp_path)
    with pytest.raises(UnknownTokenError, match="not finite"):
        inversion.load_concept_tokens(tmp_path)
    (tmp_path / "learned_embeds.safetensors").write_bytes(b"x")
    with pytest.raises(UnknownTokenError, match="not a concept token"):
        inversion.load_concept_tokens(tmp_path)


def test_invert_refuses_bad_input(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(NoFlaggedImagesError):
        inversion.invert(pipeline, [], [], CONFIG)
    with pytest.raises(InvalidInputError, match="positive"):
        inversion.invert(pipeline, pictures(2), [1, 0], CONFIG)
    with pytest.raises(InvalidInputError, match="no picture"):
        inversion.invert(pipeline, pictures(2), [1, 1], CONFIG, [0, 2])
    with pytest.raises(InvalidInputError, match="1 weights"):
        inversion.invert(pipeline, pictures(2), [1], CONFIG)
    with pytest.raises(UnknownTokenError, match="already"):
        inversion.invert(pipeline, pictures(1), [1], CONFIG.model_copy(update={"placeholder": "bomb</w>"}))
    with pytest.raises(InvalidInputError, match="multiples of 4 px"):
        inversion.invert(pipeline, [Image.new("RGB", (33, 32))], [1], CONFIG)
    with pytest.raises(InvalidInputError, match="sizes"):
        inversion.invert(pipeline, [*pictures(1), Image.new("RGB", (64, 64))], [1, 1], CONFIG)
    with pytest.raises(InvalidInputError, match="not numbers"):
        inversion.invert_latents(pipeline, torch.full((1, 4, 8, 8), float("nan")), [1], CONFIG)
    with pytest.raises(InvalidInputError, match="positive"):
        inversion.invert(pipeline, pictures(1), [float("nan")], CONFIG)
    with pytest.raises(InvalidInputError, match="1 pictures and 2 captions"):
        inversion.invert(pipeline, pictures(1), [1], CONFIG, captions=["a {}", ""])
    with pytest.raises(InvalidInputError, match=r"'a dog' has no \{\}"):
        inversion.invert(pipeline, pictures(1), [1], CONFIG, captions=["a dog"])


def test_invert_stops_when_the_loss_is_not_finite(pipeline: StableDiffusionPipeline) -> None:
    pipeline.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match=r"nan at step 0 \(seed 0\)"):
        inversion.invert(pipeline, pictures(1), [1], CONFIG)


def three_sided(per_side: int = 20) -> np.ndarray:
    x = np.repeat(np.eye(3, 8), per_side, axis=0) + 0.05 * np.random.default_rng(0).normal(size=(3 * per_side, 8))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_cluster_images_finds_planted_sides_and_leaves_none_empty() -> None:
    clusters = inversion.cluster_images(three_sided(), 3, seed=0)
    assert [len(set(clusters[i * 20 : (i + 1) * 20])) for i in range(3)] == [1, 1, 1]
    assert set(clusters) == {0, 1, 2}
    assert set(inversion.cluster_images(three_sided(2), 6, seed=0)) == set(range(6))
    with pytest.raises(InvalidInputError, match="61 clusters"):
        inversion.cluster_images(three_sided(), 61, seed=0)


def test_coverage_counts_the_sides_that_previews_reach() -> None:
    flagged = three_sided()
    assert inversion.coverage(flagged, flagged[::2]) == 1
    assert inversion.coverage(flagged, flagged[:20]) == pytest.approx(1 / 3, abs=0.05)
    assert inversion.coverage(flagged, flagged[:20], np.zeros(20, dtype=bool)) == 0
    assert inversion.coverage(flagged, -flagged) == 0


def test_choose_tokens_keeps_the_fewest_that_cover_as_much() -> None:
    covered = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], dtype=bool)
    assert inversion.choose_tokens(covered, 0.0) == [1, 2]
    assert inversion.choose_tokens(covered, 0.3) == [1]
    assert inversion.choose_tokens(np.zeros((2, 4), dtype=bool)) == [0]


def test_telling_word_is_the_one_that_others_do_not_say() -> None:
    assert inversion.telling_word(["a red bomb", "the bomb"], ["a red cat", "the dog"]) == "bomb"
    assert inversion.telling_word(["a cat"], ["a cat", "a cat"]) == ""
    assert inversion.telling_word([]) == ""


def test_telling_word_does_not_name_a_cluster_after_its_style() -> None:
    red, blue, unflagged = ["a red bomb", "a red axe"], ["a blue bomb", "a blue axe"], ["a red cat", "a blue cat"]
    assert inversion.telling_word(red, blue) == "red"
    assert inversion.telling_word(red, blue, unflagged) in {"axe", "bomb"}


def test_invert_concept_measures_and_chooses(pipeline: StableDiffusionPipeline, model_folder: Path) -> None:
    before = all_weights(pipeline)
    result = inversion.invert_concept(
        pipeline,
        pictures(12),
        [1.0] * 12,
        CONFIG.model_copy(update={"initializer": "", "top_k": 9, "num_train_steps": 1}),
        load_clip(model_folder, device="cpu"),
        lambda embeddings: np.linspace(0, 1, len(embeddings)),
        prompts=["a bomb"] * 6 + ["an axe"] * 6,
        other_prompts=["a cat"],
        preview_seeds=[0, 1],
        sampler=SamplerConfig(num_inference_steps=1),
    )
    assert result.used_images == list(range(9)) and len(result.clusters) == 9
    assert len(result.tokens) == len(result.previews) <= 2
    assert all(token.card["reproduction"] == 0.5 for token in result.tokens)
    assert 0 <= result.coverage <= 1 and result.concept_score == 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in all_weights(pipeline).items())


def test_a_token_may_be_learned_and_previewed_in_its_pictures_prompts(
    pipeline: StableDiffusionPipeline, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[str]] = []

    def noting(pipeline: StableDiffusionPipeline, prompts: list[str], tokens: list[ConceptToken]) -> torch.Tensor:
        shown.append(prompts)
        return inversion.encode_prompts_with_tokens(pipeline, prompts, tokens)

    monkeypatch.setattr(import_module("hfi.inversion.coverage"), "encode_prompts_with_tokens", noting)

    def run(prompts: list[str], others: list[str]) -> inversion.InversionResult:
        config = CONFIG.model_copy(update={"initializer": "", "num_train_steps": 1, "templates": "prompts"})
        return inversion.invert_concept(
            pipeline, pictures(len(prompts)), [1.0] * len(prompts), config.model_copy(update={"num_concepts": 1}),
            load_clip(model_folder, device="cpu"), lambda embeddings: np.ones(len(embeddings)),
            prompts=prompts, other_prompts=others, preview_seeds=[0, 1, 2],
            sampler=SamplerConfig(num_inference_steps=1),
        )  # fmt: skip

    (token,) = run(["a drawn cat", "a dog", "a drawn red dog"] * 3, ["a red cat", "a dog", "a red dog"] * 3).tokens
    assert token.initializer == "drawn" and token.card["templates"] == "prompts"
    assert shown == [["a <concept> cat", "a <concept> red dog", "a <concept> cat"]]
    (token,) = run(["a cat", "a dog"], ["a cat", "a dog"]).tokens
    assert token.card["templates"] == "plain", "no word tells the concept, so nothing says where the token stands"
    assert shown[1] == ["a <concept>"] * 3
