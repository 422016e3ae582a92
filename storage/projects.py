"""Projects, their categories and guideline versions; consent and opt-outs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage import sql
from storage.errors import ConflictError, NotFoundError
from storage.people import PeopleSection
from storage.records import KINDS, Project
from storage.validate import check_choice, check_name, check_range, check_text

MAX_GUIDELINE_CHARACTERS = 100_000


class ProjectSection(PeopleSection):
    """What is asked, of whom, how often."""

    def create_project(
        self,
        name: str,
        kind: str = "flag",
        categories: Sequence[str] = (),
        guideline: str = "",
        annotators_per_item: int = 3,
        annotators_max: int | None = None,
        posterior_threshold: float = 0.9,
        gold_fraction: float = 0.1,
        repeat_fraction: float = 0.05,
        lease_seconds: float = 1800.0,
        is_sensitive: bool = False,
        is_demo: bool = False,
    ) -> Project:
        """Create a project with the first version of its guideline.

        Args:
            kind: what is asked of each item: flag, score, pair or ranking.
            categories: words an annotator may add to a "yes", in the order of their keys.
            annotators_per_item: people who judge each item, blind to each other (k).
            annotators_max: people at most, when they disagree; default k + 2.
            posterior_threshold: how sure the answers must make us before an item is done, 0.5 to 1.
            gold_fraction: share of assignments that are items of known answer, 0 to 0.9.
            repeat_fraction: share of assignments that ask an annotator again, 0 to 0.9.
            lease_seconds: how long an assignment is kept for its annotator.

        Raises:
            ConflictError: the name is taken.
        """
        name = check_name(name, "project name")
        check_choice(kind, KINDS, "project kind")
        check_range(annotators_per_item, 1, 100, "number of annotators per item")
        annotators_max = annotators_per_item + 2 if annotators_max is None else annotators_max
        check_range(annotators_max, annotators_per_item, 1000, "highest number of annotators per item")
        check_range(posterior_threshold, 0.5, 1.0, "posterior threshold")
        check_range(gold_fraction, 0.0, 0.9, "share of gold items")
        check_range(repeat_fraction, 0.0, 0.9, "share of self-repeats")
        check_range(lease_seconds, 1.0, 7 * 86_400.0, "lease", " seconds")
        guideline = check_text(guideline, "guideline", MAX_GUIDELINE_CHARACTERS)
        with self.transaction() as connection:
            if connection.execute(sql.PROJECT_BY_NAME, (name,)).fetchone():
                raise ConflictError(f"There is a project {name!r} already. Choose another name.")
            settings = (annotators_per_item, annotators_max, posterior_threshold, gold_fraction, repeat_fraction)
            values = (name, kind, *settings, lease_seconds, is_sensitive, is_demo, self.now_us())
            project_id = connection.execute(sql.PROJECT_INSERT, values).lastrowid
            connection.execute(sql.GUIDELINE_INSERT, (project_id, 1, guideline, self.now_us()))
            for position, category in enumerate(dict.fromkeys(categories)):
                connection.execute(sql.CATEGORY_INSERT, (project_id, check_name(category, "category"), position))
            self.add_audit("project.create", name, {"kind": kind, "annotators_per_item": annotators_per_item})
        return self.get_project(name)

    def get_project(self, name: str) -> Project:
        """The project of that name, with its newest guideline.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.PROJECT_BY_NAME, (name,)).fetchone()
        if row is None:
            known = ", ".join(repr(project.name) for project in self.list_projects()[:10]) or "none yet"
            raise NotFoundError(f"There is no project {name!r}; the store has: {known}. Create it or check the name.")
        return self._project(row)

    def list_projects(self) -> list[Project]:
        """All projects in the order they were created."""
        return [self._project(row) for row in self.connection.execute(sql.PROJECT_ALL).fetchall()]

    def _project(self, row: tuple[Any, ...]) -> Project:
        project_id = row[0]
        guideline = self.connection.execute(sql.GUIDELINE_NEWEST, (project_id,)).fetchone()
        categories = tuple(name for (name,) in self.connection.execute(sql.CATEGORY_NAMES, (project_id,)))
        values = [*row[:3], categories, *guideline, *row[3:9], bool(row[9]), bool(row[10]), row[11]]
        return Project(*values)

    def add_category(self, project: str, category: str) -> Project:
        """Add a category after the ones the project has; adding it again changes nothing."""
        record = self.get_project(project)
        if category not in record.categories:
            values = (record.id, check_name(category, "category"), len(record.categories))
            with self.transaction() as connection:
                connection.execute(sql.CATEGORY_INSERT, values)
                self.add_audit("project.category", record.name, {"category": category})
        return self.get_project(project)

    def add_guideline(self, project: str, text: str) -> Project:
        """Add a guideline version; later judgments name it, earlier ones keep theirs."""
        record = self.get_project(project)
        text = check_text(text, "guideline", MAX_GUIDELINE_CHARACTERS)
        if text == record.guideline:
            return record
        with self.transaction() as connection:
            version = record.guideline_version + 1
            connection.execute(sql.GUIDELINE_INSERT, (record.id, version, text, self.now_us()))
            self.add_audit("project.guideline", record.name, {"version": version})
        return self.get_project(project)

    def list_guidelines(self, project: str) -> list[tuple[int, str]]:
        """(version, text) of every guideline the project has had, oldest first."""
        return list(self.connection.execute(sql.GUIDELINE_ALL, (self.get_project(project).id,)))

    def give_consent(self, project: str, annotator: str, wording: str) -> None:
        """Record that an annotator read the risk notice ``wording`` and agreed to judge."""
        record, user = self.get_project(project), self.get_annotator(annotator)
        with self.transaction() as connection:
            connection.execute(sql.CONSENT_INSERT, (user.id, record.id, record.guideline_id, wording, self.now_us()))
            self.add_audit("consent.give", user.name, {"project": record.name})

    def has_consent(self, project: str, annotator: str) -> bool:
        """Whether the annotator has agreed to this project and not taken it back."""
        record, user = self.get_project(project), self.get_annotator(annotator)
        return self.connection.execute(sql.CONSENT_FIND, (user.id, record.id)).fetchone() is not None

    def withdraw_consent(self, project: str, annotator: str) -> None:
        """Record that an annotator no longer agrees to judge in this project."""
        record, user = self.get_project(project), self.get_annotator(annotator)
        with self.transaction() as connection:
            connection.execute(sql.CONSENT_WITHDRAW, (self.now_us(), user.id, record.id))
            self.add_audit("consent.withdraw", user.name, {"project": record.name})

    def set_opt_out(self, project: str, annotator: str, category: str, is_opted_out: bool = True) -> None:
        """Never show (or show again) items of a kind to an annotator; no penalty follows from it."""
        record, user = self.get_project(project), self.get_annotator(annotator)
        with self.transaction() as connection:
            if is_opted_out:
                connection.execute(sql.OPT_OUT_INSERT, (user.id, record.id, category, self.now_us()))
            else:
                connection.execute(sql.OPT_OUT_DELETE, (user.id, record.id, category))
                # The queue has moved past what was not shown: start over, what was judged is passed over anyway.
                connection.execute(sql.QUEUE_CURSORS_RESET, (record.id, user.id))

    def list_opt_outs(self, project: str, annotator: str) -> list[str]:
        """The kinds of content the annotator has asked not to see in this project."""
        record, user = self.get_project(project), self.get_annotator(annotator)
        return [category for (category,) in self.connection.execute(sql.OPT_OUT_ALL, (user.id, record.id))]
