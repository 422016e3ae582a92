"""What a judgment is about: the item and the lease, looked up one by one or for many judgments at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from storage import sql
from storage.errors import LeaseError, NotFoundError
from storage.records import DECIDING_ROLES, JudgmentInput, User, canonical_json

TargetRow = Sequence[Any]  # annotator's number, then the fields of a Target


@dataclass(slots=True)
class Target:
    """The item (and lease) that a judgment is about, with what must be known to check and count it."""

    assignment_id: int | None
    purpose: str
    slot: int | None
    state: str
    shown_order: str
    item_id: int
    project_id: int
    kind: str
    is_gold: bool
    category_hint: str
    status: str
    target_judgments: int
    n_judgments: int
    n_positive: int
    n_negative: int
    annotators_max: int
    posterior_threshold: float
    n_images: int


def find_target_rows(connection: sqlite3.Connection, assignment_ids: Iterable[object]) -> dict[int, TargetRow]:
    """The targets of many assignments by one query; those there are, by their number."""
    wanted = canonical_json(list(assignment_ids))
    return {row[1]: row for row in connection.execute(sql.TARGETS_BY_ASSIGNMENTS, (wanted,))}


def find_target(connection: sqlite3.Connection, judgment: JudgmentInput, user: User) -> Target:
    """Look up what a judgment is about.

    Raises:
        LeaseError: the assignment is not the user's, or for another item.
        NotFoundError: there is no such item.
    """
    if judgment.assignment_id is None:
        return find_target_of_item(connection, judgment.item_id, user)
    row = connection.execute(sql.TARGET_BY_ASSIGNMENT, (judgment.assignment_id,)).fetchone()
    return target_from_row(row, judgment, user)


def target_from_row(row: TargetRow | None, judgment: JudgmentInput, user: User) -> Target:
    """A target's row as a target, if the assignment is the user's and for the item named.

    Raises:
        LeaseError: it is not.
    """
    if row is None or row[0] != user.id:
        raise LeaseError(
            f"Assignment {judgment.assignment_id} is not leased to {user.name!r}. Claim items and judge those."
        )
    target = Target(*row[1:])
    if judgment.item_id not in (0, target.item_id):
        raise LeaseError(
            f"Assignment {judgment.assignment_id} is for item {target.item_id}, not {judgment.item_id}. Send the item "
            "that was shown, or leave it out."
        )
    return target


def find_target_of_item(connection: sqlite3.Connection, item_id: int, user: User) -> Target:
    """The target of a judgment that answers no lease.

    Raises:
        NotFoundError: there is no such item.
    """
    row = connection.execute(sql.TARGET_BY_ITEM, (item_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no item {item_id}. Send the number of the item that was shown.")
    target = Target(None, "normal", None, "", "[]", *row)
    target.shown_order = canonical_json(list(range(target.n_images)))
    if target.is_gold:
        target.purpose = "gold"
    elif user.role in DECIDING_ROLES:
        target.purpose = "adjudicate"
    return target
