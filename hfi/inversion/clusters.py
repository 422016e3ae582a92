"""Sides of a concept: clusters of flagged pictures, and a word for each to start from. Never imports torch.

Source: k-means++ (Arthur and Vassilvitskii, 2007) on the sphere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from hfi.errors import InvalidInputError
from hfi.prompt_words import words_of

NUM_RESTARTS = 10
MAX_ROUNDS = 100
MIN_WORD_SHARE = 0.25  # a word must be in a quarter of a cluster's prompts to stand for it


def cluster_images(
    embeddings: Float[np.ndarray, "images dim"], num_clusters: int, seed: int = 0
) -> Int[np.ndarray, " images"]:
    """Cluster of each picture, 0 the largest; spherical k-means, the best of ten starts.

    Args:
        embeddings: CLIP image embeddings of length 1.
        num_clusters: 1..number of pictures; no cluster is empty.
        seed: Seed of the starts.

    Raises:
        InvalidInputError: There are fewer different pictures than clusters.
    """
    num_different = len(np.unique(embeddings, axis=0))
    if not 1 <= num_clusters <= num_different:
        raise InvalidInputError(
            f"{num_clusters} clusters were asked for, but there are {num_different} different pictures: ask for fewer."
        )
    rng = np.random.default_rng(seed)
    runs = [_kmeans(embeddings.astype(np.float64), num_clusters, rng) for _ in range(NUM_RESTARTS)]
    labels, _ = max(runs, key=lambda run: run[1])
    by_size = np.argsort(-np.bincount(labels, minlength=num_clusters), kind="stable")
    return np.argsort(by_size)[labels]


def _kmeans(x: Float[np.ndarray, "n dim"], k: int, rng: np.random.Generator) -> tuple[Int[np.ndarray, " n"], float]:
    """Labels and the total cosine similarity to the centres."""
    centres = x[_spread_start(x, k, rng)]
    labels = np.full(len(x), -1)
    for _ in range(MAX_ROUNDS):
        similarity = x @ centres.T
        new_labels = _without_empty(similarity)
        if np.array_equal(new_labels, labels):
            break
        labels = new_labels
        centres = np.stack([x[labels == cluster].mean(axis=0) for cluster in range(k)])
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return labels, float((x * centres[labels]).sum())


def _spread_start(x: Float[np.ndarray, "n dim"], k: int, rng: np.random.Generator) -> list[int]:
    """k-means++: each next centre is drawn in proportion to its squared distance from those chosen."""
    chosen = [int(rng.integers(len(x)))]
    while len(chosen) < k:
        distance = np.square(x[:, None] - x[chosen]).sum(axis=2).min(axis=1)
        distance[chosen] = 0
        chosen.append(int(rng.choice(len(x), p=distance / distance.sum())))
    return chosen


def _without_empty(similarity: Float[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
    """Nearest centre of each picture; an empty cluster takes the picture that fits its own cluster worst."""
    labels = similarity.argmax(axis=1)
    for cluster in range(similarity.shape[1]):
        if not (labels == cluster).any():
            counts = np.bincount(labels, minlength=similarity.shape[1])
            own = np.where(counts[labels] > 1, similarity[np.arange(len(labels)), labels], np.inf)
            labels[own.argmin()] = cluster
    return labels


def telling_word(prompts: Sequence[str], rest: Sequence[str] = (), unflagged: Sequence[str] = ()) -> str:
    """The word that tells a cluster's prompts from all others best, or an empty string.

    A word's value is its share s here times log(s / share elsewhere). It must be in a quarter of the cluster's prompts
    and twice as common as elsewhere; and twice as common in flagged as in unflagged prompts, so that a cluster of
    pictures in one style is not named after the style.

    Args:
        prompts: Prompts of the cluster's pictures.
        rest: Prompts of the other flagged pictures.
        unflagged: Prompts of pictures that were not flagged.
    """
    values = {}
    for word in sorted(set().union(*map(words_of, prompts))):
        here = _word_share(word, prompts)
        ratio = here / max(_word_share(word, [*rest, *unflagged]), 0.5 / (len(rest) + len(unflagged) + 1))
        flagged_ratio = _word_share(word, [*prompts, *rest]) / max(_word_share(word, unflagged), 1e-9)
        if here >= MIN_WORD_SHARE and ratio >= 2 and flagged_ratio >= 2:
            values[word] = here * math.log(ratio)
    return max(values, key=lambda word: values[word], default="")


def _word_share(word: str, prompts: Sequence[str]) -> float:
    """Share of the prompts that contain the word."""
    return sum(word in words_of(prompt) for prompt in prompts) / max(len(prompts), 1)
