"""From comparisons to one utility an image: Bradley-Terry with ties, and Plackett-Luce. Pure numpy.

Notation: objects i, j with strengths ``strength[i] > 0`` and utilities ``log(strength)`` of mean 0.

Both are fitted by fixed-point steps that need nothing but sums, so that hundreds of thousands of images fit. A small
prior (``prior`` wins and losses of every object against an imaginary one of strength 1) keeps utilities finite where
an object always won, or where the comparisons fall into parts that were never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Utilities:
    """Fitted utilities.

    Args:
        utilities: [n_objects], mean 0; a difference of 1 means odds of e : 1.
        tie_rate: Davidson's nu; 0 = no ties seen.
    """

    utilities: Floats
    tie_rate: float
    n_iterations: int


def _centred(strength: Floats) -> Floats:
    utilities: Floats = np.log(strength)
    utilities -= utilities.mean()
    return utilities


def fit_bradley_terry(
    winners: Ints,
    losers: Ints,
    n_objects: int,
    ties: tuple[Ints, Ints] | None = None,
    *,
    prior: float = 0.1,
    max_iterations: int = 2000,
    tolerance: float = 1e-8,
) -> Utilities:
    """Utilities from pairwise comparisons, ties included.

    P(i beats j) = s_i / D, P(tie) = nu sqrt(s_i s_j) / D, D = s_i + s_j + nu sqrt(s_i s_j).

    Args:
        winners, losers: objects of each decided comparison.
        ties: the two objects of each tied comparison.
        prior: wins and losses against an object of strength 1; 0 = maximum likelihood.

    Source: Davidson, "On extending the Bradley-Terry model to accommodate ties", 1970, equations 2.3 and 3.1 to 3.3;
    Hunter, "MM algorithms for generalized Bradley-Terry models", 2004, for the steps.
    """
    tied_a, tied_b = ties if ties is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
    first, second = np.concatenate([winners, tied_a]), np.concatenate([losers, tied_b])
    n_ties = len(tied_a)
    points = np.bincount(winners, minlength=n_objects) + 0.5 * (
        np.bincount(tied_a, minlength=n_objects) + np.bincount(tied_b, minlength=n_objects)
    )
    strength, tie_rate = np.ones(n_objects), 1.0 if n_ties else 0.0
    iteration = 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007 - the count is a result
        a, b = strength[first], strength[second]
        root = np.sqrt(a * b)
        inverse = 1.0 / (a + b + tie_rate * root)
        exposure = 2 * prior / (strength + 1)
        exposure = exposure + np.bincount(first, (1 + 0.5 * tie_rate * root / a) * inverse, n_objects)
        exposure = exposure + np.bincount(second, (1 + 0.5 * tie_rate * root / b) * inverse, n_objects)
        updated = np.where(exposure > 0, (points + prior) / np.where(exposure > 0, exposure, 1), 1.0)
        updated = np.maximum(updated, 1e-300)
        if prior == 0:
            updated /= np.exp(np.log(updated).mean())
        if n_ties:
            tie_rate = n_ties / float((root * inverse).sum())
        change = float(np.abs(np.log(updated / strength)).max(initial=0.0))
        strength = updated
        if change < tolerance:
            break
    return Utilities(_centred(strength), tie_rate, iteration)


@dataclass(frozen=True, slots=True)
class _Stages:
    """All rankings cut into choices: at each stage ``n_chosen`` objects were put before the rest of the set."""

    stage_of_member: Ints
    member: Ints
    n_chosen: Floats
    n_wins: Floats


def _cut_into_stages(rankings: Sequence[tuple[Sequence[int], Sequence[int]]], n_objects: int) -> _Stages:
    stage_of_member: list[int] = []
    members: list[int] = []
    n_chosen: list[int] = []
    wins = np.zeros(n_objects)
    for objects, ranks in rankings:
        for rank in sorted(set(ranks)):
            left = [item for item, own in zip(objects, ranks, strict=True) if own >= rank]
            chosen = [item for item, own in zip(objects, ranks, strict=True) if own == rank]
            if len(left) == 1:
                continue  # the last one is no choice
            stage_of_member.extend([len(n_chosen)] * len(left))
            members.extend(left)
            n_chosen.append(len(chosen))
            wins[chosen] += 1
    sizes = np.array(n_chosen, dtype=np.float64)
    return _Stages(np.array(stage_of_member, dtype=np.int64), np.array(members, dtype=np.int64), sizes, wins)


def fit_plackett_luce(
    rankings: Sequence[tuple[Sequence[int], Sequence[int]]],
    n_objects: int,
    *,
    prior: float = 0.1,
    max_iterations: int = 2000,
    tolerance: float = 1e-8,
) -> Utilities:
    """Utilities from rankings of any length; tied objects count as chosen from the same set (Breslow's way).

    Args:
        rankings: (objects, rank of each, 1 = best, equal ranks = tie) of each answer.
        prior: wins and losses against an object of strength 1; 0 = maximum likelihood.

    Source: Hunter, "MM algorithms for generalized Bradley-Terry models", 2004, equations 29 to 31.
    """
    stages = _cut_into_stages(rankings, n_objects)
    strength = np.ones(n_objects)
    iteration = 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007 - the count is a result
        of_stage = np.bincount(stages.stage_of_member, strength[stages.member], len(stages.n_chosen))
        share = (stages.n_chosen / of_stage)[stages.stage_of_member]
        exposure = np.bincount(stages.member, share, n_objects) + 2 * prior / (strength + 1)
        updated = np.where(exposure > 0, (stages.n_wins + prior) / np.where(exposure > 0, exposure, 1), 1.0)
        updated = np.maximum(updated, 1e-300)
        if prior == 0:
            updated /= np.exp(np.log(updated).mean())
        change = float(np.abs(np.log(updated / strength)).max(initial=0.0))
        strength = updated
        if change < tolerance:
            break
    return Utilities(_centred(strength), 0.0, iteration)


def ranking_to_pairs(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """(chosen, rejected) for every two images of a ranking that are not tied; better ones first.

    Args:
        ranks: one rank an image, 1 = best, equal ranks = tie.
    """
    order = sorted(range(len(ranks)), key=lambda image: (ranks[image], image))
    return [(a, b) for place, a in enumerate(order) for b in order[place + 1 :] if ranks[a] < ranks[b]]


def share_by_utility(utilities: Sequence[float]) -> list[float]:
    """How sure it is that an image belongs to the upper of two groups: sigmoid(utility - threshold), in [0, 1].

    Comparisons say which image has more, never how many have any. The threshold is therefore where two groups differ
    most (largest variance between them; halfway between the neighbours). Images that are all alike get 0.

    Args:
        utilities: [images], log odds.

    Source: Otsu, "A threshold selection method from gray-level histograms" (1979), on values instead of histograms.
    """
    values = np.asarray(utilities, dtype=np.float64)
    ordered = np.sort(values)
    if len(ordered) == 0 or ordered[0] == ordered[-1]:
        return [0.0] * len(ordered)
    n_low = np.arange(1, len(ordered))
    n_high = len(ordered) - n_low
    low_mean = np.cumsum(ordered)[:-1] / n_low
    high_mean = (ordered.sum() - np.cumsum(ordered)[:-1]) / n_high
    cut = int(np.argmax(n_low * n_high * (high_mean - low_mean) ** 2))
    threshold = (ordered[cut] + ordered[cut + 1]) / 2
    return [float(p) for p in 1 / (1 + np.exp(np.clip(threshold - values, -700, 700)))]
