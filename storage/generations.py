"""How each generated image was made; a request that was answered once is never answered twice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from storage import sql
from storage.errors import ConflictError
from storage.images import ImageSection
from storage.records import GenerationParams, GenerationRecord, canonical_json
from storage.validate import check_range, check_text

_SETTINGS = (
    *("prompt", "negative_prompt", "seed", "scheduler", "num_inference_steps", "guidance_scale"),
    *("width", "height", "model_id", "model_sha256", "guard", "role"),
)


def _generation(row: tuple[Any, ...]) -> GenerationRecord:
    generation_id, project_id, image_sha256, request_sha256 = row[:4]
    versions, extra, created_at_us = row[-3:]
    settings = dict(zip(_SETTINGS, row[4:-3], strict=True))
    params = GenerationParams(**settings, versions=json.loads(versions), extra=json.loads(extra))
    return GenerationRecord(generation_id, project_id, image_sha256, request_sha256, params, created_at_us)


def _values(params: GenerationParams) -> tuple[Any, ...]:
    sizes = (params.num_inference_steps, float(params.guidance_scale), params.width, params.height)
    names = (params.model_id, params.model_sha256, params.guard, params.role)
    texts = (canonical_json(dict(params.versions)), canonical_json(dict(params.extra)))
    return (params.prompt, params.negative_prompt, params.seed, params.scheduler, *sizes, *names, *texts)


class GenerationSection(ImageSection):
    """Provenance of generated images."""

    def add_generation(self, project: str, image_sha256: str, params: GenerationParams) -> GenerationRecord:
        """Record how an image was made; recording the same again changes nothing.

        Raises:
            ConflictError: the same request is recorded with another image.
            NotFoundError: no such project or image.
        """
        return self.add_generations(project, [(image_sha256, params)])[0]

    def add_generations(self, project: str, batch: Iterable[tuple[str, GenerationParams]]) -> list[GenerationRecord]:
        """Record a batch of (image hash, parameters) in one transaction, all or none."""
        project_id = self.get_project(project).id
        records = []
        with self.transaction() as connection:
            for image_sha256, params in batch:
                self._check_params(params)
                key = (project_id, params.request_sha256)
                row = connection.execute(sql.GENERATION_FIND, key).fetchone()
                if row is None:
                    self.get_image(image_sha256)
                    values = (project_id, image_sha256, params.request_sha256, *_values(params), self.now_us())
                    connection.execute(sql.GENERATION_INSERT, values)
                    row = connection.execute(sql.GENERATION_FIND, key).fetchone()
                record = _generation(row)
                if record.image_sha256 != image_sha256:
                    raise ConflictError(
                        f"The request (prompt {params.prompt[:60]!r}, seed {params.seed}) is recorded with image "
                        f"{record.image_sha256[:12]}…, not {image_sha256[:12]}…. If the picture really changed, name "
                        "what changed in `extra` or `model_sha256`."
                    )
                records.append(record)
        return records

    def find_generation(self, project: str, params: GenerationParams) -> GenerationRecord | None:
        """The record of exactly this request, or None: what lets generating go on where it stopped."""
        key = (self.get_project(project).id, params.request_sha256)
        row = self.connection.execute(sql.GENERATION_FIND, key).fetchone()
        return None if row is None else _generation(row)

    def list_generations(
        self,
        project: str,
        *,
        role: str | None = None,
        model_id: str | None = None,
        guard: str | None = None,
        with_quarantined: bool = False,
    ) -> list[GenerationRecord]:
        """The project's generations, oldest first, optionally only those of one role, model or guard."""
        project_id = self.get_project(project).id
        rows = self.connection.execute(sql.GENERATION_ALL, {"project_id": project_id, "all": with_quarantined})
        records = (_generation(row) for row in rows)
        wanted = {"role": role, "model_id": model_id, "guard": guard}
        filters = {name: value for name, value in wanted.items() if value is not None}
        return [
            record
            for record in records
            if all(getattr(record.params, name) == value for name, value in filters.items())
        ]

    @staticmethod
    def _check_params(params: GenerationParams) -> None:
        check_text(params.prompt, "prompt")
        check_text(params.negative_prompt, "negative prompt")
        check_range(params.seed, 0, 2**63 - 1, "seed")
        check_range(params.num_inference_steps, 1, 10_000, "number of inference steps")
        check_range(params.guidance_scale, -1000, 1000, "guidance scale")
        check_range(params.width, 1, 16_384, "width", " pixels")
        check_range(params.height, 1, 16_384, "height", " pixels")
