"""From judgments to one label an item, by a named rule. Pure numpy; no store, no SQL.

Notation (Dawid and Skene 1979): items i, annotators k, classes j, l.
``prior[j]``: share of class j; ``confusion[k, j, l]``: annotator k answers l on an item of class j;
``posterior[i, j]``: item i is of class j, given all answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ASSUMED_ACCURACY = 0.8  # assumption; only weighs where an annotator has given few answers

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Labels of all items, and what was learned about the annotators.

    Args:
        posterior: [n_items, n_classes], rows sum to 1; an item without answers has the prior.
        prior: [n_classes].
        confusion: [n_annotators, n_classes, n_classes] true class -> answer, or None for majority.
    """

    posterior: Floats
    prior: Floats
    confusion: Floats | None
    n_iterations: int


def aggregate_majority(items: Ints, answers: Ints, n_items: int, n_classes: int) -> Aggregate:
    """Each item's share of answers per class; ties stay ties.

    Args:
        items: item index of each answer, 0 .. n_items - 1.
        answers: class index of each answer, 0 .. n_classes - 1.
    """
    counts = np.bincount(items * n_classes + answers, minlength=n_items * n_classes).astype(np.float64)
    counts = counts.reshape(n_items, n_classes)
    total = counts.sum(axis=1, keepdims=True)
    overall = counts.sum(axis=0)
    prior = overall / overall.sum() if overall.sum() else np.full(n_classes, 1 / n_classes)
    posterior = np.where(total > 0, counts / np.maximum(total, 1), prior)
    return Aggregate(posterior, prior, None, 0)


def aggregate_dawid_skene(
    items: Ints,
    annotators: Ints,
    answers: Ints,
    n_items: int,
    n_annotators: int,
    n_classes: int = 2,
    *,
    gold: dict[int, int] | None = None,
    prior_answers: float = 1.0,
    max_iterations: int = 100,
    tolerance: float = 1e-5,
) -> Aggregate:
    """Weigh each annotator's answers by how reliable they turn out to be (expectation maximisation).

    Args:
        items, annotators, answers: one entry an answer.
        gold: item index -> class index, for items whose class is known; their posterior is clamped.
        prior_answers: imagined answers of each annotator to items of each class, right with ASSUMED_ACCURACY. They
            keep an annotator with a handful of answers from being taken for one who answers at random; 0 = maximum
            likelihood, as published.
        tolerance: stop when no posterior moves by more than this.

    Source: Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", 1979,
    equations 2.3 to 2.5.
    """
    posterior = aggregate_majority(items, answers, n_items, n_classes).posterior
    clamped = np.array(sorted(gold or {}), dtype=np.int64)
    known = np.zeros((len(clamped), n_classes))
    for row, item in enumerate(clamped):
        known[row, (gold or {})[int(item)]] = 1.0
    posterior[clamped] = known
    cell = annotators * n_classes + answers
    n_cells = n_annotators * n_classes
    iteration = 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007 - the count is a result
        prior, confusion = _maximise(posterior, items, cell, n_cells, n_annotators, n_classes, prior_answers)
        updated = _expect(prior, confusion, items, cell, n_items, n_classes)
        updated[clamped] = known
        change = float(np.abs(updated - posterior).max(initial=0.0))
        posterior = updated
        if change < tolerance:
            break
    return Aggregate(posterior, prior, confusion, iteration)


def _maximise(
    posterior: Floats, items: Ints, cell: Ints, n_cells: int, n_annotators: int, n_classes: int, prior_answers: float
) -> tuple[Floats, Floats]:
    """Prior and confusion matrices that fit the posteriors best (equations 2.3 and 2.4)."""
    confusion = np.empty((n_annotators, n_classes, n_classes))
    imagined = np.full((n_classes, n_classes), (1 - ASSUMED_ACCURACY) / max(n_classes - 1, 1))
    np.fill_diagonal(imagined, ASSUMED_ACCURACY)
    imagined = prior_answers * imagined + 1e-12  # never exactly zero: an unseen answer would have no logarithm
    for true_class in range(n_classes):
        weights = np.bincount(cell, weights=posterior[items, true_class], minlength=n_cells)
        confusion[:, true_class, :] = weights.reshape(n_annotators, n_classes) + imagined[true_class]
    confusion /= confusion.sum(axis=2, keepdims=True)
    prior = posterior.mean(axis=0) + 1e-12
    return prior / prior.sum(), confusion


def _expect(prior: Floats, confusion: Floats, items: Ints, cell: Ints, n_items: int, n_classes: int) -> Floats:
    """Posterior of each item given the confusion matrices (equation 2.5), in logarithms."""
    log_posterior = np.empty((n_items, n_classes))
    for true_class in range(n_classes):
        log_answer = np.log(confusion[:, true_class, :]).ravel()[cell]
        log_posterior[:, true_class] = np.bincount(items, weights=log_answer, minlength=n_items)
    log_posterior += np.log(prior)
    log_posterior -= log_posterior.max(axis=1, keepdims=True)
    posterior: Floats = np.exp(log_posterior)
    posterior /= posterior.sum(axis=1, keepdims=True)
    return posterior
