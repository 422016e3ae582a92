"""What a request needs of the store and of this computer: what is missing is told by field, before a job is queued.

A job finds the same out for itself, minutes later and in its log; a person at a form shall not wait for that. What only
the model's own tokenizer or a GPU can tell stays with the job. Importing this module never imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfi.job_requests import (
    AttackRequest,
    EraseRequest,
    EvaluateRequest,
    GenerateRequest,
    InvertRequest,
    JobRequest,
    ScoreRequest,
    VerdictRequest,
)
from hfi.jobs.erase import MIN_TOKEN_SCORE
from hfi.jobs.invert import TOKENS_ARTIFACT
from hfi.jobs.runs import latest_run
from hfi.mini.concepts import concept_of_suite, has_other_words, words_of_concept
from storage import Store
from storage.errors import NotFoundError
from storage.records import Run, SnapshotImage
from storage.snapshot import load_snapshot

FACTOR_PX = 8  # of the autoencoders of Stable Diffusion; smaller ones divide it
IS_FLAGGED_FROM = 0.5
Problems = dict[str, str]


def find_problems(store: Store, request: JobRequest, active_kinds: Collection[str] = ()) -> Problems:
    """What is missing, as a sentence for each field's place ("config.targets"); empty: nothing is known to be missing.

    Args:
        store: where the project is.
        request: what is asked for, with its snapshot named (`hfi.jobs.prepare.prepare_request`).
        active_kinds: kinds of the project's jobs that wait or run; what those will make is not missing.
    """
    if isinstance(request, GenerateRequest):
        return _of_generate(store, request, active_kinds)
    if isinstance(request, ScoreRequest):
        return _of_score(store, request)
    if isinstance(request, InvertRequest):
        return _of_invert(request)
    if isinstance(request, EraseRequest):
        return _of_erase(store, request, active_kinds)
    if isinstance(request, EvaluateRequest | AttackRequest):
        return _of_measurement(store, request, active_kinds)
    if isinstance(request, VerdictRequest):
        return _of_verdict(store, request)
    return {}


def is_there(name: str) -> bool:
    """Whether a path names something on this computer; what no path can be does not."""
    try:
        return bool(name) and Path(name).exists()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


# --- pictures, score models, tokens ------------------------------------------------------------------------------


def _of_generate(store: Store, request: GenerateRequest, active_kinds: Collection[str]) -> Problems:
    config, found = request.config, Problems()
    for place, size in (("config.width_px", config.width_px), ("config.height_px", config.height_px)):
        if size is not None and size % FACTOR_PX:
            found[place] = f"{size} is not a multiple of {FACTOR_PX}, which models need. Type one that is."
    if config.guard == "negative" and config.guidance_scale == 1.0:
        found["config.guidance_scale"] = "A negative guard does nothing at guidance 1. Raise it, or choose sld."
    name = config.guard_tokens.strip()
    if config.guard != "none" and name:
        problem = _problem_of_tokens(store, request.project, name, active_kinds)
        found |= {"config.guard_tokens": problem} if problem else {}
    return found


def _problem_of_tokens(store: Store, project: str, name: str, active_kinds: Collection[str]) -> str:
    if name == "latest":
        if latest_run(store, "invert", project) or "invert" in active_kinds:
            return ""
        return "Nobody has learned concept tokens in this project yet. Learn them on the page Concept, or use words."
    if is_there(name):
        return ""
    run = _find_run(store, name)
    if run is None or run.kind != "invert" or run.status != "done":
        return (
            f"{name[:60]!r} is no run that learned concept tokens. Write latest, or the run's id from the page Library."
        )
    return ""


def _of_score(store: Store, request: ScoreRequest) -> Problems:
    snapshot = load_snapshot(store, request.snapshot, with_judgments=False)
    if snapshot.project != request.project:
        return {"snapshot": f"This snapshot is one of project {snapshot.project!r}. Choose one of this project."}
    images = snapshot.images
    flagged = [image for image in images if image.is_harmful]
    if not flagged:
        return {"snapshot": f"None of its {len(images)} judged pictures is flagged, so there is no concept to learn. "
                            "Judge more pictures, or generate some that show it."}  # fmt: skip
    if all(image.p_harmful >= IS_FLAGGED_FROM for image in images):
        return {"snapshot": f"All of its {len(images)} judged pictures are flagged, so there is nothing to tell apart. "
                            "Judge pictures that do not show it, too."}  # fmt: skip
    if len({image.prompt or image.sha256 for image in images}) < 2:
        return {"snapshot": "All judged pictures have the same prompt. Judge pictures of two prompts or more."}
    return {}


def _of_invert(request: InvertRequest) -> Problems:
    wanted = request.config.num_concepts
    if isinstance(wanted, int) and wanted < 1:
        return {"config.num_concepts": f"{wanted} is too small. Type auto, or a whole number from 1 on."}
    return {}


# --- erasing -----------------------------------------------------------------------------------------------------


def _of_erase(store: Store, request: EraseRequest, active_kinds: Collection[str]) -> Problems:
    if "score" in active_kinds:  # its labels are checked, and nobody knows yet which of them will be learned from
        flagged: list[SnapshotImage] | None = None
    else:
        images = load_snapshot(store, request.snapshot, with_judgments=False).images
        flagged = [image for image in images if image.is_harmful]
    targets = request.config.targets
    has_prompts = flagged is None or any(image.prompt for image in flagged)
    if flagged == []:
        return {"config.targets": "No judged picture is flagged, so there is nothing to erase. Judge more pictures."}
    if targets == "prompts" and not has_prompts:
        return {"config.targets": "The flagged pictures have no known prompts. Choose concept tokens, or words."}
    if targets not in ("tokens", "both") or "invert" in active_kinds:
        return {}
    problem = _problem_of_targets(store, request, has_prompts)
    return {"config.targets": problem} if problem else {}


def _problem_of_targets(store: Store, request: EraseRequest, has_prompts: bool) -> str:
    run = _tokens_run(store, request)
    if run is None:
        return (
            "Nobody has learned concept tokens from these judgments yet. Learn them on the page Concept, or choose "
            "flagged prompts or words."
        )
    scores = [float(card["concept_score"]) for card in _cards(store, run)]
    is_strong = request.config.allow_weak_tokens or any(score >= MIN_TOKEN_SCORE for score in scores)
    if not scores or is_strong or (request.config.targets == "both" and has_prompts):
        return ""
    return (
        f"None of the {len(scores)} concept tokens reproduces the concept: the best scores {max(scores):.2f}, at least "
        f"{MIN_TOKEN_SCORE} is needed. Learn them again with more steps or vectors, choose flagged prompts, or allow "
        "weak tokens below."
    )


def _tokens_run(store: Store, request: EraseRequest) -> Run | None:
    runs = store.list_runs(kind="invert", status="done")
    own = [r for r in runs if r.config.get("project") == request.project and r.snapshot_hash == request.snapshot]
    return own[-1] if own else None


def _cards(store: Store, run: Run) -> list[Mapping[str, Any]]:
    """What is known of each token of a run; nothing if the file cannot be read, which the job then tells."""
    try:
        text = (store.artifact_dir(run.id) / TOKENS_ARTIFACT / "tokens.json").read_text(encoding="utf-8")
        cards: list[Mapping[str, Any]] = json.loads(text)["tokens"]
    except (OSError, ValueError, KeyError):
        return []
    return cards


# --- measuring and looking ---------------------------------------------------------------------------------------


def _of_measurement(store: Store, request: EvaluateRequest | AttackRequest, active_kinds: Collection[str]) -> Problems:
    config, found = request.config, Problems()
    problem = _problem_of_model_run(store, request.project, config.erased)
    if problem:
        found["config.erased"] = problem
    is_mini = config.suite.startswith("mini-")
    if config.detector != "auto":
        has_score = bool(latest_run(store, "score", request.project)) or "score" in active_kinds
        place, problem = _problem_of_detector(config.detector, config.detector_path, has_score, is_mini)
        if problem:
            found[f"config.{place}"] = problem
    if isinstance(request, AttackRequest) and request.config.attack == "synonyms":
        concept = concept_of_suite(config.suite)
        if not has_other_words(concept) and not is_there(request.config.prompts):
            found["config.attack"] = (
                f"The embedded world has no other word for {words_of_concept(concept).shown}. Choose another attack."
                if concept
                else "Other words are known for the embedded world only. Choose another attack, or prompts mini-…"
            )
    return found


def _problem_of_model_run(store: Store, project: str, name: str) -> str:
    if not name or is_there(name):
        return ""
    run = _find_run(store, name)
    if run is None or run.kind != "erase" or run.status != "done" or run.config.get("project") != project:
        return f"{name[:60]!r} is no changed model of this project. Choose one that is in the list."
    return ""


def _problem_of_detector(name: str, path: str, has_score: bool, is_mini: bool) -> tuple[str, str]:
    """The field (`detector` or `detector_path`) and what is wrong with it; two empty texts if nothing is."""
    if name == "judge" and not is_mini:
        return "detector", "The judge knows the embedded world only. Choose prompts mini-…, or another detector."
    if name == "score" and not has_score:
        return "detector", "This project has no score model yet. Make one on the page Concept, or choose another."
    if name == "nudenet" and find_spec("nudenet") is None:
        return "detector", "The package nudenet is not installed on the server. Choose another detector."
    if name == "q16" and not path.strip():
        return "detector_path", "q16 needs the folder of CLIP ViT-L/14 with q16.safetensors in it. Give its path."
    if name == "q16" and not is_there(path):
        return "detector_path", f"There is no folder {path[:60]!r} on the server. Check the path."
    return "", ""


def _of_verdict(store: Store, request: VerdictRequest) -> Problems:
    if request.asking:
        run = _find_run(store, request.asking)
        if run is None or run.kind != "judge-again" or run.config.get("project") != request.project:
            return {"asking": "Nobody was asked so in this project. Choose one that is in the list."}
    elif latest_run(store, "judge-again", request.project) is None:
        return {"asking": "Nobody was asked about this project yet. Send pairs to people first."}
    has_score = latest_run(store, "score", request.project) is not None
    for name in request.detectors:
        place, problem = _problem_of_detector(name, request.detector_path, has_score, is_mini=True)
        if problem:
            return {place.replace("detector", "detectors") if place == "detector" else place: problem}
    return {}


def _find_run(store: Store, run_id: str) -> Run | None:
    try:
        return store.get_run(run_id)
    except NotFoundError:
        return None
