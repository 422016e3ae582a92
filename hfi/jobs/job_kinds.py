"""What each kind of job runs; every function takes (store, request, progress) and runs in the job's own process."""

from __future__ import annotations

from pathlib import Path

from hfi.job_requests import (
    AttackRequest,
    EraseRequest,
    EvaluateRequest,
    ExportRequest,
    GenerateRequest,
    I2PRequest,
    ImportRequest,
    InvertRequest,
    PushRequest,
    SaveRequest,
    ScoreRequest,
    VerdictRequest,
)
from hfi.jobs.runs import StageResult, find_finished, recorded_run
from hfi.progress import Progress
from storage import Store

DATASET_ARTIFACT = "dataset"
SAVED_ARTIFACT = "saved"


def run_generate_job(store: Store, request: GenerateRequest, progress: Progress) -> StageResult:
    """Prompts x seeds -> pictures."""
    from hfi.jobs.generate import run_generate

    return run_generate(store, request.config, request.prompts, request.seeds, request.project, progress)


def run_score_job(store: Store, request: ScoreRequest, progress: Progress) -> StageResult:
    """The request's snapshot -> score model."""
    from hfi.jobs.score import run_score

    return run_score(store, request.config, request.project, progress, snapshot_hash=request.snapshot)


def run_invert_job(store: Store, request: InvertRequest, progress: Progress) -> StageResult:
    """The request's snapshot and its score model -> concept tokens."""
    from hfi.jobs.invert import run_invert

    return run_invert(store, request.config, request.project, progress, snapshot_hash=request.snapshot)


def run_erase_job(store: Store, request: EraseRequest, progress: Progress) -> StageResult:
    """Tokens and flagged prompts of the request's snapshot -> a changed model."""
    from hfi.jobs.erase import run_erase
    from hfi.jobs.erase_samples import SampleWish

    wish = SampleWish(request.sample_every_n_steps, request.sample_prompts) if request.with_samples else None
    return run_erase(store, request.config, request.project, progress, snapshot_hash=request.snapshot, samples=wish)


def run_evaluate_job(store: Store, request: EvaluateRequest, progress: Progress) -> StageResult:
    """Two models -> rates with intervals."""
    from hfi.jobs.evaluate import run_evaluate

    return run_evaluate(store, request.config, request.project, progress)


def run_attack_job(store: Store, request: AttackRequest, progress: Progress) -> StageResult:
    """A changed model -> rates before and after attacks; each is a run of its own, the last one stands for all."""
    from hfi.jobs.attack import run_attack

    found = run_attack(store, request.config, request.project, progress)
    return StageResult(" ".join(result.summary for result in found), found[-1].run, dict(found[-1].figures))


def run_i2p_job(store: Store, request: I2PRequest, progress: Progress) -> StageResult:
    """A model -> its inappropriate probability on I2P."""
    from hfi.jobs.i2p import run_i2p

    return run_i2p(store, request.config, request.project, progress)


def run_verdict_job(store: Store, request: VerdictRequest, progress: Progress) -> StageResult:
    """Detectors look at the pairs of an asking; what they say is kept, so that the pages need not ask them."""
    from hfi.jobs.verdict import run_detectors

    return run_detectors(
        store, request.project, request.asking, request.detectors, progress, detector_path=request.detector_path
    )


def run_export_job(store: Store, request: ExportRequest, progress: Progress) -> StageResult:
    """Snapshot -> dataset folder: where the request says, else an artifact of the run."""
    from storage.export import ExportOptions, export_snapshot
    from storage.snapshot import load_snapshot

    snapshot_hash = load_snapshot(store, request.snapshot, with_judgments=False).hash
    settings = request.model_dump(mode="json", exclude={"kind"}) | {"snapshot": snapshot_hash}
    done = find_finished(store, request.kind, settings)
    if done is not None and Path(done.metrics["folder"]).is_dir():
        return StageResult(f"The dataset is in {done.metrics['folder']}.", done, dict(done.metrics))
    with recorded_run(store, request.kind, settings, snapshot_hash) as work:
        progress.start("export")
        folder = Path(request.folder) if request.folder else store.artifact_dir(work.run.id) / DATASET_ARTIFACT
        options = ExportOptions(with_notes=request.with_notes, license=request.license)
        manifest = export_snapshot(store, snapshot_hash, folder, options, lambda name, n: progress.advance(n))
        if not request.folder and not any(a.name == DATASET_ARTIFACT for a in store.list_artifacts(work.run.id)):
            store.add_artifact(work.run.id, DATASET_ARTIFACT, "dataset", folder)
        rows = {name: content["rows"] for name, content in manifest["configs"].items()}
        work.metrics.update(folder=str(folder), rows=rows, content_sha256=manifest["content_sha256"])
        progress.finish()
    return StageResult(f"The dataset is in {folder}.", work.run, dict(work.metrics))


def run_save_job(store: Store, request: SaveRequest, progress: Progress) -> StageResult:
    """The model of an erasing run, saved in another format as an artifact, with its card."""
    from hfi.jobs.export_model import run_export_model

    settings = request.model_dump(mode="json", exclude={"kind"})
    done = find_finished(store, request.kind, settings)
    if done is not None:
        return StageResult(done.metrics["summary"], done, dict(done.metrics))
    erased = store.get_run(request.source)
    suffix = {"folder": "", "delta": ".delta.safetensors", "lora": ".lora.safetensors"}
    name = f"erased-{erased.id}{suffix.get(request.config.format, '.safetensors')}"
    with recorded_run(store, request.kind, settings, erased.snapshot_hash) as work:
        details = {"format": request.config.format, "source": erased.id}
        with store.writing_artifact(work.run.id, SAVED_ARTIFACT, "saved_model", details) as folder:
            run_export_model(store, request.config, erased.id, folder / name, request.project, progress)
        work.metrics.update(details, file=name, summary=f"The model of run {erased.id} is saved as {name}.")
    return StageResult(work.metrics["summary"], work.run, dict(work.metrics))


def run_import_job(store: Store, request: ImportRequest, progress: Progress) -> StageResult:
    """A path -> feedback in the store. Done again each time, because what the path holds may have changed."""
    from storage.import_any import import_path

    settings = request.model_dump(mode="json", exclude={"kind"})
    with recorded_run(store, request.kind, settings) as work:
        progress.start("import")
        report = import_path(
            store,
            request.path,
            request.project or None,
            source=request.source,
            kind=request.project_kind,
            mapping=request.columns,
            is_skipping_bad_rows=request.skip_bad,
            on_rows=lambda name, n: progress.advance(n),
        )
        for text in report.refused:
            progress.finish(f"Refused: {text}")
        work.metrics.update(report.summarise())
    counts = f"{report.n_images} images, {report.n_items} items, {report.n_judgments} judgments"
    refused = f"; {len(report.refused)} rows refused, see the log" if report.refused else ""
    return StageResult(f"Project {report.project!r}: {counts}{refused}.", work.run, dict(work.metrics))


def run_push_job(store: Store, request: PushRequest, progress: Progress) -> StageResult:
    """Export a snapshot (or find its export), then send exactly those bytes. Sent again each time: that is harmless."""
    from storage.push import push_export

    asked = request.model_dump(exclude={"kind", "repository", "typed_for_public"})
    exported = run_export_job(store, ExportRequest(**asked), progress)
    with recorded_run(store, request.kind, request.model_dump(mode="json", exclude={"kind"})) as work:
        progress.start("push")
        folder, typed = exported.figures["folder"], request.typed_for_public
        work.metrics["address"] = push_export(folder, request.repository, typed_for_public=typed)
        progress.finish()
    readers = "everybody may read it" if typed else "private"
    return StageResult(f"Sent to {work.metrics['address']}, {readers}.", work.run, dict(work.metrics))
