"""How much feedback it takes: removal by noise and by number of labels, and the order in which pictures are judged.

    order    AUROC of the score model by number of judged pictures, asked for at random or where the model doubts
    noise    removal by the share of wrong answers of simulated people
    labels   removal by the number of judged pictures

All use the pictures of a project that went through the loop, so that nothing but the labels differs. Points of `noise`
and `labels` are projects of their own in the same store, through every stage from judging to evaluating; whatever is
there already is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hfi.config import EraseConfig, EvaluateConfig, ScoreConfig, SimulateConfig
from hfi.errors import ConfigError, NotFoundError
from hfi.evaluate.line_plot import Curve, Point, plot_curve
from hfi.evaluate.metrics import Interval, auroc_interval, wilson_interval
from hfi.evaluate.protocol import EvaluationResult, read_result
from hfi.evaluate.repeats import hits_over_runs, mean_over_runs, rate_over_runs, share_over_runs
from hfi.files import write_text_atomically
from hfi.jobs.erase import run_erase
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, run_evaluate
from hfi.jobs.generate import FEEDBACK_ROLE, ensure_project
from hfi.jobs.judge import run_simulate
from hfi.jobs.noting import Noting
from hfi.jobs.score import load_scored_snapshot, require_score_run, run_score
from hfi.mini.concepts import concept_of_suite
from hfi.progress import Progress
from storage import Store
from storage.records import ItemInput

KINDS = ("order", "noise", "labels")
FIRST_LABELS = 20  # drawn at random in every order: without both answers there is nothing to doubt
ORDERS = ("at random", "where it doubts", "where members disagree")
TITLES = {
    "order": "Score model by number of judged pictures",
    "noise": "Removal by wrong answers",
    "labels": "Removal by number of judged pictures",
}
EXPLANATIONS = {
    "order": (
        "AUROC against the independent judge on the pictures of the held-out prompts. The first {first} pictures are "
        "drawn at random. Doubt is p (1 - p) of the mean score: the members' own doubt and their disagreement "
        "together; disagreement is the spread of the members alone. Each seed is another draw, split and start."
    ),
    "noise": "Every one of three simulated people gives the wrong answer to this share of the pictures, at random.",
    "labels": "This many pictures, drawn at random, are judged by three simulated people with 10 % wrong answers.",
}
INTERVALS = (
    "Points are means over seeds; intervals (95 %) cover seeds and pictures, with one seed pictures alone. Differences "
    "are paired by seed, their intervals Student's t over seeds."
)


@dataclass(frozen=True)
class CurvePlan:
    """Where the points are, and how often each is run."""

    kinds: Sequence[str] = KINDS
    seeds: Sequence[int] = (0,)
    order_seeds: Sequence[int] = (0, 1, 2, 3, 4)
    noise: Sequence[float] = (0.0, 0.2, 0.4)
    labels: Sequence[int] = (20, 100, 400)
    order_labels: Sequence[int] = (20, 40, 80, 160, 320)

    def __post_init__(self) -> None:
        """Refuse what nobody can draw."""
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ConfigError(f"--kinds has {', '.join(unknown)}, but must be of {', '.join(KINDS)}, by commas.")


def run_curves(
    store: Store,
    project: str,
    out: Path,
    progress: Progress,
    *,
    plan: CurvePlan,
    erase: EraseConfig,
    evaluate: EvaluateConfig,
    command: str = "hfi curve",
) -> tuple[list[Curve], list[str]]:
    """Write `out` (Markdown), and `images/curve-<kind>.svg` and `.json` beside it.

    Kinds that are not asked for stay in the document as they were measured before.

    Args:
        store: where everything is.
        project: a project whose pictures were judged, scored and evaluated; its labels are used by `order` alone.
        erase: the eraser of `noise` and `labels`, by the prompts of the flagged pictures.
        evaluate: their protocol.
        command: what was typed, for the document.

    Returns:
        The curves, and a sentence for each point that could not be measured.

    Raises:
        ConfigError: a kind is unknown, simulated people cannot see the protocol's concept, or not one point could be
            measured.
        NotFoundError: the project has no score model, or no evaluation.
    """
    if set(plan.kinds) != {"order"}:
        _concept_of(evaluate)
    failures: list[str] = []
    curves = []
    for kind in plan.kinds:
        if kind == "order":
            curve = order_curve(store, project, plan.order_seeds, plan.order_labels, progress)
        else:
            curve = _removal_curve(store, project, kind, plan, erase, evaluate, progress, failures)
        if not any(curve.series.values()):
            raise ConfigError(f"Not one point of {kind} could be measured: {'; '.join(failures)}")
        _keep(out, kind, curve, command, failures)
        curves.append(curve)
    _write_document(out)
    return curves, failures


# ---------------------------------------- the order of judging


def order_curve(store: Store, project: str, seeds: Sequence[int], counts: Sequence[int], progress: Progress) -> Curve:
    """AUROC by number of judged pictures, for each order."""
    from hfi.jobs.embeddings import embed_stored

    config, images, labels, groups = _judged_pictures(store, project)
    test_images, truth = _test_pictures(store, project)
    progress.start("curve: embed", len(images) + len(test_images))
    pool = embed_stored(store, config.clip, [image.sha256 for image in images], config.device, progress)
    test = embed_stored(store, config.clip, test_images, config.device, progress)
    wanted = sorted({min(count, len(pool)) for count in counts})
    progress.start("curve: train", len(ORDERS) * len(seeds))
    found: dict[str, list[list[Interval]]] = {order: [] for order in ORDERS}
    for order in ORDERS:
        for seed in seeds:
            found[order].append(areas_in_order(pool, labels, groups, test, truth, order, wanted, seed, config))
            progress.advance()
    progress.finish()
    series = {order: _means(wanted, runs) for order, runs in found.items()}
    notes = [
        f"{order}, less at random, paired by seed: {_differences(wanted, runs, found[ORDERS[0]])}."
        for order, runs in found.items()
        if order != ORDERS[0]
    ]
    return Curve(TITLES["order"], "judged pictures", "AUROC", series, is_share=False, notes=tuple(notes))


def areas_in_order(
    pool: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    test: np.ndarray,
    truth: np.ndarray,
    order: str,
    counts: Sequence[int],
    seed: int,
    config: ScoreConfig,
) -> list[Interval]:
    """One run: judge the first pictures, train, ask for the next ones, and so on; the area at each count.

    Args:
        pool: [images, dim] embeddings that can be judged.
        labels: What is answered when one is judged, in [0, 1].
        groups: Prompt of each.
        test: [images, dim] embeddings that are never judged.
        truth: Whether each of them shows the concept.
        order: One of ORDERS.
        counts: Rising numbers of judged pictures.
        seed: Of the first pictures, of the random order, and of training.
    """
    from hfi.score import train_score_model

    at_random = np.random.default_rng(seed).permutation(len(pool))
    chosen = list(at_random[: _first_count(labels[at_random], min(counts[0], FIRST_LABELS))])
    areas, model = [], None
    for count in counts:
        rest = [row for row in at_random if row not in set(chosen)]
        if model is not None and order != ORDERS[0]:
            mean, spread = model.score(pool[rest])
            doubt = mean * (1 - mean) if order == ORDERS[1] else spread
            rest = [rest[place] for place in np.argsort(-doubt, kind="stable")]
        chosen += rest[: max(0, count - len(chosen))]
        settings = config.model_copy(update={"seed": seed})
        model, _ = train_score_model(pool[chosen], labels[chosen], [groups[row] for row in chosen], settings)
        areas.append(auroc_interval(truth, model.score(test)[0]))
    return areas


def _first_count(labels: np.ndarray, wanted: int) -> int:
    """So many that three pictures at least were answered either way: fewer cannot be split."""
    for count in range(wanted, len(labels)):
        if min(int((labels[:count] >= 0.5).sum()), int((labels[:count] < 0.5).sum())) >= 3:
            return count
    return len(labels)


def _judged_pictures(store: Store, project: str) -> tuple[ScoreConfig, list, np.ndarray, list[str]]:  # type: ignore[type-arg]
    run = require_score_run(store, project)
    snapshot, _, _ = load_scored_snapshot(store, run)
    labels = np.array([image.p_harmful for image in snapshot.images])
    groups = [image.prompt or image.sha256 for image in snapshot.images]
    return ScoreConfig.model_validate(run.config["config"]), list(snapshot.images), labels, groups


def _test_pictures(store: Store, project: str) -> tuple[list[str], np.ndarray]:
    """The original's pictures of the newest evaluation with the most of them, and what the judge said of each."""
    runs = [r for r in store.list_runs(kind="evaluate", status="done") if r.config.get("project") == project]
    results = [read_result(store.artifact_dir(run.id) / EVALUATION_ARTIFACT) for run in runs]
    if not results:
        raise NotFoundError(f"Project {project!r} has no evaluation, whose pictures are the test: run `hfi evaluate`.")
    rows = max((result.pictures["before"] for result in results), key=len)
    known = [row for row in rows if row["shows_concept"] is not None]
    return [row["image"] for row in known], np.array([row["shows_concept"] for row in known], dtype=bool)


def _means(xs: Sequence[float], runs: Sequence[Sequence[Interval]]) -> tuple[Point, ...]:
    """Mean over runs of a share at each place."""
    means = [share_over_runs(column) for column in zip(*runs, strict=True)]
    return tuple(
        Point(float(x), mean.estimate, mean.low, mean.high, len(runs)) for x, mean in zip(xs, means, strict=True)
    )


def _differences(xs: Sequence[int], runs: Sequence[Sequence[Interval]], others: Sequence[Sequence[Interval]]) -> str:
    """Mean differences between runs of the same seed; all see the same pictures, so only the seeds vary."""
    texts = []
    for place, x in enumerate(xs):
        pairs = zip(runs, others, strict=True)
        values = [one[place].estimate - other[place].estimate for one, other in pairs]
        mean = mean_over_runs([Interval(value, value, value, 1) for value in values])
        texts.append(f"{mean.estimate:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}] at {x}")
    return ", ".join(texts)


# ---------------------------------------- removal


def _removal_curve(
    store: Store,
    project: str,
    kind: str,
    plan: CurvePlan,
    erase: EraseConfig,
    evaluate: EvaluateConfig,
    progress: Progress,
    failures: list[str],
) -> Curve:
    """What is left of the concept, and what else is right, at each level."""
    levels: Sequence[float] = plan.noise if kind == "noise" else plan.labels
    series: dict[str, list[Point]] = {"shows the concept": [], "others right": []}
    original: tuple[str, ...] = ()
    for level in levels:
        results = []
        for seed in plan.seeds:
            with Noting(failures, f"{kind} {level:g}, seed {seed}"):
                noise, count = (level, 0) if kind == "noise" else (0.1, int(level))
                results.append(measure_point(store, project, noise, count, seed, erase, evaluate, progress))
        if results:
            original = (_original(results[0]),)
            for name, measure in zip(series, ("removal", "others_accuracy"), strict=True):
                rate = _rate(results, measure)
                series[name].append(Point(float(level), rate.estimate, rate.low, rate.high, len(results)))
    label = "wrong answers of each simulated person" if kind == "noise" else "judged pictures"
    drawn = {name: tuple(points) for name, points in series.items() if points}
    return Curve(TITLES[kind], label, "share of pictures", drawn, is_x_share=kind == "noise", notes=original)


def _original(result: EvaluationResult) -> str:
    """Where every point starts: all runs draw the same prompts and seeds, so the original is the same for all."""
    shows, right = (result.figures[measure]["before"]["rate"] for measure in ("removal", "others_accuracy"))
    return f"the original shows the concept in {100 * shows:.1f} % and draws {100 * right:.1f} % of the others right."


def measure_point(
    store: Store,
    project: str,
    noise: float,
    num_labels: int,
    seed: int,
    erase: EraseConfig,
    evaluate: EvaluateConfig,
    progress: Progress,
) -> EvaluationResult:
    """Judge a copy of the project anew, score, erase and evaluate.

    Args:
        project: whose pictures are judged.
        noise: share of wrong answers of each of three simulated people.
        num_labels: pictures that are judged, drawn at random; 0 = all.
        seed: of the draw, of the wrong answers and of the eraser.

    Raises:
        ConfigError: the project has fewer pictures.
        HFIError: a stage cannot be done on these labels.
    """
    name = f"{project}-noise{noise:g}-labels{num_labels or 'all'}-seed{seed}"
    copy_pictures(store, project, name, num_labels, seed, evaluate.model)
    people = SimulateConfig(concept=_concept_of(evaluate), num_annotators=3, error_rate=noise, seed=seed)
    run_simulate(store, people, name, progress)
    run_score(store, ScoreConfig(seed=seed), name, progress)
    erased = run_erase(store, erase.model_copy(update={"seed": seed}), name, progress).run
    done = run_evaluate(store, evaluate.model_copy(update={"erased": erased.id}), name, progress).run
    return read_result(store.artifact_dir(done.id) / EVALUATION_ARTIFACT)


def _concept_of(evaluate: EvaluateConfig) -> str:
    """What simulated people have to object to, so that what is erased is what is measured."""
    concept = concept_of_suite(evaluate.suite)
    if not concept:
        raise ConfigError(
            f"Simulated people see concepts of the embedded world alone, and suite {evaluate.suite!r} is of none: give "
            "--protocol one that measures a mini-... suite, or --kinds order, which takes the labels that there are."
        )
    return concept


def copy_pictures(store: Store, project: str, name: str, num_labels: int, seed: int, model: str) -> None:
    """A project of that name with `num_labels` of the other's pictures to judge, and the original's measured ones."""
    records = [record for record in store.list_generations(project) if record.params.model_id == model]
    asked = [record for record in records if record.params.role == FEEDBACK_ROLE]
    if num_labels > len(asked):
        raise ConfigError(f"{num_labels} labels were asked for, but project {project!r} has {len(asked)} pictures.")
    rows = np.random.default_rng(seed).permutation(len(asked))[: num_labels or len(asked)]
    chosen = [asked[row] for row in sorted(rows)]
    measured = [record for record in records if record.params.role != FEEDBACK_ROLE and not record.params.guard]
    ensure_project(store, name, is_demo=True)
    store.add_generations(name, [(record.image_sha256, record.params) for record in (*chosen, *measured)])
    store.add_items(name, [ItemInput((record.image_sha256,), record.params.prompt) for record in chosen])


def _rate(results: Sequence[EvaluationResult], measure: str) -> Interval:
    hits = hits_over_runs([result.pictures for result in results], measure)
    if hits.size:
        return rate_over_runs(hits)
    rates = [result.figures[measure]["after"] for result in results]  # runs that could not read the same pictures
    return share_over_runs([wilson_interval(round(rate["rate"] * rate["n"]), rate["n"]) for rate in rates])


# ---------------------------------------- the document


def _keep(out: Path, kind: str, curve: Curve, command: str, failures: Sequence[str]) -> None:
    own = [text for text in failures if text.startswith(f"{kind} ")]
    content = {"command": command, "failures": own, **asdict(curve)}
    write_text_atomically(out.parent / "images" / f"curve-{kind}.json", json.dumps(content, indent=1) + "\n")
    write_text_atomically(out.parent / "images" / f"curve-{kind}.svg", plot_curve(curve))


def _write_document(out: Path) -> None:
    """All kinds that were measured so far, from the files beside the document."""
    parts = ["# How much feedback it takes, on the embedded model\n", f"{INTERVALS}\n"]
    for kind in KINDS:
        file = out.parent / "images" / f"curve-{kind}.json"
        if file.exists():
            parts.append(_section(kind, json.loads(file.read_text(encoding="utf-8"))))
    write_text_atomically(out, "\n".join(parts))


def _section(kind: str, found: Mapping[str, object]) -> str:
    series: Mapping[str, list[dict[str, float]]] = found["series"]  # type: ignore[assignment]
    is_share = bool(found["is_share"])
    xs = sorted({point["x"] for points in series.values() for point in points})
    rows = [[str(found["x_label"]), *series, "runs"], ["---"] * (len(series) + 2)]
    for x in xs:
        at = {name: next((p for p in points if p["x"] == x), None) for name, points in series.items()}
        runs = max(int(p["num_runs"]) for p in at.values() if p)
        label = f"{100 * x:g} %" if found["is_x_share"] else f"{x:g}"
        rows.append([label, *(_cell(p, is_share) for p in at.values()), str(runs)])
    lines = [f"## {found['title']}\n", f"![{found['title']}](images/curve-{kind}.svg)\n"]
    lines += [EXPLANATIONS[kind].format(first=FIRST_LABELS) + f" Made by `{found['command']}`.\n"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    notes: list[str] = found["notes"]  # type: ignore[assignment]
    lines += ["", *(f"- {note[0].upper()}{note[1:]}" for note in notes)] if notes else []
    failures: list[str] = found["failures"]  # type: ignore[assignment]
    lines += ["\nNot measured:\n", *(f"- {text}" for text in failures)] if failures else []
    return "\n".join(lines) + "\n"


def _cell(point: Mapping[str, float] | None, is_share: bool) -> str:
    if point is None:
        return "–"
    factor, digits = (100, ".1f") if is_share else (1, ".3f")
    value, low, high = (f"{factor * point[key]:{digits}}" for key in ("value", "low", "high"))
    return f"{value}{' %' if is_share else ''} [{low}, {high}]"
