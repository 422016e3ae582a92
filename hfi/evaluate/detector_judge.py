"""The embedded world's independent judge as a detector. Torch-free until it is shown a picture that nobody has read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

import hfi
from hfi.config import resolve_model_folder
from hfi.evaluate.detectors import Scores, hash_files
from hfi.evaluate.protocol import DetectorSpec
from hfi.mini.world import World, embedded_world

if TYPE_CHECKING:
    from hfi.mini.detect import Detector as SceneDetector

THRESHOLD = 0.5


class WorldJudge:
    """A score for every object of the embedded world; `classes` are one group's."""

    def __init__(self, model_folder: str, group: str) -> None:
        """Args: model_folder: the embedded model, or its folder. group: the group whose objects are the concept."""
        self.model_folder = model_folder
        folder = Path(resolve_model_folder(model_folder))
        self.world: World = embedded_world(folder)
        self.spec = DetectorSpec(
            name="judge",
            package="hfi",
            package_version=hfi.__version__,
            weights_sha256=hash_files([folder / "judge" / "model.safetensors"]),
            classes=self.world.in_group(group),
            threshold=THRESHOLD,
        )

    @cached_property
    def network(self) -> SceneDetector:
        """The judge itself, loaded when it is first asked: what was read before needs no network."""
        from hfi.mini.detect import load_detector

        return load_detector("judge", self.model_folder)

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        """Probability of every object."""
        rows = self.network.see(images).objects
        return [dict(zip(self.world.objects, map(float, row), strict=True)) for row in rows]


def build_judge(group: str, model_folder: str = "mini") -> WorldJudge:
    """The judge that ships with the embedded model."""
    return WorldJudge(model_folder, group)
