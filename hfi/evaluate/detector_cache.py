"""What detectors said of pictures, kept so that nothing is read twice. Torch-free."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from hfi.image_cache import ImageCache

TAKE_OVER = """
    INSERT OR IGNORE INTO kept SELECT reader_sha256, image_sha256, CAST(scores AS BLOB) FROM readings;
    DROP TABLE readings;
"""


class DetectorCache(ImageCache):
    """Scores by reader and picture."""

    @classmethod
    def _connect(cls, path: Path) -> sqlite3.Connection:
        """As any cache; readings of files from before there was more than one kind are taken over."""
        connection = super()._connect(path)
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'readings'").fetchone():
            with contextlib.suppress(sqlite3.OperationalError):  # another process does it
                connection.executescript(f"BEGIN IMMEDIATE; {TAKE_OVER} COMMIT;")
        return connection

    def get_scores(self, reader_sha256: str, image_sha256s: Sequence[str]) -> dict[str, dict[str, float]]:
        """Scores of those pictures that this reader has read."""
        return {image: json.loads(value) for image, value in self.get(reader_sha256, image_sha256s).items()}

    def put_scores(self, reader_sha256: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Keep scores, in one transaction."""
        self.put(reader_sha256, {image: json.dumps(dict(values)).encode() for image, values in scores.items()})
