"""What detectors said of pictures, kept so that nothing is read twice. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hfi.image_cache import ImageCache


class DetectorCache(ImageCache):
    """Scores by reader and picture."""

    def get_scores(self, reader_sha256: str, image_sha256s: Sequence[str]) -> dict[str, dict[str, float]]:
        """Scores of those pictures that this reader has read."""
        return {image: json.loads(value) for image, value in self.get(reader_sha256, image_sha256s).items()}

    def put_scores(self, reader_sha256: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Keep scores, in one transaction."""
        self.put(reader_sha256, {image: json.dumps(dict(values)).encode() for image, values in scores.items()})
