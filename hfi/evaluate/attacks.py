"""Attempts to get an erased concept back out of a model's weights.

    symbol  variable           meaning
    x       images             pictures of the concept, by the original model
    p       prefix             tokens before the prompt, free to choose
    z_t, t  noisy, timesteps   noised latents of x
    c(p)    prompt_embeds      prefix and prompt through the frozen text encoder

    prefix search:  p = argmin_p E_{t, eps} || eps - eps_erased(z_t, t, c(p)) ||^2, p among the vocabulary's tokens
    latents:        z_T = DDIM inversion of x with the erased model and no words; then sampling from z_T with no words

Sources: UnlearnDiffAtk, arXiv 2310.11868 (5 tokens, 40 iterations, step .01, projection to the vocabulary); TINA,
arXiv 2403.16403, of which only the plain inversion is taken. Ours: the gradient is taken at the projected tokens
(straight through), all prompts are searched in one batch, and random prefixes are tried as often, as a control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMInverseScheduler
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from hfi.errors import InvalidInputError
from hfi.inversion.tokens import SplicedPrompts, encode_spliced, tokenize_spliced
from hfi.pipelines import (
    Pipeline,
    add_noise,
    embedding_table,
    encode_images,
    encode_null_prompt,
    predict_noise,
    sample_latents,
)

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class PrefixSearch:
    """What a search may spend."""

    num_tokens: int = 5
    num_iterations: int = 40
    learning_rate: float = 0.01
    num_tries: int = 4
    seed: int = 0

    def try_steps(self) -> list[int]:
        """Iterations after which the prefixes are kept as a try; the last one always is."""
        return sorted({round(self.num_iterations * (i + 1) / self.num_tries) for i in range(self.num_tries)} - {0})


def search_prefixes(
    pipeline: Pipeline,
    prompts: Sequence[str],
    images: Sequence[Image.Image],
    search: PrefixSearch,
    on_step: OnStep | None = None,
) -> list[Int[Tensor, "prompts tokens"]]:
    """Tokens before each prompt under which the erased model denoises its target picture best; no weight changes.

    Args:
        prompts: what is asked; the prefix goes before it.
        images: a picture of the concept for each prompt, of the model's size.
        search: tokens, iterations, step size, tries, seed.
        on_step: called after each iteration with (iterations done, iterations).

    Returns:
        For each try the token ids of each prompt's prefix, all from the vocabulary.

    Raises:
        InvalidInputError: there is no prompt, or not one picture for each.
    """
    if not prompts or len(prompts) != len(images):
        raise InvalidInputError(
            f"A search needs a picture for each prompt: {len(prompts)} and {len(images)} are given."
        )
    generator = torch.Generator().manual_seed(search.seed)
    latents, words = encode_images(pipeline, images), _word_ids(pipeline)
    table = embedding_table(pipeline).float()
    spliced = _with_prefix_slots(pipeline, prompts, search.num_tokens)
    start = words[torch.randint(len(words), (len(prompts) * search.num_tokens,), generator=generator)]
    rows = table[start.to(table.device)].clone().requires_grad_()
    optimizer = torch.optim.AdamW([rows], lr=search.learning_rate, weight_decay=0.1)
    tries = []
    for iteration in range(1, search.num_iterations + 1):
        ids = _nearest_words(rows.detach(), table, words)
        # forward with real words, backward as if they were the free rows
        straight = rows + (table[ids] - rows).detach()
        loss = _denoising_error(pipeline, latents, encode_spliced(pipeline, spliced, straight), generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if iteration in search.try_steps():
            tries.append(_nearest_words(rows.detach(), table, words).view(len(prompts), -1).cpu())
        if on_step is not None:
            on_step(iteration, search.num_iterations)
    return tries


def random_prefixes(pipeline: Pipeline, num_prompts: int, search: PrefixSearch) -> list[Int[Tensor, "prompts tokens"]]:
    """As many tries with tokens drawn at random: what luck alone achieves."""
    words = _word_ids(pipeline)
    generator = torch.Generator().manual_seed(search.seed + 1)
    shape = (num_prompts, search.num_tokens)
    return [words[torch.randint(len(words), shape, generator=generator)] for _ in search.try_steps()]


@torch.no_grad()
def encode_with_prefixes(
    pipeline: Pipeline, prompts: Sequence[str], prefix_ids: Int[Tensor, "prompts tokens"]
) -> Float[Tensor, "prompts rows dim"]:
    """Prompt embeddings of "<prefix> <prompt>", each prompt with its own prefix, token by token."""
    table = embedding_table(pipeline).float()
    rows = table[prefix_ids.flatten().to(table.device)]
    return encode_spliced(pipeline, _with_prefix_slots(pipeline, prompts, prefix_ids.shape[1]), rows)


def prefix_texts(pipeline: Pipeline, prefix_ids: Int[Tensor, "prompts tokens"]) -> list[str]:
    """The prefixes as words, for people."""
    return [pipeline.tokenizer.decode(row.tolist()).strip() for row in prefix_ids]


@torch.no_grad()
def find_start_noise(
    pipeline: Pipeline, images: Sequence[Image.Image], num_inference_steps: int
) -> Float[Tensor, "images channels height width"]:
    """The starting noise from which the model, told nothing, would draw these pictures (DDIM run backwards)."""
    scheduler = DDIMInverseScheduler.from_config(pipeline.scheduler.config, prediction_type="epsilon")
    latents = encode_images(pipeline, images)
    scheduler.set_timesteps(num_inference_steps, device=latents.device)
    null_embeds = encode_null_prompt(pipeline).expand(len(images), -1, -1)
    for timestep in scheduler.timesteps:
        noise_pred = predict_noise(pipeline, latents, timestep.expand(len(images)), null_embeds)
        latents = scheduler.step(noise_pred, timestep, latents, return_dict=False)[0]
    return latents


def redraw(
    pipeline: Pipeline, latents: Float[Tensor, "images channels height width"], num_inference_steps: int
) -> Float[Tensor, "images channels height width"]:
    """Sample from starting noise without a word and without guidance."""
    null_embeds = encode_null_prompt(pipeline)
    embeds = null_embeds.expand(len(latents), -1, -1)
    return sample_latents(pipeline, embeds, null_embeds, latents, num_inference_steps, 1.0)


# ---------------------------------------- parts of the search


def _with_prefix_slots(pipeline: Pipeline, prompts: Sequence[str], num_tokens: int) -> SplicedPrompts:
    """Each prompt behind slots of its own, in which rows take the place of words."""
    rows_of = {f"<prefix-{i}>": range(i * num_tokens, (i + 1) * num_tokens) for i in range(len(prompts))}
    texts = [f"{slot} {prompt}" for slot, prompt in zip(rows_of, prompts, strict=True)]
    return tokenize_spliced(pipeline, texts, rows_of)


def _word_ids(pipeline: Pipeline) -> Int[Tensor, " words"]:
    """Ids of the vocabulary without its special tokens."""
    special = set(pipeline.tokenizer.all_special_ids)
    return torch.tensor([i for i in range(pipeline.tokenizer.vocab_size) if i not in special])


def _nearest_words(
    rows: Float[Tensor, "rows dim"], table: Float[Tensor, "vocabulary dim"], words: Int[Tensor, " words"]
) -> Int[Tensor, " rows"]:
    """The word of the smallest angle to each row."""
    words = words.to(table.device)
    directions = torch.nn.functional.normalize(table[words], dim=1)
    return words[(torch.nn.functional.normalize(rows, dim=1) @ directions.T).argmax(dim=1)]


def _denoising_error(
    pipeline: Pipeline,
    latents: Float[Tensor, "prompts channels height width"],
    prompt_embeds: Float[Tensor, "prompts rows dim"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Error of one noise and one timestep a prompt, summed: prompts do not share gradients, so each trains alone."""
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    timesteps = torch.randint(1000, (len(latents),), generator=generator).to(latents.device)
    noise_pred = predict_noise(pipeline, add_noise(pipeline, latents, noise, timesteps), timesteps, prompt_embeds)
    return (noise_pred - noise).square().mean(dim=(1, 2, 3)).sum()
