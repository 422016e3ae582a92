"""`hfi export-model` on a real store: files for others, a card with what is known, one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from hfi.cli import main
from hfi.config import ExportConfig
from hfi.erase.export import export_folder
from hfi.job_requests import SaveRequest
from hfi.jobs.job_kinds import run_save_job
from hfi.jobs.model_card import CardFacts, make_model_card
from hfi.model_folder import model_sha256
from hfi.pipelines import load_pipeline
from hfi.progress import QUIET
from storage import Store
from storage.snapshot import create_snapshot
from tests import tiny
from tests.storage.builders import build_flag_store, judge_all

RATES = {
    side: {"rate": rate, "low": rate - 0.05, "high": rate + 0.05, "n": 200}
    for side, rate in (("before", 0.6), ("after", 0.1))
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original model's folder; never written to."""
    return tiny.save_pipeline(tmp_path_factory.mktemp("models") / "base-model")


@pytest.fixture
def store_path(base: Path, tmp_path: Path) -> Path:
    """A store with judgments, and an erasing run whose model differs from the original in cross-attention."""
    path = tmp_path / "store"
    with build_flag_store(path) as store:
        judge_all(store, "weapons")
        snapshot = create_snapshot(store, "weapons")
        config = {"project": "weapons", "config": {"model": str(base), "method": "sdd", "seed": 0}}
        run = store.start_run("erase", config, snapshot.hash, {"model_sha256": model_sha256(base)})
        pipeline = load_pipeline(base, "cpu")
        unet = tiny.build_unet()
        unet.load_state_dict(pipeline.unet.state_dict())
        with torch.no_grad():
            for name, weight in unet.named_parameters():
                if "attn2.to_k" in name:
                    weight.mul_(1.5)
        folder = export_folder(pipeline, unet, store.artifact_dir(run.id) / "model")
        store.add_artifact(run.id, "model", "model", folder)
        store.finish_run(run.id, "done", {"steps": 1})
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = main([*map(str, arguments), "--quiet"])
    output = capsys.readouterr()
    return code, output.out, output.err


def erasing_run(path: Path) -> Any:
    with Store.open(path) as store:
        return store.list_runs(kind="erase")[0]


def header_of(card: Path) -> dict[str, Any]:
    _, header, _ = card.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header)


@pytest.mark.parametrize("format", ["folder", "single-file", "delta", "lora"])
def test_export_model_of_a_run_names_what_it_was_made_from(
    store_path: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    out = tmp_path / ("saved" if format == "folder" else "saved.safetensors")
    where = ("--store", store_path, "--project", "weapons")
    code, said, error = run(capsys, "export-model", "--format", format, "--out", out, *where)
    assert (code, error) == (0, "")
    assert said.startswith(f"Saved {out}; loaded again, it differs by ")
    erased = erasing_run(store_path)
    card = out / "README.md" if format == "folder" else out.with_suffix(".md")
    expected = {
        "snapshot": erased.snapshot_hash, "base_model_sha256": model_sha256(base), "method": "sdd", "run": erased.id,
    }  # fmt: skip
    assert header_of(card)["hfi"] == expected
    text = card.read_text(encoding="utf-8")
    assert "| pictures that nobody judged | none was used |" in text
    assert "| pictures flagged | 4 of 12 |" in text and "Nothing yet: run `hfi evaluate`" in text
    assert str(tmp_path) not in text and str(base) not in text
    if format != "folder":
        with safe_open(out, framework="pt") as file:
            assert {f"hfi.{name}": value for name, value in expected.items()}.items() <= file.metadata().items()
    if format == "lora":
        assert "The LoRA leaves out" in said and "% of the change in the weights" in said
    again = run(capsys, "export-model", "--format", format, "--out", out, *where)
    assert again[0] == 1 and "exists already" in again[2]


@pytest.mark.parametrize(
    ("format", "file"),
    [("single-file", "erased-{}.safetensors"), ("lora", "erased-{}.lora.safetensors"), ("folder", "erased-{}")],
)
def test_a_job_saves_the_model_as_an_artifact_once(store_path: Path, format: Any, file: str) -> None:
    config = ExportConfig(format=format, lora_rank=1)
    request = SaveRequest(project="weapons", source=erasing_run(store_path).id, config=config)
    with Store.open(store_path) as store:
        saved = run_save_job(store, request, QUIET)
        name = file.format(request.source)
        [artifact] = store.list_artifacts(saved.run.id)
        assert (saved.figures["file"], artifact.kind, artifact.details["format"]) == (name, "saved_model", format)
        assert (store.path / artifact.path / name).exists() and name in saved.summary
        assert saved.run.snapshot_hash == store.get_run(request.source).snapshot_hash
        assert run_save_job(store, request, QUIET).run.id == saved.run.id


def test_card_shows_the_newest_evaluation(store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(store_path) as store:
        measured = store.start_run("evaluate", {"project": "weapons"}, None)
        with store.writing_artifact(measured.id, "evaluation", "evaluation") as folder:
            content = {"protocol": {"name": "mini"}, "figures": {"removal": RATES, "erased_run": "x"}}
            (folder / "evaluation.json").write_text(json.dumps(content))
        store.finish_run(measured.id, "done", {"erased_run": erasing_run(store_path).id})
    out = tmp_path / "saved.safetensors"
    run(capsys, "export-model", "--format", "delta", "--out", out, "--store", store_path, "--project", "weapons")
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "| 60.0 % [55.0, 65.0] (n = 200) | 10.0 % [5.0, 15.0] (n = 200) |" in text
    assert 'Protocol: `{"name": "mini"}`' in text


def test_a_delta_becomes_a_folder_again_on_its_own_base_model_alone(
    store_path: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, whole = tmp_path / "d.safetensors", tmp_path / "whole"
    where = ("--store", store_path, "--project", "weapons")
    run(capsys, "export-model", "--format", "delta", "--out", small, *where)
    code, _, error = run(capsys, "export-model", small, "--base", base, "--out", whole)
    assert (code, error) == (0, "")
    erased = store_path / "artifacts"
    (trained,) = erased.rglob("model/unet/diffusion_pytorch_model.safetensors")
    assert trained.read_bytes() == (whole / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert header_of(whole / "README.md")["hfi"]["method"] == "sdd"
    other = tiny.save_pipeline(tmp_path / "other", seed=1)
    capsys.readouterr()  # the bars of saving it
    for arguments, words in (
        (("--base", other), "but the base model given is"),
        ((), "name the original model with --base"),
    ):
        code, _, error = run(capsys, "export-model", small, *arguments, "--out", tmp_path / "no")
        assert code in (1, 2) and words in error and error.count("\n") == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "ckpt"), "--format is 'ckpt', but must be one of folder, single-file, delta, lora"),
        (("nobody",), "'nobody' is neither a model folder, nor a delta, nor a run"),
        (("--format", "lora", "--out", "x.bin"), "writes a file that ends in .safetensors"),
        (("--project", "likes"), "no finished erasing run"),
        (("--base", "mini", "--format", "delta"), "name with --base the model it was made from"),
    ],
)
def test_export_model_says_what_is_wrong(
    store_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--project", "weapons"] if "--project" not in arguments else []
    code, _, error = run(capsys, "export-model", *arguments, "--store", store_path, *given)
    assert code in (1, 2) and words in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_erase_refuses_an_unknown_format_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, "erase", "--save", "ckpt", "--store", tmp_path / "none")
    assert code == 2 and "--save is 'ckpt', but must be one of folder" in error


def test_card_of_an_unknown_folder_says_so() -> None:
    text = make_model_card(CardFacts("m", "StableDiffusionPipeline", "folder", "float32", base="owner/name"))
    header = yaml.safe_load(text.split("---\n", 2)[1])
    assert header["base_model"] == "owner/name" and header["base_model_relation"] == "finetune"
    assert "Not known: the model was saved from a folder that does not say." in text
