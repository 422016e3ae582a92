"""Inversion: flagged pictures -> concept tokens (textual inversion weighted by what annotators said)."""

from hfi.inversion.auto import InversionResult, invert_concept
from hfi.inversion.clusters import cluster_images, telling_word
from hfi.inversion.coverage import choose_tokens, coverage, covered_by, preview_tokens
from hfi.inversion.tokens import (
    ConceptToken,
    add_tokens_,
    encode_prompts_with_tokens,
    load_concept_tokens,
    save_concept_tokens,
)
from hfi.inversion.train import invert, invert_latents, reward_weights

__all__ = [
    "ConceptToken",
    "InversionResult",
    "add_tokens_",
    "choose_tokens",
    "cluster_images",
    "coverage",
    "covered_by",
    "encode_prompts_with_tokens",
    "invert",
    "invert_concept",
    "invert_latents",
    "load_concept_tokens",
    "preview_tokens",
    "reward_weights",
    "save_concept_tokens",
    "telling_word",
]
