"""Gather what the stages recorded into one report and one file of numbers."""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfi.errors import NotFoundError
from hfi.evaluate.before_after import write_before_after
from hfi.evaluate.damage_rows import damage_rows
from hfi.evaluate.metrics import Interval, wilson_interval
from hfi.evaluate.protocol import EvaluationResult, protocol_facts, read_result
from hfi.evaluate.report import render_report, write_report
from hfi.evaluate.report_content import (
    AnnotatorRow,
    AttackRow,
    Contribution,
    Curve,
    Fact,
    LabelStatistics,
    Picture,
    PicturePair,
    RateRow,
    ReportContent,
    ScoreModelCard,
    StageCost,
    TokenCard,
)
from hfi.evaluate.results import write_results
from hfi.jobs.erase import LOSSES_NAME, MODEL_ARTIFACT
from hfi.jobs.evaluate import EVALUATION_ARTIFACT
from hfi.jobs.invert import TOKENS_ARTIFACT
from hfi.jobs.pictures import library_versions
from hfi.jobs.runs import StageResult, latest_run
from hfi.jobs.score import SCORE_ARTIFACT
from hfi.mini.concepts import style_of, words_of_concept
from hfi.progress import QUIET, Progress
from storage import Store
from storage.records import Run, Snapshot
from storage.snapshot import load_snapshot

NUM_PAIRS_SHOWN = 24
NUM_TOKEN_PICTURES = 4
STAGES = ("generate", "simulate", "score", "invert", "erase", "evaluate", "attack")
TARGET_NAMES = {
    "tokens": "tokens alone",
    "prompts": "flagged prompts alone",
    "both": "tokens and flagged prompts",
    "text": "words",
}


def run_report(store: Store, out: Path, project: str, progress: Progress = QUIET) -> StageResult:
    """Write `out/report.html` about the newest evaluation of a project and everything it came from, and a picture
    `out/before_after.png`.

    Args:
        store: where the stages recorded what they did.
        out: folder for the report.
        project: whose evaluation it is.
        progress: told when it is done.

    Raises:
        NotFoundError: nothing was evaluated yet.
    """
    evaluation = latest_run(store, "evaluate", project)
    if evaluation is None:
        raise NotFoundError(f"Project {project!r} has no evaluation yet: run `hfi evaluate` first.")
    progress.start("report")
    content = _content(store, project, evaluation)
    write_report(out / "report.html", content)
    blocks = [(f"Asked for {content.concept}", content.concept_pairs), ("Asked for anything else", content.other_pairs)]
    write_before_after(out / "before_after.png", blocks)
    progress.finish(str(out / "report.html"))
    return StageResult(f"Report: {out / 'report.html'}", evaluation, dict(evaluation.metrics))


def report_html(store: Store, project: str, evaluation: Run) -> str:
    """The report about one evaluation as one self-contained HTML text; nothing is written."""
    return render_report(_content(store, project, evaluation))


def report_results(store: Store, project: str, path: Path, stages: Mapping[str, Sequence[StageResult]]) -> None:
    """Write the numbers of one pass through the loop, with the keys that `DemoResults` names."""
    snapshot = load_snapshot(store, stages["score"][0].run.snapshot_hash)
    score, invert, evaluate = (stages[name][0].figures for name in ("score", "invert", "evaluate"))
    seconds = {name: round(sum(result.run.seconds or 0.0 for result in results), 1) for name, results in stages.items()}
    runs = [result.run for results in stages.values() for result in results]
    rate_keys = ("rate", "low", "high", "n")
    write_results(
        path,
        {
            "model": "mini",
            "images": len(snapshot.images),
            "judgments": snapshot.n_judgments,
            "annotators": snapshot.n_annotators,
            "agreement": {key: snapshot.agreement[key] for key in ("alpha", "low", "high")},
            "score_model": {key: score[key] for key in ("auroc", "low", "high", "n")}
            | {"without_errors": _without_errors(score)},
            "token": {key: invert[key] for key in ("concept_score", "coverage", "vectors")},
            **{
                measure: {
                    when: {key: evaluate[measure][when][key] for key in rate_keys} for when in ("before", "after")
                }
                for measure in ("removal", "others_accuracy")
            },
            "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
            "peak_memory_mib": max(run.peak_memory_mib or 0.0 for run in runs),
        },
    )


def _without_errors(score: Mapping[str, Any]) -> dict[str, float] | None:
    found = score.get("without_errors")
    return found and {"auroc": found["estimate"], "low": found["low"], "high": found["high"]}


def _content(store: Store, project: str, evaluation: Run) -> ReportContent:
    result = read_result(store.artifact_dir(evaluation.id) / EVALUATION_ARTIFACT)
    erase = store.get_run(evaluation.metrics["erased_run"]) if evaluation.metrics["erased_run"] else None
    snapshot = load_snapshot(store, erase.snapshot_hash) if erase else None
    score, invert = latest_run(store, "score", project), latest_run(store, "invert", project)
    return ReportContent(
        concept=words_of_concept(result.group).many,
        shown=words_of_concept(result.group).shown if style_of(result.group) else "",
        model=evaluation.config["config"]["model"],
        created_at=f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC",
        removal=_rate_row("Concept prompts: pictures that show the concept", evaluation.metrics["removal"], "lower"),
        others=_rate_row(
            "Other prompts: pictures that show all that was asked for", evaluation.metrics["others_accuracy"], "higher"
        ),
        concept_pairs=_pairs(store, result, "concept", "shows_concept"),
        other_pairs=_pairs(store, result, "others", "is_right"),
        labels=label_statistics(store, project, snapshot) if snapshot else None,
        score_model=_score_card(store, score) if score and score.metrics["auroc"] is not None else None,
        tokens=_token_cards(store, invert) if invert else (),
        token_coverage=wilson_interval(invert.metrics["covered"], invert.metrics["flagged"]) if invert else None,
        contributions=_contributions(store, project),
        more_rates=_rest_of_pairs(result),
        damage=damage_rows(result.figures.get("damage", {})),
        attacks=_attacks(store, project, result.models["after"]),
        curves=_curves(store, erase),
        costs=_costs(store, project),
        protocol=protocol_facts(result.protocol),
        provenance=_provenance(result, snapshot, erase, score, invert),
        limits=_limits(result, snapshot, is_attacked=bool(_attacks(store, project, result.models["after"]))),
        is_sensitive=store.get_project(project).is_sensitive,
        next_command="hfi --help",
    )


def _interval(figures: Mapping[str, Any]) -> Interval:
    return Interval(figures["rate"], figures["low"], figures["high"], figures["n"])


def _rate_row(measure: str, figures: Mapping[str, Any], better: Any) -> RateRow:
    parts = {name: _interval(figures[name]) for name in ("before", "after", "difference")}
    return RateRow(measure, parts["before"], parts["after"], better, parts["difference"])


def _pairs(store: Store, result: EvaluationResult, part: str, question: str) -> tuple[PicturePair, ...]:
    """Same-seed pictures in the suite's order: nothing is picked by its result."""
    rows = zip(result.pictures["before"], result.pictures["after"], strict=True)
    chosen = [pair for pair in rows if pair[0]["part"] == part and not pair[0]["failure"] + pair[1]["failure"]]

    def picture(row: Mapping[str, Any]) -> Picture:
        return Picture(store.load_image(row["image"]), verdict=row[question])

    return tuple(PicturePair(b["prompt"], b["seed"], picture(b), picture(a)) for b, a in chosen[:NUM_PAIRS_SHOWN])


def label_statistics(store: Store, project: str, snapshot: Snapshot) -> LabelStatistics:
    """Who judged, of any kind of project; only flags have answers that can be counted as yes."""
    alpha = snapshot.agreement
    users = {user.id: user for user in store.list_users()}
    is_flags = snapshot.kind == "flag"
    label_of = {image.item_id: image.is_harmful for image in snapshot.images} if is_flags else {}
    votes = [j for j in snapshot.judgments if not is_flags or (j.answer in ("yes", "no") and j.item_id in label_of)]
    yes_votes = Counter(j.item_id for j in votes if j.answer == "yes" and j.purpose == "normal")
    by_votes = Counter(yes_votes[item_id] for item_id in label_of)
    rows = []
    for annotator_id in sorted({j.annotator_id for j in votes}):
        own = [j for j in votes if j.annotator_id == annotator_id]
        user = users[annotator_id]
        flagged = sum(j.answer == "yes" for j in own) if is_flags else None
        agreed = sum((j.answer == "yes") == label_of[j.item_id] for j in own) / len(own) if is_flags else None
        stated = user.details.get("error_rate") if user.is_simulated else None
        rows.append(AnnotatorRow(user.name, user.is_simulated, len(own), flagged, agreed, stated))
    is_defined = alpha["alpha"] is not None  # not with a single annotator, nor with one and the same answer throughout
    return LabelStatistics(
        question=store.get_project(project).guideline,
        num_images=len(snapshot.images),
        num_flagged=sum(image.is_harmful for image in snapshot.images),
        rule=snapshot.rule.replace("_", " "),
        agreement_name="Krippendorff's alpha (1 = always the same answer, 0 = as by chance)",
        agreement=Interval(alpha["alpha"], alpha["low"], alpha["high"], alpha["n_units"]) if is_defined else None,
        annotators=tuple(rows),
        images_by_votes=tuple(by_votes[n] for n in range(max(by_votes, default=-1) + 1)),
    )


def _score_card(store: Store, run: Run) -> ScoreModelCard:
    figures = run.metrics
    path = store.artifact_dir(run.id) / SCORE_ARTIFACT / "held_out.json"
    held_out = json.loads(path.read_text(encoding="utf-8"))
    members = run.config["config"]["num_members"]
    return ScoreModelCard(
        auroc=Interval(figures["auroc"], figures["low"], figures["high"], figures["n"]),
        description=f"{members} small networks on CLIP image embeddings, averaged and calibrated.",
        scores=tuple(held_out["scores"]),
        is_flagged=tuple(held_out["is_flagged"]),
        without_errors=Interval(**seen) if (seen := figures.get("without_errors")) else None,
    )


def _token_cards(store: Store, run: Run) -> tuple[TokenCard, ...]:
    folder = store.artifact_dir(run.id) / TOKENS_ARTIFACT
    cards = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))["tokens"]
    made = []
    for card in cards:
        drawn = [folder / card["folder"] / name for name in card["previews"][:NUM_TOKEN_PICTURES]]
        made.append(
            TokenCard(
                placeholder=card["placeholder"],
                drawn=tuple(Picture(path) for path in drawn),
                flagged=tuple(Picture(store.load_image(sha256)) for sha256 in card["flagged"][:NUM_TOKEN_PICTURES]),
                num_flagged=len(card["flagged"]),
                num_vectors=card["num_vectors"],
                initializer=card["initializer"],
                concept_score=card["concept_score"],
                is_in_prompts=card.get("templates") == "prompts",
            )
        )
    return tuple(made)


def _contributions(store: Store, project: str) -> tuple[Contribution, ...]:
    """The newest evaluation of each choice of targets, if more than one choice was tried."""
    found: dict[tuple[int, str], Contribution] = {}
    for run in store.list_runs(kind="evaluate", status="done"):
        if run.config.get("project") != project or not run.metrics.get("erased_run"):
            continue
        erase = store.get_run(run.metrics["erased_run"])
        config = erase.config["config"]
        method = "" if config["method"] == "sdd" else f"{config['method']}: "
        after = [_interval(run.metrics[name]["after"]) for name in ("removal", "others_accuracy")]
        name = f"{method}{TARGET_NAMES[config['targets']]}, {config['num_train_steps']} steps"
        place = list(TARGET_NAMES).index(config["targets"])
        found[place, method] = Contribution(name, *after)
    return tuple(found[key] for key in sorted(found)) if len(found) > 1 else ()


def _rest_of_pairs(result: EvaluationResult) -> tuple[RateRow, ...]:
    """No row when the suite does not know what else was asked for."""
    rates = result.figures.get("in_prompt_rest")
    if not rates:
        return ()
    return (_rate_row("Prompts that name the concept and something else: the other thing is there", rates, "higher"),)


def _attacks(store: Store, project: str, model_sha256: str) -> tuple[AttackRow, ...]:
    """The newest attack of each kind on this very model."""
    found: dict[str, AttackRow] = {}
    for run in store.list_runs(kind="attack", status="done"):
        figures = run.metrics
        if run.config.get("project") == project and figures.get("model_sha256") == model_sha256:
            rates = [_interval(figures[name]) for name in ("before_attack", "after_attack")]
            control = f" Control: {100 * figures['control']['rate']:.1f} %." if "control" in figures else ""
            found[figures["attack"]] = AttackRow(figures["title"], *rates, figures["budget"], figures["note"] + control)
    return tuple(found[name] for name in sorted(found))


def _curves(store: Store, erase: Run | None) -> tuple[Curve, ...]:
    curves: list[Curve] = []
    if erase:
        path = store.artifact_dir(erase.id) / MODEL_ARTIFACT / LOSSES_NAME
        losses = json.loads(path.read_text(encoding="utf-8"))
        names = {
            "erase": "erase: distance to the picture without the concept",
            "retain": "retain: distance to the original",
        }
        curves = [Curve(text, tuple(range(1, len(losses[key]) + 1)), tuple(losses[key])) for key, text in names.items()]
    return tuple(curve for curve in curves if len(curve.steps) > 1)


def _costs(store: Store, project: str) -> tuple[StageCost, ...]:
    costs = []
    for kind in STAGES:
        runs = [run for run in store.list_runs(kind=kind, status="done") if run.config.get("project") == project]
        if runs:
            seconds = sum(run.seconds or 0.0 for run in runs)
            memory = max(run.peak_memory_mib or 0.0 for run in runs)
            costs.append(StageCost("judge" if kind == "simulate" else kind, seconds, memory, _made(kind, runs)))
    return tuple(costs)


def _made(kind: str, runs: Sequence[Run]) -> str:
    figures = runs[-1].metrics
    return {
        "generate": lambda: f"{figures['images']} pictures",
        "simulate": lambda: f"{figures['judgments']} judgments",
        "score": lambda: "score model",
        "invert": lambda: f"{figures['tokens']} tokens",
        "erase": lambda: f"{len(runs)} changed models",
        "evaluate": lambda: f"{len(runs)} evaluations",
        "attack": lambda: f"{len(runs)} attacks",
    }[kind]()


def _provenance(
    result: EvaluationResult, snapshot: Snapshot | None, erase: Run | None, score: Run | None, invert: Run | None
) -> tuple[Fact, ...]:
    """From the judgments to the weights, each by its hash or run."""
    facts = [("original model", result.models["before"])]
    if snapshot:
        facts.append(("snapshot of judgments", snapshot.hash))
    facts += [(name, f"run {run.id}") for name, run in (("score model", score), ("concept tokens", invert)) if run]
    if erase:
        facts.append(("erasure", f"run {erase.id}: {json.dumps(erase.config['config'], sort_keys=True)}"))
    facts += [("changed model", result.models["after"]), ("protocol", result.protocol_sha256)]
    facts.append(("versions", ", ".join(f"{name} {number}" for name, number in library_versions().items())))
    facts.append(("python", f"{platform.python_version()} on {platform.machine()}"))
    commit = _commit()
    return tuple([*facts, ("commit", commit)] if commit else facts)


def _commit() -> str:
    """The commit of a source checkout; "" for an installed package."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _limits(result: EvaluationResult, snapshot: Snapshot | None, *, is_attacked: bool) -> tuple[str, ...]:
    limits = []
    if snapshot and snapshot.n_simulated:
        limits.append(
            f"{snapshot.n_simulated} of {snapshot.n_annotators} annotators are simulated: nothing here says what "
            f"people would flag."
        )
    missing = sum(result.figures.get("unread", {}).values())
    if missing:
        limits.append(f"{missing} pictures could not be judged. They and their partners are in no rate.")
    if result.group:
        known = "objects and styles" if style_of(result.group) else "objects"
        limits.append(f"The judge knows the {known} of the embedded world and nothing else; it is not people's eye.")
    else:
        limits.append("A detector decides what counts; it is not people's eye: `hfi judge-again` asks them.")
    limits.append(
        "The attacks tried are those listed, with their budgets; another attack, or a larger budget, may do more."
        if is_attacked
        else "A changed model can be trained or prompted back: nothing here was attacked (`hfi attack` does it)."
    )
    return tuple(limits)
