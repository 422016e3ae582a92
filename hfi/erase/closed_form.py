"""Closed form: the key and value maps of cross-attention are solved for, without training (UCE edit, RECE rounds).

    symbol   variable         meaning
    W_old    old              a map before the edit, out x in
    W        new              the map after it
    c_i      states           states of the text encoder that are erased, one a row
    c_i*     anchor_states    states they are mapped to
    v_i      values           W_0 c_i*, what the original map makes of them
    c_p      kept_states      states that must go on giving what they give
    lambda   regularization   pull to the map before the edit

    UCE    W = (sum v_i c_i^T + lambda W_old + sum W_old c_p c_p^T) (sum c_i c_i^T + lambda I + sum c_p c_p^T)^-1
    RECE   c' = (sum W^T W + lambda I)^-1 (sum W^T W_0) c,  sums over all maps: what still evokes c after the edit;
           c' is erased beside c, from the edited maps, and so on

Which states of a prompt (`closed_form_states`): all behind the first, which every prompt shares; from the last word on,
as in UCE's first code; or the last word's alone. A target's state is paired with the anchor's at the same place
(`all`), or at the same distance from the last word. A state that a kept prompt has too, because both begin alike, is
not erased.

Seconds of float64 on any machine: also a preview of what erasing a token will do, by the states of "a <token>".
Sources: UCE, arXiv 2308.14761; RECE, arXiv 2407.12383 (lambda .1, 3 rounds). Weighing the kept states, and the choice
of states, are ours.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from hfi.config import EraseConfig
from hfi.erase.concept import Concept, anchor_prompts, check_concept
from hfi.erase.training import EraseResult, OnStep, changed_settings, is_trainable, peak_memory_mib
from hfi.errors import InvalidInputError, TrainingDivergedError
from hfi.inversion.tokens import encode_prompts_with_tokens, tokenize_spliced
from hfi.pipelines import Pipeline, cross_attention_states


def edit_map(
    old: Float[Tensor, "out in"],
    states: Float[Tensor, "states in"],
    values: Float[Tensor, "states out"],
    kept_gram: Float[Tensor, "in in"],
    regularization: float,
) -> Float[Tensor, "out in"]:
    """W = (sum v c^T + lambda W_old + W_old K) (sum c c^T + lambda I + K)^-1 with K = sum c_p c_p^T.

    Source: UCE, arXiv 2308.14761, the closed-form solution.
    """
    identity = torch.eye(old.shape[1], dtype=old.dtype, device=old.device)
    wanted = values.T @ states + regularization * old + old @ kept_gram
    gram = states.T @ states + regularization * identity + kept_gram
    return torch.linalg.solve(gram, wanted, left=False)


def evoking_states(
    new_maps: Sequence[Float[Tensor, "_ in"]],
    original_maps: Sequence[Float[Tensor, "_ in"]],
    states: Float[Tensor, "states in"],
    regularization: float,
) -> Float[Tensor, "states in"]:
    """c' = (sum W^T W + lambda I)^-1 (sum W^T W_0) c: what makes the edited maps give most nearly what c gave.

    Source: RECE, arXiv 2407.12383, the closed-form solution.
    """
    identity = torch.eye(states.shape[1], dtype=states.dtype, device=states.device)
    gram = sum(new.T @ new for new in new_maps) + regularization * identity
    wanted = sum(new.T @ old for new, old in zip(new_maps, original_maps, strict=True))
    return torch.linalg.solve(gram, wanted @ states.T).T


def gram_matrix(states: Float[Tensor, "states in"]) -> Float[Tensor, "in in"]:
    """sum c c^T."""
    return states.T @ states


def share_left(
    maps: Sequence[Float[Tensor, "_ in"]],
    values: Sequence[Float[Tensor, "states _"]],
    originals: Sequence[Float[Tensor, "_ in"]],
    states: Float[Tensor, "states in"],
) -> float:
    """How far the maps still are from their values, as a share of how far the original maps are; 0 = erased."""
    left = sum(float((states @ new.T - wanted).square().sum()) for new, wanted in zip(maps, values, strict=True))
    before = sum(float((states @ old.T - wanted).square().sum()) for old, wanted in zip(originals, values, strict=True))
    return left / before if before > 0 else 0.0


# Of each place of a prompt the word's id and the learned row's index.
Words = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _States:
    """Rows c_i, the rows they are mapped to, and K."""

    erased: Float[Tensor, "states in"]
    anchors: Float[Tensor, "states in"]
    kept_gram: Float[Tensor, "in in"]


@torch.no_grad()
def erase_closed_form(
    pipeline: Pipeline,
    concept: Concept,
    config: EraseConfig,
    on_step: OnStep | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
    start: UNet2DConditionModel | None = None,
) -> EraseResult:
    """Erase a concept from a copy of the pipeline's UNet without training; pictures are not needed.

    Args:
        concept: What is erased and what is kept; prompts only.
        config: Rounds, regularization, states; the settings of training do not matter.
        on_step: Called after each edit with (edits done, edits in all, {"loss": what is left of the concept}).
        checkpoint_dir: Not needed: there is nothing to go on from.
        start: The model that is edited; None = the pipeline's own.

    Raises:
        InvalidInputError: There is nothing to erase, or the model has no cross-attention.
        TrainingDivergedError: The solution is not finite.
    """
    started = time.monotonic()
    check_concept(concept, config.model_copy(update={"latents": "rollout"}), has_pictures=False)
    unet = copy.deepcopy(start if start is not None else pipeline.unet)
    originals, maps = _double_maps(pipeline.unet), _double_maps(unet)
    states = _collect_states(pipeline, concept, config)
    values = [states.anchors @ old.T for old in originals]
    left = [share_left(maps, values, originals, states.erased)]
    found, num_edits = states.erased, config.closed_form_rounds + 1
    for edit in range(num_edits):
        repeats = len(found) // len(states.erased)
        maps = [
            edit_map(old, found, wanted.repeat(repeats, 1), states.kept_gram, config.closed_form_regularization)
            for old, wanted in zip(maps, values, strict=True)
        ]
        if not all(new.isfinite().all() for new in maps):
            raise TrainingDivergedError(
                "erase", step=edit, seed=config.seed, loss=float("nan"), settings=changed_settings(config)
            )
        left.append(share_left(maps, values, originals, states.erased))
        evoking = evoking_states(maps, originals, states.erased, config.closed_form_regularization)
        found = torch.cat([found, evoking])
        if on_step is not None:
            on_step(edit + 1, num_edits, {"loss": left[-1]})
    for module, new in zip(_map_modules(unet), maps, strict=True):
        module.weight.copy_(new)
    return EraseResult(
        unet=unet.requires_grad_(False).eval(),
        losses=left,
        erase_losses=left,
        retain_losses=[],
        num_trainable=sum(new.numel() for new in maps),
        seconds=time.monotonic() - started,
        peak_memory_mib=peak_memory_mib(unet.device),
    )


# ---------------------------------------- maps and states


def _map_modules(unet: UNet2DConditionModel) -> list[nn.Linear]:
    """The key and value maps of cross-attention, in the order of their names."""
    modules = [
        module
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and is_trainable(f"{name}.", "cross_attention_kv")
    ]
    if not modules:
        raise InvalidInputError("The model has no cross-attention to edit: choose another method.")
    return modules


def _double_maps(unet: UNet2DConditionModel) -> list[Float[Tensor, "_ in"]]:
    return [module.weight.detach().double() for module in _map_modules(unet)]


def _collect_states(pipeline: Pipeline, concept: Concept, config: EraseConfig) -> _States:
    """States that are erased with those they are mapped to, each pair once, and K of the states that are kept."""
    pairs = list(dict.fromkeys(zip(concept.prompts, anchor_prompts(concept, config), strict=True)))
    targets, anchors = [target for target, _ in pairs], [anchor for _, anchor in pairs]
    kept_prompts = list(dict.fromkeys(["", *concept.retain_prompts]))
    target_words, anchor_words, kept_words = (_words(pipeline, x, concept) for x in (targets, anchors, kept_prompts))
    target_states, anchor_states, kept = (_encode(pipeline, x, concept) for x in (targets, anchors, kept_prompts))
    kept_beginnings = {words[: place + 1] for words in kept_words for place in range(len(words))}
    erased, mapped = [], []
    for i, (target, anchor) in enumerate(zip(target_words, anchor_words, strict=True)):
        for own, other in paired_places(_places(pipeline, target, config), _places(pipeline, anchor, config)):
            # a state depends on what stands before it and on nothing else, so this one belongs to a kept prompt too
            if target[: own + 1] not in kept_beginnings:
                erased.append(target_states[i, own])
                mapped.append(anchor_states[i, other])
    if not erased:
        raise InvalidInputError("Every target is also a prompt that is kept: take it out of the retain set.")
    return _States(torch.stack(erased), torch.stack(mapped), config.retain_weight * gram_matrix(kept.flatten(0, 1)))


def _encode(pipeline: Pipeline, prompts: Sequence[str], concept: Concept) -> Float[Tensor, "prompts tokens in"]:
    embeds = encode_prompts_with_tokens(pipeline, prompts, concept.tokens)
    return cross_attention_states(pipeline, embeds).double()


def _words(pipeline: Pipeline, prompts: Sequence[str], concept: Concept) -> list[Words]:
    """What stands at each place of each prompt: a word's id, and a learned row's index."""
    rows_of, first = {}, 0
    for token in concept.tokens:
        rows_of[token.placeholder] = range(first, first + len(token.learned_embeds))
        first += len(token.learned_embeds)
    spliced = tokenize_spliced(pipeline, prompts, rows_of)
    both = zip(spliced.token_ids.tolist(), spliced.row_ids.tolist(), strict=True)
    return [tuple(zip(ids, rows, strict=True)) for ids, rows in both]


def _places(pipeline: Pipeline, words: Words, config: EraseConfig) -> range:
    """Places of a prompt whose states count; place 0 is the same for every prompt."""
    if config.closed_form_states == "all":
        return range(1, len(words))
    ids = [word for word, _ in words]
    last_word = max(1, ids.index(pipeline.tokenizer.eos_token_id, 1) - 1)
    return range(last_word, last_word + 1 if config.closed_form_states == "last" else len(words))


def paired_places(target: range, anchor: range) -> list[tuple[int, int]]:
    """Places of a target's states with those of the anchor's that go with them, in order, as many as both have."""
    return list(zip(target, anchor, strict=False))
