"""The feedback store: one folder with a database, the pictures and what was made from them.

    with Store.open("my-store") as store:
        store.create_project("weapons", kind="flag", guideline="Does the picture show a weapon?")

Layout of the folder: ``store.db`` (SQLite), ``objects/`` (pictures by their hash), ``artifacts/`` (what runs made),
``thumbnails/`` (can be deleted at any time), ``tmp/`` (unfinished files).
"""

from __future__ import annotations

import secrets
import time
import uuid
from pathlib import Path
from types import TracebackType

from storage import sql
from storage.care import CareSection
from storage.connection import Clock, explain_error
from storage.disk import NETWORK_KINDS, assert_lasting, disk_kind, is_allowed_by_environment
from storage.errors import NotFoundError
from storage.gallery import GallerySection

FOLDERS = ("objects", "artifacts", "tmp")


class Store(CareSection, GallerySection):
    """Everything people judged and everything made from it; each section below adds its methods."""

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        create: bool = True,
        clock: Clock = time.time,
        is_wal: bool | None = None,
        allow_ephemeral: bool | None = None,
    ) -> Store:
        """Open a store, making or upgrading it as needed.

        Args:
            path: the store's folder.
            create: False to refuse a folder that holds no store.
            clock: seconds since 1970 UTC; tests pass their own.
            is_wal: False for no write-ahead log, which is not safe on network disks; None: as the disk needs.
            allow_ephemeral: True for a store on a disk that forgets, such as tmpfs; None: as HFI_ALLOW_EPHEMERAL says.

        Raises:
            NotFoundError: no store there and ``create`` is False.
            EphemeralDiskError: what is written there would be gone after a restart.
            StoreTooNewError: a newer version wrote it.
            StoreDamagedError: its schema has lost a guard, or the file is not a database.
            StoreReadOnlyError, NoSpaceError: it can't be written.
        """
        root = Path(path)
        is_new = not (root / "store.db").exists()
        if is_new and not create:
            raise NotFoundError(f"There is no store in {str(path)!r}. Give the folder of a store, or create one there.")
        kind = disk_kind(root)
        if not (is_allowed_by_environment() if allow_ephemeral is None else allow_ephemeral):
            assert_lasting(root, kind)
        try:
            for folder in FOLDERS:
                (root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_error(error, str(path)) from error
        store = cls(root, clock=clock, is_wal=kind not in NETWORK_KINDS if is_wal is None else is_wal)
        try:
            store._migrate()
            store._ensure_identity()
        except BaseException:
            store.close()
            raise
        return store

    def _ensure_identity(self) -> None:
        if self.connection.execute(sql.META_GET, ("store_id",)).fetchone():
            return
        with self.transaction() as connection:
            if connection.execute(sql.META_GET, ("store_id",)).fetchone() is None:
                connection.execute(sql.META_PUT, ("store_id", str(uuid.uuid4())))
                connection.execute(sql.META_PUT, ("pseudonym_key", secrets.token_hex(32)))
                self.add_audit("store.create", "store", {})

    @property
    def store_id(self) -> str:
        """The store's own identity, made with it."""
        return str(self.connection.execute(sql.META_GET, ("store_id",)).fetchone()[0])

    @property
    def pseudonym_key(self) -> str:
        """The secret that annotators' pseudonyms in exports are made with; it never leaves the store."""
        return str(self.connection.execute(sql.META_GET, ("pseudonym_key",)).fetchone()[0])

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
