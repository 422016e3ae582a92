"""Opening the database, one connection a thread, and the one kind of transaction the store uses."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from storage import schema
from storage.errors import (
    ConflictError,
    HFIError,
    InvalidInputError,
    NoSpaceError,
    StoreBusyError,
    StoreDamagedError,
    StoreReadOnlyError,
)
from storage.migrations import APPLICATION_ID, migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

Clock = Callable[[], float]

BUSY_TIMEOUT_SECONDS = 60.0
_INHERITED: list[sqlite3.Connection] = []
_EXPECTED_GUARDS: dict[str, set[str]] = {}  # computed once a process from the migrations; never changes


def explain_error(error: Exception, store: str) -> HFIError:
    """Turn what SQLite or the file system raised into one of our own errors, with the remedy."""
    text = str(error)
    number = getattr(error, "errno", None)
    if "disk is full" in text or number in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            f"No space left for the store {store!r}: the last write was undone, everything acknowledged before is "
            "safe. Free some space and try again."
        )
    if "readonly" in text or "unable to open" in text or number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnlyError(
            f"The store {store!r} cannot be written ({text}). Give this user write permission on the folder and on "
            "every file in it, or choose another folder."
        )
    if "locked" in text or "busy" in text:
        return StoreBusyError(
            f"Another process has kept the store {store!r} locked for more than {BUSY_TIMEOUT_SECONDS:.0f} s. "
            "Nothing was written; try again when it has finished."
        )
    if isinstance(error, sqlite3.IntegrityError):
        if "UNIQUE" in text or "append-only" in text:
            return ConflictError(f"The store {store!r} already has this entry ({text}); it was not written again.")
        return InvalidInputError(f"The store {store!r} refused the entry: {text}.")
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return StoreDamagedError(
            f"The file {store!r}/store.db is not a readable SQLite database ({text}). Restore the last backup."
        )
    return HFIError(f"The store {store!r} failed: {text}. Run `hfi doctor` on it.")


def _close_own(process_id: int, connection: sqlite3.Connection) -> None:
    """Close a connection that this process opened; one that came along with a fork is the parent's, which may be
    writing with it, and must not even be garbage here."""
    if process_id == os.getpid():
        connection.close()
    else:
        _INHERITED.append(connection)


def _is_in_transaction(connection: sqlite3.Connection) -> bool:
    return connection.in_transaction


class StoreBase:
    """A store folder, its clock, and a connection for each thread that asks for one."""

    def __init__(self, path: str | Path, *, clock: Clock = time.time, is_wal: bool = True) -> None:
        self.path = Path(path)
        self.scratch = self.path / "tmp"  # for unfinished files; a job has its own, which its worker clears
        self.clock = clock
        self._is_wal = is_wal
        self._local = threading.local()
        self._databases: weakref.WeakKeyDictionary[Database, int] = weakref.WeakKeyDictionary()
        self._connections_lock = threading.Lock()
        self._is_closed = False

    def now_us(self, now: float | None = None) -> int:
        """The time in microseconds since 1970 UTC: ``now`` (seconds) if given, else the clock's."""
        return int((self.clock() if now is None else now) * 1_000_000)

    @property
    def database(self) -> Database:
        """This thread's sqlite-utils database, opened on first use (again after a fork)."""
        if self._is_closed:
            raise HFIError(f"The store {str(self.path)!r} has been closed. Open it again with Store.open.")
        local = self._local
        if getattr(local, "process_id", None) != os.getpid():
            local.database = self._connect()
            local.process_id = os.getpid()
        database: Database = local.database
        return database

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's plain SQLite connection; rows come as tuples."""
        connection: sqlite3.Connection = self.database.conn
        return connection

    def _connect(self) -> Database:
        from sqlite_utils import Database

        try:
            connection = sqlite3.connect(
                self.path / "store.db",
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA recursive_triggers = ON")
            connection.execute(f"PRAGMA journal_mode = {'WAL' if self._is_wal else 'DELETE'}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -65536")  # 64 MiB
            connection.execute("PRAGMA temp_store = MEMORY")
        except (sqlite3.Error, OSError) as error:
            raise explain_error(error, str(self.path)) from error
        database = Database(connection, execute_plugins=False)
        # A server's threads come and go: when one ends, its database goes, and the connection with it.
        weakref.finalize(database, _close_own, os.getpid(), connection).atexit = False
        with self._connections_lock:
            self._databases[database] = os.getpid()
        return database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: everything in it is written, or nothing is. Joins a surrounding one.

        BEGIN IMMEDIATE, because a deferred transaction that starts by reading fails at once with "database is
        locked" when another process has written meanwhile; the busy timeout does not help there.
        """
        connection = self.connection
        if _is_in_transaction(connection):
            yield connection
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            if _is_in_transaction(connection):
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError):
                raise explain_error(error, str(self.path)) from error
            raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the store for several reads, while others go on writing."""
        connection = self.connection
        if _is_in_transaction(connection):
            yield connection
            return
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            if _is_in_transaction(connection):
                connection.execute("COMMIT")

    def _migrate(self) -> None:
        """Bring the schema up to this version in one transaction, then check every guard."""
        name = str(self.path)
        try:
            schema.assert_known(self.database, name)
            if migrations.pending(self.database):
                with self.transaction() as connection:
                    migrations.apply(self.database)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        except sqlite3.Error as error:
            raise explain_error(error, name) from error
        if not _EXPECTED_GUARDS:
            _EXPECTED_GUARDS.update(schema.expected_guards())
        schema.assert_guards(self.database, name, _EXPECTED_GUARDS)

    def close(self) -> None:
        """Close every thread's connection; the last one folds the write-ahead log into the database."""
        self._is_closed = True
        with self._connections_lock:
            opened = list(self._databases.items())
        for database, process_id in opened:
            _close_own(process_id, database.conn)
