"""One label an item from all answers to it, for every kind of judgment, and the agreement between annotators."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storage.aggregate import Aggregate, Ints, aggregate_dawid_skene, aggregate_majority
from storage.agreement import Level, count_values, krippendorff_alpha, summarise_agreement
from storage.preference import fit_bradley_terry, fit_plackett_luce

LABEL_DECIMALS = 6  # posteriors are rounded, so that the order of floating-point sums can't change a hash

# The first rule of each kind is its default.
RULES_OF_KIND: dict[str, tuple[str, ...]] = {
    "flag": ("dawid_skene", "majority"),
    "pair": ("dawid_skene", "majority", "bradley_terry"),
    "score": ("mean",),
    "ranking": ("plackett_luce", "mean_rank"),
}
# Class numbers of the answers that count; pairs know three classes, the ways of being equal among them one.
CLASSES: dict[str, dict[str, int]] = {
    "flag": {"no": 0, "yes": 1},
    "pair": {"first": 0, "second": 1, "tie": 2, "both_fine": 2, "both_bad": 2},
    "score": {},
    "ranking": {},
}
_LEVELS: dict[str, Level] = {"flag": "nominal", "pair": "nominal", "score": "ordinal", "ranking": "ordinal"}
MAX_IMAGES = 9


@dataclass(frozen=True, slots=True)
class Label:
    """The aggregate of one item; see SnapshotLabel."""

    item_key: str
    item_id: int
    n_judgments: int
    p_positive: float | None
    answer: str
    categories: tuple[str, ...]
    utilities: tuple[float, ...]


@dataclass(slots=True)
class Votes:
    """All answers of a project that count, kept small: a few bytes an answer, however many there are."""

    kind: str
    item_of_id: dict[int, int] = field(default_factory=dict)
    item_ids: list[int] = field(default_factory=list)
    item_keys: list[str] = field(default_factory=list)
    people: dict[str, int] = field(default_factory=dict)
    items: array[int] = field(default_factory=lambda: array("q"))
    annotators: array[int] = field(default_factory=lambda: array("q"))
    values: array[int] = field(default_factory=lambda: array("q"))
    rankings: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    categories: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    marked: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(
        self,
        item_id: int,
        item_key: str,
        annotator: str,
        answer: str,
        categories: Sequence[str],
        score: int | None,
        ranks: tuple[int, ...],
    ) -> None:
        """Take in one answer; answers that say nothing about the item (skip, unsure ...) are passed over."""
        classes = CLASSES[self.kind]
        if answer not in classes and answer not in ("scored", "ranked"):
            return
        item = self.item_of_id.setdefault(item_id, len(self.item_ids))
        if item == len(self.item_ids):
            self.item_ids.append(item_id)
            self.item_keys.append(item_key)
        person = self.people.setdefault(annotator, len(self.people))
        self.items.append(item)
        self.annotators.append(person)
        self.values.append(classes[answer] if answer in classes else (score or 1) - 1)
        if ranks:
            self.rankings.append((item, ranks))
        for category in categories:
            self.categories[item][category] += 1
            self.marked[category].append((item, person))

    def arrays(self) -> tuple[Ints, Ints, Ints]:
        """Item, annotator and value of each answer."""
        columns = (self.items, self.annotators, self.values)
        items, annotators, values = (np.frombuffer(column, dtype=np.int64) for column in columns)
        return items, annotators, values


def make_labels(votes: Votes, rule: str, images: dict[int, tuple[str, ...]], gold: dict[int, str]) -> list[Label]:
    """One label an item, in the order of the items' keys.

    Args:
        rule: one of RULES_OF_KIND for the votes' kind.
        images: item number -> its images; only pairs and rankings need it.
        gold: item number -> known answer, for the items where it is known.
    """
    if not votes.item_ids:
        return []
    items, annotators, values = votes.arrays()
    n_items = len(votes.item_ids)
    counts = np.bincount(items, minlength=n_items)
    n_yes = np.bincount(items[values == 1], minlength=n_items)
    columns: list[tuple[float | None, str, tuple[float, ...]]]
    if votes.kind == "score":
        mean = np.bincount(items, weights=values, minlength=n_items) / counts / 4
        columns = [(round(float(p), LABEL_DECIMALS), "scored", ()) for p in mean]
    elif votes.kind == "ranking":
        columns = [(None, "ranked", utilities) for utilities in _ranking_utilities(votes, rule, images)]
    else:
        result = _aggregate(votes, rule, items, annotators, values, gold)
        columns = _class_columns(votes, rule, result, images)
    labels = []
    for i, (p_positive, answer, utilities) in enumerate(columns):
        head = (votes.item_keys[i], votes.item_ids[i], int(counts[i]), p_positive, answer)
        categories = _majority_categories(votes, i, int(n_yes[i])) if answer == "yes" else ()
        labels.append(Label(*head, categories, utilities))
    return sorted(labels, key=lambda label: label.item_key)


def _aggregate(votes: Votes, rule: str, items: Ints, annotators: Ints, values: Ints, gold: dict[int, str]) -> Aggregate:
    classes = CLASSES[votes.kind]
    n_items, n_classes = len(votes.item_ids), len(set(classes.values()))
    if rule != "dawid_skene":
        return aggregate_majority(items, values, n_items, n_classes)
    known = {votes.item_of_id[item]: classes[answer] for item, answer in gold.items() if item in votes.item_of_id}
    return aggregate_dawid_skene(items, annotators, values, n_items, len(votes.people), n_classes, gold=known)


def _class_columns(
    votes: Votes, rule: str, result: Aggregate, images: dict[int, tuple[str, ...]]
) -> list[tuple[float | None, str, tuple[float, ...]]]:
    if votes.kind == "flag":
        p_yes = np.round(result.posterior[:, 1], LABEL_DECIMALS)
        return [(float(p), "yes" if p > 0.5 else "no", ()) for p in p_yes]
    fitted = _pair_utilities(votes, images)
    columns: list[tuple[float | None, str, tuple[float, ...]]] = []
    for item, (p_first, p_second, p_tie) in enumerate(result.posterior):
        utilities = fitted[item]
        p = float(p_first + p_tie / 2)
        if rule == "bradley_terry":
            p = 1 / (1 + float(np.exp(utilities[1] - utilities[0])))
        p = round(p, LABEL_DECIMALS)
        is_tie = p == 0.5 or (rule != "bradley_terry" and p_tie > max(p_first, p_second))
        columns.append((p, "tie" if is_tie else "first" if p > 0.5 else "second", utilities))
    return columns


def _image_numbers(votes: Votes, images: dict[int, tuple[str, ...]]) -> tuple[list[list[int]], int]:
    """Each item's images as numbers, the same image always the same number, in the order of the hashes."""
    ordered = sorted({sha256 for item_id in votes.item_ids for sha256 in images[item_id]})
    number = {sha256: index for index, sha256 in enumerate(ordered)}
    return [[number[sha256] for sha256 in images[item_id]] for item_id in votes.item_ids], len(ordered)


def _pair_utilities(votes: Votes, images: dict[int, tuple[str, ...]]) -> list[tuple[float, ...]]:
    numbers, n_images = _image_numbers(votes, images)
    items, _, values = votes.arrays()
    pairs = np.array(numbers, dtype=np.int64)[items]
    winners = np.where(values == 0, pairs[:, 0], pairs[:, 1])
    losers = np.where(values == 0, pairs[:, 1], pairs[:, 0])
    is_tie = values == 2
    fit = fit_bradley_terry(winners[~is_tie], losers[~is_tie], n_images, (pairs[is_tie, 0], pairs[is_tie, 1]))
    return [_rounded(fit.utilities[row]) for row in numbers]


def _ranking_utilities(votes: Votes, rule: str, images: dict[int, tuple[str, ...]]) -> list[tuple[float, ...]]:
    numbers, n_images = _image_numbers(votes, images)
    if rule == "plackett_luce":
        fit = fit_plackett_luce([(numbers[item], ranks) for item, ranks in votes.rankings], n_images)
        return [_rounded(fit.utilities[row]) for row in numbers]
    by_item: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for item, ranks in votes.rankings:
        by_item[item].append(ranks)
    return [_rounded(-np.mean(by_item[item], axis=0)) for item in range(len(numbers))]


def _rounded(values: Any) -> tuple[float, ...]:
    # Adding 0.0 turns -0.0 into 0.0, which would otherwise be another text in the hash.
    return tuple(round(float(value), LABEL_DECIMALS) + 0.0 for value in values)


def _majority_categories(votes: Votes, item: int, n_yes: int) -> tuple[str, ...]:
    """Categories that at least half of those who said yes gave."""
    found = votes.categories.get(item)
    return tuple(sorted(name for name, count in found.items() if 2 * count >= n_yes)) if found else ()


def measure_agreement(votes: Votes, categories: Sequence[str], n_bootstrap: int = 1000) -> dict[str, Any]:
    """Krippendorff's alpha over all answers, and for flags of each category on its own.

    The unit is the item; for rankings it is one image of an item, its value the rank.
    """
    units, values, n_units, n_values = _units(votes)
    counts = count_values(units, values, n_units, n_values)
    overall = krippendorff_alpha(counts, _LEVELS[votes.kind], n_bootstrap=n_bootstrap)
    by_category = {}
    if votes.kind == "flag":
        answers = counts.sum(axis=1)
        for category in categories:
            marked = np.zeros(n_units)
            for item, _ in votes.marked.get(category, ()):
                marked[item] += 1
            table = np.stack([answers - marked, marked], axis=1)
            alpha = krippendorff_alpha(table, "nominal", n_bootstrap=n_bootstrap)
            by_category[category] = summarise_agreement(alpha)
    return {**summarise_agreement(overall), "by_category": by_category}


def _units(votes: Votes) -> tuple[Ints, Ints, int, int]:
    items, _, values = votes.arrays()
    if votes.kind != "ranking":
        n_values = {"flag": 2, "pair": 3, "score": 5}[votes.kind]
        return items, values, len(votes.item_ids), n_values
    units = [item * MAX_IMAGES + place for item, ranks in votes.rankings for place in range(len(ranks))]
    ranks_given = [rank - 1 for _, ranks in votes.rankings for rank in ranks]
    n_units = len(votes.item_ids) * MAX_IMAGES
    return np.array(units, dtype=np.int64), np.array(ranks_given, dtype=np.int64), n_units, MAX_IMAGES
