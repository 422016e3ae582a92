"""Ask people, blind, which of two pictures of the same words and seed shows the concept more; and what they said.

Which model drew which picture is written into the run's key alone: the project that annotators see holds pictures and
words. The order within an item is drawn by seed, and the store draws and keeps the order each person sees.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hfi.config import JudgeAgainConfig
from hfi.errors import ConfigError, NotFoundError
from hfi.evaluate.metrics import Interval, wilson_interval
from hfi.evaluate.protocol import EvaluationResult, differences, read_result
from hfi.jobs.compare import describe_run, evaluation_of
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, cached_readings
from hfi.jobs.runs import StageResult, find_finished, latest_run, recorded_run, run_settings
from hfi.mini.concepts import words_of_concept
from hfi.progress import Progress
from storage import Store
from storage.agreement import krippendorff_alpha
from storage.records import ItemInput, Run

if TYPE_CHECKING:
    from hfi.evaluate.detectors import Detector

KEY_ARTIFACT = "key"
SUFFIX = "-again"
ORIGINAL = "original"
TIES = ("tie", "both_fine", "both_bad")
QUESTIONS = {
    "concept": "Which of the two pictures shows **{concept}** more? Answer *tie* when both show it, or neither does.",
    "others": "Which of the two is the better picture of these words? Answer *tie* when you see no difference.",
}


@dataclass(frozen=True)
class PairEntry:
    """One pair of the key: which models drew the item's first and second picture; `item_id` 0 = identical pictures."""

    item_id: int
    models: tuple[str, str]
    images: tuple[str, str]
    prompt: str
    seed: int


@dataclass(frozen=True)
class PairVerdict:
    """What people say of two models."""

    models: tuple[str, str]
    first_more: Interval | None
    """Share of decided pairs in which the first model's picture was chosen; None = none is decided yet."""
    num_ties: int
    """Pairs where people saw no difference, or were split evenly."""
    num_identical: int
    """Pairs nobody was asked about, because both models drew the very same picture."""
    num_open: int
    """Pairs nobody has judged yet."""


# ---------------------------------------- asking


def run_judge_again(store: Store, config: JudgeAgainConfig, project: str, progress: Progress) -> StageResult:
    """Make the pair project `<project>-again` from evaluations; running it again changes nothing.

    Args:
        store: where the evaluations are.
        config: which evaluations, how many pairs, how many people.
        project: whose evaluations they are.
        progress: told when it is done.

    Raises:
        NotFoundError: there is no such evaluation.
        ConfigError: the evaluations do not share prompts and seeds.
    """
    results = _chosen_results(store, config, project)
    settings = run_settings(config, project, protocols=[r.protocol_sha256 for _, r in results],
                            models=[sorted(r.models.values()) for _, r in results])  # fmt: skip
    done = find_finished(store, "judge-again", settings)
    if done is not None:
        return StageResult(_summary(done), done, dict(done.metrics))
    with recorded_run(store, "judge-again", settings) as work:
        progress.start("judge again")
        name = _pair_project(store, config, project, results[0][1])
        entries = _add_pairs(store, config, name, _pictures_by_model(results, config.part))
        folder = store.artifact_dir(work.run.id) / KEY_ARTIFACT
        if not folder.exists():
            with store.writing_artifact(work.run.id, KEY_ARTIFACT, "blinding_key") as target:
                rows = [asdict(entry) for entry in entries]
                (target / "key.json").write_text(
                    json.dumps({"project": name, "pairs": rows}, indent=1), encoding="utf-8"
                )
        asked = {entry.item_id for entry in entries if entry.item_id}
        work.metrics.update(
            project=name, pairs=len(entries), items=len(asked), part=config.part, group=results[0][1].group
        )
        progress.finish(f"{len(asked)} pairs to judge")
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def _chosen_results(store: Store, config: JudgeAgainConfig, project: str) -> list[tuple[str, EvaluationResult]]:
    ids = [text.strip() for text in config.others.split(",") if text.strip()]
    newest = latest_run(store, "evaluate", project)
    runs = [evaluation_of(store, run_id) for run_id in ids] or [newest]
    for run_id, run in zip(ids or [""], runs, strict=True):
        if run is None:
            named = f"{run_id!r} is no evaluation" if run_id else f"Project {project!r} has no evaluation yet"
            raise NotFoundError(f"{named}: run `hfi evaluate` first.")
    results = [
        (describe_run(store, run), read_result(store.artifact_dir(run.id) / EVALUATION_ARTIFACT))
        for run in runs
        if run is not None
    ]
    first = results[0][1]
    for name, result in results[1:]:
        if result.protocol_sha256 != first.protocol_sha256:
            texts = "; ".join(differences(first.protocol, result.protocol))
            raise ConfigError(f"{name} was evaluated under another protocol ({texts}), so there are no equal pairs.")
    return results


def _pictures_by_model(results: Sequence[tuple[str, EvaluationResult]], part: str) -> dict[str, list[dict[str, Any]]]:
    """Pictures of the original and of each changed model, in the suite's order, of one part."""
    named = [(ORIGINAL, results[0][1].pictures["before"]), *((name, r.pictures["after"]) for name, r in results)]
    return {name: [row for row in rows if row["part"] == part] for name, rows in named}


def _pair_project(store: Store, config: JudgeAgainConfig, project: str, result: EvaluationResult) -> str:
    name = f"{project[:33]}{SUFFIX}" + ("" if config.part == "concept" else "2")
    if all(known.name != name for known in store.list_projects()):
        unknown = "what the guideline of the first project describes"
        concept = words_of_concept(result.group).shown if result.group else unknown
        source = store.get_project(project)
        store.create_project(
            name, kind="pair", guideline=f"# Again\n\n{QUESTIONS[config.part].format(concept=concept)}\n",
            annotators_per_item=config.annotators_per_item, is_sensitive=source.is_sensitive, is_demo=source.is_demo,
        )  # fmt: skip
    return name


def _add_pairs(
    store: Store, config: JudgeAgainConfig, name: str, pictures: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[PairEntry]:
    """Pairs of each two models at even distances of the suite, each in an order drawn by seed, all shuffled."""
    generator = np.random.default_rng(config.seed)
    entries: list[PairEntry] = []
    for first, second in itertools.combinations(pictures, 2):
        count = len(pictures[first])
        num_chosen = min(config.num_pairs, count)
        for place in (i * count // num_chosen for i in range(num_chosen)):
            pair = [(first, pictures[first][place]), (second, pictures[second][place])]
            if generator.random() < 0.5:
                pair.reverse()
            (one, left), (other, right) = pair
            entry = PairEntry(0, (one, other), (left["image"], right["image"]), left["prompt"], left["seed"])
            entries.append(entry)
    order = generator.permutation(len(entries)).tolist()
    asked = [entries[i] for i in order if entries[i].images[0] != entries[i].images[1]]
    items = store.add_items(name, [ItemInput(e.images, e.prompt, f"{e.prompt} {e.seed}") for e in asked])
    numbered = [PairEntry(item.id, e.models, e.images, e.prompt, e.seed) for e, item in zip(asked, items, strict=True)]
    return numbered + [e for e in entries if e.images[0] == e.images[1]]


def _summary(run: Run) -> str:
    figures = run.metrics
    return f"{figures['items']} pairs wait in project {figures['project']!r}; what drew which is in run {run.id} alone."


# ---------------------------------------- hearing


def run_verdict(
    store: Store, project: str, run_id: str = "", detectors: Sequence[Detector] = (), confidence: float = 0.95
) -> dict[str, Any]:
    """What people said: each two models with interval, their agreement, and how often each detector agrees with them.

    Args:
        store: where the answers are.
        project: the project whose evaluations were judged again.
        run_id: which asking; "" = the newest.
        detectors: whose scores are compared with people's choices.
        confidence: level of the intervals.

    Raises:
        NotFoundError: people were not asked yet.
    """
    run = store.get_run(run_id) if run_id else latest_run(store, "judge-again", project)
    if run is None or run.kind != "judge-again":
        raise NotFoundError(f"Nobody was asked about project {project!r} yet: run `hfi judge-again` first.")
    text = (store.artifact_dir(run.id) / KEY_ARTIFACT / "key.json").read_text(encoding="utf-8")
    key = json.loads(text)
    entries = [
        PairEntry(r["item_id"], tuple(r["models"]), tuple(r["images"]), r["prompt"], r["seed"]) for r in key["pairs"]
    ]
    votes = _votes(store, key["project"])
    counts = np.array([[v.count("first"), v.count("second"), v.count("tie")] for v in votes.values()] or [[0, 0, 0]])
    alpha = krippendorff_alpha(counts.astype(np.float64))
    users = {user.name: user for user in store.list_users()}
    names = {j.annotator for j in store.list_judgments(key["project"])}
    return {
        "run": run.id,
        "part": run.metrics["part"],
        "pairs": [asdict(verdict) for verdict in pair_verdicts(entries, votes, confidence)],
        "annotators": len(names),
        "simulated": sum(users[name].is_simulated for name in names),
        "agreement": {"alpha": alpha.alpha, "low": alpha.low, "high": alpha.high, "n": alpha.n_units},
        "detectors": {
            detector.spec.name: _as_json(_agreement_of(store, detector, entries, votes, confidence))
            for detector in detectors
        },
    }


def _votes(store: Store, project: str) -> dict[int, list[str]]:
    """item -> answers as first, second or tie; skipped and unsure ones are no answer."""
    votes: dict[int, list[str]] = {}
    for judgment in store.list_judgments(project):
        if judgment.purpose == "normal" and judgment.answer in ("first", "second", *TIES):
            answer = "tie" if judgment.answer in TIES else judgment.answer
            votes.setdefault(judgment.item_id, []).append(answer)
    return votes


def majority(votes: Sequence[str]) -> str:
    """first, second or tie: what more said than each of the others; an even split is a tie; "" = nobody answered."""
    if not votes:
        return ""
    first, second = votes.count("first"), votes.count("second")
    if first == second or max(first, second) <= votes.count("tie"):
        return "tie"
    return "first" if first > second else "second"


def pair_verdicts(
    entries: Sequence[PairEntry], votes: Mapping[int, Sequence[str]], confidence: float = 0.95
) -> list[PairVerdict]:
    """One verdict for each two models, in the order in which they first appear; models in alphabetical order."""
    groups: dict[tuple[str, str], list[PairEntry]] = {}
    for entry in entries:
        one, other = sorted(entry.models)
        groups.setdefault((one, other), []).append(entry)
    verdicts = []
    for models, group in groups.items():
        outcomes = [(entry, majority(votes.get(entry.item_id, ()))) for entry in group if entry.item_id]
        decided = [(e.models[0] == models[0]) == (o == "first") for e, o in outcomes if o in ("first", "second")]
        interval = wilson_interval(sum(decided), len(decided), confidence) if decided else None
        ties, unanswered = (sum(o == answer for _, o in outcomes) for answer in ("tie", ""))
        verdicts.append(PairVerdict(models, interval, ties, len(group) - len(outcomes), unanswered))
    return verdicts


def _agreement_of(
    store: Store,
    detector: Detector,
    entries: Sequence[PairEntry],
    votes: Mapping[int, Sequence[str]],
    confidence: float,
) -> Interval | None:
    """Share of decided pairs in which the detector scores the chosen picture higher; unread and equal ones left out."""
    decided = {e.item_id: (e, majority(votes.get(e.item_id, ()))) for e in entries if e.item_id}
    decided = {item: (e, outcome) for item, (e, outcome) in decided.items() if outcome in ("first", "second")}
    readings = cached_readings(store, detector, [sha256 for e, _ in decided.values() for sha256 in e.images])
    agrees = []
    for entry, outcome in decided.values():
        first, second = (readings[sha256] for sha256 in entry.images)
        if first.failure or second.failure:
            continue
        strengths = [max(r.scores.get(c, 0.0) for c in detector.spec.classes) for r in (first, second)]
        if strengths[0] != strengths[1]:
            agrees.append((strengths[0] > strengths[1]) == (outcome == "first"))
    return wilson_interval(sum(agrees), len(agrees), confidence) if agrees else None


def _as_json(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def describe_verdict(verdict: Mapping[str, Any]) -> str:
    """A verdict as sentences for people."""
    lines = []
    for row in verdict["pairs"]:
        one, other = row["models"]
        said = row["first_more"]
        text = f"of {said['n']} decided pairs {_percent(said)} went to {one}" if said else "no pair is decided yet"
        rest = f"{row['num_ties']} ties, {row['num_identical']} identical, {row['num_open']} open"
        lines.append(f"{one} against {other}: {text}; {rest}.")
    alpha = verdict["agreement"]
    known = (
        "not defined" if alpha["alpha"] is None else f"{alpha['alpha']:.2f} [{alpha['low']:.2f}, {alpha['high']:.2f}]"
    )
    lines.append(f"{verdict['annotators']} annotators, {verdict['simulated']} of them simulated; alpha {known}.")
    for name, share in verdict["detectors"].items():
        agreed = "no pair to compare" if share is None else f"{_percent(share)} of {share['n']} pairs"
        lines.append(f"Detector {name} chooses as people do in {agreed}.")
    return "\n".join(lines)


def _percent(share: Mapping[str, Any]) -> str:
    return f"{100 * share['estimate']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
