"""A store in which models were changed and measured, made by hand: tiny pictures, figures that a person can check."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from hfi.jobs.erase_samples import SamplePoint, SamplePrompt, SampleSheet, picture_path, samples_folder
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, JudgedPicture, write_result_once
from storage import Store
from storage.records import JudgmentInput
from tests.evaluate.made_up import build_protocol

NUM = 6


def rate(share: float, n: int = 200) -> dict[str, float]:
    """A rate with an interval around it."""
    return {"rate": share, "low": max(0.0, share - 0.05), "high": min(1.0, share + 0.05), "n": n}


def add_erasure(store: Store, project: str = "weapons", method: str = "sdd", snapshot: str | None = None) -> str:
    """A finished erasure and its losses; returns its id."""
    config = {"method": method, "targets": "both", "model": "mini", "num_train_steps": 40}
    run = store.start_run("erase", {"project": project, "config": config, "at": uuid.uuid4().hex}, snapshot)
    folder = store.artifact_dir(run.id) / "model"
    folder.mkdir()
    (folder / "losses.json").write_text(json.dumps({"erase": [1.0, 0.5], "retain": [0.1, 0.1]}), encoding="utf-8")
    costs = {"steps": 40, "erase_seconds": 75.0, "erase_peak_memory_mib": 1234.4}
    store.finish_run(run.id, "done", costs, 80.0, 1500.0)
    return run.id


def add_evaluation(store: Store, erased: str, level: int, project: str = "weapons", **protocol: Any) -> str:
    """What came of measuring an erasure: pictures of this lightness, 80 % before and level % after; its id."""

    def rows(base: int, shows: bool) -> list[dict[str, Any]]:
        found = []
        for part in ("concept", "others"):
            for i in range(NUM):
                colour = (base + i, base, 40 if part == "concept" else 80)
                sha256 = store.add_image(Image.new("RGB", (16, 16), colour)).sha256
                found.append(asdict(JudgedPicture(part, f"{part} prompt {i}", i, sha256, shows, True, None)))
        return found

    figures = {
        "removal": {"before": rate(0.8), "after": rate(level / 100), "difference": rate(0.5)},
        "others_accuracy": {"before": rate(0.9), "after": rate(0.85), "difference": rate(0.05)},
        "unread": {"before": 0, "after": 0}, "damage": {}, "erased_run": erased,
    }  # fmt: skip
    content = {
        "protocol": build_protocol(**protocol), "models": {"before": "b", "after": erased}, "group": "weapon",
        "pictures": {"before": rows(0, True), "after": rows(level, False)},
    }  # fmt: skip
    run = store.start_run("evaluate", {"project": project, "config": {"model": "mini"}, "at": uuid.uuid4().hex})
    figures["protocol"] = content["protocol"].sha256
    write_result_once(store, run, EVALUATION_ARTIFACT, {**content, "figures": figures})
    store.finish_run(run.id, metrics=figures, seconds=1.0)
    return run.id


def add_samples(store: Store, run_id: str, steps: tuple[int, ...] = (0, 20, 40)) -> SampleSheet:
    """Looks at an erasure: the first picture of a look is as light as its step."""
    folder = samples_folder(store, run_id)
    prompts = (SamplePrompt("a <b>gun</b>", 0), SamplePrompt("a cat", 0, is_concept=False))
    points = tuple(SamplePoint(step, (1 - step / 50, 0.1)) for step in steps)
    sheet = SampleSheet(prompts, points)
    for step in steps:
        picture_path(folder, step, 0).parent.mkdir(parents=True)
        for number in range(len(prompts)):
            Image.new("RGB", (8, 8), (step, number, 0)).save(picture_path(folder, step, number))
    (folder / "samples.json").write_text(json.dumps(asdict(sheet)), encoding="utf-8")
    return sheet


def judge_pairs(store: Store, project: str, annotator: str, n: int, answer: str = "first") -> None:
    """Somebody who gives the same answer to so many pairs."""
    store.add_annotator(annotator)
    leases = store.claim(project, annotator, n)
    store.submit_judgments([JudgmentInput(str(uuid.uuid4()), annotator, answer, lease.id) for lease in leases])


def import_folder_with_suite(folder: Path) -> Path:
    """A suite file in a folder of its own."""
    folder.mkdir()
    path = folder / "suite.json"
    path.write_text(json.dumps({"concept": ["a gun"], "others": ["a cat"]}), encoding="utf-8")
    return path
