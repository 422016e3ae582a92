"""The detectors that come with a project: the embedded world's judge, and the project's own score model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import hfi
from hfi.clip import Clip, clip_folder, embed_images, load_clip
from hfi.evaluate.detectors import Scores
from hfi.evaluate.protocol import DetectorSpec
from hfi.mini.detect import Detector as SceneDetector
from hfi.mini.detect import load_detector
from hfi.mini.world import World
from hfi.score import WEIGHTS_NAME, ScoreModel, load_score_model

SHOWN = "shows the concept"
THRESHOLD = 0.5


class WorldJudge:
    """The embedded world's independent judge: a score for every object of the world; `classes` are one group's."""

    def __init__(self, detector: SceneDetector, group: str) -> None:
        """Args: detector: a loaded judge. group: the group whose objects count as the concept."""
        self.detector = detector
        self.spec = DetectorSpec(
            name="judge",
            package="hfi",
            package_version=hfi.__version__,
            weights_sha256=detector.sha256,
            classes=detector.world.in_group(group),
            threshold=THRESHOLD,
        )

    @property
    def world(self) -> World:
        """The objects, styles and backgrounds it knows."""
        return self.detector.world

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        """Probability of every object."""
        rows = self.detector.see(images).objects
        return [dict(zip(self.world.objects, map(float, row), strict=True)) for row in rows]


class ScoreModelDetector:
    """The project's score model: how strongly a picture shows what its annotators flagged."""

    def __init__(self, model: ScoreModel, clip: Clip, weights_sha256: str) -> None:
        """Args: model: trained ensemble. clip: what it reads. weights_sha256: hash over both files of weights."""
        self.model, self.clip = model, clip
        self.spec = DetectorSpec(
            name="score",
            package="hfi",
            package_version=hfi.__version__,
            weights_sha256=weights_sha256,
            classes=(SHOWN,),
            threshold=THRESHOLD,
        )

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        """The calibrated concept score."""
        return [{SHOWN: float(score)} for score in self.model.score(embed_images(self.clip, images))[0]]


def build_judge(group: str, model_folder: str = "mini") -> WorldJudge:
    """The judge that ships with the embedded model."""
    return WorldJudge(load_detector("judge", model_folder), group)


def build_score_detector(folder: Path, clip: str, device: str = "auto") -> ScoreModelDetector:
    """The score model in a run's folder with the CLIP it was trained on.

    Raises:
        ModelFolderError: either is missing or damaged.
    """
    model, loaded = load_score_model(folder), load_clip(clip, device)
    clip_files = sorted(clip_folder(clip).glob("*.safetensors"))
    return ScoreModelDetector(model, loaded, hash_files([folder / WEIGHTS_NAME, *clip_files]))


def hash_files(paths: Sequence[Path]) -> str:
    """One hash over the contents of files, in their order; of a single file its plain SHA-256."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
