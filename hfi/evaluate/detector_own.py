"""The detector that comes with a project: its own score model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import hfi
from hfi.clip import Clip, clip_folder, embed_images, load_clip
from hfi.evaluate.detectors import Scores, hash_files
from hfi.evaluate.protocol import DetectorSpec
from hfi.score import WEIGHTS_NAME, ScoreModel, load_score_model

SHOWN = "shows the concept"
THRESHOLD = 0.5


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


def build_score_detector(folder: Path, clip: str, device: str = "auto") -> ScoreModelDetector:
    """The score model in a run's folder with the CLIP it was trained on.

    Raises:
        ModelFolderError: either is missing or damaged.
    """
    model, loaded = load_score_model(folder), load_clip(clip, device)
    clip_files = sorted(clip_folder(clip).glob("*.safetensors"))
    return ScoreModelDetector(model, loaded, hash_files([folder / WEIGHTS_NAME, *clip_files]))
