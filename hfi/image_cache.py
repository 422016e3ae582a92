"""What was computed from pictures, kept by (picture, reader), so that nothing is computed twice. One SQLite file, never
torch.

The file can be deleted at any time: it holds nothing that reading the pictures again would not give.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

TABLE = """
    CREATE TABLE IF NOT EXISTS kept (
        reader_sha256 TEXT NOT NULL, image_sha256 TEXT NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (reader_sha256, image_sha256)
    ) WITHOUT ROWID, STRICT
"""
FIND = "SELECT value FROM kept WHERE reader_sha256 = ? AND image_sha256 = ?"
PUT = "INSERT OR REPLACE INTO kept VALUES (?, ?, ?)"


class ImageCache:
    """Bytes by reader and picture; a reader is the hash of all that decides what it says."""

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

    @classmethod
    def _connect(cls, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60)
        try:
            with connection:
                connection.execute(TABLE)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def get(self, reader_sha256: str, image_sha256s: Sequence[str]) -> dict[str, bytes]:
        """What this reader gave for those of the pictures that it has read."""
        found = {}
        for image in image_sha256s:
            row = self.connection.execute(FIND, (reader_sha256, image)).fetchone()
            if row is not None:
                found[image] = row[0]
        return found

    def put(self, reader_sha256: str, values: Mapping[str, bytes]) -> None:
        """Keep what this reader gave for each picture, in one transaction."""
        with self.connection:
            self.connection.executemany(PUT, [(reader_sha256, image, value) for image, value in values.items()])

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
