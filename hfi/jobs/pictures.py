"""Generate what is missing: pictures of requests go into the store with how they were made; those already there are
not made again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import SCHEDULERS, GenerateConfig, SamplerConfig, resolve_model_folder
from hfi.jobs import sharing
from hfi.model_folder import check_model_folder, model_sha256
from hfi.progress import Progress
from storage import Store
from storage.records import GenerationParams, GenerationRecord, config_hash

if TYPE_CHECKING:
    from hfi.generate import GenerationRequest
    from hfi.guidance import Guard
    from hfi.pipelines import Pipeline


def local_model_folder(model: str) -> Path:
    """The folder of a model: the embedded one, a folder, a Hub id's files, fetched once by diffusers, or a single
    file's parts, unpacked once.

    Raises:
        ModelFolderError: it is none of these, or lacks a part.
    """
    folder = Path(resolve_model_folder(model))
    if not folder.is_dir():
        from hfi.pipelines import fetch_model_folder, unpack_single_file

        folder = unpack_single_file(folder) if folder.is_file() else fetch_model_folder(model)
    check_model_folder(folder)
    return folder


@cache
def library_versions() -> dict[str, str]:
    """Versions of what decides a picture's pixels."""
    return {name: version(name) for name in ("torch", "diffusers", "transformers")}


def default_size_px(folder: Path) -> int:
    """The model's own picture size in pixels, from its configuration files."""
    unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    sample_size = unet["sample_size"] if isinstance(unet["sample_size"], int) else unet["sample_size"][0]
    return int(sample_size * 2 ** (len(vae["block_out_channels"]) - 1))


class PictureMaker:
    """Makes pictures with one model; loads it only when a picture is really missing."""

    def __init__(
        self,
        store: Store,
        project: str,
        model: str,
        device: str = "auto",
        model_id: str = "",
        guard: Guard | None = None,
    ) -> None:
        """Check the folder; nothing is loaded yet.

        Args:
            store: where pictures go.
            project: whose pictures they are.
            model: folder, Hub id or `mini`.
            device: where to compute.
            model_id: what provenance calls the model; default: `model` as it is.
            guard: what is held back in all its pictures, unless a call names another.

        Raises:
            ModelFolderError: the model is missing or lacks a part.
        """
        self.store, self.project, self.device = store, project, device
        self.model_id = model_id or model
        self.folder = local_model_folder(model)
        self.model_sha256 = model_sha256(self.folder)
        self.guard = guard
        self._pipeline: Pipeline | None = None

    @property
    def identity(self) -> str:
        """Hash of what draws: the weights, and with a guard also what is held back."""
        if self.guard is None:
            return self.model_sha256
        return config_hash({"model": self.model_sha256, "guard": self.guard.kind, **self.guard.provenance()})

    @property
    def pipeline(self) -> Pipeline:
        """The loaded model."""
        if self._pipeline is None:
            from hfi.pipelines import load_pipeline

            self._pipeline = load_pipeline(self.folder, self.device)
        return self._pipeline

    def params(
        self, request: GenerationRequest, config: SamplerConfig, role: str, guard: Guard | None = None
    ) -> GenerationParams:
        """Everything needed to make the request's picture again."""
        guard = guard or self.guard
        size = default_size_px(self.folder)
        has_own = isinstance(config, GenerateConfig)
        return GenerationParams(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt
            or (config.negative_prompt if isinstance(config, GenerateConfig) else ""),
            seed=request.seed,
            scheduler=SCHEDULERS[config.sampler],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            width=(config.width_px if has_own and config.width_px else size),
            height=(config.height_px if has_own and config.height_px else size),
            model_id=self.model_id,
            model_sha256=self.model_sha256,
            guard=guard.kind if guard else "",
            extra=guard.provenance() if guard else {},
            role=role,
            versions=library_versions(),
        )

    def make(
        self,
        requests: Sequence[GenerationRequest],
        config: SamplerConfig,
        role: str,
        progress: Progress,
        stage: str,
        guard: Guard | None = None,
    ) -> list[GenerationRecord]:
        """The pictures of all requests, in their order; each batch is stored as soon as it is done.

        This process makes all that are missing; `make_together` shares them among the processes of a launch.

        Args:
            requests: what to draw.
            config: sampler.
            role: why the pictures are made.
            progress: told about every batch.
            stage: what progress calls it.
            guard: what is held back while sampling, `hfi.guidance.build_guard` makes it.
        """
        wanted = [self.params(request, config, role, guard) for request in requests]
        found: dict[str, GenerationRecord] = {}
        missing: dict[str, tuple[GenerationRequest, GenerationParams]] = {}
        for request, params in zip(requests, wanted, strict=True):
            record = self.store.find_generation(self.project, params)
            if record is not None:
                found[params.request_sha256] = record
            else:
                missing.setdefault(params.request_sha256, (request, params))
        if missing:
            progress.start(stage, len(requests))
            progress.advance(len(requests) - len(missing))
            found |= self._make_missing(list(missing.values()), config, progress, guard)
            progress.finish(f"{len(missing)} pictures")
        return [found[params.request_sha256] for params in wanted]

    def make_together(
        self,
        requests: Sequence[GenerationRequest],
        config: SamplerConfig,
        role: str,
        progress: Progress,
        stage: str,
        guard: Guard | None = None,
    ) -> list[GenerationRecord]:
        """As `make`, called by every process of a launch: each makes its share, then waits for the others'."""
        if sharing.num_processes() > 1:
            sharing.use_own_device()
            self.make(sharing.share_of(list(dict.fromkeys(requests))), config, role, progress, stage, guard)
            for request in requests:
                params = self.params(request, config, role, guard)
                sharing.wait_for(partial(self.store.find_generation, self.project, params))
        return self.make(requests, config, role, progress, stage, guard)

    def _make_missing(
        self,
        missing: list[tuple[GenerationRequest, GenerationParams]],
        config: SamplerConfig,
        progress: Progress,
        guard: Guard | None,
    ) -> dict[str, GenerationRecord]:
        from hfi.generate import generate

        made: dict[str, GenerationRecord] = {}
        for start in range(0, len(missing), config.batch_size):
            batch = missing[start : start + config.batch_size]
            requests = [request for request, _ in batch]
            pictures = [image for _, image in generate(self.pipeline, requests, config, guard=guard or self.guard)]
            stored = [self.store.add_image(image).sha256 for image in pictures]
            entries: list[tuple[str, GenerationParams]] = [
                (sha256, params) for sha256, (_, params) in zip(stored, batch, strict=True)
            ]
            for record in self.store.add_generations(self.project, entries):
                made[record.request_sha256] = record
            progress.advance(len(batch))
        return made


def load_images(store: Store, records: Sequence[Any]) -> list[Any]:
    """The pictures of generation records or snapshot images, as RGB PIL images."""
    return [store.load_image(getattr(record, "image_sha256", None) or record.sha256) for record in records]
