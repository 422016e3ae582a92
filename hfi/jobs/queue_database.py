"""Where the queue is and how rows of it are written: SQLite beside the store or a PostgreSQL URL; JSON, never a pickle.

Importing this module never imports DBOS; its functions do, which takes about a second.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.errors import QueueError
from storage import Store

if TYPE_CHECKING:
    from dbos import DBOSClient

QUEUE_URL_VARIABLE = "HFI_QUEUE_URL"
QUEUE_FILE = "queue.db"
# Jobs outlive versions of this package; a request that a newer version can't read fails with a sentence that says so.
APPLICATION_VERSION = "1"
WORKFLOW_NAME = "job"


def queue_url_of(store_path: Path, queue_url: str = "") -> str:
    """The database of the queue: as given, else the environment's HFI_QUEUE_URL, else a file in the store's folder.

    Raises:
        QueueError: it is neither a PostgreSQL nor an SQLite URL.
    """
    url = queue_url or os.environ.get(QUEUE_URL_VARIABLE, "")
    if not url:
        from sqlalchemy import URL

        return URL.create("sqlite", database=str((store_path / QUEUE_FILE).resolve())).render_as_string()
    if not url.startswith(("postgresql://", "postgres://", "sqlite:///")):
        raise QueueError(
            f"The queue URL starts with {url.split(':')[0]!r}. Write it like postgresql://user:password@host/database."
        )
    return url.replace("postgres://", "postgresql://", 1)


def application_name(store: Store) -> str:
    """What tells this store's jobs from those of others that share the database."""
    return f"hfi-{store.store_id}"


def queue_name_of(store: Store, queue: str) -> str:
    """The queue's name in the database, where names of all stores stand side by side."""
    return f"{queue}.{store.store_id[:8]}"


def refuse_pickle() -> None:
    """Make every attempt to write or read a pickle fail in this process.

    DBOS reads each row in the encoding that the row names, so whoever can write to the database could name the one
    that runs code. Rows we wrote are JSON.
    """
    from dbos._serialization import DefaultSerializer

    def refuse(self: object, content: Any) -> Any:
        raise QueueError("A row of the queue holds a pickle, but ours hold JSON: it was not read. Delete the row.")

    for method in ("serialize", "deserialize"):
        setattr(DefaultSerializer, method, refuse)


def ensure_database(url: str) -> None:
    """Make the queue's tables unless they are there; several processes may do so at once.

    Raises:
        QueueError: the database cannot be reached.
    """
    from dbos import DBOS
    from sqlalchemy import make_url

    with explained():
        if url.startswith("sqlite"):
            # Readers and the writer don't wait for each other in this mode; it stays with the file.
            with closing(sqlite3.connect(str(make_url(url).database), timeout=30)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        DBOS.migrate(url)


def open_client(store: Store, url: str) -> DBOSClient:
    """A connection for those who submit, list and cancel.

    Raises:
        QueueError: the database cannot be reached.
    """
    from dbos import DBOSClient, DBOSPortableJSONSerializer

    refuse_pickle()
    ensure_database(url)
    with explained():
        return DBOSClient(
            system_database_url=url,
            serializer=DBOSPortableJSONSerializer(),
            application_name=application_name(store),
            retry_connection_errors=False,
        )


@contextmanager
def explained() -> Iterator[None]:
    """Turn the database's errors into one of ours, with the remedy."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise QueueError(
            f"The queue of jobs cannot be reached or written ({reason}). Check HFI_QUEUE_URL, that the database runs "
            f"and that there is space; jobs that run go on meanwhile."
        ) from error
