"""Care: what a project shows and asks of people, what each of them has seen, and when they rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from storage import sql_accounts as sql_a
from storage.late import LateSection
from storage.validate import check_range, check_text

GAP_SECONDS = 300.0  # a pause of this length is a break: the stretch starts anew
LONGEST_LOOK_MS = 60_000  # a picture left on the screen counts for no more than this
_DAY_US = 86_400_000_000
RISK_NOTICE = (
    "Some pictures in this project can be disturbing. They are covered until you uncover them. You choose what you "
    "see: leave out kinds of pictures, pause or stop at any time; nothing bad follows from it. Covering gives you "
    "control; it does not protect from everything. If something stays with you, talk to someone you trust."
)


@dataclass(frozen=True, slots=True)
class ProjectCare:
    """What a project shows and asks of people.

    Args:
        shows_prompt: whether annotators see the words the picture was made from.
        rank_size: pictures of one ranking, 2 to 9.
        break_after_minutes: of looking without a pause, before a break is proposed.
        daily_cap_minutes: of looking, all projects together, after which nothing more is shown that day (UTC).
        min_judgment_ms: an answer quicker than this is marked as too fast; 0 = never.
        consent_wording: what a person agrees to before the first picture; "" = the risk notice if sensitive.
    """

    shows_prompt: bool = True
    rank_size: int = 4
    break_after_minutes: int = 25
    daily_cap_minutes: int = 180
    min_judgment_ms: int = 250
    consent_wording: str = ""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a person has seen today (UTC) and in the present stretch; ``break_until_us`` 0 = no break."""

    n_revealed: int
    minutes_today: float
    stretch_minutes: float
    break_until_us: int


class CareSection(LateSection):
    """Settings of care, exposure, breaks and progress."""

    def get_care(self, project: str) -> ProjectCare:
        """What the project shows and asks; the defaults where nothing was set."""
        record = self.get_project(project)
        row = self.connection.execute(sql_a.CARE_GET, (record.id,)).fetchone()
        care = ProjectCare(bool(row[0]), *row[1:]) if row else ProjectCare()
        if record.is_sensitive and not care.consent_wording:
            care = replace(care, consent_wording=RISK_NOTICE)
        return care

    def set_care(self, project: str, actor: str = "system", **changes: Any) -> ProjectCare:
        """Change some of a project's settings of care; the fields are those of ProjectCare."""
        record, care = self.get_project(project), replace(self.get_care(project), **changes)
        check_range(care.rank_size, 2, 9, "number of pictures of a ranking")
        check_range(care.break_after_minutes, 1, 240, "time until a break", " minutes")
        check_range(care.daily_cap_minutes, 1, 1440, "daily cap", " minutes")
        check_range(care.min_judgment_ms, 0, 60_000, "shortest time for an answer", " ms")
        care = replace(care, consent_wording=check_text(care.consent_wording, "consent wording"))
        with self.transaction() as connection:
            connection.execute(sql_a.CARE_PUT, (record.id, *astuple(care)))
            self.add_audit("project.care", record.name, changes, actor)
        return care

    def add_exposure(self, project_id: int, user_id: int, looks: Sequence[tuple[int, int, bool]]) -> None:
        """Count what a person has looked at.

        Args:
            looks: (milliseconds looked, pictures seen uncovered, whether the answer was too fast) of each answer.
        """
        if not looks:
            return
        now_us = self.now_us()
        exposed_ms = sum(min(looked_ms, LONGEST_LOOK_MS) for looked_ms, _, _ in looks)
        n_revealed, n_too_fast = sum(look[1] for look in looks), sum(look[2] for look in looks)
        with self.transaction() as connection:
            key = (user_id, project_id, now_us // _DAY_US)
            connection.execute(sql_a.EXPOSURE_ADD, (*key, len(looks), n_revealed, n_too_fast, exposed_ms))
            stretch_ms, seen_at_us, break_until_us = self._rest(user_id)
            if now_us - seen_at_us > GAP_SECONDS * 1e6:
                stretch_ms = 0
            connection.execute(sql_a.REST_PUT, (user_id, stretch_ms + exposed_ms, now_us, break_until_us))

    def get_exposure(self, user_id: int) -> Exposure:
        """What a person has seen today, in all projects."""
        now_us = self.now_us()
        n_revealed, exposed_ms = self.connection.execute(sql_a.EXPOSURE_OF_DAY, (user_id, now_us // _DAY_US)).fetchone()
        stretch_ms, seen_at_us, break_until_us = self._rest(user_id)
        if now_us - seen_at_us > GAP_SECONDS * 1e6:
            stretch_ms = 0
        is_resting = break_until_us > now_us
        return Exposure(n_revealed, exposed_ms / 60_000, stretch_ms / 60_000, break_until_us if is_resting else 0)

    def start_break(self, user_id: int, minutes: float) -> None:
        """Rest for some minutes (nothing is handed out meanwhile); 0 ends a break. The stretch starts anew."""
        check_range(minutes, 0, 1440, "length of the break", " minutes")
        now_us = self.now_us()
        until_us = now_us + int(minutes * 60e6) if minutes else 0
        with self.transaction() as connection:
            connection.execute(sql_a.REST_PUT, (user_id, 0, now_us, until_us))

    def _rest(self, user_id: int) -> tuple[int, int, int]:
        row: tuple[int, int, int] | None = self.connection.execute(sql_a.REST_GET, (user_id,)).fetchone()
        return row or (0, 0, 0)

    def list_exposures(self, project: str) -> list[dict[str, Any]]:
        """By person and day: annotator, day (days since 1970 UTC), n_judged, n_revealed, n_too_fast, minutes."""
        names = ("annotator", "day", "n_judged", "n_revealed", "n_too_fast")
        rows = self.connection.execute(sql_a.EXPOSURE_BY_PERSON, (self.get_project(project).id,))
        return [{**dict(zip(names, row[:5], strict=True)), "minutes": row[5] / 60_000} for row in rows]

    def get_progress(self, project_id: int, user_id: int) -> dict[str, int]:
        """mine (answers given), items, items_done, judgments, judgments_wanted, training_items, training_done."""
        connection = self.connection
        n_items, n_done, n_judgments, n_wanted = connection.execute(sql_a.PROJECT_PROGRESS, (project_id,)).fetchone()
        key = {"project_id": project_id, "annotator_id": user_id}
        training_items, training_done = connection.execute(sql_a.TRAINING_PROGRESS, key).fetchone()
        mine = connection.execute(sql_a.JUDGED_BY_USER, (user_id, project_id)).fetchone()[0]
        return {
            "mine": mine,
            "items": n_items,
            "items_done": n_done,
            "judgments": n_judgments,
            "judgments_wanted": n_wanted,
            "training_items": training_items,
            "training_done": training_done,
        }
