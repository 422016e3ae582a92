"""Looking at a project: its pictures page by page, what is disputed, how judging goes day by day.

Everything here is paged or counted in SQL, so that a project of 100,000 pictures is looked at as quickly as a small
one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from storage import gallery_sql, sql
from storage.errors import NotFoundError, StoreDamagedError
from storage.generations import _generation
from storage.records import GenerationRecord, ItemRecord, JudgmentRecord, Run, canonical_json
from storage.runs import RunSection
from storage.validate import check_choice, check_range, check_text

MAX_PAGE_SIZE = 200
COUNT_LIMIT = 10_000  # more than this is told as "more than 10,000": counting on would cost more than it says
TOO_FAST_MS = 350  # below this nobody has looked; a press of a key that was meant for the picture before
SCORE_KIND, SCORE_ARTIFACT, SCORES_FILE = "score", "score-model", "scores.json"
_ROWS_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class GalleryFilter:
    """Which of a project's pictures to show; an empty value asks for nothing.

    Args:
        prompt: part of the prompt, whatever its case.
        state: of the picture's item: open, done, adjudicate, hidden or "not queued".
        agreement: agreed (two answers at least, all on one side), disputed, or "not judged".
        score_low, score_high: concept score, both included, 0 to 1; only scored pictures have one.
        order: newest, oldest, highest score, lowest score, or most disputed by the model, whose members disagree most
            about it.
    """

    prompt: str = ""
    seed: int | None = None
    model_id: str | None = None
    state: str = ""
    agreement: str = ""
    score_low: float | None = None
    score_high: float | None = None
    order: str = "newest"


@dataclass(frozen=True, slots=True)
class GalleryPicture:
    """One picture of a project, with where it came from and what was said of it so far."""

    sha256: str
    width: int
    height: int
    prompt: str
    seed: int | None
    model_id: str
    role: str
    item_id: int | None
    status: str
    n_judgments: int
    n_positive: int
    n_negative: int
    concept_score: float | None
    score_spread: float | None
    is_quarantined: bool


@dataclass(frozen=True, slots=True)
class GalleryPage:
    """Some pictures out of those found; ``n_found`` stops counting at COUNT_LIMIT + 1."""

    pictures: tuple[GalleryPicture, ...]
    n_found: int
    page: int
    page_size: int

    @property
    def n_pages(self) -> int:
        """How many pages there are, at least one; of those counted."""
        return max(1, -(-self.n_found // self.page_size))


@dataclass(frozen=True, slots=True)
class PictureDetails:
    """Everything known about a picture in a project."""

    picture: GalleryPicture
    generations: tuple[GenerationRecord, ...]
    item: ItemRecord | None
    judgments: tuple[JudgmentRecord, ...]


@dataclass(frozen=True, slots=True)
class DayCount:
    """One annotator's standing judgments of one day (UTC); ``day`` counts from 1970-01-01."""

    day: int
    annotator: str
    is_simulated: bool
    n_judgments: int
    n_substantive: int
    n_positive: int
    gold_seen: int
    gold_right: int
    n_revealed: int
    revealed_ms: int
    n_too_fast: int
    elapsed_ms: int


class GallerySection(RunSection):
    """Pictures, disagreements and days of a project."""

    def list_pictures(
        self, project: str, wanted: GalleryFilter | None = None, page: int = 1, page_size: int = 60
    ) -> GalleryPage:
        """One page of the pictures that are in a project, generated into it or put up for judging.

        Args:
            page: from 1; beyond the last one there is nothing on it.

        Raises:
            NotFoundError: no such project.
            InvalidInputError: a filter has an unknown word or a number out of range.
        """
        project_id, wanted = self.get_project(project).id, wanted or GalleryFilter()
        check_range(page_size, 1, MAX_PAGE_SIZE, "number of pictures on a page")
        check_range(page, 1, 10**6, "page")
        check_choice(wanted.order, gallery_sql.ORDERS, "order")
        conditions, values = _conditions(wanted)
        first = (page - 1) * page_size
        # Counting takes as long as listing: what is counted is listed, and the page cut out of it.
        is_counted = first + page_size <= COUNT_LIMIT
        part = {"n_rows": COUNT_LIMIT + 1, "offset": 0} if is_counted else {"n_rows": page_size, "offset": first}
        values |= {"project_id": project_id, **part}
        with self.reading() as connection:
            query = gallery_sql.page_of_hashes(wanted.order, conditions)
            found = [sha256 for (sha256,) in connection.execute(query, values)]
            hashes = found[first : first + page_size] if is_counted else found
            n_found = len(found) if is_counted else COUNT_LIMIT + 1 if found else 0
            return GalleryPage(tuple(self._pictures(project_id, hashes)), n_found, page, page_size)

    def _pictures(self, project_id: int, hashes: list[str]) -> Iterator[GalleryPicture]:
        query = {"project_id": project_id, "hashes": canonical_json(hashes)}
        for row in self.connection.execute(gallery_sql.PICTURES, query):
            columns: list[Any] = [*row[:-1], bool(row[-1])]
            yield GalleryPicture(*columns)

    def list_generated(
        self,
        project: str,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        model_id: str,
        scheduler: str,
        num_inference_steps: int,
        guidance_scale: float,
        guard: str = "",
        role: str = "feedback",
        n: int = MAX_PAGE_SIZE,
    ) -> list[GalleryPicture]:
        """The newest pictures of these prompts and seeds that a model made so, newest first; ``n`` at most."""
        check_range(n, 1, MAX_PAGE_SIZE, "number of pictures")
        project_id = self.get_project(project).id
        query = {
            "project_id": project_id,
            "prompts": canonical_json(list(prompts)),
            "seeds": canonical_json(list(seeds)),
            "model_id": model_id,
            "scheduler": scheduler,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": float(guidance_scale),
            "guard": guard,
            "role": role,
            "n_rows": n,
        }
        hashes = [sha256 for (sha256,) in self.connection.execute(gallery_sql.GENERATED, query)]
        return list(self._pictures(project_id, list(dict.fromkeys(hashes))))

    def get_picture(self, project: str, sha256: str) -> PictureDetails:
        """A picture with its provenance, its item and what stands judged of it.

        Raises:
            NotFoundError: the project has no such picture.
        """
        project_id = self.get_project(project).id
        self.get_image(sha256)
        picture = next(self._pictures(project_id, [sha256]))
        rows = self.connection.execute(gallery_sql.GENERATIONS_OF_PICTURE, (project_id, sha256)).fetchall()
        if picture.item_id is None and not rows:
            raise NotFoundError(f"Project {project!r} has no image {sha256[:12]}…. Look for it in another project.")
        item = None if picture.item_id is None else self.get_item(picture.item_id)
        judgments = () if item is None else tuple(self.list_item_judgments(item))
        return PictureDetails(picture, tuple(_generation(row) for row in rows), item, judgments)

    def list_item_judgments(self, item: ItemRecord) -> list[JudgmentRecord]:
        """What stands judged of one item, oldest first."""
        query = (item.project_id, item.id)
        uuids = self.connection.execute(gallery_sql.JUDGMENT_UUIDS_OF_ITEM, query).fetchall()
        return [self.get_judgment(uuid) for (uuid,) in uuids]

    def list_models(self, project: str) -> list[str]:
        """The models that made pictures in a project."""
        rows = self.connection.execute(gallery_sql.MODELS, (self.get_project(project).id,))
        return [model_id for (model_id,) in rows]

    def list_disputed(self, project: str, n: int = 20, offset: int = 0) -> list[ItemRecord]:
        """Items that wait for a reviewer first, then others on which annotators disagree and no reviewer decided."""
        check_range(n, 1, MAX_PAGE_SIZE, "number of items")
        query = {"project_id": self.get_project(project).id, "n_rows": n, "offset": offset}
        return [self.get_item(item_id) for (item_id,) in self.connection.execute(gallery_sql.DISPUTED, query)]

    def list_days(self, project: str) -> list[DayCount]:
        """Each annotator's work of each day, oldest day first."""
        query = {"project_id": self.get_project(project).id, "too_fast_ms": TOO_FAST_MS}
        rows = self.connection.execute(gallery_sql.DAYS, query)
        return [DayCount(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]

    def count_items(self, project: str) -> dict[str, int]:
        """How many items are open, done, adjudicate or hidden, and ``judgments``, those counted on all of them."""
        rows = self.connection.execute(sql.ITEM_COUNTS, (self.get_project(project).id,)).fetchall()
        counts = dict.fromkeys(("open", "done", "adjudicate", "hidden"), 0)
        return counts | {row[0]: row[1] for row in rows} | {"judgments": sum(row[3] for row in rows)}

    def newest_judgment(self, project: str) -> int:
        """A number that grows with every judgment (0 = none yet): what has been computed before it is still true."""
        return int(self.connection.execute(gallery_sql.LAST_JUDGMENT, (self.get_project(project).id,)).fetchone()[0])

    def list_projects_of(self, annotator: str) -> list[str]:
        """The projects in which an annotator has judged."""
        rows = self.connection.execute(gallery_sql.PROJECTS_OF_ANNOTATOR, (self.get_annotator(annotator).id,))
        return [name for (name,) in rows]

    def refresh_concept_scores(self, project: str) -> int:
        """Take over the scores of the newest score model, if they are not there yet; returns how many it took.

        The score run's own file stays the truth; the rows are there so that pictures can be found by them.
        """
        project_id = self.get_project(project).id
        runs = [run for run in self.list_runs(kind=SCORE_KIND, status="done") if run.config.get("project") == project]
        known = self.connection.execute(gallery_sql.SCORES_RUN, (project_id,)).fetchone()
        if not runs or (known and known[0] == runs[-1].id):
            return 0
        scores = self._read_scores(runs[-1])
        with self.transaction() as connection:
            connection.execute(gallery_sql.SCORES_CLEAR, (project_id,))
            rows = ((project_id, sha256, score, spread, runs[-1].id) for sha256, (score, spread) in scores.items())
            connection.executemany(gallery_sql.SCORES_INSERT, rows)
        return len(scores)

    def _read_scores(self, run: Run) -> dict[str, tuple[float, float]]:
        place = self.path / self.get_artifact(run.id, SCORE_ARTIFACT).path / SCORES_FILE
        try:
            content = json.loads(place.read_text(encoding="utf-8"))
            return {str(sha256): (float(score), float(spread)) for sha256, (score, spread) in content.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StoreDamagedError(
                f"The concept scores of run {run.id} can't be read ({error}). Run `hfi doctor`, then `hfi score` again."
            ) from None


def _conditions(wanted: GalleryFilter) -> tuple[list[str], dict[str, Any]]:
    """The conditions of a filter and the values bound in them."""
    conditions, values = list[str](), dict[str, Any]()
    prompt = check_text(wanted.prompt, "part of a prompt").strip()
    if prompt:
        conditions.append(gallery_sql.PROMPT)
        literal = prompt.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values["prompt"] = f"%{literal}%"
    if wanted.seed is not None:
        check_range(wanted.seed, 0, 2**63 - 1, "seed")
        conditions.append(gallery_sql.SEED)
        values["seed"] = wanted.seed
    if wanted.model_id is not None:
        conditions.append(gallery_sql.MODEL)
        values["model_id"] = wanted.model_id
    if wanted.state:
        conditions.append(gallery_sql.STATES[check_choice(wanted.state, gallery_sql.STATES, "state")])
    if wanted.agreement:
        known = check_choice(wanted.agreement, gallery_sql.AGREEMENTS, "agreement")
        conditions.append(gallery_sql.AGREEMENTS[known])
    if wanted.score_low is not None or wanted.score_high is not None:
        low, high = wanted.score_low or 0.0, 1.0 if wanted.score_high is None else wanted.score_high
        check_range(low, 0.0, 1.0, "lowest concept score")
        check_range(high, low, 1.0, "highest concept score")
        conditions.append(gallery_sql.SCORE)
        values |= {"score_low": low, "score_high": high}
    # Every condition on items, generations or scores finds pictures of the project alone.
    if not conditions or wanted.state in ("hidden", "not queued"):
        conditions.append(gallery_sql.IN_PROJECT)
    return [*conditions, *([] if wanted.state == "hidden" else [gallery_sql.VISIBLE])], values
