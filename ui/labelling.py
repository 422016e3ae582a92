"""What the labelling page gets and gives, between the store's records and the JSON of its routes.

Pictures are shown to each annotator in an order of their own. Everything that leaves here is in the order shown;
everything that comes in is turned back to the item's own order, by the order the store keeps with the lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from storage import Store
from storage.care import Exposure, ProjectCare
from storage.errors import HFIError, LeaseError, NotFoundError
from storage.late import SubmitOutcome
from storage.records import Assignment, JudgmentInput, JudgmentRecord, Project, User
from ui.api_models import JudgmentPayload
from ui.texts import clean_text, render_markdown

N_TRAINING_SHOWN = 5
MAX_CLOCK_MS = 2**43
Json = dict[str, Any]
Projects = dict[int, tuple[Project, ProjectCare]]


class OtherAccountError(HFIError):
    """Answers given under another account than the one that is logged in."""

    http_status = 409


# --- projects -------------------------------------------------------------------------------------------------------


def show_projects(store: Store, user: User) -> Json:
    """All projects with how far they are."""
    rows = []
    for project in store.list_projects():
        progress = store.get_progress(project.id, user.id)
        head = {"name": project.name, "kind": project.kind, "isSensitive": project.is_sensitive}
        rows.append({**head, "isDemo": project.is_demo, **_progress(progress)})
    return {"projects": rows}


def show_project(store: Store, user: User, name: str) -> Json:
    """Everything the labelling page needs to know about a project before the first picture."""
    project, care = store.get_project(name), store.get_care(name)
    progress = store.get_progress(project.id, user.id)
    n_training = min(N_TRAINING_SHOWN, progress["training_items"])
    n_done = min(n_training, progress["training_done"])
    return {
        "name": project.name,
        "kind": project.kind,
        "categories": list(project.categories),
        "guideline": {"version": project.guideline_version, "html": render_markdown(project.guideline)},
        "isSensitive": project.is_sensitive,
        "isDemo": project.is_demo,
        "showsPrompt": care.shows_prompt,
        "rankSize": care.rank_size,
        "consent": {"wording": care.consent_wording, "isGiven": _has_consent(store, user, project, care)},
        "optOuts": store.list_opt_outs(name, user.name),
        "exposure": _exposure(store.get_exposure(user.id), care),
        "progress": _progress(progress),
        "training": {"isNeeded": n_done < n_training, "done": n_done, "total": n_training},
    }


def _has_consent(store: Store, user: User, project: Project, care: ProjectCare) -> bool:
    return not care.consent_wording or store.has_consent(project.name, user.name)


def _progress(progress: dict[str, int]) -> Json:
    return {"mine": progress["mine"], "project": progress["judgments"], "total": progress["judgments_wanted"]}


def _exposure(exposure: Exposure, care: ProjectCare) -> Json:
    return {
        "revealed": exposure.n_revealed,
        "minutes": round(exposure.minutes_today, 2),
        "cap": care.daily_cap_minutes,
        "stretchMinutes": round(exposure.stretch_minutes, 2),
        "breakAfterMinutes": care.break_after_minutes,
        "breakUntil": exposure.break_until_us // 1000,
    }


def set_consent(store: Store, user: User, name: str, is_given: bool) -> Json:
    """Record consent to the wording shown, or that it was taken back (open leases go back too)."""
    if is_given and not store.has_consent(name, user.name):
        store.give_consent(name, user.name, store.get_care(name).consent_wording)
    if not is_given:
        store.withdraw_consent(name, user.name)
        store.release_leases(name, user.name)
    return {"isGiven": is_given}


def set_opt_outs(store: Store, user: User, name: str, categories: Sequence[str]) -> Json:
    """Opt out of exactly these kinds of content."""
    wanted, known = {clean_text(category) for category in categories}, set(store.list_opt_outs(name, user.name))
    for category in sorted(wanted ^ known):
        store.set_opt_out(name, user.name, category, category in wanted)
    store.release_unwanted(name, user.name)
    return {"optOuts": store.list_opt_outs(name, user.name)}


# --- assignments ----------------------------------------------------------------------------------------------------


def claim(store: Store, user: User, name: str, n: int, have: Sequence[int]) -> Json:
    """Assignments to prefetch; none without consent, during a break or above the daily cap, and why.

    ``held`` is all that is leased to the user now: what waits on the page and is not among it, somebody else may have.
    """
    project, care = store.get_project(name), store.get_care(name)
    exposure = store.get_exposure(user.id)
    reason = ""
    if not _has_consent(store, user, project, care):
        reason = "consent"
    elif exposure.minutes_today >= care.daily_cap_minutes:
        reason = "cap"
    elif exposure.break_until_us:
        reason = "break"
    leases = [] if reason else store.claim_more(name, user.name, n, have)
    items = [item for lease in leases if (item := show_assignment(store, lease, project, care)) is not None]
    if not reason and len(items) < n:
        reason = "finished"
    held = [lease.id for lease in store.list_leases(name, user.name)]
    progress = _progress(store.get_progress(project.id, user.id))
    exposed = {"progress": progress, "exposure": _exposure(exposure, care)}
    return {"items": items, "held": held, "reason": reason, **exposed}


def show_assignment(store: Store, lease: Assignment, project: Project, care: ProjectCare) -> Json | None:
    """A lease as the page shows it; gold and repeats look like any other. None if a picture was hidden since."""
    images = show_images(store, lease.images, lease.shown_order)
    if images is None:
        return None
    shown: Json = {
        "id": lease.id,
        "itemId": lease.item_id,
        "kind": lease.kind,
        "purpose": "training" if lease.purpose == "training" else "normal",
        "images": images,
        "shownOrder": list(lease.shown_order),
        "expiresAt": lease.expires_at_us // 1000,
        "guidelineVersion": project.guideline_version,
    }
    return {**shown, "prompt": lease.prompt} if care.shows_prompt else shown


def show_images(store: Store, images: Sequence[str], order: Sequence[int]) -> list[Json] | None:
    """The pictures in the order shown; None if one of them is hidden."""
    records = [store.get_image(images[place]) for place in order]
    if any(record.is_quarantined for record in records):
        return None
    return [
        {"sha256": record.sha256, "url": f"/img/{record.sha256}", "width": record.width, "height": record.height}
        for record in records
    ]


def report(store: Store, user: User, assignment_id: int, note: str) -> Json:
    """Hide an assignment's pictures from everyone at once; an owner can release them."""
    lease = own_assignment(store, user, assignment_id)
    reason = f"reported as illegal: {clean_text(note)}".rstrip(": ")
    with store.transaction():
        for sha256 in lease.images:
            if not store.get_image(sha256).is_quarantined:
                store.quarantine_image(sha256, reason, user.name)
        store.release_lease(lease.id)
    return {"isHidden": True}


def own_assignment(store: Store, user: User, assignment_id: int) -> Assignment:
    """The user's own assignment.

    Raises:
        LeaseError: it is someone else's, or there is none.
    """
    try:
        lease = store.get_assignment(assignment_id)
    except NotFoundError:
        lease = None
    if lease is None or lease.annotator_id != user.id:
        raise LeaseError(f"Assignment {assignment_id} is not leased to {user.name!r}. Claim items and judge those.")
    return lease


# --- judgments ------------------------------------------------------------------------------------------------------


def submit(store: Store, user: User, account: str, rows: Sequence[Any]) -> Json:
    """Write a batch; each judgment has a result of its own.

    Raises:
        OtherAccountError: the answers were given by someone else in the same browser.
    """
    if account and account.casefold() != user.name.casefold():
        raise OtherAccountError(f"These answers were given by {account!r}, but {user.name!r} is logged in.")
    results: list[Json | None] = []
    inputs: list[tuple[int, JudgmentInput, Assignment]] = []
    for row in rows:
        try:
            judgment, lease = _read_judgment(store, user, row)
        except HFIError as error:
            results.append({"uuid": _uuid_of(row), "status": "invalid", "message": str(error)})
            continue
        inputs.append((len(results), judgment, lease))
        results.append(None)
    projects = _projects_of(store, [lease for _, _, lease in inputs])
    with store.transaction():
        outcomes = store.submit_each([judgment for _, judgment, _ in inputs])
        _count_exposure(store, user, projects, [(judgment, lease) for _, judgment, lease in inputs], outcomes)
    for (place, judgment, lease), outcome in zip(inputs, outcomes, strict=True):
        results[place] = _result(store, projects[lease.project_id][1], judgment, lease, outcome)
    return {"results": results}


def _projects_of(store: Store, leases: Sequence[Assignment]) -> Projects:
    projects = {number: store.get_project_by_id(number) for number in {lease.project_id for lease in leases}}
    return {number: (project, store.get_care(project.name)) for number, project in projects.items()}


def _uuid_of(row: Any) -> str:
    uuid = row.get("uuid", "") if isinstance(row, dict) else ""
    return uuid[:60] if isinstance(uuid, str) else ""


def _read_judgment(store: Store, user: User, row: Any) -> tuple[JudgmentInput, Assignment]:
    try:
        payload = JudgmentPayload.model_validate(row)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise LeaseError(f"The judgment's {field or 'form'} is not as expected: {problem['msg']}.") from None
    lease = own_assignment(store, user, payload.assignmentId)
    judged_ms = payload.judgedAt if 0 <= payload.judgedAt <= MAX_CLOCK_MS else 0
    judgment = JudgmentInput(
        uuid=payload.uuid,
        annotator=user.name,
        answer=_own_answer(payload.answer, lease.shown_order),
        assignment_id=lease.id,
        categories=tuple(clean_text(category) for category in payload.categories),
        score=payload.score,
        ranks=_own_ranks(payload.ranks, lease.shown_order),
        reason=clean_text(payload.reason),
        note=clean_text(payload.note),
        shown_order=lease.shown_order,
        elapsed_ms=round(payload.elapsedMs),
        revealed_ms=round(payload.revealedMs),
        judged_at_us=round(judged_ms * 1000),
        supersedes=payload.supersedes or "",
    )
    return judgment, lease


def _own_answer(answer: str, order: Sequence[int]) -> str:
    """`first` and `second` name places; turned to the item's own order (and, being its own inverse, back)."""
    is_turned = tuple(order) == (1, 0)
    return {"first": "second", "second": "first"}.get(answer, answer) if is_turned else answer


def _own_ranks(ranks: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Ranks by place -> ranks by image."""
    if len(ranks) != len(order):
        return tuple(ranks)  # the store says what is wrong
    own = [0] * len(order)
    for place, image in enumerate(order):
        own[image] = ranks[place]
    return tuple(own)


def _count_exposure(
    store: Store,
    user: User,
    projects: Projects,
    judged: Sequence[tuple[JudgmentInput, Assignment]],
    outcomes: Sequence[SubmitOutcome],
) -> None:
    """Count what was looked at, once a judgment; on sensitive projects only what was uncovered."""
    looks: dict[int, list[tuple[int, int, bool]]] = {}
    for (judgment, lease), outcome in zip(judged, outcomes, strict=True):
        if outcome.status != "stored" or judgment.supersedes:
            continue
        project, care = projects[lease.project_id]
        looked_ms = judgment.revealed_ms if project.is_sensitive else judgment.elapsed_ms
        is_seen = judgment.revealed_ms > 0 or not project.is_sensitive
        look = (looked_ms, len(lease.images) * is_seen, is_too_fast(care, judgment))
        looks.setdefault(lease.project_id, []).append(look)
    for project_id, rows in looks.items():
        store.add_exposure(project_id, user.id, rows)


def is_too_fast(care: ProjectCare, judgment: JudgmentInput) -> bool:
    """Whether nobody can have looked in that time; 0 ms = the browser could not tell."""
    return 0 < judgment.elapsed_ms < care.min_judgment_ms


def _result(
    store: Store, care: ProjectCare, judgment: JudgmentInput, lease: Assignment, outcome: SubmitOutcome
) -> Json:
    result: Json = {"uuid": outcome.uuid, "status": outcome.status, "message": outcome.message}
    if outcome.status not in ("stored", "known"):
        return result
    result["isTooFast"] = is_too_fast(care, judgment)
    if lease.purpose == "training":
        result["feedback"] = _feedback(store, judgment, lease)
    return result


def _feedback(store: Store, judgment: JudgmentInput, lease: Assignment) -> Json:
    """What a training item expected, in the order shown, and why."""
    gold = store.get_gold(lease.item_id) or {}
    expected = gold.get("answer", "")
    return {
        "isRight": judgment.answer == expected,
        "expected": {
            "answer": _own_answer(expected, lease.shown_order),
            "categories": gold.get("categories", []),
        },
        "explanation": gold.get("explanation", ""),
    }


def undo(store: Store, user: User, uuid: str, undo_uuid: str) -> Json:
    """Take back an answer of one's own; its assignment is open again."""
    lease = store.undo_judgment(uuid, user.name, undo_uuid)
    if lease is None:
        return {"assignment": None}
    project = store.get_project_by_id(lease.project_id)
    return {"assignment": show_assignment(store, lease, project, store.get_care(project.name))}


def show_latest(store: Store, user: User, name: str, n: int) -> Json:
    """One's own last answers that stand, newest first, in the order shown; training items and hidden ones left out."""
    care = store.get_care(name)
    rows: list[Json] = []
    for judgment in store.list_latest_judgments(name, user.name, n + 2 * N_TRAINING_SHOWN):
        if judgment.purpose != "training" and judgment.assignment_id is not None and len(rows) < n:
            row = _show_judgment(store, judgment, care)
            rows += [row] if row is not None else []
    return {"judgments": rows}


def _show_judgment(store: Store, judgment: JudgmentRecord, care: ProjectCare) -> Json | None:
    item, order = store.get_item(judgment.item_id), judgment.shown_order
    images = show_images(store, item.images, order)
    if images is None:
        return None
    shown: Json = {
        "uuid": judgment.uuid,
        "assignmentId": judgment.assignment_id,
        "itemId": judgment.item_id,
        "kind": judgment.kind,
        "images": images,
        "shownOrder": list(order),
        "answer": _own_answer(judgment.answer, order),
        "categories": list(judgment.categories),
        "score": judgment.score,
        "ranks": [judgment.ranks[image] for image in order] if judgment.ranks else [],
        "reason": judgment.reason,
        "judgedAt": judgment.judged_at_us // 1000,
    }
    return {**shown, "prompt": item.prompt} if care.shows_prompt else shown


def pause(store: Store, user: User, name: str, minutes: float) -> Json:
    """Rest: the leases go back to the others, the clock of looking stands still."""
    n_released = store.release_leases(name, user.name)
    store.start_break(user.id, minutes)
    exposure = _exposure(store.get_exposure(user.id), store.get_care(name))
    return {"released": n_released, "exposure": exposure}


def project_path(name: str) -> str:
    """The path of a project's labelling page."""
    return f"/label/{quote(name, safe='')}"
