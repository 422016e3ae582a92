"""Steering away from what was flagged, as a method beside the erasers: what is held back, from which targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hfi.config import GenerateConfig
from hfi.errors import ConfigError
from hfi.jobs.invert import load_tokens
from hfi.jobs.pictures import local_model_folder
from hfi.jobs.score import load_scored_snapshot, require_score_run
from storage import Store

if TYPE_CHECKING:
    from hfi.guidance import Guard
    from hfi.inversion import ConceptToken

KINDS = {"neg": "negative", "sld": "sld"}
PUBLISHED_STEPS = 50  # sampler steps that SLD's warm-ups are meant for (arXiv 2211.05105)


def build_steering(
    store: Store, project: str, method: str, targets: str, text: str, config: GenerateConfig, num_inference_steps: int
) -> Guard:
    """The guard of a steering method for the targets that an eraser would take.

    `tokens`: all concept tokens, one after the other. `prompts`: the concept words of the flagged prompts (those that
    `anchor = rest` takes out of them), the most frequent first, as many as the model reads; whole prompts would also
    hold back their styles and backgrounds. `both`: tokens, then words. `text`: the words as they are.

    Args:
        method: A key of KINDS.
        targets: As `EraseConfig.targets`.
        text: The concept in words (targets = text).
        config: The model, and the level of SLD.
        num_inference_steps: Sampler steps that it is for: SLD's warm-up is shortened in proportion.

    Raises:
        ConfigError: No word of the flagged prompts tells the concept, or there are no words.
        NotFoundError: There is no score model, or no token.
    """
    from hfi.guidance import SLD_LEVELS, build_guard

    tokens = load_tokens(store, project)[1] if targets in ("tokens", "both") else []
    parts = [token.placeholder for token in tokens]
    if targets == "text":
        parts = [text]
    if targets in ("prompts", "both"):
        parts += _words_that_fit(flagged_words(store, project), tokens, config.model)
    warmup = round(SLD_LEVELS[config.sld_level].warmup_steps * num_inference_steps / PUBLISHED_STEPS)
    changes = {"guard": KINDS[method], "guard_text": " ".join(parts), "sld_warmup_steps": warmup}
    guard = build_guard(GenerateConfig.model_validate(config.model_dump() | changes), tokens)
    assert guard is not None  # its kind is one of KINDS
    return guard


def flagged_words(store: Store, project: str) -> list[str]:
    """Words that decide whether a prompt's picture was flagged, the most frequent in flagged prompts first.

    Raises:
        ConfigError: There is none.
    """
    from hfi.prompt_words import concept_words, words_of

    snapshot, _, _ = load_scored_snapshot(store, require_score_run(store, project))
    prompts: dict[bool, list[str]] = {True: [], False: []}
    for image in snapshot.images:
        prompts[bool(image.is_harmful)].append(image.prompt)
    words = concept_words(prompts[True], prompts[False])
    counts = Counter(word for prompt in prompts[True] for word in set(words_of(prompt)) & words)
    if not counts:
        raise ConfigError(
            f"No word is common in the flagged prompts of project {project!r} and rare in the others, so there are no "
            f"words to hold back: take the targets tokens or text."
        )
    return sorted(counts, key=lambda word: (-counts[word], word))


def _words_that_fit(words: Sequence[str], tokens: Sequence[ConceptToken], model: str) -> list[str]:
    """The first words that the model reads beside the tokens; at least one, whose refusal then says what is wrong."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(local_model_folder(model) / "tokenizer")
    places = tokenizer.model_max_length - sum(len(token.learned_embeds) for token in tokens)
    count = len(words)
    while count > 1 and len(tokenizer(" ".join(words[:count])).input_ids) > places:
        count -= 1
    return list(words[:count])
