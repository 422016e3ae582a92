"""Model folders: complete, whole, and never a pickle."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hfi.errors import ModelFolderError
from hfi.model_folder import PARTS_OF_FAMILY, PARTS_WITHOUT_WEIGHTS, check_model_folder, model_sha256, weights_variant

FAMILIES = list(PARTS_OF_FAMILY)


def build_folder(folder: Path, family: str = FAMILIES[0]) -> Path:
    """A folder with the right names and a few numbers in each file of weights."""
    for part in PARTS_OF_FAMILY[family]:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
        if part not in PARTS_WITHOUT_WEIGHTS:
            save_file({"weight": np.ones(3, np.float32)}, folder / part / "model.safetensors")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": family}))
    return folder


class Payload:
    """A pickle that makes a file when it is opened, as a hostile one would do worse."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("family", FAMILIES)
def test_check_passes_a_complete_folder(tmp_path: Path, family: str) -> None:
    folder = build_folder(tmp_path / "model", family)
    check_model_folder(folder)
    assert weights_variant(folder) is None
    assert len(model_sha256(folder)) == 64


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt", ".pth", ".pkl"])
def test_check_refuses_a_pickle_and_says_how_to_convert_it(tmp_path: Path, suffix: str) -> None:
    folder = build_folder(tmp_path / "model")
    (folder / "unet" / "model.safetensors").unlink()
    (folder / "unet" / f"diffusion_pytorch_model{suffix}").write_bytes(b"x")
    with pytest.raises(ModelFolderError, match=r"run any code.*refused.*save_pretrained\('model-safe'\)") as caught:
        check_model_folder(folder)
    assert f"diffusion_pytorch_model{suffix}" in str(caught.value)


def test_check_leaves_a_pickle_beside_safetensors_alone(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "model")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"x")
    check_model_folder(folder)


def test_load_never_opens_a_pickle(tmp_path: Path) -> None:
    from hfi.pipelines import load_pipeline
    from tests import tiny

    folder, mark = tiny.save_pipeline(tmp_path / "model"), tmp_path / "the payload ran"
    (weights,) = (folder / "vae").glob("*.safetensors")
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    load_pipeline(folder, "cpu")
    weights.unlink()
    with pytest.raises(ModelFolderError, match="pickle"):
        load_pipeline(folder, "cpu")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (None, "no whole .safetensors file"),
        ({}, "holds no tensors"),
        ({"weight": np.ones(3, np.uint8)}, "tensor 'weight' is not of a kind"),
    ],
)
def test_check_names_weights_that_are_not_as_they_must_be(
    tmp_path: Path, content: dict[str, np.ndarray] | None, rule: str
) -> None:
    folder = build_folder(tmp_path / "model")
    path = folder / "vae" / "model.safetensors"
    if content is None:
        path.write_bytes(path.read_bytes()[:-4])
    else:
        save_file(content, path)
    with pytest.raises(ModelFolderError, match=f"{re.escape(str(path))}.*{rule}"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    ("family", "part"), [(family, part) for family in FAMILIES for part in PARTS_OF_FAMILY[family]]
)
def test_check_names_a_part_that_is_missing(tmp_path: Path, family: str, part: str) -> None:
    folder = build_folder(tmp_path / "model", family)
    shutil.rmtree(folder / part)
    with pytest.raises(ModelFolderError, match=f"lacks the part {part}/"):
        check_model_folder(folder)


@pytest.mark.parametrize("text", ['{"_class_name": "FluxPipeline"}', "[]", "not json"])
def test_check_names_what_is_no_model_of_ours(tmp_path: Path, text: str) -> None:
    folder = build_folder(tmp_path / "model")
    (folder / "model_index.json").write_text(text)
    with pytest.raises(ModelFolderError, match=r"FluxPipeline: only Stable Diffusion|not a JSON object"):
        check_model_folder(folder)
