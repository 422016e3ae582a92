"""Does a token reproduce the concept, and how much of it do several tokens cover together?

Source: coverage as in Naeem et al., "Reliable fidelity and diversity metrics", arXiv 2002.09797, with a neighbourhood
that grows when there are few previews (ours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from hfi.config import SamplerConfig
from hfi.errors import InvalidInputError
from hfi.inversion.tokens import ConceptToken, encode_prompts_with_tokens
from hfi.pipelines import Pipeline, decode_latents, encode_null_prompt, initial_latents, sample_latents
from hfi.prompt_words import SLOT

PREVIEW_TEMPLATE = f"a {SLOT}"
FEWEST_NEIGHBOURS = 5  # k of the paper
# Previews that fall into a neighbourhood when they are spread as the flagged pictures are; exp(-3) = 5 % get none.
EXPECTED_PREVIEWS = 3.0


def preview_tokens(
    pipeline: Pipeline,
    tokens: Sequence[ConceptToken],
    seeds: Sequence[int],
    config: SamplerConfig,
    templates: Sequence[Sequence[str]] | None = None,
) -> list[list[Image.Image]]:
    """Pictures of "a <token>" for each token and seed; the pipeline is left as it was.

    Args:
        templates: What each token is drawn in instead, one after the other, such as "a {} fox"; an empty list = alone.

    Returns:
        For each token a picture for each seed.
    """
    prompts = []
    for token, own in zip(tokens, templates or [[]] * len(tokens), strict=True):
        around = own or [PREVIEW_TEMPLATE]
        prompts += [around[k % len(around)].replace(SLOT, token.placeholder) for k in range(len(seeds))]
    all_seeds = [seed for _ in tokens for seed in seeds]
    images: list[Image.Image] = []
    for start in range(0, len(prompts), config.batch_size):
        part = slice(start, start + config.batch_size)
        latents = sample_latents(
            pipeline,
            encode_prompts_with_tokens(pipeline, prompts[part], tokens),
            encode_null_prompt(pipeline),
            initial_latents(pipeline, all_seeds[part]),
            config.num_inference_steps,
            config.guidance_scale,
            sampler=config.sampler,
        )
        images.extend(decode_latents(pipeline, latents))
    return [images[start : start + len(seeds)] for start in range(0, len(images), len(seeds))]


def covered_by(
    flagged: Float[np.ndarray, "flagged dim"],
    previews: Float[np.ndarray, "previews dim"],
    is_reproduction: Bool[np.ndarray, " previews"] | None = None,
    num_previews: int | None = None,
) -> Bool[np.ndarray, " flagged"]:
    """Which flagged pictures have a preview in their neighbourhood: the ball to their k-th nearest flagged picture.

    k = max(5, 3 n / m) for n flagged pictures and m previews: previews spread as the flagged pictures are cover 95 %.

    Args:
        flagged: CLIP embeddings of flagged pictures.
        previews: CLIP embeddings of previews.
        is_reproduction: Previews that show the concept; others cover nothing. None = all do.
        num_previews: m, if these previews are part of more.
    """
    if len(flagged) == 0 or len(previews) == 0:
        return np.zeros(len(flagged), dtype=bool)
    k = max(FEWEST_NEIGHBOURS, math.ceil(EXPECTED_PREVIEWS * len(flagged) / (num_previews or len(previews))))
    k = min(k, len(flagged) - 1)
    radius = np.sort(_distances(flagged, flagged), axis=1)[:, k]  # column 0 is the picture itself
    is_near = _distances(flagged, previews) <= radius[:, None] + 1e-9
    return (is_near if is_reproduction is None else is_near & is_reproduction).any(axis=1)


def coverage(
    flagged: Float[np.ndarray, "flagged dim"],
    previews: Float[np.ndarray, "previews dim"],
    is_reproduction: Bool[np.ndarray, " previews"] | None = None,
) -> float:
    """Share of the flagged pictures that some preview reproduces, in [0, 1]; see `covered_by`.

    Raises:
        InvalidInputError: There is no flagged picture.
    """
    if len(flagged) == 0:
        raise InvalidInputError("There is no flagged picture to cover: give at least one.")
    return float(covered_by(flagged, previews, is_reproduction).mean())


def _distances(x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, "n m"]:
    return np.sqrt(np.maximum(2 - 2 * x.astype(np.float64) @ y.astype(np.float64).T, 0))


def choose_tokens(covered: Bool[np.ndarray, "tokens flagged"], tolerance: float = 0.02) -> list[int]:
    """The fewest tokens whose coverage together is within `tolerance` of all: greedily the one that adds most.

    Returns:
        Indices in the order chosen; one at least.
    """
    wanted = covered.any(axis=0).mean() - tolerance
    chosen: list[int] = []
    union = np.zeros(covered.shape[1], dtype=bool)
    while not chosen or union.mean() < wanted:
        gains = (covered & ~union).sum(axis=1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        union |= covered[chosen[-1]]
    return chosen
