"""Asking people again: blind, in an order drawn by seed and kept, and a verdict that counts what was said."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hfi.config import JudgeAgainConfig
from hfi.errors import ConfigError, NotFoundError
from hfi.evaluate.metrics import wilson_interval
from hfi.evaluate.protocol import DetectorSpec
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, JudgedPicture, write_result_once
from hfi.jobs.judge_again import PairEntry, describe_verdict, majority, pair_verdicts, run_judge_again, run_verdict
from hfi.progress import NullProgress
from storage import Store
from storage.records import JudgmentInput
from tests.evaluate.made_up import build_protocol

QUIET, NUM = NullProgress(), 12


class DarknessDetector:
    """Scores how dark a picture is."""

    spec = DetectorSpec(
        name="judge", package="test", package_version="1", weights_sha256="0" * 64, classes=("dark",), threshold=0.5
    )  # fmt: skip

    def read(self, images: Any) -> list[dict[str, float]]:
        return [{"dark": 1 - float(np.asarray(image).mean()) / 255} for image in images]


def add_evaluation(store: Store, level: int, group: str = "weapon", **protocol: Any) -> str:
    """The original's pictures are dark, the changed model's of the given lightness; returns the evaluation's id."""
    erase = store.start_run("erase", {"project": "p", "config": {"method": "sdd", "targets": "both"}, "at": level})
    store.finish_run(erase.id)

    def rows(base: int) -> list[dict[str, Any]]:
        shas = [store.add_image(Image.new("RGB", (16, 16), (base + i, base, base))).sha256 for i in range(NUM)]
        return [asdict(JudgedPicture("concept", f"prompt {i}", i, sha, None, None, None)) for i, sha in enumerate(shas)]

    content = {
        "protocol": build_protocol(**protocol),
        "models": {"before": "b", "after": str(level)},
        "group": group,
    }
    run = store.start_run("evaluate", {"project": "p", "config": {}, "at": level})
    pictures = {"before": rows(0), "after": rows(level)}
    figures = {"erased_run": erase.id}
    write_result_once(store, run, EVALUATION_ARTIFACT, {**content, "pictures": pictures, "figures": figures})
    store.finish_run(run.id, metrics=figures)
    return run.id


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "store") as opened:
        opened.create_project("p", is_sensitive=True)
        yield opened


def answer_all(
    store: Store, project: str, annotator: str, choose_darker: float, seed: int = 0
) -> list[tuple[int, ...]]:
    """Somebody who chooses the darker picture this often; returns the orders they were shown."""
    store.add_annotator(annotator)
    generator, orders = np.random.default_rng(seed), []
    while leases := store.claim(project, annotator, 20):
        answers = []
        for lease in leases:
            orders.append(lease.shown_order)
            dark = [float(np.asarray(store.load_image(sha)).mean()) for sha in lease.images]
            is_first = (dark[0] < dark[1]) == (generator.random() < choose_darker)
            answers.append(JudgmentInput(str(uuid.uuid4()), annotator, "first" if is_first else "second", lease.id))
        store.submit_judgments(answers)
    return orders


def test_judge_again_is_blind_and_keeps_the_order(store: Store) -> None:
    ids = [add_evaluation(store, 100), add_evaluation(store, 200)]
    config = JudgeAgainConfig(others=",".join(ids), num_pairs=10, annotators_per_item=2)
    done = run_judge_again(store, config, "p", QUIET)
    assert done.figures["items"] == 30, "ten pairs for each two of three models"
    project = store.get_project("p-again")
    assert project.kind == "pair" and project.is_sensitive and "weapon" in project.guideline
    items = store.list_items("p-again")
    assert all("sdd" not in f"{item.prompt} {item.prompt_group} {item.category_hint}" for item in items)
    first_is_lighter = [
        np.asarray(store.load_image(i.images[0])).mean() > np.asarray(store.load_image(i.images[1])).mean()
        for i in items
    ]
    assert 5 < sum(first_is_lighter) < 25, "the original does not always come first"
    orders = answer_all(store, "p-again", "ann", 1.0)
    assert set(orders) == {(0, 1), (1, 0)}
    assert [j.shown_order for j in store.list_judgments("p-again")] == orders
    again = run_judge_again(store, config, "p", QUIET)
    assert again.run.id == done.run.id and len(store.list_items("p-again")) == 30


@pytest.mark.parametrize(
    ("group", "asked"),
    [("weapon", "shows **a weapon** more"), ("style-cartoon", "shows **cartoon style** more"),
     ("", "shows **what the guideline of the first project describes** more")],
)  # fmt: skip
def test_judge_again_asks_about_the_concept_in_words(store: Store, group: str, asked: str) -> None:
    add_evaluation(store, 100, group)
    done = run_judge_again(store, JudgeAgainConfig(num_pairs=2, annotators_per_item=1), "p", QUIET)
    assert asked in store.get_project("p-again").guideline and done.figures["group"] == group


def test_verdict_says_what_people_chose_how_far_they_agree_and_who_agrees_with_them(store: Store) -> None:
    add_evaluation(store, 100)
    run_judge_again(store, JudgeAgainConfig(num_pairs=12, annotators_per_item=3), "p", QUIET)
    assert run_verdict(store, "p")["pairs"][0]["num_open"] == 12
    for index, share in enumerate((1.0, 1.0, 0.5)):
        answer_all(store, "p-again", f"ann{index}", share, seed=index)
    verdict = run_verdict(store, "p", detectors=[DarknessDetector()])
    (pair,) = verdict["pairs"]
    assert pair["models"][0] == "original"
    assert pair["first_more"] == asdict(wilson_interval(12, 12)), "two of three always choose the dark original"
    assert verdict["agreement"]["n"] == 12 and -1 <= verdict["agreement"]["alpha"] < 1
    assert verdict["detectors"]["judge"] == asdict(wilson_interval(12, 12))
    assert (verdict["annotators"], verdict["simulated"]) == (3, 0)
    text = describe_verdict(verdict)
    assert "of 12 decided pairs 100.0 % [75.8, 100.0] went to original" in text and "Detector judge" in text


def test_identical_pictures_are_counted_and_nobody_is_asked_about_them(store: Store) -> None:
    add_evaluation(store, 0)
    done = run_judge_again(store, JudgeAgainConfig(), "p", QUIET)
    assert (done.figures["items"], done.figures["pairs"]) == (0, NUM)
    assert run_verdict(store, "p")["pairs"][0]["num_identical"] == NUM


def test_judge_again_needs_evaluations_of_one_protocol(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no evaluation yet"):
        run_judge_again(store, JudgeAgainConfig(), "p", QUIET)
    with pytest.raises(NotFoundError, match="judge-again"):
        run_verdict(store, "p")
    ids = [add_evaluation(store, 100), add_evaluation(store, 200, guidance_scale=7.5)]
    with pytest.raises(ConfigError, match="guidance scale"):
        run_judge_again(store, JudgeAgainConfig(others=",".join(ids)), "p", QUIET)
    with pytest.raises(NotFoundError, match="'nothing' is no evaluation"):
        run_judge_again(store, JudgeAgainConfig(others="nothing"), "p", QUIET)


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [(["first"], "first"), (["first", "second"], "tie"), (["second", "second", "tie"], "second"), ([], ""),
     (["first", "tie"], "tie"), (["first", "first", "second", "tie", "tie"], "tie")],
)  # fmt: skip
def test_majority_is_what_more_said_than_anything_else(votes: list[str], outcome: str) -> None:
    assert majority(votes) == outcome


def test_pair_verdicts_count_each_two_models_by_hand() -> None:
    entries = [
        PairEntry(1, ("original", "a"), ("x", "y"), "p", 0), PairEntry(2, ("a", "original"), ("y", "x"), "p", 1),
        PairEntry(3, ("original", "a"), ("x", "y"), "p", 2), PairEntry(4, ("a", "original"), ("y", "x"), "p", 3),
        PairEntry(0, ("original", "a"), ("x", "x"), "p", 4),
    ]  # fmt: skip
    votes = {1: ["second"], 2: ["first"], 3: ["first"], 4: ["tie"]}
    (verdict,) = pair_verdicts(entries, votes)
    # "a" was chosen in pairs 1 and 2, the original in 3
    assert verdict.models == ("a", "original") and verdict.first_more == wilson_interval(2, 3)
    assert (verdict.num_ties, verdict.num_identical, verdict.num_open) == (1, 1, 0)
