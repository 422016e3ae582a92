"""Training of the embedded model at toy size: every stage runs, resumes to the same weights, and gives a folder
diffusers loads."""

import dataclasses
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from hfi.errors import DeviceError
from hfi.mini import networks, train_decoder
from hfi.mini import train as training
from hfi.mini.assemble import assemble
from hfi.mini.recipe import cpu_recipe
from hfi.mini.steps import Checkpoint, cosine_rate
from hfi.mini.train import (
    contrast_loss,
    degrade,
    edge_loss,
    min_snr_weight,
    random_crops,
    run_stage,
    to_pixels,
    train_detector,
)
from hfi.mini.train_decoder import Estimator, feature_loss
from hfi.mini.world import vocabulary_words

TOY = dataclasses.replace(
    cpu_recipe(),
    clip_steps=2,
    clip_batch=4,
    clip_image_steps=2,
    vae_steps=2,
    vae_batch=2,
    detector_steps=4,
    detector_batch=4,
    num_latents=1000,
    num_pair_latents=1000,
    unet_steps=2,
    unet_batch=2,
    decoder_steps=2,
    decoder_plain_steps=1,
    decoder_batch=2,
    checkpoint_every_n_steps=2,
)


@pytest.fixture(scope="module")
def build(tmp_path_factory, monkeypatch_module):
    """All stages at toy size; each 1,000 latents are cut to 8 by drawing smaller shards."""
    folder = tmp_path_factory.mktemp("mini")
    draw = training.draw_batch
    monkeypatch_module.setattr(
        training, "draw_batch", lambda world, rng, size, **kw: draw(world, rng, min(size, 8), **kw)
    )
    for stage in training.STAGES:
        run_stage(stage, TOY, folder)
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_tokenizer_makes_every_caption_word_one_token(tmp_path):
    tokenizer = networks.train_tokenizer(vocabulary_words(), tmp_path)
    for word in vocabulary_words():
        assert len(tokenizer(word).input_ids) == 3, f"{word} is one token between begin and end"
    assert tokenizer("Zebra, ünknown").input_ids[1:-1], "other text falls into letters and bytes"
    assert tokenizer.unk_token_id not in tokenizer("zebra ünknown").input_ids[1:-1]


def test_assembled_folder_loads_unchanged_in_diffusers(build, tmp_path):
    size_bytes = assemble(build, tmp_path / "model")
    assert size_bytes <= 32 * 2**20
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat", num_inference_steps=1, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (64, 64)
    tokens = pipeline.tokenizer(["a bomb"], padding="max_length", return_tensors="pt").input_ids
    clip = CLIPModel.from_pretrained(tmp_path / "model" / "clip")
    with torch.no_grad():
        expected = clip.text_model(tokens).last_hidden_state
        assert torch.equal(pipeline.text_encoder(tokens)[0], expected), "the text encoder is CLIP's text side"


class _AllStepsDone(Exception):
    """Raised in place of the last checkpoint."""


@pytest.mark.parametrize("stage", training.STAGES[1:])
def test_everything_a_stage_computes_with_is_on_the_device_of_the_recipe(build, tmp_path, monkeypatch, stage):
    """PyTorch's `meta` device, which keeps no numbers, stands for a GPU: mixing it with the CPU is as much an error."""
    folder = tmp_path / "build"
    shutil.copytree(build, folder)
    (folder / f"{stage}.pt").unlink()
    recipe = dataclasses.replace(TOY, device="meta")
    for module in (training, train_decoder):
        monkeypatch.setattr(module, "autocast", lambda recipe: nullcontext())

    def stop(checkpoint, step, **parts):
        assert all(parameter.device.type == "meta" for parameter in parts["model"].parameters())
        if step == {"eye": 4, "judge": 4}.get(stage, 2):
            raise _AllStepsDone

    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(_AllStepsDone):
        run_stage(stage, recipe, folder)


def test_a_recipe_in_bfloat16_trains_networks_that_keep_single_precision(build, tmp_path):
    recipe = dataclasses.replace(TOY, precision="bfloat16")
    for stage in ("clip", "vae", "eye"):
        folder = tmp_path / stage
        shutil.copytree(build / "tokenizer", folder / "tokenizer")
        run_stage(stage, recipe, folder)
        first = torch.load(build / f"{stage}.pt", weights_only=True)["model"]
        second = torch.load(folder / f"{stage}.pt", weights_only=True)["model"]
        assert {tensor.dtype for tensor in second.values() if tensor.is_floating_point()} == {torch.float32}
        assert any(not torch.equal(first[name], second[name]) for name in first), "computed in less precision"


def test_device_and_precision_reach_every_stage(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "run_stage", lambda stage, recipe, build, on_step: seen.append((stage, recipe)))
    monkeypatch.setattr("hfi.mini.assemble.assemble", lambda build, folder: 0)
    assert training.train("gpu", tmp_path, device="cpu") == tmp_path / "gpu" / "model"
    training.train("cpu", tmp_path, device="cpu", precision="bfloat16")
    assert [stage for stage, _ in seen] == [*training.STAGES] * 2
    assert {(recipe.device, recipe.precision) for _, recipe in seen} == {("cpu", "bfloat16")}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no GPU"):
        training.train("cpu", tmp_path, device="cuda")


def test_contrast_loss_by_hand():
    embeds = torch.eye(2)
    # logits 2 on the diagonal, 0 beside: log(1 + e^-2)
    wanted = np.log1p(np.exp(-2.0))
    places = contrast_loss(embeds, embeds, torch.tensor(2.0).log(), torch.arange(2))
    assert places.item() == pytest.approx(wanted, rel=1e-5)
    assert contrast_loss(embeds, embeds, torch.tensor(2.0).log(), torch.eye(2)).item() == pytest.approx(wanted)


def test_the_image_tower_is_made_anew_beside_the_text_tower_that_the_unet_listens_to(build):
    first, second = (CLIPModel.from_pretrained(build / name) for name in ("clip", "clip_image"))
    assert second.config.vision_config.patch_size == TOY.clip_image_patch_px != first.config.vision_config.patch_size
    assert second.config.text_config.to_dict() == first.config.text_config.to_dict()
    old, new = first.text_model.state_dict(), second.text_model.state_dict()
    assert first.logit_scale.item() == pytest.approx(second.logit_scale.item(), abs=0.01), "goes on from the first's"
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def test_scaling_factor_makes_latents_of_unit_spread(build):
    from diffusers import AutoencoderKL

    factor = AutoencoderKL.from_pretrained(build / "vae").config.scaling_factor
    assert factor > 0 and factor != pytest.approx(0.18215), "measured, not Stable Diffusion's default"


def test_the_last_stage_changes_the_decoder_alone(build, tmp_path):
    from diffusers import AutoencoderKL

    before, after = (AutoencoderKL.from_pretrained(build / name) for name in ("vae", "decoder"))
    assert after.config.scaling_factor == before.config.scaling_factor
    old, new = before.state_dict(), after.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"decoder", "post_quant_conv"}, "what the UNet learned stands for the same latents"
    assemble(build, tmp_path / "model")
    shipped = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae").state_dict()
    name = "decoder.conv_out.weight"
    assert torch.equal(shipped[name], new[name].half())


def test_the_last_latents_are_of_two_objects_each(build):
    _, scenes = training.encode_latents(TOY, build)
    assert len(scenes) == 16
    assert any(len(scene.objects) == 1 for scene in scenes[:8])
    assert all(len(scene.objects) == 2 for scene in scenes[8:])


def test_resumed_training_gives_the_weights_of_an_uninterrupted_one(tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    train_detector("eye", TOY, once)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(TOY, twice)
    assert Checkpoint(twice / "eye.pt").path.exists()
    train_detector("eye", TOY, twice)
    first = torch.load(once / "eye.pt", weights_only=True)["model"]
    second = torch.load(twice / "eye.pt", weights_only=True)["model"]
    assert all(torch.equal(first[name], second[name]) for name in first)


def _interrupted(recipe, folder):
    """Stop in the third of four steps, after the checkpoint of the second."""
    calls = 0
    original = training.scene_targets

    def stop_in_third(*args):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "scene_targets", stop_in_third)
        train_detector("eye", recipe, folder)


def test_cosine_rate_warms_up_and_ends_low():
    assert cosine_rate(0, 1000, 1.0) == pytest.approx(0.01)
    assert cosine_rate(100, 1000, 1.0) == pytest.approx(1.0)
    assert cosine_rate(1000, 1000, 1.0) == pytest.approx(0.02)


def test_min_snr_weight_by_hand():
    # alpha = 0.9: SNR 9, weight 5 / 9; alpha = 0.5: SNR 1, weight 1
    assert min_snr_weight(torch.tensor([0.9, 0.5]), 5.0).tolist() == pytest.approx([5 / 9, 1.0])


def test_degrade_keeps_range_and_leaves_about_half_alone():
    pixels = torch.rand(400, 3, 8, 8) * 2 - 1
    changed = degrade(pixels, np.random.default_rng(0))
    assert changed.abs().max() <= 1
    untouched = (changed == pixels).flatten(1).all(dim=1).float().mean()
    assert 0.4 < untouched < 0.6


def test_edge_loss_is_zero_for_a_constant_offset():
    picture = torch.rand(1, 3, 8, 8)
    assert edge_loss(picture + 0.3, picture).item() == pytest.approx(0.0, abs=1e-6)


def test_random_crops_lie_on_the_latent_grid():
    picture = torch.arange(64).view(1, 1, 1, 64).expand(1, 3, 64, 64).float()
    crop = random_crops(picture, 32, np.random.default_rng(0))
    assert crop.shape == (1, 3, 32, 32) and int(crop[0, 0, 0, 0]) % 4 == 0


def test_to_pixels_maps_to_minus_one_and_one():
    images = np.array([[[[0, 128, 255]]]], dtype=np.uint8)
    assert to_pixels(images)[0, :, 0, 0].tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-3)


def test_pipeline_tokenizer_of_the_build_is_the_one_that_was_trained(build):
    tokenizer = CLIPTokenizer.from_pretrained(build / "tokenizer")
    assert tokenizer.model_max_length == networks.MAX_TOKENS


def test_feature_loss_sees_what_differs_and_moves_the_decoded_picture_alone():
    eye = networks.SceneDetector(training.WORLDS["cpu"], "residual").eval().requires_grad_(False).trunk
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert feature_loss(eye, picture, picture).item() == pytest.approx(0.0, abs=1e-6)
    decoded = picture.flip(-1).requires_grad_(True)
    loss = feature_loss(eye, decoded, picture)
    assert 0.0 < loss.item() <= 4.0, "squared distance of two vectors of length 1"
    loss.backward()
    assert decoded.grad is not None and decoded.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in eye.parameters())


def test_estimates_are_the_clean_latents_where_the_noise_is_told(build, monkeypatch):
    estimate = Estimator(build)
    rng = np.random.default_rng(0)
    clean, noise = (torch.from_numpy(rng.standard_normal((3, 4, 16, 16), dtype=np.float32)) for _ in range(2))
    captions = ["a cat", "", "a bomb and a dog"]
    untrained = estimate(clean, noise, captions, np.random.default_rng(1))
    assert untrained.shape == clean.shape and not torch.allclose(untrained, clean, atol=1e-2)
    asked = []
    answer = type("Answer", (), {"sample": noise})
    monkeypatch.setattr(estimate, "unet", lambda noisy, timesteps, prompts: asked.append(timesteps) or answer)
    assert torch.allclose(estimate(clean, noise, captions, np.random.default_rng(1)), clean, atol=1e-4)
    assert asked[0].max() < Estimator.max_timestep
