"""What is judged, in queue order, and the items whose answer is known (gold)."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from storage import sql
from storage.errors import InvalidInputError, NotFoundError
from storage.generations import GenerationSection
from storage.records import (
    SUBSTANTIVE_ANSWERS,
    ItemInput,
    ItemRecord,
    Project,
    canonical_json,
    sha256_text,
)
from storage.validate import check_choice, check_text

IMAGES_PER_ITEM = {"flag": (1, 1), "score": (1, 1), "pair": (2, 2), "ranking": (2, 9)}


def item_key(kind: str, images: Sequence[str], prompt: str) -> str:
    """What makes an item the same item in any store: its kind, its images in order and its prompt."""
    return sha256_text(canonical_json([kind, list(images), prompt]))


def next_positions(connection: sqlite3.Connection, project_id: int, n: int) -> int:
    """Reserve the next ``n`` places at the end of a project's queue; returns the first."""
    tail: int = connection.execute(sql.QUEUE_TAIL_ADVANCE, (n, project_id)).fetchall()[0][0]
    return tail - n + 1


class ItemSection(GenerationSection):
    """Items and gold."""

    def add_items(self, project: str, items: Iterable[ItemInput | str | Sequence[str]]) -> list[ItemRecord]:
        """Add items to judge, in random queue order; an item that is there already is returned unchanged.

        Args:
            items: ItemInput, or just the image hash(es): one for flag and score, two for pair, 2 to 9 for ranking.

        Raises:
            InvalidInputError: wrong number of images for the project's kind, or the same image twice.
            NotFoundError: no such project or image.
        """
        record = self.get_project(project)
        inputs = [self._item_input(record, item) for item in items]
        with self.transaction() as connection:
            first = next_positions(connection, record.id, len(inputs))
            # Shuffled within the batch, after everything queued before: places only ever grow, which is what lets
            # each annotator's cursor move forward past what it has seen.
            places = list(range(first, first + len(inputs)))
            random.Random(f"{record.id}:{first}").shuffle(places)
            item_ids = [
                self._insert_item(connection, record, item, place) for item, place in zip(inputs, places, strict=True)
            ]
            return [self.get_item(item_id) for item_id in item_ids]

    def _item_input(self, project: Project, item: ItemInput | str | Sequence[str]) -> ItemInput:
        if isinstance(item, str):
            item = ItemInput((item,))
        elif not isinstance(item, ItemInput):
            item = ItemInput(tuple(item))
        low, high = IMAGES_PER_ITEM[project.kind]
        if not low <= len(item.images) <= high or len(set(item.images)) != len(item.images):
            expected = str(low) if low == high else f"{low} to {high}"
            raise InvalidInputError(
                f"An item of the {project.kind} project {project.name!r} has {expected} different image(s), "
                f"got {len(item.images)}: {', '.join(sha256[:12] for sha256 in item.images)}. Regroup the images."
            )
        prompt = check_text(item.prompt, "prompt")
        if not prompt:
            row = self.connection.execute(sql.GENERATION_OF_IMAGE, (project.id, item.images[0])).fetchone()
            prompt = row[1] if row else ""
        group = check_text(item.prompt_group, "prompt group") or prompt
        return ItemInput(tuple(item.images), prompt, group, check_text(item.category_hint, "category hint", 40))

    def _insert_item(self, connection: sqlite3.Connection, project: Project, item: ItemInput, place: int) -> int:
        key = item_key(project.kind, item.images, item.prompt)
        row = connection.execute(sql.ITEM_BY_KEY, (project.id, key)).fetchone()
        if row is not None:
            return int(row[0])
        for sha256 in item.images:
            self.image_path(sha256)  # refuses unknown and quarantined images
        texts = (item.prompt, item.prompt_group, item.category_hint)
        values = (project.id, key, *texts, project.annotators_per_item, place, self.now_us())
        item_id = connection.execute(sql.ITEM_INSERT, values).lastrowid
        assert item_id is not None
        for position, sha256 in enumerate(item.images):
            connection.execute(sql.ITEM_IMAGE_INSERT, (item_id, position, sha256))
        return item_id

    def get_item(self, item_id: int) -> ItemRecord:
        """The item of that number.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.ITEM_BY_ID, (item_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no item {item_id}. List the project's items to find its number.")
        return self._item(row, self._images_of(item_id))

    def list_items(self, project: str, *, status: str | None = None) -> list[ItemRecord]:
        """The project's items, oldest first, optionally those that are open, done, adjudicate or hidden."""
        project_id = self.get_project(project).id
        images: dict[int, list[str]] = {}
        for item_id, sha256 in self.connection.execute(sql.ITEM_IMAGES_ALL, (project_id,)):
            images.setdefault(item_id, []).append(sha256)
        rows = self.connection.execute(sql.ITEM_ALL, {"project_id": project_id, "status": status})
        return [self._item(row, tuple(images[row[0]])) for row in rows]

    @staticmethod
    def _item(row: tuple[Any, ...], images: tuple[str, ...]) -> ItemRecord:
        item_id, project_id, kind, prompt, group, hint, status, is_gold, target, n_judgments, n_leased = row
        head = (item_id, project_id, kind, images, prompt, group, hint, status)
        return ItemRecord(*head, bool(is_gold), target, n_judgments, n_leased)

    def _images_of(self, item_id: int) -> tuple[str, ...]:
        return tuple(sha256 for (sha256,) in self.connection.execute(sql.ITEM_IMAGES, (item_id,)))

    def set_uncertainties(self, project: str, uncertainties: Mapping[int, float]) -> None:
        """Ask sooner about the items a model is unsure of.

        Args:
            uncertainties: item number -> how unsure the model is, higher = sooner; 0 = back among the others.
        """
        project_id = self.get_project(project).id
        ordered = list(uncertainties.items())
        random.Random(project_id).shuffle(ordered)  # equal ones in no order that means something
        ordered.sort(key=lambda pair: -pair[1])
        with self.transaction() as connection:
            first = next_positions(connection, project_id, len(ordered))
            for place, (item_id, uncertainty) in enumerate(ordered, start=first):
                tier = 3 if uncertainty > 0 else 4
                connection.execute(sql.ITEM_SET_UNCERTAINTY, (uncertainty, tier, place, item_id))

    def add_gold(
        self,
        project: str,
        item_id: int,
        answer: str,
        explanation: str,
        *,
        categories: Sequence[str] = (),
        is_training: bool = False,
    ) -> None:
        """Make an item one of known answer: it measures annotators instead of being measured.

        Args:
            answer: the right answer, a word of the project's kind ("yes", "first" ...).
            explanation: why; shown after the answer in the training round.
            is_training: True for the training round, False for the hidden checks.

        Raises:
            ConflictError: it is gold already.
        """
        record = self.get_project(project)
        check_choice(answer, sorted(SUBSTANTIVE_ANSWERS[record.kind]), "gold answer")
        for category in categories:
            check_choice(category, record.categories, "category")
        if self.get_item(item_id).project_id != record.id:
            raise NotFoundError(f"Item {item_id} is not in project {record.name!r}. Name the project it belongs to.")
        expected = canonical_json({"categories": sorted(categories)})
        with self.transaction() as connection:
            values = (item_id, record.id, answer, expected, explanation, is_training, self.now_us())
            connection.execute(sql.GOLD_INSERT, values)
            connection.execute(sql.ITEM_MAKE_GOLD, (item_id,))
            self.add_audit("gold.add", str(item_id), {"project": record.name, "answer": answer})

    def get_gold(self, item_id: int) -> dict[str, Any] | None:
        """Answer, categories, explanation and is_training of a gold item; None for any other item."""
        row = self.connection.execute(sql.GOLD_BY_ITEM, (item_id,)).fetchone()
        if row is None:
            return None
        answer, expected, explanation, is_training = row
        return {"answer": answer, **json.loads(expected), "explanation": explanation, "is_training": bool(is_training)}
