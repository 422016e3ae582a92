"""What people said: checked, written once, never changed. Undo is a new row that supersedes an old one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

from storage import sql
from storage.batch import Batch
from storage.counting import CountSection
from storage.errors import ConflictError, InvalidInputError, LeaseError, NotFoundError
from storage.judgment_rules import check_judgment, check_uuid
from storage.records import DECIDING_ROLES, JudgmentInput, JudgmentRecord, User, canonical_json, sha256_text
from storage.targets import Target

T = TypeVar("T")
_LOOKED_UP_AT_ONCE = 500  # judgments; an import of any length needs little memory
_PAYLOAD = attrgetter(*(field.name for field in fields(JudgmentInput)))


def payload_hash(judgment: JudgmentInput) -> str:
    """The identity of what a client sent: the same uuid must always come with the same."""
    return sha256_text(canonical_json(_PAYLOAD(judgment)))


@lru_cache(maxsize=4096)
def _parse_list(text: str) -> tuple[Any, ...]:
    """A stored list; there are few different ones (orders, ranks, sets of categories)."""
    return tuple(json.loads(text))


def judgment_from_row(row: Sequence[Any]) -> JudgmentRecord:
    """A row of the judgment queries as a record."""
    values = list(row[:22])
    for place in (11, 13, 16):  # categories, ranks, shown_order
        values[place] = _parse_list(values[place]) if values[place] != "[]" else ()
    return JudgmentRecord(*values)


def _in_chunks(values: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while chunk := list(islice(rest, _LOOKED_UP_AT_ONCE)):
        yield chunk


class JudgmentSection(CountSection):
    """Submitting and reading judgments."""

    def submit_judgments(self, judgments: Iterable[JudgmentInput], *, is_import: bool = False) -> list[JudgmentRecord]:
        """Write a batch of judgments, all or none; once this returns they survive a crash of the machine.

        Sending a judgment again (same uuid, same content) is harmless and returns the row there is. A judgment
        on a lease that has expired meanwhile is kept: the work was done. A reviewer's judgment without a lease
        decides the item.

        Args:
            is_import: True lets judgments made elsewhere in, which answer no lease.

        Raises:
            InvalidInputError: an answer breaks the rules of its kind.
            LeaseError: the assignment is someone else's.
            ConflictError: the uuid was used for something else, or the assignment is answered already.
            NotFoundError: no such annotator, item or superseded judgment.
        """
        records: list[JudgmentRecord] = []
        with self.transaction() as connection:
            batch = Batch(connection, self.now_us())
            for chunk in _in_chunks(judgments):
                batch.look_up(chunk)
                records += [self._submit_one(judgment, batch, is_import) for judgment in chunk]
            self._finish_batch(batch)
        return records

    def import_judgments(self, rows: Iterable[tuple[JudgmentInput, int, str]]) -> list[JudgmentRecord]:
        """Write judgments made in another store, with the guideline version and purpose they had.

        Args:
            rows: (judgment, guideline version, purpose); the project must have these guideline versions.
        """
        records = []
        with self.transaction() as connection:
            batch = Batch(connection, self.now_us())
            versions = {(row[1], row[2]): row[0] for row in connection.execute(sql.GUIDELINE_IDS)}
            for chunk in _in_chunks(rows):
                batch.look_up([judgment for judgment, _, _ in chunk])
                for judgment, version, purpose in chunk:
                    project_id = self.get_item(judgment.item_id).project_id
                    _, categories = self._guideline(project_id, batch)
                    batch.guidelines[project_id] = (versions[project_id, version], categories)
                    batch.imported_purpose = purpose
                    records.append(self._submit_one(judgment, batch, True))
            self._finish_batch(batch)
        return records

    def _finish_batch(self, batch: Batch) -> None:
        """Write what is left and chain all rows into the audit, so that a later change to any of them shows."""
        batch.write()
        if not batch.next_id:
            return
        span = {"first": batch.first_id, "last": batch.next_id - 1, "n": batch.next_id - batch.first_id}
        actor = ", ".join(sorted(batch.users)[:3])
        self.add_audit("judgment.submit", "judgments", {**span, "sha256": batch.digest.hexdigest()}, actor)

    def _submit_one(self, judgment: JudgmentInput, batch: Batch, is_import: bool) -> JudgmentRecord:
        check_uuid(judgment.uuid)
        payload_sha256 = payload_hash(judgment)
        known = batch.known.get(judgment.uuid)
        if known is not None:
            if known[0] != payload_sha256:
                raise ConflictError(
                    f"The judgment uuid {judgment.uuid} was used for another answer. Make a new uuid for each judgment."
                )
            return known[1] or self.get_judgment(judgment.uuid)
        user = self._judging_user(judgment, batch, is_import)
        target = batch.target(judgment, user)
        target.purpose = batch.imported_purpose or target.purpose
        guideline_id, categories = self._guideline(target.project_id, batch)
        check_judgment(judgment, target.kind, target.n_images, categories)
        supersedes_id = self._superseded_id(judgment, batch, user, target)
        values = row_values(judgment, payload_sha256, user, target, guideline_id, supersedes_id, batch.now_us)
        row_id = batch.add_judgment(values)
        if supersedes_id is not None:
            self._recount_item(batch, target.item_id, user)
        else:
            self._count_judgment(batch, judgment.answer, target)
        if judgment.answer == "hide_kind" and target.category_hint:
            row = (user.id, target.project_id, target.category_hint, batch.now_us)
            batch.connection.execute(sql.OPT_OUT_INSERT, row)
        head = (row_id, values[0], *values[2:5], user.name, *values[5:8], target.kind)
        record = judgment_from_row((*head, *values[8:19], judgment.supersedes))
        batch.known[judgment.uuid] = (payload_sha256, record)
        return record

    def _judging_user(self, judgment: JudgmentInput, batch: Batch, is_import: bool) -> User:
        user = batch.users.get(judgment.annotator)
        if user is None:
            user = batch.users[judgment.annotator] = self.get_annotator(judgment.annotator)
        if user.is_disabled and not is_import:
            raise InvalidInputError(f"The annotator {user.name!r} is disabled and can't judge. Use another annotator.")
        is_leased = judgment.assignment_id is not None or judgment.supersedes or user.role in DECIDING_ROLES
        if not is_leased and not is_import:
            raise LeaseError(
                f"Judgment {judgment.uuid[:60]!r} of {user.name!r} names no assignment. Claim items and judge those."
            )
        return user

    @staticmethod
    def _guideline(project_id: int, batch: Batch) -> tuple[int, tuple[str, ...]]:
        """The guideline in force and the project's categories, looked up once a batch."""
        if project_id not in batch.guidelines:
            rows = batch.connection.execute(sql.GUIDELINE_IN_FORCE, (project_id,)).fetchall()
            batch.guidelines[project_id] = (rows[0][0], tuple(name for _, name in rows if name is not None))
        return batch.guidelines[project_id]

    def _superseded_id(self, judgment: JudgmentInput, batch: Batch, user: User, target: Target) -> int | None:
        if not judgment.supersedes:
            if target.state == "done":
                raise ConflictError(
                    f"Assignment {judgment.assignment_id} is answered already. To change the answer, name the uuid of "
                    "the first one in `supersedes`."
                )
            return None
        batch.write()
        old = self._own_current(batch.connection, judgment.supersedes, user)
        if old["item_id"] != target.item_id:
            raise ConflictError(
                f"Judgment {judgment.supersedes} is about item {old['item_id']}, not {target.item_id}. A judgment only "
                "replaces one of the same item."
            )
        target.assignment_id, target.purpose = old["assignment_id"], old["purpose"]
        return int(old["id"])

    def get_judgment(self, uuid: str) -> JudgmentRecord:
        """The judgment of that uuid.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.JUDGMENT_BY_UUID, (uuid,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no judgment {uuid[:60]!r} in the store. Check the uuid.")
        return judgment_from_row(row)

    def list_judgments(self, project: str, *, is_current: bool = True) -> list[JudgmentRecord]:
        """The project's judgments, oldest first: those that stand, or every row ever written."""
        query = sql.JUDGMENT_CURRENT if is_current else sql.JUDGMENT_ALL
        return [judgment_from_row(row) for row in self.connection.execute(query, (self.get_project(project).id,))]

    def list_latest_judgments(self, project: str, annotator: str, n: int = 10) -> list[JudgmentRecord]:
        """An annotator's newest standing judgments, newest first: what can be undone."""
        key = (self.get_annotator(annotator).id, self.get_project(project).id, n)
        return [judgment_from_row(row) for row in self.connection.execute(sql.JUDGMENT_LATEST, key)]


def row_values(
    judgment: JudgmentInput,
    payload_sha256: str,
    user: User,
    target: Target,
    guideline_id: int,
    supersedes_id: int | None,
    now_us: int,
) -> tuple[Any, ...]:
    """The stored row, in the order of the insert."""
    return (
        judgment.uuid,
        payload_sha256,
        target.project_id,
        target.item_id,
        user.id,
        target.assignment_id,
        guideline_id,
        target.purpose,
        judgment.answer,
        canonical_json(sorted(set(judgment.categories))) if judgment.categories else "[]",
        judgment.score,
        canonical_json(judgment.ranks) if judgment.ranks else "[]",
        judgment.reason,
        judgment.note,
        canonical_json(judgment.shown_order) if judgment.shown_order else target.shown_order,
        judgment.elapsed_ms,
        judgment.revealed_ms,
        judgment.judged_at_us or now_us,
        now_us,
        supersedes_id,
    )
