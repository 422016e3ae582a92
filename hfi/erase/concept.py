"""What is erased and what is kept: prompts, words, concept tokens and pictures, checked and encoded once.

A concept has several targets when several things are erased at once; each target has an anchor, which is what it is
mapped to. Prompts that must not change are the retain set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hfi.config import EraseConfig
from hfi.erase.anchors import collect_substitutes, with_substitutes, without_concept
from hfi.errors import InvalidInputError
from hfi.inversion.tokens import ConceptToken, encode_prompts_with_tokens
from hfi.pipelines import Pipeline, encode_images, encode_null_prompt, tokenizers
from hfi.prompt_words import SLOT, concept_words

TOKEN_TEMPLATE = f"a {SLOT}"  # the prompt of a token that was learned in no other


@dataclass(frozen=True)
class Concept:
    """What an eraser is told of a concept; only `prompts` must be given.

    Attributes:
        prompts: What to erase. With pictures: the prompt of each (repeat a picture to pair it with several prompts).
        images: Flagged pictures, one for each prompt; or give their `latents`. Needed for `latents="noised"`.
        latents: The pictures' latents, if they are known.
        weights: Concept score of each picture, for inverting again (`robust`); None = all the same.
        picture_prompts: What each picture was made with, where prompts are tokens or words that say less; "" = not
            known; None = `prompts`.
        captions: For each picture the template that its token was learned in, such as "a {} fox"; "" = "a {}"; None =
            "a {}" for all. Tokens that `robust` finds are learned and erased in them too.
        anchors: What each prompt is mapped to; None = as the configuration says.
        tokens: Concept tokens whose placeholders occur in prompts.
        retain_prompts: Prompts whose prediction must not change; without any, only the empty prompt is retained.
        retain_images: Pictures of the retain prompts, one for each; or their `retain_latents`. Without them the retain
            points are sampled from the original.
        retain_latents: The retained pictures' latents, if they are known.
    """

    prompts: Sequence[str]
    images: Sequence[Image.Image] | None = None
    latents: Float[Tensor, "targets channels height width"] | None = None
    weights: Sequence[float] | None = None
    picture_prompts: Sequence[str] | None = None
    captions: Sequence[str] | None = None
    anchors: Sequence[str] | None = None
    tokens: Sequence[ConceptToken] = ()
    retain_prompts: Sequence[str] = ()
    retain_images: Sequence[Image.Image] | None = None
    retain_latents: Float[Tensor, "retained channels height width"] | None = None


def as_concept(concept: Concept | ConceptToken | str) -> Concept:
    """A concept from words or from one token, with nothing else known of it."""
    if isinstance(concept, ConceptToken):
        return Concept([TOKEN_TEMPLATE.replace(SLOT, concept.placeholder)], tokens=[concept])
    return Concept([concept] if concept.strip() else []) if isinstance(concept, str) else concept


@dataclass(frozen=True)
class Side:
    """One term of a loss: its prompts, and pictures of them, or none (then its points are sampled).

    Attributes:
        embeds: Prompts that the student is trained under.
        sampling_embeds: Prompts that trajectories are sampled with; each goes with the row of `embeds` of the same
            index, or with the only one, or, if only it is one, with any.
        latents: A picture of each sampling prompt.
    """

    embeds: Float[Tensor, "prompts rows dim"]
    sampling_embeds: Float[Tensor, "sampled rows dim"]
    latents: Float[Tensor, "pictures channels height width"] | None

    def trained_ids(self, sampled_ids: Tensor, generator: torch.Generator) -> Tensor:
        """Index into `embeds` for points whose sampling prompts have the given indices."""
        if len(self.embeds) == 1:
            return torch.zeros_like(sampled_ids)
        if len(self.sampling_embeds) == 1:
            return torch.randint(len(self.embeds), sampled_ids.shape, generator=generator).to(sampled_ids.device)
        return sampled_ids


@dataclass(frozen=True)
class Terms:
    """Both sides of a loss, encoded.

    Attributes:
        target: What is erased.
        anchor_embeds: What each row of `target.embeds` is mapped to.
        retain: What is kept; its last row is the empty prompt.
        prompts: Target, anchor and retain prompts, for the record.
    """

    target: Side
    anchor_embeds: Float[Tensor, "prompts rows dim"]
    retain: Side
    prompts: tuple[Sequence[str], Sequence[str], Sequence[str]]

    def tensors(self) -> list[Tensor]:
        """Every tensor that decides the result."""
        given = [self.target.latents, self.retain.latents, self.target.embeds, self.anchor_embeds]
        return [tensor for tensor in given if tensor is not None]


def prepare_terms(pipeline: Pipeline, concept: Concept, config: EraseConfig) -> Terms:
    """Check a concept and encode its prompts and pictures.

    Raises:
        InvalidInputError: Prompts are missing, or pictures and prompts differ in number, or are no pictures.
    """
    latents = _latents_of(pipeline, concept.images, concept.latents, concept.prompts, "target")
    kept = _latents_of(pipeline, concept.retain_images, concept.retain_latents, concept.retain_prompts, "retain")
    check_concept(concept, config, has_pictures=latents is not None)
    _check_sampled_size(pipeline, concept, config, latents, kept)
    targets, anchors = list(concept.prompts), anchor_prompts(concept, config)
    embeds = encode_prompts_with_tokens(pipeline, targets, concept.tokens)
    target = Side(embeds, embeds, latents)
    if config.method == "sdd" and config.sdd_prompts != "own":
        target, anchors = _joint_side(pipeline, concept, config, target, anchors)
    retain = _retain_side(pipeline, concept, kept, latents)
    anchor_embeds = encode_prompts_with_tokens(pipeline, anchors, concept.tokens)
    return Terms(target, anchor_embeds, retain, (targets, anchors, list(concept.retain_prompts)))


def check_concept(concept: Concept, config: EraseConfig, *, has_pictures: bool) -> None:
    """Raise InvalidInputError for a concept that cannot be erased as the configuration asks."""
    if not concept.prompts:
        raise InvalidInputError(
            "Nothing to erase: give a prompt, a concept token or flagged pictures with their prompts."
        )
    if config.latents == "noised" and not has_pictures:
        raise InvalidInputError(
            "latents = 'noised' needs the flagged pictures: give them, or choose latents = 'rollout'."
        )
    for what in ("anchors", "picture_prompts", "captions"):
        given = getattr(concept, what)
        if given is not None and len(given) != len(concept.prompts):
            raise InvalidInputError(
                f"There are {len(given)} {what} for {len(concept.prompts)} targets: give one for each."
            )


def _check_sampled_size(
    pipeline: Pipeline, concept: Concept, config: EraseConfig, latents: Tensor | None, kept: Tensor | None
) -> None:
    """Retain prompts without pictures are sampled at the model's own size, beside noised pictures of theirs."""
    size = pipeline.unet.config.sample_size
    own = (size, size) if isinstance(size, int) else tuple(size)
    if config.latents != "noised" or latents is None or kept is not None or not concept.retain_prompts:
        return
    if config.retain_weight > 0 and tuple(latents.shape[-2:]) != own:
        factor = pipeline.vae_scale_factor
        raise InvalidInputError(
            f"The flagged pictures are {latents.shape[-1] * factor} × {latents.shape[-2] * factor} px, but prompts to "
            f"retain that come without pictures are sampled at the model's own {own[1] * factor} × {own[0] * factor} "
            f"px: use pictures of that size, or retain unflagged pictures instead."
        )


def anchor_prompts(concept: Concept, config: EraseConfig) -> list[str]:
    """What each target is mapped to: as given, or as the configuration says."""
    if concept.anchors is not None:
        return list(concept.anchors)
    if config.anchor == "concept":
        return [config.anchor_concept] * len(concept.prompts)
    is_joined = config.method == "sdd" and config.sdd_prompts == "sample_one"
    # without unflagged prompts no word can be told to be the concept's
    if config.anchor == "empty" or is_joined or not concept.retain_prompts:
        return [""] * len(concept.prompts)
    placeholders = [token.placeholder for token in concept.tokens]
    plain = [prompt for prompt in concept.prompts if not any(name in prompt for name in placeholders)]
    if config.anchor == "rest":
        words = concept_words(plain, concept.retain_prompts)
        # where no word is the concept's, a prompt's rest is the prompt: mapped to itself it would stay as it is
        return [
            "" if prompt in plain and not words else without_concept(prompt, words, placeholders)
            for prompt in concept.prompts
        ]
    # a trajectory that is sampled for a token alone shows what the token brings, not what was in a picture
    is_paired = config.latents == "noised" or config.method == "closed_form"
    captions = concept.captions or [""] * len(concept.prompts)
    made_with = [
        known if is_paired or caption else prompt
        for prompt, known, caption in zip(
            concept.prompts, concept.picture_prompts or concept.prompts, captions, strict=True
        )
    ]
    made_with = ["" if any(name in prompt for name in placeholders) else prompt for prompt in made_with]
    words = concept_words([prompt for prompt in made_with if prompt], concept.retain_prompts)
    if not words:
        return [""] * len(made_with)
    substitutes = collect_substitutes(concept.retain_prompts)
    return [with_substitutes(prompt, words, substitutes, turn) for turn, prompt in enumerate(made_with)]


def _joint_side(
    pipeline: Pipeline, concept: Concept, config: EraseConfig, own: Side, anchors: list[str]
) -> tuple[Side, list[str]]:
    """SDD's two readings: sample with one target and train the joint prompt, or the reverse."""
    joint = ", ".join(dict.fromkeys(concept.prompts))
    length = tokenizers(pipeline)[0].model_max_length
    counted = joint
    for token in concept.tokens:  # a placeholder takes one place for each of its rows
        counted = counted.replace(token.placeholder, " ".join(["a"] * len(token.learned_embeds)))
    num_tokens = len(tokenizers(pipeline)[0](counted).input_ids)
    if num_tokens > length:
        raise InvalidInputError(
            f"All targets joined have {num_tokens} tokens, but this model reads {length}: erase fewer at once, or "
            f"choose sdd_prompts = 'own'."
        )
    joint_embeds = encode_prompts_with_tokens(pipeline, [joint], concept.tokens)
    if config.sdd_prompts == "sample_joint":
        return dataclasses.replace(own, sampling_embeds=joint_embeds), anchors
    if len(set(anchors)) > 1:
        raise InvalidInputError("Targets that are trained as one prompt need the same anchor: give one for all.")
    return dataclasses.replace(own, embeds=joint_embeds), anchors[:1]


def _retain_side(pipeline: Pipeline, concept: Concept, kept: Tensor | None, target_latents: Tensor | None) -> Side:
    """Retained prompts and, behind the last, the empty one; without any, the empty prompt on the targets' points."""
    null_embeds = encode_null_prompt(pipeline)
    if concept.retain_prompts:
        kept_embeds = encode_prompts_with_tokens(pipeline, concept.retain_prompts, concept.tokens)
        embeds = torch.cat([kept_embeds, null_embeds])
        return Side(embeds, embeds, kept)
    if target_latents is None:
        return Side(null_embeds, null_embeds, None)
    repeated = null_embeds.expand(len(target_latents) + 1, -1, -1)
    return Side(repeated, repeated, target_latents)


def _latents_of(
    pipeline: Pipeline,
    images: Sequence[Image.Image] | None,
    latents: Tensor | None,
    prompts: Sequence[str],
    side: str,
) -> Tensor | None:
    if images is None and latents is None:
        return None
    encoded = encode_images(pipeline, images) if images else latents
    if encoded is None or len(encoded) != len(prompts):
        count = 0 if encoded is None else len(encoded)
        raise InvalidInputError(
            f"There are {count} {side} pictures and {len(prompts)} {side} prompts: give one for each."
        )
    if not encoded.isfinite().all():
        bad = int((~encoded.flatten(1).isfinite().all(dim=1)).nonzero()[0])
        raise InvalidInputError(
            f"The {side} picture {bad} has values that are not numbers: leave it out or replace it."
        )
    return encoded.to(pipeline.unet.device)


def target_pairs(
    which: str,
    prompts: Sequence[str | None],
    tokens: Sequence[ConceptToken] = (),
    clusters: Sequence[int] = (),
    texts: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> tuple[list[int], list[str]]:
    """Pairs of flagged picture (by index) and prompt to erase, for `tokens`, `prompts`, `both` or `text`.

    Args:
        which: `EraseConfig.targets`.
        prompts: Prompt of each flagged picture; None where unknown.
        tokens: Concept tokens.
        clusters: Index of the token of each picture; -1 = none.
        texts: Concepts in words; each is paired with every picture.
        captions: Template of each picture that its token was learned in; empty = "a {}".

    Raises:
        InvalidInputError: No pair comes of it.
    """
    pairs: list[tuple[int, str]] = []
    if which in ("tokens", "both"):
        templates = [caption or TOKEN_TEMPLATE for caption in captions] or [TOKEN_TEMPLATE] * len(clusters)
        pairs += [
            (i, templates[i].replace(SLOT, tokens[cluster].placeholder))
            for i, cluster in enumerate(clusters)
            if cluster >= 0
        ]
    if which in ("prompts", "both"):
        pairs += [(i, prompt) for i, prompt in enumerate(prompts) if prompt]
    if which == "text":
        pairs += [(i, text) for text in texts for i in range(len(prompts))]
    if not pairs:
        raise InvalidInputError(
            f"There are no {which} to erase: learn tokens first, or flag pictures with known prompts."
        )
    return [i for i, _ in pairs], [prompt for _, prompt in pairs]


def split_texts(text: str) -> list[str]:
    """`weapon; blood` -> ["weapon", "blood"]; empty parts are left out."""
    return [part.strip() for part in text.split(";") if part.strip()]
