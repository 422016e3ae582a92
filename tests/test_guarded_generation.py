"""`hfi generate --guard`: pictures, provenance and errors, on a real store and a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hfi.cli import main
from hfi.inversion import ConceptToken, save_concept_tokens
from storage import Store
from tests import tiny

GENERATE = ["generate", "--prompt", "a cat", "--num-inference-steps", "2", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_pipeline(tmp_path_factory.mktemp("model") / "tiny")


def test_guards_are_part_of_the_request_and_of_its_provenance(model_folder: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    save_concept_tokens(tokens, [ConceptToken("<concept>", torch.full((1, tiny.TEXT_WIDTH), 0.3))])
    common = [*GENERATE, "--model", str(model_folder), "--store", str(tmp_path / "store")]
    sld = ["--guard", "sld", "--guard-text", "a bomb", "--sld-level", "strong", "--sld-warmup-steps", "0"]
    negative = ["--guard", "negative", "--guard-tokens", str(tokens)]
    for options in ([], sld, sld, negative):
        assert main([*common, *options]) == 0
    with Store.open(tmp_path / "store") as store:
        plain, held, other = store.list_generations("default")
        assert [record.params.guard for record in (plain, held, other)] == ["", "sld", "negative"]
        assert len({record.image_sha256 for record in (plain, held, other)}) >= 2
    assert dict(plain.params.extra) == {}
    assert held.params.extra["guard_text"] == "a bomb"
    assert held.params.extra["sld"]["guidance_scale"] == 2000 and held.params.extra["sld"]["warmup_steps"] == 0
    assert other.params.extra["guard_text"] == "<concept>"
    assert len(other.params.extra["guard_tokens"]["<concept>"]) == 64


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--guard", "sld"], 2, "needs something to hold back"),
        (["--guard", "negative", "--guard-tokens", "nowhere"], 1, "no folder, no file and no run"),
        (["--guard", "negative", "--guard-tokens", "latest"], 1, "has no concept token yet"),
        (["--guard", "maybe", "--guard-text", "x"], 2, "--guard is 'maybe'"),
        (["--guard", "sld", "--guard-text", "x", "--sld-momentum-beta", "1"], 2, "--sld-momentum-beta is '1'"),
    ],
)
def test_a_guard_that_cannot_act_is_one_sentence(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    assert main([*GENERATE, "--model", str(model_folder), "--store", str(tmp_path / "store"), *options]) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
