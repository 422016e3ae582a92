"""Area under the ROC curve with its interval. Never imports torch.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def placements(
    positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " q"]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " q"]]:
    """For each positive the share of negatives below it, for each negative the share of positives above; ties half."""
    wins = (positives[:, None] > negatives[None, :]) + 0.5 * (positives[:, None] == negatives[None, :])
    return wins.mean(axis=1), wins.mean(axis=0)


def auroc_with_interval(
    scores: Float[np.ndarray, " n"], is_positive: Bool[np.ndarray, " n"], z: float = 1.959964
) -> tuple[float, float, float] | tuple[None, None, None]:
    """AUROC and DeLong's interval, made on the logit scale so that it stays within [0, 1].

    Args:
        z: Normal quantile; the default gives 95 %.

    Returns:
        (auroc, low, high), or three None when one kind of label is missing. With a perfect order DeLong's variance is
        zero; the interval then ends at Wilson's bound for as many right answers as the smaller class has images.
    """
    positives, negatives = scores[is_positive].astype(np.float64), scores[~is_positive].astype(np.float64)
    if len(positives) == 0 or len(negatives) == 0:
        return None, None, None
    of_positives, of_negatives = placements(positives, negatives)
    auroc = float(of_positives.mean())
    variance = _mean_variance(of_positives) + _mean_variance(of_negatives)
    if variance <= 0 or auroc in (0.0, 1.0):
        bound = 1 / (1 + z**2 / min(len(positives), len(negatives)))
        return auroc, min(auroc, bound), max(auroc, 1 - bound)
    logit, spread = np.log(auroc / (1 - auroc)), z * np.sqrt(variance) / (auroc * (1 - auroc))
    low, high = 1 / (1 + np.exp(-(logit - spread))), 1 / (1 + np.exp(-(logit + spread)))
    return auroc, float(low), float(high)


def _mean_variance(values: Float[np.ndarray, " n"]) -> float:
    return float(np.var(values, ddof=1) / len(values)) if len(values) > 1 else 0.0
