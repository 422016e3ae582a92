"""The stage `erase` on a real store: weak tokens, words, costs beforehand and measured, what is left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hfi.config import EraseConfig, GenerateConfig, InvertConfig, ScoreConfig
from hfi.errors import NotFoundError, WeakTokenError
from hfi.inversion import load_concept_tokens
from hfi.jobs import stages
from hfi.pipelines import load_pipeline
from hfi.progress import NullProgress
from storage import Store
from storage.records import JudgmentInput
from tests import tiny

QUIET = NullProgress()


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A store with eight judged pictures of a tiny model, a score model and a token; and the model's folder."""
    folder = tmp_path_factory.mktemp("erase-job")
    model = str(tiny.save_pipeline(folder / "model"))
    with Store.open(folder / "store") as store:
        sampler = GenerateConfig(model=model, num_inference_steps=1)
        stages.run_generate(store, sampler, ["a red cat", "a red dog"], range(4), "p", QUIET)
        store.add_annotator("ann")
        for lease in store.claim("p", "ann", 50):
            answer = "yes" if "cat" in lease.prompt else "no"
            store.submit_judgments(
                [JudgmentInput(f"{lease.id:08d}-0000-4000-8000-000000000000", "ann", answer, lease.id)]
            )
        stages.run_score(store, ScoreConfig(max_epochs=2, clip=f"{model}/clip"), "p", QUIET)
        settings = InvertConfig(model=model, num_train_steps=1, num_concepts=1, batch_size=1, stopping="steps")
        stages.run_invert(store, settings, "p", QUIET)
        yield store, model


def config(model: str, **settings: Any) -> EraseConfig:
    base = {"model": model, "num_train_steps": 1, "batch_size": 1, "allow_weak_tokens": True, "bank_batches": 1}
    return EraseConfig.model_validate(base | settings)


def test_a_weak_token_is_refused_with_the_reason_and_left_out_beside_other_targets(
    judged: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = judged
    monkeypatch.setattr("hfi.jobs.erase.MIN_TOKEN_SCORE", 1.01)  # no token reaches this
    num_runs = len(store.list_runs())
    with pytest.raises(WeakTokenError, match=r"the best scores 0\.\d\d, .*--allow-weak-tokens"):
        stages.run_erase(store, config(model, targets="tokens", allow_weak_tokens=False), "p", QUIET)
    assert len(store.list_runs()) == num_runs
    result = stages.run_erase(store, config(model, targets="both", allow_weak_tokens=False), "p", QUIET)
    assert result.figures["weak_tokens"] == 1 and result.figures["tokens"] == 0
    assert "1 tokens do not reproduce the concept and were left out" in result.summary


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "closed_form", "targets": "text", "text": "cat; dog"},
        {"method": "robust", "targets": "tokens", "robust_rounds": 2, "robust_invert_steps": 1},
        {"method": "abo", "targets": "text", "text": "cat", "retain_text": "a dog; a red dog"},
    ],
    ids=lambda settings: settings["method"],
)
def test_erase_leaves_a_model_its_losses_and_its_measured_cost(
    judged: tuple[Store, str], settings: dict[str, Any]
) -> None:
    store, model = judged
    result = stages.run_erase(store, config(model, **settings), "p", QUIET)
    folder = store.artifact_dir(result.run.id)
    assert load_pipeline(folder / "model", device="cpu").unet is not None
    assert len(json.loads((folder / "model/losses.json").read_text())["erase"]) >= 1
    assert not (folder / "checkpoint").exists()
    assert result.figures["erase_seconds"] > 0 and result.figures["erase_peak_memory_mib"] > 0
    assert result.figures["retained"] == (2 if "retain_text" in settings else 4)
    target, anchor = result.figures["example"]
    assert target != anchor and f"For instance '{target}' is to be drawn as '" in result.summary
    if settings["method"] == "robust":
        assert [token.placeholder for token in load_concept_tokens(folder / "tokens")] == ["<again-1>"]


def test_a_dry_run_says_the_cost_and_stores_nothing(judged: tuple[Store, str]) -> None:
    store, model = judged
    num_runs = len(store.list_runs())
    sentence = stages.estimate_erase(store, config(model, targets="prompts", num_train_steps=1000), "p")
    assert sentence.startswith("About ") and "1000 steps" in sentence and "MiB" in sentence
    assert len(store.list_runs()) == num_runs


def test_a_snapshot_without_a_score_model_is_named(judged: tuple[Store, str]) -> None:
    store, model = judged
    with pytest.raises(NotFoundError, match="no finished `hfi score` of the snapshot ffff"):
        stages.run_erase(store, config(model), "p", QUIET, snapshot_hash="f" * 64)
    known = store.list_runs(kind="score", status="done")[-1].snapshot_hash
    result = stages.run_erase(store, config(model, targets="prompts", seed=3), "p", QUIET, snapshot_hash=known)
    assert result.run.snapshot_hash == known


def test_a_token_that_was_learned_in_prompts_is_erased_in_them(judged: tuple[Store, str]) -> None:
    store, model = judged
    settings = InvertConfig(model=model, num_train_steps=1, num_concepts=1, batch_size=1, templates="prompts")
    learned = stages.run_invert(store, settings, "p", QUIET)
    (token,) = load_concept_tokens(store.artifact_dir(learned.run.id) / "tokens")
    assert token.card["templates"] == learned.figures["templates"] == "prompts"
    assert "learned as with" not in learned.summary
    result = stages.run_erase(store, config(model, targets="tokens", anchor="rest"), "p", QUIET)
    assert result.figures["example"] == ["a red <concept>", "a red"]


def test_an_inversion_says_when_no_word_of_the_prompts_tells_where_a_token_stands(
    judged: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = judged
    monkeypatch.setattr("hfi.inversion.auto.concept_words", lambda *_: set())
    settings = InvertConfig(
        model=model, num_train_steps=1, num_concepts=1, batch_size=1, templates="prompts", placeholder="<none>"
    )
    result = stages.run_invert(store, settings, "p", QUIET)
    assert "they were learned as with --templates plain" in result.summary
    again = stages.run_invert(store, settings, "p", QUIET)
    assert (again.run.id, again.summary) == (result.run.id, result.summary)
