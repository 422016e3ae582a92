"""Bringing feedback in: checked as a whole before anything is written, and harmless to run again.

Every source is read twice: once to check each row, once to store it. Rows become judgments with UUIDs that follow
from the source and the row, so that an import that was interrupted, run again, adds only what is missing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from storage.errors import ConflictError, HFIError, InvalidInputError
from storage.image_codec import EncodedImage, encode_image
from storage.judgment_rules import check_judgment
from storage.records import GenerationParams, ItemInput, JudgmentInput, Project, canonical_json
from storage.validate import check_text

if TYPE_CHECKING:
    from storage.store import Store

NAMESPACE = uuid.UUID("6f0d6f0e-3c5b-5d0a-9a57-8e6a3f1c2b10")
BATCH_ROWS = 100
MAX_SHOWN_REFUSALS = 20

OnRows = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One row of a source.

    Args:
        where: what to call it in an error ("train.parquet row 7").
        key: what makes it the same row on a second run.
        images: the bytes of its picture(s).
        answer: the answer given, "" = none came with it.
    """

    where: str
    key: str
    images: tuple[bytes, ...]
    prompt: str = ""
    annotator: str = ""
    answer: str = ""
    categories: tuple[str, ...] = ()
    score: int | None = None
    generation: tuple[GenerationParams | None, ...] = ()


@dataclass(slots=True)
class ImportReport:
    """What an import did."""

    project: str
    n_rows: int = 0
    n_images: int = 0
    n_items: int = 0
    n_judgments: int = 0
    n_without_answer: int = 0
    snapshot: str = ""
    refused: list[str] = field(default_factory=list)

    def summarise(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def import_rows(
    store: Store,
    project: Project,
    read: Callable[[], Iterable[ImportRow]],
    *,
    is_skipping_bad_rows: bool = False,
    on_rows: OnRows | None = None,
) -> ImportReport:
    """Check every row, then store them.

    Args:
        read: gives the rows from the start, each time it is called.
        is_skipping_bad_rows: True stores the good rows and reports the bad ones; False stores nothing if one is bad.
        on_rows: called with "checked" or "stored" and a number of rows, for a progress bar.

    Raises:
        InvalidInputError: a row is refused; its message names the first ones. Nothing has been written.
    """
    notify = on_rows or (lambda step, n: None)
    bad: dict[str, str] = {}
    n_rows = 0
    for row in read():
        n_rows += 1
        try:
            _check_row(row, project)
        except HFIError as error:
            bad[row.key] = f"{row.where}: {error}"
        notify("checked", 1)
    if bad and not is_skipping_bad_rows:
        shown = " ".join(list(bad.values())[:3])
        raise InvalidInputError(
            f"{len(bad)} of {n_rows} rows were refused and nothing was imported. {shown} Mend them, or skip bad rows."
        )
    if n_rows == 0:
        raise InvalidInputError("The source has no rows to import. Check that you named the right file or folder.")
    report = ImportReport(project.name, n_rows=n_rows, refused=list(bad.values())[:MAX_SHOWN_REFUSALS])
    rows = (row for row in read() if row.key not in bad)
    while batch := list(islice(rows, BATCH_ROWS)):
        _store_batch(store, project, batch, report)
        notify("stored", len(batch))
    store.add_audit("import", project.name, {"rows": n_rows, "refused": len(bad)})
    return report


def _check_row(row: ImportRow, project: Project) -> None:
    encoded = _encode(row)
    if len({image.pixel_sha256 for image in encoded}) != len(encoded):
        raise InvalidInputError("its pictures are the same. Leave such rows out.")
    check_text(row.prompt, "prompt")
    if row.answer:
        check_judgment(_judgment(row, project, 0), project.kind, len(row.images), project.categories)


def _encode(row: ImportRow) -> list[EncodedImage]:
    return [encode_image(content, "the picture") for content in row.images]


def _judgment(row: ImportRow, project: Project, item_id: int) -> JudgmentInput:
    name = canonical_json([project.name, row.key])
    answer = {"answer": row.answer, "categories": row.categories, "score": row.score}
    annotator = row.annotator or "imported"
    return JudgmentInput(str(uuid.uuid5(NAMESPACE, name)), annotator=annotator, item_id=item_id, **answer)  # type: ignore[arg-type]


def _store_batch(store: Store, project: Project, batch: list[ImportRow], report: ImportReport) -> None:
    """Store one batch in one transaction."""
    encoded = [_encode(row) for row in batch]
    with store.transaction():
        for name in {row.annotator or "imported" for row in batch if row.answer}:
            add_imported_annotator(store, name)
        hashes = iter(store.add_encoded_images([image for images in encoded for image in images]))
        judgments = []
        for row in batch:
            images = tuple(record.sha256 for record in islice(hashes, len(row.images)))
            made = [(sha, params) for sha, params in zip(images, row.generation, strict=False) if params is not None]
            _add_generations(store, project, made)
            item = store.add_items(project.name, [ItemInput(images, prompt=row.prompt)])[0]
            if row.answer:
                judgments.append(_judgment(row, project, item.id))
            report.n_images += len(images)
            report.n_items += 1
            report.n_without_answer += not row.answer
        report.n_judgments += len(store.submit_judgments(judgments, is_import=True))


def _add_generations(store: Store, project: Project, made: list[tuple[str, GenerationParams]]) -> None:
    for sha256, params in made:
        try:
            store.add_generation(project.name, sha256, params)
        except ConflictError:
            # Another picture claims the same prompt, seed and model: keep the first, the picture itself is stored.
            continue


def add_imported_annotator(store: Store, name: str, is_simulated: bool = False) -> None:
    """Add the pseudonym that came with an import, unless it is there."""
    known = {user.name for user in store.list_users()}
    if name not in known:
        store.add_annotator(name, is_simulated=is_simulated, is_imported=True)


def target_project(store: Store, name: str, kind: str) -> Project:
    """The project to import into, made if it isn't there.

    Raises:
        ConflictError: it is of another kind.
    """
    if name not in {project.name for project in store.list_projects()}:
        return store.create_project(name, kind=kind)
    project = store.get_project(name)
    if project.kind != kind:
        raise ConflictError(
            f"Project {name!r} is of kind {project.kind}, the source holds {kind} judgments. Name another project."
        )
    return project


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive lists of at most ``size`` rows."""
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch
