"""Labels from judgments: hand-worked numbers, published examples, and independent implementations."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from storage.aggregate import aggregate_dawid_skene, aggregate_majority
from storage.agreement import count_values, krippendorff_alpha
from storage.preference import fit_bradley_terry, fit_plackett_luce, ranking_to_pairs, share_by_utility


def simulate(n_items: int, n_annotators: int, per_item: int, seed: int) -> tuple[np.ndarray, ...]:
    """Items, annotators and answers of annotators of different accuracy, and the truth."""
    generator = np.random.default_rng(seed)
    truth = (generator.random(n_items) < 0.35).astype(np.int64)
    accuracy = generator.uniform(0.55, 0.97, n_annotators)
    items = np.repeat(np.arange(n_items), per_item)
    people = np.concatenate([generator.permutation(n_annotators)[:per_item] for _ in range(n_items)])
    is_right = generator.random(len(items)) < accuracy[people]
    return items, people, np.where(is_right, truth[items], 1 - truth[items]), truth


def test_majority_by_hand() -> None:
    result = aggregate_majority(np.array([0, 0, 0, 1, 1]), np.array([1, 1, 0, 0, 1]), 3, 2)
    assert result.posterior[0] == pytest.approx([1 / 3, 2 / 3])
    assert result.posterior[1] == pytest.approx([0.5, 0.5])
    assert result.posterior[2] == pytest.approx([2 / 5, 3 / 5])  # nobody answered: the overall shares


def test_dawid_skene_beats_majority_and_finds_who_is_reliable() -> None:
    items, people, answers, truth = simulate(1500, 12, 3, seed=1)
    ours = aggregate_dawid_skene(items, people, answers, 1500, 12)
    majority = aggregate_majority(items, answers, 1500, 2)
    right = (ours.posterior[:, 1] > 0.5) == truth
    assert right.mean() > ((majority.posterior[:, 1] > 0.5) == truth).mean()
    assert ours.confusion is not None
    assert ours.confusion.sum(axis=2) == pytest.approx(np.ones((12, 2)))
    seen = np.array([(answers[people == k] == truth[items[people == k]]).mean() for k in range(12)])
    found = 0.65 * ours.confusion[:, 0, 0] + 0.35 * ours.confusion[:, 1, 1]
    assert np.corrcoef(seen, found)[0, 1] > 0.9


@pytest.mark.slow  # importing crowd-kit alone takes half a minute on a small machine
def test_dawid_skene_agrees_with_crowd_kit() -> None:
    pandas = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crowdkit = pytest.importorskip("crowdkit.aggregation.classification.dawid_skene")
        items, people, answers, _ = simulate(400, 8, 4, seed=2)
        frame = pandas.DataFrame({"task": items, "worker": people, "label": answers})
        oracle = crowdkit.DawidSkene(n_iter=200, tol=1e-9).fit_predict_proba(frame)
    ours = aggregate_dawid_skene(items, people, answers, 400, 8, prior_answers=0.0, max_iterations=2000, tolerance=1e-9)
    assert ours.posterior[:, 1] == pytest.approx(oracle[1].to_numpy(), abs=1e-3)


def test_dawid_skene_on_the_published_example() -> None:
    """Patients, observers and ratings of Dawid and Skene (1979), table 1; the posteriors of their table 4.

    Their first observer saw every patient three times, which counts as three answers of one annotator.
    """
    ratings = [
        "111 1 1 1 1", "333 4 3 3 4", "112 2 1 2 2", "222 3 1 2 1", "222 3 2 2 2", "222 3 3 2 2", "122 2 1 1 1",
        "333 3 4 3 3", "222 2 2 2 3", "232 2 2 2 3", "444 4 4 4 4", "222 3 3 4 3", "111 1 1 1 1", "222 3 2 1 2",
        "121 1 1 1 1", "111 2 1 1 1", "111 1 1 1 1", "111 1 1 1 1", "222 2 2 2 1", "222 1 3 2 2", "222 2 2 2 2",
        "222 2 2 2 1", "222 3 2 2 2", "221 2 2 2 2", "111 1 1 1 1", "111 1 1 1 1", "232 2 2 2 2", "111 1 1 1 1",
        "111 1 1 1 1", "112 1 1 2 1", "111 1 1 1 1", "333 3 2 3 3", "111 1 1 1 1", "222 2 2 2 2", "222 3 2 3 2",
        "433 4 3 4 3", "221 2 2 3 2", "232 3 2 3 3", "333 3 4 3 2", "111 1 1 1 1", "111 1 1 1 1", "121 2 1 1 1",
        "232 2 2 2 2", "121 1 1 1 1", "222 2 2 2 2",
    ]  # fmt: skip
    rows = [
        (patient, observer, int(answer) - 1)
        for patient, line in enumerate(ratings)
        for observer, answers in enumerate(line.split())
        for answer in answers
    ]
    items, people, answers = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    result = aggregate_dawid_skene(items, people, answers, 45, 5, 4, prior_answers=0.0, tolerance=1e-8)
    # Table 2: the marginal probabilities of the four classes
    assert result.prior == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.006)
    # Table 4: patient 3 is of class 2, patients 1 and 11 certain
    assert result.posterior[0, 0] > 0.99
    assert result.posterior[10, 3] > 0.99
    assert result.posterior[2].argmax() == 1


def test_dawid_skene_believes_annotators_with_one_answer() -> None:
    result = aggregate_dawid_skene(np.array([0, 1]), np.array([0, 1]), np.array([1, 0]), 2, 2)
    assert result.posterior[0, 1] > 0.6
    assert result.posterior[1, 0] > 0.6


def test_gold_is_clamped_and_teaches() -> None:
    items, people, answers, truth = simulate(300, 6, 3, seed=3)
    gold = {item: 1 - int(truth[item]) for item in range(5)}
    result = aggregate_dawid_skene(items, people, answers, 300, 6, gold=gold)
    assert [int(result.posterior[item].argmax()) for item in gold] == list(gold.values())
    helped = aggregate_dawid_skene(items, people, answers, 300, 6, gold={i: int(truth[i]) for i in range(100)})
    plain = aggregate_dawid_skene(items, people, answers, 300, 6)

    def rightness(posterior: np.ndarray) -> float:
        return float(((posterior[100:, 1] > 0.5) == truth[100:]).mean())

    assert rightness(helped.posterior) >= rightness(plain.posterior) - 0.01


KRIPPENDORFF = [  # four observers, twelve units, Krippendorff (2011), section C; None = missing
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level: str, published: float) -> None:
    pairs = [(u, v - 1) for row in KRIPPENDORFF for u, v in enumerate(row) if v is not None]
    units, values = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    found = krippendorff_alpha(count_values(units, values, 12, 5), level)  # type: ignore[arg-type]
    assert found.alpha == pytest.approx(published, abs=0.0006)
    assert found.low is not None
    assert found.high is not None
    assert found.low < published < found.high
    assert (found.n_units, found.n_answers) == (11, 40)


def test_alpha_of_two_observers_by_hand() -> None:
    """Krippendorff (2011), section A: binary, two observers, ten units, alpha = 0.095."""
    one, other = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    units = np.tile(np.arange(10), 2)
    found = krippendorff_alpha(count_values(units, np.array(one + other), 10, 2), n_bootstrap=0)
    assert found.alpha == pytest.approx(0.095, abs=0.001)


def test_alpha_is_not_defined_without_variation_or_pairs() -> None:
    assert krippendorff_alpha(np.array([[2.0, 0.0], [3.0, 0.0]])).alpha is None
    assert krippendorff_alpha(np.array([[1.0, 0.0], [0.0, 1.0]])).alpha is None
    assert krippendorff_alpha(np.array([[2.0, 0.0], [0.0, 2.0]])).alpha == 1.0


def test_alpha_interval_covers_the_truth() -> None:
    """Of 60 simulated studies, about 95 % of the intervals hold the alpha of a very large one."""

    def study(n_units: int, seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        truth = generator.random(n_units) < 0.4
        votes = (generator.random((n_units, 3)) < 0.85) == truth[:, None]
        yes = votes.sum(axis=1).astype(float)
        return np.stack([3 - yes, yes], axis=1)

    true_alpha = krippendorff_alpha(study(200_000, 0), n_bootstrap=0).alpha
    assert true_alpha is not None
    intervals = [krippendorff_alpha(study(120, seed), n_bootstrap=300, seed=seed) for seed in range(1, 61)]
    covered = sum(found.low <= true_alpha <= found.high for found in intervals)  # type: ignore[operator]
    assert covered >= 52


def test_bradley_terry_agrees_with_choix() -> None:
    choix = pytest.importorskip("choix")
    generator = np.random.default_rng(4)
    strength = np.exp(generator.normal(size=9))
    pairs = [generator.choice(9, 2, replace=False) for _ in range(900)]
    decided = [(a, b) if generator.random() < strength[a] / (strength[a] + strength[b]) else (b, a) for a, b in pairs]
    winners, losers = (np.array(column, dtype=np.int64) for column in zip(*decided, strict=True))
    ours = fit_bradley_terry(winners, losers, 9, prior=0.0, tolerance=1e-10)
    oracle = choix.opt_pairwise(9, [(int(won), int(lost)) for won, lost in decided], alpha=0.0)
    assert ours.utilities == pytest.approx(oracle - oracle.mean(), abs=1e-4)


def test_bradley_terry_with_ties_of_two_objects_by_hand() -> None:
    """With two objects the likelihood is a multinomial: odds = wins/losses, nu = ties / sqrt(wins * losses)."""
    winners, losers = np.repeat([0, 1], [12, 3]), np.repeat([1, 0], [12, 3])
    ties = (np.zeros(6, dtype=np.int64), np.ones(6, dtype=np.int64))
    fit = fit_bradley_terry(winners, losers, 2, ties, prior=0.0, tolerance=1e-12)
    assert fit.utilities[0] - fit.utilities[1] == pytest.approx(math.log(4), abs=1e-6)
    assert fit.tie_rate == pytest.approx(1.0, abs=1e-6)


def test_bradley_terry_mirrors_when_winners_and_losers_swap() -> None:
    generator = np.random.default_rng(5)
    winners, losers = generator.integers(0, 6, 80), generator.integers(0, 6, 80)
    keep = winners != losers
    one = fit_bradley_terry(winners[keep], losers[keep], 6)
    other = fit_bradley_terry(losers[keep], winners[keep], 6)
    assert one.utilities == pytest.approx(-other.utilities, abs=1e-4)


def test_bradley_terry_stays_finite_for_an_object_that_always_won() -> None:
    fit = fit_bradley_terry(np.array([0, 0, 2]), np.array([1, 1, 3]), 5)
    assert np.isfinite(fit.utilities).all()
    assert fit.utilities[0] > fit.utilities[4] > fit.utilities[1]


def test_plackett_luce_agrees_with_choix() -> None:
    choix = pytest.importorskip("choix")
    generator = np.random.default_rng(6)
    strength = np.exp(generator.normal(size=7))
    rankings = []
    for _ in range(120):
        chosen = generator.choice(7, 4, replace=False)
        noisy = np.log(strength[chosen]) + generator.gumbel(size=4)
        rankings.append([int(chosen[i]) for i in np.argsort(-noisy)])
    ours = fit_plackett_luce([(ranking, [1, 2, 3, 4]) for ranking in rankings], 7, prior=0.0, tolerance=1e-10)
    oracle = choix.opt_rankings(7, rankings, alpha=0.0)
    assert ours.utilities == pytest.approx(oracle - oracle.mean(), abs=1e-4)


def test_plackett_luce_of_pairs_is_bradley_terry() -> None:
    winners, losers = np.array([0, 0, 1, 2, 0, 1]), np.array([1, 1, 0, 0, 2, 2])
    pairs = [((int(won), int(lost)), (1, 2)) for won, lost in zip(winners, losers, strict=True)]
    expected = fit_bradley_terry(winners, losers, 3, prior=0.0, tolerance=1e-10).utilities
    assert fit_plackett_luce(pairs, 3, prior=0.0, tolerance=1e-10).utilities == pytest.approx(expected, abs=1e-5)


def test_plackett_luce_of_ties_only_is_flat() -> None:
    fit = fit_plackett_luce([((0, 1, 2), (1, 1, 1))] * 4, 3)
    assert fit.utilities == pytest.approx(np.zeros(3), abs=1e-6)


def test_ranking_to_pairs_by_hand() -> None:
    assert ranking_to_pairs((2, 1, 2, 4)) == [(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)]
    assert ranking_to_pairs((1, 1)) == []


def test_share_by_utility_cuts_where_two_groups_differ_most():
    # {0, 1} and {5, 6, 9}: 2 * 3 * (20 / 3 - 1 / 2)^2 = 228 is the largest; the threshold is (1 + 5) / 2
    shares = share_by_utility([5.0, 0.0, 9.0, 1.0, 6.0])
    assert shares == pytest.approx([1 / (1 + math.exp(3 - u)) for u in (5, 0, 9, 1, 6)])
    assert share_by_utility([2.0, 2.0]) == [0.0, 0.0]
    assert share_by_utility([]) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert share_by_utility([-1e6, 1e6]) == pytest.approx([0.0, 1.0])
