"""Saved models are the models that were trained, for everyone who loads them; a save that fails leaves nothing."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hfi import pipelines
from hfi.erase import delta, export, lora
from hfi.erase.export import export_model
from hfi.errors import ConflictError, InvalidInputError, ModelFolderError, NoSpaceError
from tests import tiny

FAMILIES: dict[str, Callable[[], Any]] = {
    "sd1": tiny.build_pipeline,
    "sd2": lambda: tiny.build_pipeline(prediction_type="v_prediction", hidden_act="gelu"),
    "xl": tiny.build_pipeline_xl,
}
ORIGIN = {"snapshot": "abc", "base_model_sha256": "def", "method": "sdd"}


@pytest.fixture(params=list(FAMILIES))
def original(request: pytest.FixtureRequest) -> Any:
    """A tiny pipeline of each family."""
    return FAMILIES[request.param]()


@pytest.fixture
def sd() -> Any:
    """A tiny Stable Diffusion 1.x pipeline."""
    return tiny.build_pipeline()


def erased(pipeline: Any, part: str = "attn2.to_", size: float = 0.3) -> UNet2DConditionModel:
    """A copy of the UNet whose weights of that name were changed."""
    unet = copy.deepcopy(pipeline.unet)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if part in name:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=size)
    return unet


def is_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_single_file_is_the_model_for_diffusers(original: Any, tmp_path: Path) -> None:
    unet = erased(original)
    saved = export_model(original, unet, tmp_path / "model.safetensors", "single-file", origin=ORIGIN)
    assert saved.difference < 1e-5
    assert names(tmp_path) == ["model.config", "model.safetensors"]
    options = {} if pipelines.is_xl(original) else {"safety_checker": None}
    with pipelines.quiet_loading():
        loaded = type(original).from_single_file(
            str(saved.path), config=str(tmp_path / "model.config"), local_files_only=True, **options
        )
    assert is_equal(loaded.unet, unet) and is_equal(loaded.vae, original.vae)
    assert all(map(is_equal, pipelines.text_encoders(loaded), pipelines.text_encoders(original)))
    assert loaded.scheduler.config.prediction_type == original.scheduler.config.prediction_type
    with safe_open(saved.path, framework="pt") as file:
        metadata, keys = file.metadata(), set(file.keys())
    assert {f"hfi.{name}": text for name, text in ORIGIN.items()}.items() <= metadata.items()
    assert metadata["modelspec.prediction_type"] == original.scheduler.config.prediction_type
    assert "model.diffusion_model.output_blocks.3.0.skip_connection.weight" in keys
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "model.config").rglob("*.json"))


def test_single_file_loads_here_and_is_unpacked_for_whatever_needs_a_folder(
    sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfi.pipelines.loading.HF_HOME", str(tmp_path / "cache"))
    path = export_model(sd, erased(sd), tmp_path / "model.safetensors", "single-file").path
    folder = pipelines.unpack_single_file(path)
    assert folder == pipelines.unpack_single_file(path) and names(folder.parent) == [folder.name]
    assert is_equal(pipelines.load_pipeline(folder, "cpu").unet, pipelines.load_pipeline(path, "cpu").unet)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFolderError, match="no whole safetensors file"):
        pipelines.load_pipeline(path)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_folder_is_the_model_for_diffusers(original: Any, tmp_path: Path, dtype: str) -> None:
    unet = erased(original)
    saved = export_model(original, unet, tmp_path / "model", "folder", dtype=dtype)
    with pipelines.quiet_loading():
        loaded = type(original).from_pretrained(saved.path, local_files_only=True)
    assert is_equal(loaded.unet, unet) == (dtype == "float32")
    assert saved.difference <= export.TOLERANCE[dtype]
    assert names(tmp_path) == ["model"]


def test_delta_holds_what_changed_and_nothing_else(original: Any, tmp_path: Path) -> None:
    unet = erased(original, "attn2.to_k")
    path = export_model(original, unet, tmp_path / "d.safetensors", "delta", origin=ORIGIN).path
    weights = load_file(path)
    assert weights and set(weights) == {name for name, _ in unet.named_parameters() if "attn2.to_k" in name}
    loaded = copy.deepcopy(original.unet)
    loaded.load_state_dict(weights, strict=False)
    assert is_equal(loaded, unet)
    assert delta.is_delta(path)


def test_apply_delta_refuses_another_base_model(sd: Any, tmp_path: Path) -> None:
    path = export_model(sd, erased(sd), tmp_path / "d.safetensors", "delta", origin=ORIGIN).path
    assert delta.apply_delta_(copy.deepcopy(sd.unet), path, "def")["hfi.method"] == "sdd"
    before = copy.deepcopy(sd.unet)
    with pytest.raises(InvalidInputError, match=r"changes the model def…, but the base model given is other"):
        delta.apply_delta_(sd.unet, path, "other")
    with pytest.raises(InvalidInputError, match="another shape"):
        delta.apply_delta_(tiny.build_pipeline_xl().unet, path)
    assert is_equal(sd.unet, before)


def test_lora_of_full_rank_is_the_model_and_loads_in_diffusers(original: Any, tmp_path: Path) -> None:
    unet = erased(original)
    saved = export_model(original, unet, tmp_path / "l.safetensors", "lora", lora_rank=64, origin=ORIGIN)
    assert names(tmp_path) == ["l.safetensors"]
    wanted = export.predictions_on_fixed_seeds(original, unet)
    before = export.predictions_on_fixed_seeds(original, original.unet)
    original.load_lora_weights(tmp_path, weight_name="l.safetensors")
    loaded = export.predictions_on_fixed_seeds(original, original.unet)
    # biases of to_out changed too, and a LoRA does not hold them
    assert saved.lora_error is not None and saved.prediction_error is not None
    assert 0 < saved.lora_error < 0.4
    assert float((loaded - wanted).norm() / (before - wanted).norm()) == pytest.approx(saved.prediction_error, abs=1e-3)


def test_lora_error_is_what_the_cut_and_the_biases_leave_out(sd: Any) -> None:
    unet = copy.deepcopy(sd.unet)
    name, weight = next((n, w) for n, w in unet.named_parameters() if n.endswith("attn2.to_q.weight"))
    left, right = torch.linalg.qr(torch.randn(len(weight), 2))[0], torch.linalg.qr(torch.randn(weight.shape[1], 2))[0]
    with torch.no_grad():
        weight += left @ torch.diag(torch.tensor([4.0, 3.0])) @ right.T
    assert lora.fit_lora(sd.unet, unet, 2).error == pytest.approx(0, abs=1e-3)
    fit = lora.fit_lora(sd.unet, unet, 1)
    assert fit.error == pytest.approx(3 / 5, abs=1e-3) and list(fit.layers) == [name.removesuffix(".weight")]
    with torch.no_grad():
        unet.conv_out.bias[0] += 5.0
    assert lora.fit_lora(sd.unet, unet, 2).error == pytest.approx(5 / 50**0.5, abs=1e-3)
    only_bias = copy.deepcopy(sd.unet)
    only_bias.conv_out.bias.data += 1
    with pytest.raises(InvalidInputError, match="Only biases and norms"):
        lora.fit_lora(sd.unet, only_bias, 2)


def test_lora_holds_convolutions(sd: Any, tmp_path: Path) -> None:
    unet = erased(sd, "conv1.weight", 0.05)
    saved = export_model(sd, unet, tmp_path / "l.safetensors", "lora", lora_rank=1024)
    assert saved.lora_error == pytest.approx(0, abs=1e-3)
    assert saved.prediction_error == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("format", ["folder", "single-file", "delta", "lora"])
def test_export_keeps_nothing_that_is_not_the_model_and_overwrites_nothing(
    sd: Any, tmp_path: Path, format: str
) -> None:
    target = tmp_path / ("m" if format == "folder" else "m.safetensors")
    broken = erased(sd)
    broken.state_dict()["conv_out.weight"].fill_(float("nan"))
    with pytest.raises((ModelFolderError, torch.linalg.LinAlgError)):
        export_model(sd, broken, target, format)
    assert names(tmp_path) == []
    target.write_text("mine")
    with pytest.raises(ConflictError, match="exists already"):
        export_model(sd, erased(sd), target, format)
    assert names(tmp_path) == [target.name] and target.read_text() == "mine"


@pytest.mark.parametrize("format", ["delta", "lora"])
def test_export_refuses_to_save_no_difference(sd: Any, tmp_path: Path, format: str) -> None:
    with pytest.raises(InvalidInputError, match="no difference"):
        export_model(sd, copy.deepcopy(sd.unet), tmp_path / "x.safetensors", format)
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("format", ["folder", "single-file", "delta", "lora"])
def test_full_disk_leaves_nothing(sd: Any, small_disk: Path, format: str) -> None:
    target = small_disk / ("m" if format == "folder" else "m.safetensors")
    with pytest.raises(NoSpaceError, match="no space left to save"):
        export_model(sd, erased(sd, ""), target, format, lora_rank=1024)
    assert names(small_disk) == []


def export_in_a_loop(pipeline: Any, unet: Any, folder: Path) -> None:
    torch.set_num_threads(1)  # a forked process has no worker threads
    for number in range(1000):
        export_model(pipeline, unet, folder / f"m-{number}", "folder")


def test_killed_while_saving_leaves_nothing_half_written(sd: Any, tmp_path: Path) -> None:
    unet = erased(sd)
    writer = multiprocessing.get_context("fork").Process(target=export_in_a_loop, args=(sd, unet, tmp_path))
    writer.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".m-*.unfinished-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    (left,) = [name for name in names(tmp_path) if name.startswith(".m-")]
    whole = [name for name in names(tmp_path) if not name.startswith(".")]
    assert all((tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").is_file() for name in whole)
    target = tmp_path / left.removeprefix(".").partition(".unfinished")[0]
    if not target.exists():  # killed before the last rename: the same command goes on, and clears what was left
        export_model(sd, unet, target, "folder")
        assert left not in names(tmp_path)
    assert is_equal(pipelines.load_pipeline(target, "cpu").unet, unet)


def test_a_concept_token_loads_in_diffusers(sd: Any, tmp_path: Path) -> None:
    from hfi.inversion import ConceptToken, encode_prompts_with_tokens

    token = ConceptToken("<concept>", torch.linspace(-1, 1, 2 * tiny.TEXT_WIDTH).reshape(2, tiny.TEXT_WIDTH))
    file = token.save(tmp_path)
    expected = encode_prompts_with_tokens(sd, ["a <concept> on the dog"], [token])
    sd.load_textual_inversion(str(file.parent), weight_name=file.name, local_files_only=True)
    assert torch.allclose(pipelines.encode_prompts(sd, ["a <concept> on the dog"]), expected, atol=1e-6)


def test_is_delta_tells_files_apart(sd: Any, tmp_path: Path) -> None:
    for format in ("single-file", "lora"):
        assert not delta.is_delta(
            export_model(sd, erased(sd), tmp_path / f"{format}.safetensors", format, lora_rank=2).path
        )
    save_file({}, tmp_path / "empty.safetensors")
    assert not delta.is_delta(tmp_path / "empty.safetensors")
    assert json.loads((tmp_path / "single-file.config" / "model_index.json").read_text())["_class_name"]
