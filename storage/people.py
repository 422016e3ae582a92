"""Users: annotators, reviewers, researchers and owners; people and simulated annotators."""

from __future__ import annotations

import json
from typing import Any

from storage import sql
from storage.audit import AuditSection
from storage.errors import ConflictError, InvalidInputError, NotFoundError
from storage.records import ROLES, User, canonical_json
from storage.validate import check_choice, check_name


def _user(row: tuple[Any, ...]) -> User:
    user_id, name, role, is_simulated, disabled_at_us, details, created_at_us = row
    facts = {} if details == "{}" else json.loads(details)
    return User(user_id, name, role, bool(is_simulated), disabled_at_us is not None, facts, created_at_us)


class PeopleSection(AuditSection):
    """Who may judge and administer."""

    def add_annotator(
        self,
        name: str,
        role: str = "annotator",
        is_simulated: bool = False,
        details: dict[str, Any] | None = None,
        *,
        is_imported: bool = False,
    ) -> User:
        """Add a user; adding the same one again changes nothing.

        Args:
            name: a pseudonym of 1 to 40 characters, never a real name or address.
            role: annotator, reviewer, researcher or owner (of the store).
            is_simulated: True for a program that plays an annotator; every report says so.
            details: facts worth keeping, such as a simulated annotator's error rates.

        Raises:
            ConflictError: the name belongs to a user with another role, nature or details.
        """
        name = check_name(name, "annotator name")
        check_choice(role, ROLES, "role")
        text = canonical_json(details or {})
        with self.transaction() as connection:
            row = connection.execute(sql.USER_BY_NAME, (name,)).fetchone()
            if row is None:
                values = (name, role, is_simulated, is_imported, text, self.now_us())
                connection.execute(sql.USER_INSERT, values)
                self.add_audit("annotator.add", name, {"role": role, "is_simulated": is_simulated})
                return _user(connection.execute(sql.USER_BY_NAME, (name,)).fetchone())
        user = _user(row)
        if (user.role, user.is_simulated) != (role, is_simulated) or (details and user.details != details):
            raise ConflictError(
                f"The annotator {name!r} exists with other settings (role {user.role}, simulated {user.is_simulated}, "
                f"details {canonical_json(user.details)}). Choose another name."
            )
        return user

    def get_annotator(self, name: str) -> User:
        """The user of that name.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.USER_BY_NAME, (name,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no annotator {name!r}. Add one with `hfi annotator add`.")
        return _user(row)

    def list_users(self, *, role: str | None = None, is_simulated: bool | None = None) -> list[User]:
        """All users in the order they were added, or those of one role or nature."""
        users = [_user(row) for row in self.connection.execute(sql.USER_ALL)]
        return [
            user
            for user in users
            if (role is None or user.role == role) and (is_simulated is None or user.is_simulated == is_simulated)
        ]

    def disable_annotator(self, name: str) -> User:
        """Stop a user from claiming and judging; nothing they judged is touched."""
        user = self.get_annotator(name)
        with self.transaction() as connection:
            connection.execute(sql.USER_DISABLE, (self.now_us(), user.id))
            self.add_audit("annotator.disable", user.name, {})
        return self.get_annotator(name)

    def withdraw_annotator(self, name: str) -> User:
        """Take a user's judgments out of every later snapshot, and stop them from judging.

        Older snapshots are immutable and keep them; make a new snapshot and build from that.
        """
        user = self.get_annotator(name)
        with self.transaction() as connection:
            connection.execute(sql.USER_WITHDRAW, (self.now_us(), self.now_us(), user.id))
            self.add_audit("annotator.withdraw", user.name, {})
        return self.get_annotator(name)

    def _active_annotator(self, name: str) -> User:
        user = self.get_annotator(name)
        if user.is_disabled:
            raise InvalidInputError(f"The annotator {name!r} is disabled and can't judge. Use another annotator.")
        return user
