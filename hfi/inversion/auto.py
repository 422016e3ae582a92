"""From flagged pictures to the concept tokens that cover them: cluster, invert together, preview, keep the needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from hfi.clip import Clip, embed_images
from hfi.config import InvertConfig, SamplerConfig
from hfi.errors import InvalidInputError, NoFlaggedImagesError
from hfi.inversion.clusters import cluster_images, telling_word
from hfi.inversion.coverage import choose_tokens, covered_by, preview_tokens
from hfi.inversion.tokens import ConceptToken, placeholder_names
from hfi.inversion.train import OnStep, invert
from hfi.pipelines import Pipeline
from hfi.prompt_words import caption_of, concept_words, words_of

MAX_CONCEPTS = 12  # sides looked for when the number of tokens is automatic
SMALLEST_CLUSTER = 4  # pictures; fewer teach a token their background rather than their object
REPRODUCED_FROM = 0.5  # concept score of a preview that shows the concept

# Calibrated concept score in [0, 1] of each embedding.
ScoreEmbeddings = Callable[[Float[np.ndarray, "images dim"]], Float[np.ndarray, " images"]]


@dataclass(frozen=True)
class InversionResult:
    """Tokens with what was measured of them.

    Attributes:
        tokens: In the order in which they add coverage; cards hold `reproduction`, `concept_score` and `coverage`.
        previews: Pictures of each token.
        used_images: Indices of the flagged pictures that were used (the top K by weight).
        clusters: For each used picture the index of its token, or -1 where its cluster's token was not needed.
        concept_score: Mean score of all previews.
        coverage: Share of the used pictures that some token reproduces.
    """

    tokens: list[ConceptToken]
    previews: list[list[Image.Image]]
    used_images: list[int]
    clusters: list[int]
    concept_score: float
    coverage: float


def invert_concept(
    pipeline: Pipeline,
    images: Sequence[Image.Image],
    weights: Sequence[float],
    config: InvertConfig,
    clip: Clip,
    score_embeddings: ScoreEmbeddings,
    *,
    prompts: Sequence[str] | None = None,
    other_prompts: Sequence[str] = (),
    preview_seeds: Sequence[int] = range(8),
    sampler: SamplerConfig | None = None,
    on_step: OnStep | None = None,
) -> InversionResult:
    """Learn as many tokens as the concept has sides, all in one batch, and measure what they reproduce.

    With `num_concepts="auto"` more clusters are inverted than are likely needed; then the fewest tokens are kept whose
    previews cover as many flagged pictures as all of them do (within 2 points).

    Args:
        images: Flagged pictures.
        weights: Concept score of each, positive.
        clip: Embeds flagged pictures and previews.
        score_embeddings: Concept score of embeddings, such as `lambda x: model.score(x)[0]`.
        prompts: Prompt of each flagged picture, if known: gives each token a word to start from.
        other_prompts: Prompts of pictures that were not flagged.
        preview_seeds: Seeds of each token's previews.
        sampler: How previews are sampled.

    Raises:
        NoFlaggedImagesError: There is no flagged picture.
        InvalidInputError: Lengths differ.
    """
    if not images:
        raise NoFlaggedImagesError("No picture was flagged: there is no concept to learn. Judge more pictures.")
    if len(weights) != len(images) or (prompts is not None and len(prompts) != len(images)):
        raise InvalidInputError(f"There are {len(images)} flagged pictures, but not as many weights and prompts.")
    used = sorted(np.argsort(-np.asarray(weights), kind="stable")[: config.top_k].tolist())
    used_images, used_weights = [images[i] for i in used], [float(weights[i]) for i in used]
    flagged = embed_images(clip, used_images)
    clusters = cluster_images(flagged, _num_clusters(flagged, config), config.seed)
    known = [prompts[i] for i in used] if prompts is not None else None
    concept = concept_words(known, other_prompts) if known is not None and config.templates == "prompts" else set()
    captions = [caption_of(prompt, concept) for prompt in known] if known is not None and concept else None
    words = _start_words(known, other_prompts, clusters, concept, config)
    tokens = invert(pipeline, used_images, used_weights, config, clusters.tolist(), words, on_step, captions=captions)
    templates = _preview_templates(captions, clusters)
    previews = preview_tokens(pipeline, tokens, preview_seeds, sampler or SamplerConfig(), templates)
    return _measured(tokens, previews, flagged, clusters, used, clip, score_embeddings, config)


def _num_clusters(flagged: Float[np.ndarray, "flagged dim"], config: InvertConfig) -> int:
    num_different = len(np.unique(flagged, axis=0))
    if config.num_concepts == "auto":
        return max(1, min(MAX_CONCEPTS, num_different // SMALLEST_CLUSTER))
    return min(config.num_concepts, num_different)


def _start_words(
    prompts: Sequence[str] | None,
    other_prompts: Sequence[str],
    clusters: Int[np.ndarray, " flagged"],
    concept: set[str],
    config: InvertConfig,
) -> list[str]:
    """The configured word for all, else the word that tells each cluster's prompts from all others, else nothing.

    A token in its pictures' prompts stands for concept words alone, so it starts from the one that its cluster says.
    """
    count = int(clusters.max()) + 1
    if config.initializer or prompts is None:
        return [config.initializer] * count
    words = []
    for cluster in range(count):
        own = [prompt for prompt, label in zip(prompts, clusters, strict=True) if label == cluster]
        rest = [prompt for prompt, label in zip(prompts, clusters, strict=True) if label != cluster]
        if concept:
            own, rest = [" ".join(word for word in words_of(prompt) if word in concept) for prompt in own], []
        words.append(telling_word(own, rest, other_prompts))
    return words


def _preview_templates(captions: Sequence[str] | None, clusters: Int[np.ndarray, " flagged"]) -> list[list[str]] | None:
    """What each token is previewed in: its pictures' captions; None = alone."""
    if captions is None:
        return None
    return [
        [captions[row] for row in np.flatnonzero(clusters == cluster) if captions[row]]
        for cluster in range(int(clusters.max()) + 1)
    ]


def _measured(
    tokens: Sequence[ConceptToken],
    previews: Sequence[Sequence[Image.Image]],
    flagged: Float[np.ndarray, "flagged dim"],
    clusters: Int[np.ndarray, " flagged"],
    used: Sequence[int],
    clip: Clip,
    score_embeddings: ScoreEmbeddings,
    config: InvertConfig,
) -> InversionResult:
    per_token = [embed_images(clip, images) for images in previews]
    scores = [score_embeddings(embeddings) for embeddings in per_token]
    num_previews = sum(map(len, per_token))
    covered = np.stack(
        [
            covered_by(flagged, embeddings, score >= REPRODUCED_FROM, num_previews)
            for embeddings, score in zip(per_token, scores, strict=True)
        ]
    )
    kept = choose_tokens(covered) if config.num_concepts == "auto" else list(range(len(tokens)))
    names = placeholder_names(config.placeholder, len(kept))
    measured = []
    for name, i in zip(names, kept, strict=True):
        card = tokens[i].card | {
            "reproduction": float((scores[i] >= REPRODUCED_FROM).mean()),
            "concept_score": float(scores[i].mean()),
            "coverage": float(covered[i].mean()),
        }
        measured.append(dataclasses.replace(tokens[i], placeholder=name, card=card))
    token_of = {cluster: position for position, cluster in enumerate(kept)}
    return InversionResult(
        tokens=measured,
        previews=[list(previews[i]) for i in kept],
        used_images=list(used),
        clusters=[token_of.get(int(cluster), -1) for cluster in clusters],
        concept_score=float(np.concatenate([scores[i] for i in kept]).mean()),
        coverage=float(covered[kept].any(axis=0).mean()),
    )
