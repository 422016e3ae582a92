"""People's verdict beside the detectors': who looked at the pairs, and what they said, without loading any of them.

A job lets detectors look; their readings are kept in the store's cache. Afterwards, and for the detectors of the
evaluations themselves, a verdict needs no weights. Importing this module never imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hfi.config import EvaluateConfig
from hfi.errors import InvalidInputError, NotFoundError
from hfi.evaluate.protocol import STYLE_JUDGE, DetectorSpec, read_result
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, cached_readings, load_named_detector
from hfi.jobs.judge_again import KEY_ARTIFACT, run_verdict
from hfi.jobs.runs import StageResult, latest_run, recorded_run
from hfi.progress import Progress
from storage import Store
from storage.records import Run


@dataclass(frozen=True)
class EarlierDetector:
    """A detector of which only what it said before is known."""

    spec: DetectorSpec

    def read(self, images: Sequence[Any]) -> list[dict[str, float]]:
        """Nothing new can be read.

        Raises:
            InvalidInputError: always; a picture that was not read counts as unread.
        """
        raise InvalidInputError(f"{self.spec.name} did not look at this picture: let it look first.")


def find_askings(store: Store, project: str) -> list[Run]:
    """When people were asked about a project's pictures again, newest first."""
    runs = store.list_runs(kind="judge-again", status="done")
    return [run for run in reversed(runs) if run.config.get("project") == project]


def find_asking(store: Store, project: str, run_id: str = "") -> Run:
    """One asking, or the newest.

    Raises:
        NotFoundError: there is none.
    """
    run = store.get_run(run_id) if run_id else latest_run(store, "judge-again", project)
    if run is None or run.kind != "judge-again" or run.config.get("project") != project:
        raise NotFoundError(f"Nobody was asked about project {project!r} yet. Send pairs to people first.")
    return run


def pictures_of(store: Store, asking: Run) -> list[str]:
    """Hashes of all pictures of an asking's pairs."""
    path = Path(store.artifact_dir(asking.id)) / KEY_ARTIFACT / "key.json"
    pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    return list(dict.fromkeys(sha256 for pair in pairs for sha256 in pair["images"]))


def run_detectors(
    store: Store,
    project: str,
    asking_id: str,
    names: Sequence[str],
    progress: Progress,
    *,
    detector_path: str = "",
) -> StageResult:
    """Let detectors look at an asking's pictures, and keep what they say.

    Raises:
        NotFoundError: nobody was asked yet, or there is no score model.
        ConfigError, ModelFolderError: a detector's package or weights are missing.
    """
    asking = find_asking(store, project, asking_id)
    pictures = pictures_of(store, asking)
    settings = {"project": project, "config": {"asking": asking.id, "detectors": list(names), "path": detector_path}}
    with recorded_run(store, "verdict", settings, None) as work:
        progress.start("verdict: detectors look", len(names))
        config, group = EvaluateConfig(detector_path=detector_path), str(asking.metrics.get("group", ""))
        specs, n_unread = [], 0
        for name in names:
            detector = load_named_detector(store, name, config, project, group)
            readings = cached_readings(store, detector, pictures)
            n_unread += sum(bool(reading.failure) for reading in readings.values())
            specs.append(detector.spec.model_dump(mode="json"))
            progress.advance()
        work.metrics.update(asking=asking.id, specs=specs, pictures=len(pictures), unread=n_unread)
        progress.finish()
    unread = f" {n_unread} could not be read." if n_unread else ""
    return StageResult(f"{', '.join(names)} looked at {len(pictures)} pictures.{unread}", work.run, dict(work.metrics))


@lru_cache(maxsize=256)
def _detectors_of(folder: Path) -> tuple[str, tuple[DetectorSpec, ...]]:
    """What an evaluation was about and who judged it; a result never changes, and the page asks every few seconds."""
    result = read_result(folder)
    return result.group, result.protocol.detectors


def known_detectors(store: Store, project: str, asking: Run) -> list[DetectorSpec]:
    """Detectors that have looked at an asking's pictures: those of the evaluations, and those that a job let look.

    The embedded world's judge says something about one concept: of evaluations of another one it is left out.
    """
    specs: list[DetectorSpec] = []
    for run in store.list_runs(kind="evaluate", status="done"):
        folder = Path(store.artifact_dir(run.id)) / EVALUATION_ARTIFACT
        if run.config.get("project") == project and folder.is_dir():
            group, detectors = _detectors_of(folder)
            is_same = group == asking.metrics.get("group", group)
            specs += [spec for spec in detectors if is_same or spec.name not in ("judge", STYLE_JUDGE)]
    for run in store.list_runs(kind="verdict", status="done"):
        if run.metrics.get("asking") == asking.id:
            specs += [DetectorSpec.model_validate(spec) for spec in run.metrics["specs"]]
    return list({(spec.reader_sha256, spec.classes): spec for spec in specs}.values())


def read_verdict(store: Store, project: str, asking_id: str = "") -> dict[str, Any]:
    """What people said so far, and how often the detectors that have looked choose as they do.

    Detectors say which picture shows the concept more; which one is better they do not know, and are left out there.

    Raises:
        NotFoundError: nobody was asked yet.
    """
    asking = find_asking(store, project, asking_id)
    is_about_concept = asking.metrics.get("part", "concept") == "concept"
    specs = known_detectors(store, project, asking) if is_about_concept else []
    found = run_verdict(store, project, asking.id, [EarlierDetector(spec) for spec in specs])
    return found | {"label_project": asking.metrics["project"], "items": asking.metrics["items"]}
