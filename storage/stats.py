"""How a project stands: counts, agreement, and each annotator's accuracy, consistency and pace."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

from storage import sql
from storage.records import OTHER_ANSWERS, JudgmentRecord

if TYPE_CHECKING:
    from storage.labels import Votes
    from storage.store import Store


def measure_project(store: Store, project: str, *, n_bootstrap: int = 1000) -> dict[str, Any]:
    """Everything worth knowing about a project's judgments as JSON values; side by side, never one number.

    Args:
        n_bootstrap: resamples for the agreement's interval.
    """
    from storage.labels import measure_agreement

    record = store.get_project(project)
    with store.reading() as connection:
        judgments = store.list_judgments(project)
        users = {user.id: user for user in store.list_users()}
        gold = {item_id: answer for item_id, answer, _ in connection.execute(sql.GOLD_ALL, (record.id,))}
        statuses = {row[0]: row[1] for row in connection.execute(sql.ITEM_COUNTS, (record.id,))}
    votes = _votes(record.kind, judgments)
    has_votes = bool(votes.item_ids)
    by_annotator: dict[int, list[JudgmentRecord]] = defaultdict(list)
    for judgment in judgments:
        by_annotator[judgment.annotator_id].append(judgment)
    confusion = _confusion(votes, gold) if has_votes else {}
    annotators = [
        {
            "annotator": users[user_id].name,
            "is_simulated": users[user_id].is_simulated,
            **measure_annotator(own, gold),
            "confusion": confusion.get(users[user_id].name),
        }
        for user_id, own in sorted(by_annotator.items())
    ]
    return {
        "project": record.name,
        "kind": record.kind,
        "items": {status: statuses.get(status, 0) for status in ("open", "done", "adjudicate", "hidden")},
        "n_judgments": len(judgments),
        "n_annotators": len(by_annotator),
        "n_simulated": sum(users[user_id].is_simulated for user_id in by_annotator),
        "answers": dict(sorted(Counter(judgment.answer for judgment in judgments).items())),
        "agreement": measure_agreement(votes, record.categories, n_bootstrap) if has_votes else None,
        "annotators": annotators,
    }


def measure_annotator(own: list[JudgmentRecord], gold: dict[int, str]) -> dict[str, Any]:
    """One annotator's counts, accuracy on gold items, agreement with themself, and pace.

    Args:
        own: the annotator's standing judgments.
        gold: item number -> known answer.
    """
    checked = [judgment for judgment in own if judgment.item_id in gold and judgment.answer not in OTHER_ANSWERS]
    first = {judgment.item_id: judgment for judgment in own if judgment.purpose != "repeat"}
    repeats = [judgment for judgment in own if judgment.purpose == "repeat" and judgment.item_id in first]
    n_same = sum(_is_same_answer(judgment, first[judgment.item_id]) for judgment in repeats)
    timed = [judgment.elapsed_ms for judgment in own if judgment.elapsed_ms > 0]
    return {
        "n_judgments": len(own),
        "n_unsure": sum(judgment.answer == "unsure" for judgment in own),
        "n_skipped": sum(judgment.answer in ("skip", "hide_kind") for judgment in own),
        "gold_right": sum(judgment.answer == gold[judgment.item_id] for judgment in checked),
        "gold_seen": len(checked),
        "repeats_same": n_same,
        "repeats_seen": len(repeats),
        "median_seconds": round(median(timed) / 1000, 2) if timed else None,
        "revealed_seconds": round(sum(judgment.revealed_ms for judgment in own) / 1000, 1),
    }


def _is_same_answer(one: JudgmentRecord, other: JudgmentRecord) -> bool:
    return (one.answer, one.score, one.ranks) == (other.answer, other.score, other.ranks)


def _votes(kind: str, judgments: list[JudgmentRecord]) -> Votes:
    from storage.labels import Votes

    votes = Votes(kind)
    for row in sorted(judgments, key=lambda judgment: judgment.uuid):
        if row.purpose != "repeat":
            votes.add(row.item_id, "", row.annotator, row.answer, row.categories, row.score, row.ranks)
    return votes


def _confusion(votes: Votes, gold: dict[int, str]) -> dict[str, list[list[float]]]:
    """Each annotator's confusion matrix by Dawid-Skene, rows = true class; only kinds with classes have one."""
    from storage.aggregate import aggregate_dawid_skene
    from storage.labels import CLASSES

    classes = CLASSES[votes.kind]
    if not classes:
        return {}
    items, annotators, values = votes.arrays()
    known = {votes.item_of_id[item]: classes[answer] for item, answer in gold.items() if item in votes.item_of_id}
    sizes = (len(votes.item_ids), len(votes.people), len(set(classes.values())))
    result = aggregate_dawid_skene(items, annotators, values, *sizes, gold=known)
    assert result.confusion is not None
    return {name: result.confusion[index].round(4).tolist() for name, index in votes.people.items()}
