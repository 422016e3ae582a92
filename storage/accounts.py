"""Who is who on the pages: passwords, sessions, tokens, invitations by link, tries to log in, own settings.

Of every secret handed out (session, token, invitation) only the SHA-256 is stored.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from storage import sql
from storage import sql_accounts as sql_a
from storage.errors import ConflictError, HFIError, InvalidInputError, NotFoundError
from storage.passwords import hash_password, is_password
from storage.people import _user
from storage.records import ROLES, User, canonical_json, sha256_text
from storage.runs import RunSection
from storage.validate import check_choice, check_name, check_range

N_FREE_TRIES = {"account": 5, "address": 20}  # an address may be a whole office
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 30.0, 900.0
FORGET_AFTER_SECONDS = 3600.0
SESSION_DAYS, INVITATION_DAYS = 14.0, 7.0
_DAY_US = 86_400_000_000
MAX_SETTING_CHARACTERS = 4000


class LoginRefusedError(HFIError):
    """Name and password don't fit, or there were too many tries."""

    http_status = 401

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A browser that is logged in; ``is_this`` marks the one that asks."""

    id: int
    is_this: bool
    created_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class Invitation:
    """A one-time link that nobody has used yet."""

    id: int
    role: str
    created_by: str
    created_at_us: int
    expires_at_us: int


class AccountSection(RunSection):
    """Logging in and out, inviting, and what each person has set for themselves."""

    def set_password(self, name: str, password: str, actor: str = "") -> None:
        """Give a user a (new) password; every session of theirs ends.

        Raises:
            InvalidInputError: too short or too long.
        """
        user, hashed = self.get_annotator(name), hash_password(password)
        with self.transaction() as connection:
            connection.execute(sql_a.PASSWORD_SET, (hashed, user.id))
            connection.execute(sql_a.SESSIONS_REVOKE, (self.now_us(), user.id, ""))
            self.add_audit("account.password", user.name, {}, actor or user.name)

    def check_login(self, name: str, password: str, address: str = "") -> User:
        """The user of that name if the password is theirs.

        Five wrong tries for an account (twenty from an address) are free; then each next one waits twice as long as
        the one before, 30 s to 15 min, right or wrong.

        Raises:
            LoginRefusedError: wrong, disabled or too many tries; the text never says which of the first two.
        """
        subjects = [("account", name.strip().casefold()[:80]), ("address", address[:80])]
        self._check_not_blocked(subjects)
        row = self.connection.execute(sql.USER_BY_NAME, (name.strip(),)).fetchone()
        user = _user(row) if row else None
        stored = self.connection.execute(sql_a.PASSWORD_GET, (user.id,)).fetchone()[0] if user else None
        is_right = is_password(password, stored)
        if user is None or not is_right or user.is_disabled:
            self._count_failure(subjects)
            raise LoginRefusedError("Name and password don't fit together. Check both; capitals matter in passwords.")
        with self.transaction() as connection:
            connection.execute(sql_a.ATTEMPT_CLEAR, (f"account:{subjects[0][1]}",))
        return user

    def _check_not_blocked(self, subjects: list[tuple[str, str]]) -> None:
        now_us = self.now_us()
        for kind, subject in subjects:
            row = self.connection.execute(sql_a.ATTEMPT_GET, (f"{kind}:{subject}",)).fetchone()
            if row is not None and row[2] > now_us:
                seconds = (row[2] - now_us) / 1e6
                raise LoginRefusedError(f"Too many wrong tries. Try again in {seconds + 1:.0f} seconds.", seconds)

    def _count_failure(self, subjects: list[tuple[str, str]]) -> None:
        now_us = self.now_us()
        forget_us = now_us - int(FORGET_AFTER_SECONDS * 1e6)
        with self.transaction() as connection:
            connection.execute(sql_a.ATTEMPTS_FORGET, (forget_us, now_us))
            for kind, subject in subjects:
                row = connection.execute(sql_a.ATTEMPT_GET, (f"{kind}:{subject}",)).fetchone()
                n_failed = (row[0] if row else 0) + 1
                n_over = n_failed - N_FREE_TRIES[kind]
                wait = min(FIRST_WAIT_SECONDS * 2.0**n_over, LONGEST_WAIT_SECONDS) if n_over >= 0 else 0.0
                values = (f"{kind}:{subject}", n_failed, now_us, now_us + int(wait * 1e6))
                connection.execute(sql_a.ATTEMPT_PUT, values)
            if n_failed in N_FREE_TRIES.values():
                self.add_audit("account.blocked", subjects[0][1] or "-", {"address": subjects[1][1]})

    # --- sessions and tokens ---

    def create_session(self, name: str, days: float = SESSION_DAYS) -> str:
        """Open a session; returns its secret, for the cookie."""
        user, secret, now_us = self.get_annotator(name), secrets.token_urlsafe(32), self.now_us()
        with self.transaction() as connection:
            values = (user.id, sha256_text(secret), now_us, now_us + int(days * _DAY_US))
            connection.execute(sql_a.SESSION_INSERT, values)
            self.add_audit("account.login", user.name, {}, user.name)
        return secret

    def find_session_user(self, secret: str) -> User | None:
        """Whose session it is; None if it has ended or its user is disabled."""
        row = self.connection.execute(sql_a.SESSION_USER, (sha256_text(secret), self.now_us())).fetchone()
        return _user(row) if row else None

    def end_session(self, secret: str) -> None:
        """Log out."""
        with self.transaction() as connection:
            connection.execute(sql_a.SESSION_REVOKE, (self.now_us(), sha256_text(secret)))

    def end_sessions(self, name: str, but_secret: str = "") -> int:
        """Log a user out everywhere, or everywhere else; returns how many sessions ended."""
        user = self.get_annotator(name)
        with self.transaction() as connection:
            kept = sha256_text(but_secret) if but_secret else ""
            return connection.execute(sql_a.SESSIONS_REVOKE, (self.now_us(), user.id, kept)).rowcount

    def list_sessions(self, name: str, this_secret: str = "") -> list[SessionRecord]:
        """Where a user is logged in, oldest first."""
        this = sha256_text(this_secret)
        rows = self.connection.execute(sql_a.SESSIONS_OF_USER, (self.get_annotator(name).id, self.now_us()))
        return [SessionRecord(number, hashed == this, created, expires) for number, hashed, created, expires in rows]

    def create_api_token(self, name: str, label: str, days: float | None = 90.0) -> str:
        """A secret with which a program acts as the user; returns it once.

        Args:
            label: what it is for, 1 to 40 characters.
            days: until it expires; None = never.
        """
        user, secret, now_us = self.get_annotator(name), "hfi_" + secrets.token_urlsafe(32), self.now_us()
        expires_at_us = None if days is None else now_us + int(days * _DAY_US)
        with self.transaction() as connection:
            values = (user.id, check_name(label, "label of the token"), sha256_text(secret), now_us, expires_at_us)
            connection.execute(sql_a.TOKEN_INSERT, values)
            self.add_audit("account.token", user.name, {"label": label}, user.name)
        return secret

    def find_token_user(self, secret: str) -> User | None:
        """Whose token it is; None if it has ended or its user is disabled."""
        row = self.connection.execute(sql_a.TOKEN_USER, (sha256_text(secret), self.now_us())).fetchone()
        return _user(row) if row else None

    def list_api_tokens(self, name: str) -> list[dict[str, Any]]:
        """A user's tokens: id, name, created_at_us, expires_at_us; never the secret."""
        rows = self.connection.execute(sql_a.TOKENS_OF_USER, (self.get_annotator(name).id,))
        return [dict(zip(("id", "name", "created_at_us", "expires_at_us"), row, strict=True)) for row in rows]

    def revoke_api_token(self, name: str, token_id: int) -> None:
        """End one of the user's own tokens."""
        user = self.get_annotator(name)
        with self.transaction() as connection:
            connection.execute(sql_a.TOKEN_REVOKE, (self.now_us(), token_id, user.id))

    # --- invitations and roles ---

    def create_invitation(self, role: str, actor: str = "", days: float = INVITATION_DAYS) -> str:
        """A one-time link's secret: whoever opens it makes an account of that role. ``actor`` "" = the command line."""
        check_choice(role, ROLES, "role")
        check_range(days, 0.001, 90.0, "days the invitation holds")
        inviter = self.get_annotator(actor).id if actor else None
        secret, now_us = secrets.token_urlsafe(24), self.now_us()
        with self.transaction() as connection:
            values = (sha256_text(secret), role, inviter, now_us, now_us + int(days * _DAY_US))
            connection.execute(sql_a.INVITATION_INSERT, values)
            self.add_audit("account.invite", role, {"days": days}, actor or "system")
        return secret

    def create_owner_link(self) -> str | None:
        """The secret of the link that makes the first owner; None once there is one. Earlier links end."""
        if self.connection.execute(sql_a.OWNERS_WITH_PASSWORD).fetchone()[0]:
            return None
        with self.transaction() as connection:
            connection.execute(sql_a.OWNER_LINKS_REVOKE, (self.now_us(),))
            return self.create_invitation("owner", days=1.0)

    def find_invitation_role(self, secret: str) -> str | None:
        """The role a link gives; None if it was used, has expired or never was."""
        row = self.connection.execute(sql_a.INVITATION_FIND, (sha256_text(secret), self.now_us())).fetchone()
        return str(row[1]) if row else None

    def list_invitations(self) -> list[Invitation]:
        """The links nobody has used yet."""
        return [Invitation(*row) for row in self.connection.execute(sql_a.INVITATIONS_OPEN, (self.now_us(),))]

    def revoke_invitation(self, invitation_id: int, actor: str) -> None:
        """End a link that nobody has used yet."""
        with self.transaction() as connection:
            connection.execute(sql_a.INVITATION_REVOKE, (self.now_us(), invitation_id))
            self.add_audit("account.uninvite", str(invitation_id), {}, actor)

    def accept_invitation(self, secret: str, name: str, password: str) -> User:
        """Make the account that a link invites to; the link works once.

        Raises:
            NotFoundError: the link was used, has expired or never was.
            ConflictError: the name is taken.
            InvalidInputError: name or password break their rules.
        """
        name, hashed = check_name(name.strip(), "name"), hash_password(password)
        with self.transaction() as connection:
            now_us = self.now_us()
            found = connection.execute(sql_a.INVITATION_FIND, (sha256_text(secret), now_us)).fetchone()
            if found is None:
                raise NotFoundError("This link was used already or has expired. Ask for a new one.")
            if connection.execute(sql.USER_BY_NAME, (name,)).fetchone() is not None:
                raise ConflictError(f"The name {name!r} is taken. Choose another one.")
            user = self.add_annotator(name, role=found[1])
            connection.execute(sql_a.PASSWORD_SET, (hashed, user.id))
            connection.execute(sql_a.INVITATION_USE, (now_us, user.id, found[0]))
            self.add_audit("account.join", name, {"role": found[1]}, name)
        return user

    def set_role(self, name: str, role: str, actor: str) -> User:
        """Give a user another role; the last owner keeps theirs."""
        user = self.get_annotator(name)
        check_choice(role, ROLES, "role")
        with self.transaction() as connection:
            if user.role == "owner" and role != "owner":
                self._check_not_last_owner(user)
            connection.execute(sql_a.ROLE_SET, (role, user.id))
            self.add_audit("account.role", user.name, {"role": role}, actor)
        return self.get_annotator(name)

    def disable_account(self, name: str, actor: str) -> User:
        """Log a user out everywhere and for good, until ``enable_account``; what they judged stays."""
        user = self.get_annotator(name)
        with self.transaction() as connection:
            if user.role == "owner":
                self._check_not_last_owner(user)
            connection.execute(sql_a.SESSIONS_REVOKE, (self.now_us(), user.id, ""))
            connection.execute(sql_a.TOKENS_REVOKE, (self.now_us(), user.id))
            self.disable_annotator(name)
            self.add_audit("account.disable", user.name, {}, actor)
        return self.get_annotator(name)

    def enable_account(self, name: str, actor: str) -> User:
        """Let a disabled user log in again; not one who has withdrawn."""
        user = self.get_annotator(name)
        with self.transaction() as connection:
            connection.execute(sql_a.USER_ENABLE, (user.id,))
            self.add_audit("account.enable", user.name, {}, actor)
        return self.get_annotator(name)

    def _check_not_last_owner(self, user: User) -> None:
        others = [other for other in self.list_users(role="owner") if not other.is_disabled and other.id != user.id]
        if not others:
            raise ConflictError(f"{user.name!r} is the only owner. Make someone else owner first.")

    # --- own settings ---

    def get_setting(self, name: str, setting: str) -> Any:
        """What a user has set (keys, theme), as JSON; None = nothing."""
        row = self.connection.execute(sql_a.SETTING_GET, (self.get_annotator(name).id, setting)).fetchone()
        return json.loads(row[0]) if row else None

    def put_setting(self, name: str, setting: str, value: Any) -> None:
        """Keep what a user has set."""
        text = canonical_json(value)
        if len(text) > MAX_SETTING_CHARACTERS:
            raise InvalidInputError(f"The setting {setting!r} is longer than {MAX_SETTING_CHARACTERS} characters.")
        user = self.get_annotator(name)
        with self.transaction() as connection:
            connection.execute(sql_a.SETTING_PUT, (user.id, check_name(setting, "setting"), text))
