"""What detectors said, kept by (picture, detector), so that nothing is read twice. One SQLite file, never torch.

The file can be deleted at any time: it holds nothing that reading the pictures again would not give.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

TABLE = """
    CREATE TABLE IF NOT EXISTS readings (
        reader_sha256 TEXT NOT NULL, image_sha256 TEXT NOT NULL, scores TEXT NOT NULL,
        PRIMARY KEY (reader_sha256, image_sha256)
    ) WITHOUT ROWID, STRICT
"""
FIND = "SELECT scores FROM readings WHERE reader_sha256 = ? AND image_sha256 = ?"
PUT = "INSERT OR REPLACE INTO readings VALUES (?, ?, ?)"


class DetectorCache:
    """Scores by reader and picture."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; a file that is no cache is made anew.

        Args:
            path: the file; its folder is made as needed.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.connection = self._connect(path)
        except sqlite3.DatabaseError:
            path.unlink()
            self.connection = self._connect(path)

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60)
        try:
            with connection:
                connection.execute(TABLE)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def get_scores(self, reader_sha256: str, image_sha256s: Sequence[str]) -> dict[str, dict[str, float]]:
        """Scores of those pictures that this reader has read."""
        found = {}
        for image in image_sha256s:
            row = self.connection.execute(FIND, (reader_sha256, image)).fetchone()
            if row is not None:
                found[image] = json.loads(row[0])
        return found

    def put_scores(self, reader_sha256: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Keep scores, in one transaction."""
        rows = [(reader_sha256, image, json.dumps(dict(values))) for image, values in scores.items()]
        with self.connection:
            self.connection.executemany(PUT, rows)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> DetectorCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
