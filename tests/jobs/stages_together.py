"""Inversion, erasing and evaluation of a tiny model in a store: run by one process, or by each process of a launch.

python -m torch.distributed.run --standalone --nproc_per_node 2 -m tests.jobs.stages_together STORE MODEL METHODS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hfi.config import EraseConfig, EvaluateConfig, InvertConfig, ScoreConfig
from hfi.jobs import stages
from hfi.progress import QUIET, Progress
from storage import Store
from storage.import_any import import_path

PROJECT = "p"
COLORS = {"yes": (220, 30, 30), "no": (30, 30, 220)}
PROMPTS = {"yes": ("a bomb", "an axe"), "no": ("a cat", "a dog")}
TRAINING = {"num_train_steps": 3, "batch_size": 2, "bank_batches": 2, "bank_passes": 2, "checkpoint_every_n_steps": 2}


def prepare(folder: Path) -> Path:
    """A store with judged pictures and a score model, and a suite of prompts beside it."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    lines = []
    for number in range(8):
        answer = "yes" if number % 2 else "no"
        Image.new("RGB", (32, 32), tuple(value + number for value in COLORS[answer])).save(pictures / f"{number}.png")
        prompt = PROMPTS[answer][number // 2 % 2]
        lines.append(json.dumps({"file_name": f"{number}.png", "prompt": prompt, "answer": answer}))
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    suite = {"concept": ["a bomb", "an axe"], "others": ["a cat", "a dog"]}
    (folder / "suite.json").write_text(json.dumps(suite))
    with Store.open(folder / "store") as store:
        import_path(store, pictures, PROJECT)
    return folder / "store"


def run_stages(store_path: Path, model: str, methods: Sequence[str], progress: Progress = QUIET) -> None:
    """Every stage of training and measuring that several processes share."""
    suite = str(store_path.parent / "suite.json")
    with Store.open(store_path) as store:
        invert = InvertConfig(model=model, num_train_steps=4, batch_size=2, num_concepts=2, initializer="bomb")
        stages.run_invert(store, invert, PROJECT, progress)
        for method in methods:
            options = {"robust_rounds": 2, "robust_invert_steps": 2} if method == "robust" else {}
            config = EraseConfig.model_validate(
                {"model": model, "method": method, "allow_weak_tokens": True, **TRAINING, **options}
            )
            stages.run_erase(store, config, PROJECT, progress)
        evaluate = EvaluateConfig(
            model=model, suite=suite, num_concept_images=4, num_other_images=4, num_inference_steps=2, detector="score"
        )
        stages.run_evaluate(store, evaluate, PROJECT, progress)


def score(store_path: Path, model: str, progress: Progress = QUIET) -> None:
    """The score model that all of them rest on."""
    with Store.open(store_path) as store:
        stages.run_score(store, ScoreConfig(clip=model, max_epochs=2), PROJECT, progress)


if __name__ == "__main__":
    run_stages(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","))
