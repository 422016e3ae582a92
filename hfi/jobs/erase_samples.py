"""Pictures of an erasure while it runs: the same prompts and seeds, drawn again every so many steps, kept small.

    <store>/artifacts/<run id>/samples/samples.json     prompts, seeds, and the concept score at each step
                                       step-000050/2.png

They are looked at and nothing is decided by them: an erasure with samples gives the same weights as one without.
Importing this module never imports torch.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import SamplerConfig
from hfi.files import write_text_atomically
from hfi.progress import Progress, follow_steps
from storage import Store

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from PIL import Image

    from hfi.erase.training import TrainingState
    from hfi.pipelines import Pipeline

SAMPLES_ARTIFACT = "samples"
SHEET_NAME = "samples.json"
MAX_PICTURE_PX = 256
NUM_CONCEPT_PROMPTS, NUM_OTHER_PROMPTS = 4, 2
MAX_SAMPLE_PROMPTS = 16
SAMPLE_STEPS = 20

# Concept scores of pictures, in their order.
ScorePictures = Callable[[Sequence["Image.Image"]], list[float]]


@dataclass(frozen=True)
class SamplePrompt:
    """What is drawn at every look; `is_concept`: whether it asks for what is being erased."""

    prompt: str
    seed: int
    is_concept: bool = True


@dataclass(frozen=True)
class SamplePoint:
    """One look: after how many steps, and the concept score of each picture."""

    step: int
    concept_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class SampleSheet:
    """All that has been drawn of one erasure so far; the first point is the original model."""

    prompts: tuple[SamplePrompt, ...]
    points: tuple[SamplePoint, ...] = ()

    def mean_score(self, point: SamplePoint) -> float | None:
        """Mean concept score of the pictures that ask for the concept; None without a score model."""
        pairs = zip(self.prompts, point.concept_scores, strict=False)
        scores = [score for prompt, score in pairs if prompt.is_concept]
        return sum(scores) / len(scores) if scores else None


@dataclass(frozen=True)
class SampleWish:
    """What somebody wants to see: how often, and of which prompts (none: of flagged and of unflagged pictures)."""

    every_n_steps: int = 0
    prompts: tuple[str, ...] = ()


def samples_folder(store: Store, run_id: str) -> Path:
    """Where an erasure keeps its samples."""
    return Path(store.artifact_dir(run_id)) / SAMPLES_ARTIFACT


def picture_path(folder: Path, step: int, number: int) -> Path:
    """The file of one sample."""
    return folder / f"step-{step:06d}" / f"{number}.png"


def read_samples(folder: Path) -> SampleSheet | None:
    """What has been drawn so far; None before the first look."""
    try:
        content = json.loads((folder / SHEET_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    prompts = tuple(SamplePrompt(**row) for row in content["prompts"])
    points = tuple(SamplePoint(row["step"], tuple(row["concept_scores"])) for row in content["points"])
    return SampleSheet(prompts, points)


def choose_prompts(wish: SampleWish, flagged: Sequence[str], others: Sequence[str]) -> tuple[SamplePrompt, ...]:
    """The prompts that were asked for, else those of the most flagged pictures and some that must not change.

    Args:
        wish: what was asked for.
        flagged: prompts of flagged pictures, highest concept score first.
        others: prompts of unflagged ones.
    """
    if wish.prompts:
        return tuple(SamplePrompt(text, 0) for text in wish.prompts[:MAX_SAMPLE_PROMPTS])
    concept = [text for text in dict.fromkeys(flagged) if text][:NUM_CONCEPT_PROMPTS]
    kept = [text for text in dict.fromkeys(others) if text and text not in concept][:NUM_OTHER_PROMPTS]
    return (*(SamplePrompt(text, 0) for text in concept), *(SamplePrompt(text, 0, False) for text in kept))


class ErasureWatch:
    """Tells how an erasure goes on: its losses, and samples every so many steps.

    Args:
        progress: told about steps, losses and concept scores.
        pipeline: the original.
        folder: where samples are kept; those that are there are not drawn again.
        prompts: what is drawn; nothing = no samples.
        every_n_steps: steps between two looks; 0 = before and after only.
        sampler: how the samples are drawn.
        score: concept scores of pictures, if there is a score model.
    """

    def __init__(
        self,
        progress: Progress,
        pipeline: Pipeline,
        folder: Path,
        prompts: Sequence[SamplePrompt] = (),
        every_n_steps: int = 0,
        sampler: SamplerConfig | None = None,
        score: ScorePictures | None = None,
    ) -> None:
        self.progress, self.pipeline, self.folder = progress, pipeline, folder
        self.sheet = read_samples(folder) or SampleSheet(tuple(prompts))
        self.is_drawing = bool(prompts)
        self.every_n_steps = every_n_steps
        self.sampler = sampler or SamplerConfig(num_inference_steps=SAMPLE_STEPS)
        self.score = score
        self.num_steps_done = 0
        self.seconds_looking = 0.0  # within the training, whose cost it is not
        self._follow = follow_steps(progress)
        self.figures: dict[str, float] = {}

    def count_step(self, num_steps_done: int, num_steps: int, losses: Mapping[str, float]) -> None:
        """One more step is done; what erasers call after each."""
        self.num_steps_done = num_steps_done
        self.figures |= losses
        self._follow(num_steps_done, num_steps, self.figures if losses else {})

    def look(self, state: TrainingState) -> None:
        """Look at a training that goes on; called after `count_step`."""
        if self.every_n_steps and self.num_steps_done % self.every_n_steps == 0:
            started = time.monotonic()
            self.draw(self.num_steps_done, state.teacher if state.teacher is not None else state.student)
            self.seconds_looking += time.monotonic() - started

    def draw(self, step: int, unet: UNet2DConditionModel) -> None:
        """Draw all prompts with a model and keep them, unless that is done."""
        if not self.is_drawing or any(point.step == step for point in self.sheet.points):
            return
        pictures = self._generate(unet)
        scores = tuple(round(score, 4) for score in self.score(pictures)) if self.score else ()
        self._keep(step, pictures)
        points = sorted((*self.sheet.points, SamplePoint(step, scores)), key=lambda point: point.step)
        self.sheet = replace(self.sheet, points=tuple(points))
        write_text_atomically(self.folder / SHEET_NAME, json.dumps(asdict(self.sheet), indent=1))
        mean = self.sheet.mean_score(SamplePoint(step, scores))
        if mean is not None:
            self.figures["concept_score"] = mean
            self.progress.advance(0, **self.figures)

    def _generate(self, unet: UNet2DConditionModel) -> list[Image.Image]:
        from hfi.generate import GenerationRequest, generate
        from hfi.pipelines import with_parts

        requests = [GenerationRequest(row.prompt, row.seed) for row in self.sheet.prompts]
        return [picture for _, picture in generate(with_parts(self.pipeline, unet=unet), requests, self.sampler)]

    def _keep(self, step: int, pictures: Sequence[Image.Image]) -> None:
        """Write beside the place, then rename: whoever looks finds all of them or none."""
        target = picture_path(self.folder, step, 0).parent
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            small = picture.copy()
            small.thumbnail((MAX_PICTURE_PX, MAX_PICTURE_PX))
            small.save(unfinished / f"{number}.png", "PNG")
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)


def score_pictures_with(score_model: Any, clip_name: str, device: str) -> ScorePictures:
    """Concept scores by a project's score model; its CLIP is loaded when the first pictures come."""
    loaded: list[Any] = []

    def score(pictures: Sequence[Image.Image]) -> list[float]:
        from hfi.clip import embed_images, load_clip

        if not loaded:
            loaded.append(load_clip(clip_name, device))
        return [float(value) for value in score_model.score(embed_images(loaded[0], list(pictures)))[0]]

    return score
