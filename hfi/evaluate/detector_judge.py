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
from hfi.evaluate.protocol import STYLE_JUDGE, DetectorSpec
from hfi.mini.concepts import style_of, suite_of_concept
from hfi.mini.world import World, embedded_world

if TYPE_CHECKING:
    from hfi.mini.detect import Detector as SceneDetector

THRESHOLD = 0.5


class WorldJudge:
    """A score for every object of the embedded world; `classes` are one group's.

    Asked about a style, it scores every style too, `classes` is that style, and it has a name of its own: what was
    kept of the objects alone would not do.
    """

    def __init__(self, model_folder: str, group: str) -> None:
        """What is looked at for the concept; nothing is loaded yet.

        Args:
            model_folder: the embedded model, or its folder.
            group: the group whose objects are the concept, or `style-<style>`.

        Raises:
            ConfigError: the world has no such group or style.
        """
        self.model_folder = model_folder
        folder = Path(resolve_model_folder(model_folder))
        self.world: World = embedded_world(folder)
        suite_of_concept(group, self.world)  # refuses what this world does not know
        self.style = style_of(group)
        self.spec = DetectorSpec(
            name=STYLE_JUDGE if self.style else "judge",
            package="hfi",
            package_version=hfi.__version__,
            weights_sha256=hash_files([folder / "judge" / "model.safetensors"]),
            classes=(self.style,) if self.style else self.world.in_group(group),
            threshold=THRESHOLD,
        )

    @cached_property
    def network(self) -> SceneDetector:
        """The judge itself, loaded when it is first asked: what was read before needs no network."""
        from hfi.mini.detect import load_detector

        return load_detector("judge", self.model_folder)

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        """Probability of every object; asked about a style, of every style too, which sum to 1."""
        sight = self.network.see(images)
        scores = [dict(zip(self.world.objects, map(float, row), strict=True)) for row in sight.objects]
        if self.style:
            for found, row in zip(scores, sight.styles, strict=True):
                found |= dict(zip(self.world.styles, map(float, row), strict=True))
        return scores


def build_judge(group: str, model_folder: str = "mini") -> WorldJudge:
    """The judge that ships with the embedded model."""
    return WorldJudge(model_folder, group)
