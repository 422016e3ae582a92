"""Executions of jobs and the files they made; each names the snapshot it was made from."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage import sql
from storage.errors import InvalidInputError, NotFoundError
from storage.files import folder_in_place, path_sha256
from storage.records import Artifact, Run, canonical_json, config_hash
from storage.undo import UndoSection
from storage.validate import check_choice, check_name

_FINAL_STATUSES = ("done", "failed", "cancelled")


def _run(row: tuple[Any, ...]) -> Run:
    run_id, kind, config, hash_of_config, snapshot_hash, inputs, status, metrics, *rest = row
    texts = (json.loads(inputs), status, json.loads(metrics))
    return Run(run_id, kind, json.loads(config), hash_of_config, snapshot_hash, *texts, *rest)


def _artifact(row: tuple[Any, ...]) -> Artifact:
    artifact_id, run_id, name, kind, path, sha256, size_bytes, details, created_at_us = row
    return Artifact(artifact_id, run_id, name, kind, path, sha256, size_bytes, json.loads(details), created_at_us)


class RunSection(UndoSection):
    """Runs and artifacts."""

    def start_run(
        self,
        kind: str,
        config: Mapping[str, Any],
        snapshot_hash: str | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Run:
        """Record that a job has started.

        Args:
            kind: what is run ("generate", "score", "invert", "erase" ...).
            config: every setting, as JSON values; its hash is what ``find_run`` looks for.
            snapshot_hash: the snapshot the run is made from, in full.
            inputs: hashes and names of everything else that goes in (model, token, runs).

        Raises:
            NotFoundError: no such snapshot.
        """
        run_id, settings = uuid.uuid4().hex[:12], dict(config)
        if (
            snapshot_hash
            and len(self.connection.execute(sql.SNAPSHOT_BY_PREFIX, {"prefix": snapshot_hash}).fetchall()) != 1
        ):
            raise NotFoundError(f"There is no snapshot {snapshot_hash!r}. Create one before the run.")
        with self.transaction() as connection:
            texts = (canonical_json(settings), config_hash(settings), snapshot_hash or None)
            values = (run_id, kind, *texts, canonical_json(dict(inputs or {})), self.now_us())
            connection.execute(sql.RUN_INSERT, values)
            self.add_audit("run.start", run_id, {"kind": kind, "snapshot": snapshot_hash or ""})
        return self.get_run(run_id)

    def finish_run(
        self,
        run_id: str,
        status: str = "done",
        metrics: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        peak_memory_mib: float | None = None,
    ) -> Run:
        """Record how a run ended.

        Args:
            status: done, failed or cancelled.
            metrics: what was measured, as JSON values (no NaN).
            seconds: wall-clock time; default: since the start.
        """
        check_choice(status, _FINAL_STATUSES, "run status")
        run, now_us = self.get_run(run_id), self.now_us()
        seconds = (now_us - run.started_at_us) / 1e6 if seconds is None else seconds
        with self.transaction() as connection:
            text = canonical_json(dict(metrics or {}))
            connection.execute(sql.RUN_FINISH, (status, text, seconds, peak_memory_mib, now_us, run_id))
            self.add_audit("run.finish", run_id, {"status": status})
        return self.get_run(run_id)

    def reopen_run(self, run_id: str) -> Run:
        """Take a cancelled run up again."""
        with self.transaction() as connection:
            connection.execute(sql.RUN_REOPEN, (run_id,))
            self.add_audit("run.reopen", run_id, {})
        return self.get_run(run_id)

    def get_run(self, run_id: str) -> Run:
        """The run of that id.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.RUN_BY_ID, (run_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no run {run_id!r} in the store. Check the id.")
        return _run(row)

    def find_run(self, kind: str, config_hash: str, status: str = "done") -> Run | None:
        """The newest run of this kind and configuration with this status: what lets a job be skipped, or go on."""
        row = self.connection.execute(sql.RUN_FIND, (kind, config_hash, status)).fetchone()
        return None if row is None else _run(row)

    def list_runs(self, *, kind: str | None = None, status: str | None = None) -> list[Run]:
        """All runs, oldest first, or those of one kind or status."""
        return [_run(row) for row in self.connection.execute(sql.RUN_ALL, {"kind": kind, "status": status})]

    def artifact_dir(self, run_id: str) -> Path:
        """The folder of a run's artifacts, made when first asked for."""
        self.get_run(run_id)
        folder = self.path / "artifacts" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def writing_artifact(
        self, run_id: str, name: str, kind: str, details: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """Give an empty folder to fill; if the block ends well it becomes the run's artifact ``name``, whole.

        Raises:
            InvalidInputError: the run has an artifact of that name.
        """
        check_name(name, "artifact name")
        target = self.artifact_dir(run_id) / name
        if target.exists():
            raise InvalidInputError(f"Run {run_id} has an artifact {name!r} already. Choose another name or a new run.")
        with folder_in_place(target, self.scratch) as folder:
            yield folder
        self.add_artifact(run_id, name, kind, target, details=details)

    def add_artifact(
        self,
        run_id: str,
        name: str,
        kind: str,
        path: Path | str,
        sha256: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Record a file or folder that a run made.

        Args:
            path: where it lies, inside the store's folder.
            sha256: its hash; default: computed (of a folder: over its files' names and hashes).

        Raises:
            InvalidInputError: it is not there, or outside the store's folder.
        """
        self.get_run(run_id)
        place, root = Path(path).resolve(), self.path.resolve()
        if not place.exists() or not place.is_relative_to(root):
            raise InvalidInputError(f"The artifact {str(path)!r} is not in the store. Write it into `artifact_dir`.")
        digest, size_bytes = path_sha256(place)
        text = canonical_json(dict(details or {}))
        relative = place.relative_to(root).as_posix()
        with self.transaction() as connection:
            values = (run_id, name, kind, relative, sha256 or digest, size_bytes, text, self.now_us())
            connection.execute(sql.ARTIFACT_INSERT, values)
            self.add_audit("artifact.add", run_id, {"name": name, "sha256": sha256 or digest})
        return self.get_artifact(run_id, name)

    def get_artifact(self, run_id: str, name: str) -> Artifact:
        """A run's artifact by its name.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.ARTIFACT_FIND, (run_id, name)).fetchone()
        if row is None:
            raise NotFoundError(f"Run {run_id!r} has no artifact {name!r}. List the run's artifacts.")
        return _artifact(row)

    def list_artifacts(self, run_id: str) -> list[Artifact]:
        """A run's artifacts in the order they were added."""
        return [_artifact(row) for row in self.connection.execute(sql.ARTIFACT_OF_RUN, (run_id,))]
