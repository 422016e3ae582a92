"""Reward-weighted textual inversion: the embedding rows under which flagged pictures become likely.

    symbol  variable           meaning
    v*      rows               placeholder rows, the only parameters
    x       images, latents    flagged pictures, encoded once
    r(x)    weights            concept score of a picture, mapped to a positive weight
    c(v)    prompt_embeds      a template with the placeholder, through the frozen text encoder
    z_t, t  noisy, timesteps   noised latents; t in 0..999

    v* = argmin_v E_x [ r(x) || eps - eps_theta*(z_t, t, c(v)) ||^2 ]    (HFI, arXiv 2407.21032; -log p by its bound)

All clusters are trained in one batch: a step costs one UNet forward and backward whatever their number.
Sources: textual inversion arXiv 2208.01618; CrossInit arXiv 2312.15905 (start = the encoder's output vector); DTI arXiv
2512.13672 (search on the sphere, see `hfi.inversion.sphere`); DVAR arXiv 2302.04841 (stop when the loss on one fixed
batch has settled).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from hfi.config import InvertConfig
from hfi.errors import InvalidInputError, NoFlaggedImagesError, TrainingDivergedError, UnknownTokenError
from hfi.inversion.sphere import SphereSearch
from hfi.inversion.tokens import (
    ConceptToken,
    SplicedPrompts,
    encode_spliced,
    placeholder_names,
    tokenize_spliced,
    vocabulary_sha256,
)
from hfi.parallel import average_, own_part
from hfi.pipelines import (
    Pipeline,
    add_noise,
    computing_in,
    embedding_table,
    encode_images,
    encode_prompts,
    predict_noise,
    text_encoders,
)
from hfi.prompt_words import SLOT

TEMPLATES = ("a {}", "{}", "a picture of a {}", "a photo of a {}")
DVAR_EVERY_N_STEPS = 5  # one more forward of a batch each; ours, the paper evaluates every step
DVAR_WINDOW = 6  # evaluations in "the last W"; ours, scaled from the paper's 310 steps
DVAR_THRESHOLD = 0.15  # var(last W) / var(all), as in the paper
LOG_EVERY_N_STEPS = 10
FIXED_BATCH = -1  # "step" of the batch that DVAR evaluates

# Called after a step with (num_steps_done, num_train_steps, newest loss by name); there is a loss every
# LOG_EVERY_N_STEPS only, because reading it waits for the device.
OnStep = Callable[[int, int, Mapping[str, float]], None]


def reward_weights(scores: Float[Tensor, " images"], temperature: float = 0.5) -> Float[Tensor, " images"]:
    """Positive weights with mean 1 from scores of any range: sigmoid((r - median) / (sd * temperature)).

    Bradley-Terry scores are defined up to a constant and may be negative, so they cannot weigh anything as they are.
    """
    spread = scores.std(correction=0).clamp_min(1e-6)
    weights = torch.sigmoid((scores - scores.median()) / (spread * temperature))
    return weights / weights.mean()


def draw_probabilities(weights: Float[Tensor, " images"]) -> Float[Tensor, " images"]:
    """Probability of each image when images are drawn in proportion to their weight."""
    return weights / weights.sum()


def loss_factors(weights: Float[Tensor, " images"]) -> Float[Tensor, " images"]:
    """Factor on each image's loss when images are drawn evenly; the expectation is that of `draw_probabilities`."""
    return weights / weights.mean()


def has_settled(losses: Sequence[float]) -> bool:
    """DVAR: the last DVAR_WINDOW losses on one fixed batch vary little beside all of them. Source: arXiv 2302.04841."""
    if len(losses) < 2 * DVAR_WINDOW:
        return False
    values = torch.tensor(losses, dtype=torch.float64)
    return bool(values[-DVAR_WINDOW:].var() < DVAR_THRESHOLD * values.var())


def average_of_last(iterates: Sequence[Float[Tensor, "rows dim"]], share: float) -> Float[Tensor, "rows dim"]:
    """Mean of the last part of a search's steps, which loses most of what its step size makes it wander. `share` is in
    0..1; one step at least. Source: averaging of a suffix, arXiv 1109.5647."""
    count = max(1, math.ceil(share * len(iterates)))
    return torch.stack(list(iterates[-count:])).mean(dim=0)


@dataclass(frozen=True)
class _Batch:
    """One step's choices: pictures, noise, timesteps, template prompts and loss factors, for all clusters together."""

    latents: Float[Tensor, "batch channels height width"]
    noise: Float[Tensor, "batch channels height width"]
    timesteps: Int[Tensor, " batch"]
    prompt_ids: Int[Tensor, " batch"]
    factors: Float[Tensor, " batch"]


def invert(
    pipeline: Pipeline,
    images: Sequence[Image.Image],
    weights: Sequence[float],
    config: InvertConfig,
    clusters: Sequence[int] | None = None,
    initializers: Sequence[str] | None = None,
    on_step: OnStep | None = None,
    *,
    captions: Sequence[str] | None = None,
) -> list[ConceptToken]:
    """Learn one concept token for each cluster of flagged pictures. The pipeline is left as it was, bit for bit.

    Args:
        images: Flagged pictures, all of the model's size.
        weights: Positive weight of each picture, such as its concept score.
        config: Steps, batch, learning rate, weighting, start and stopping; `num_concepts` and `top_k` are the caller's.
        clusters: Cluster of each picture, 0..n-1; None = one cluster.
        initializers: A word (or several, by commas) for each cluster, empty = the mean of the vocabulary; None =
            `config.initializer` for all.
        on_step: Called after each step with (num_steps_done, num_train_steps, {"loss": mean} every few steps).
        captions: Each picture's own template, such as "a {} fox on a red background"; what it says otherwise is not
            for the token to learn. Empty where not known, and None for all: TEMPLATES.

    Raises:
        NoFlaggedImagesError: There is no picture.
        InvalidInputError: Lengths differ, a weight is not positive, a cluster is empty, a caption has no place for the
            token.
        UnknownTokenError: An initializer has no token, or the placeholder is already a word of the model.
        TrainingDivergedError: The loss is not finite.
    """
    _checked_inputs(pipeline, len(images), weights, clusters, config)  # before the costly part
    latents = encode_images(pipeline, images)
    return invert_latents(pipeline, latents, weights, config, clusters, initializers, on_step, captions=captions)


def invert_latents(
    pipeline: Pipeline,
    latents: Float[Tensor, "images channels height width"],
    weights: Sequence[float],
    config: InvertConfig,
    clusters: Sequence[int] | None = None,
    initializers: Sequence[str] | None = None,
    on_step: OnStep | None = None,
    *,
    unet: UNet2DConditionModel | None = None,
    captions: Sequence[str] | None = None,
) -> list[ConceptToken]:
    """`invert` for pictures that are encoded already, and for another UNet than the pipeline's own.

    Args:
        latents: Of the flagged pictures.
        unet: Frozen; such as an erased one, to see what still evokes the concept.
    """
    started = time.monotonic()
    cluster_ids, all_weights = _checked_inputs(pipeline, len(latents), weights, clusters, config)
    if not latents.isfinite().all():
        raise InvalidInputError("A picture has values that are not numbers: leave it out or replace it.")
    num_clusters = int(cluster_ids.max()) + 1
    words = list(initializers) if initializers is not None else [config.initializer] * num_clusters
    if len(words) != num_clusters:
        raise InvalidInputError(f"There are {len(words)} initializers for {num_clusters} clusters: give one for each.")
    names = placeholder_names(config.placeholder, num_clusters)
    start = torch.cat([initial_rows(pipeline, word, config) for word in words]).to(latents.device)
    search = _start_search(pipeline, start, config)
    own_templates = _checked_captions(captions, len(latents))
    prompts = _template_prompts(pipeline, names, config.num_vectors, own_templates, cluster_ids)

    def losses_of(step: int) -> Float[Tensor, " clusters"]:
        generator = torch.Generator().manual_seed(_step_seed(config.seed, step))
        batch = _draw_batch(latents, all_weights, cluster_ids, own_templates, config, generator)
        with computing_in(config.precision):
            return _cluster_losses(pipeline, search.rows, prompts, batch, num_clusters, unet)

    fixed_losses: list[float] = []
    losses: list[Tensor] = []
    iterates: list[Tensor] = []
    for step in range(config.num_train_steps):
        per_cluster = losses_of(step)
        # a sum over clusters: their rows do not share gradients, so each trains as if alone
        search.step_(per_cluster.sum())
        if config.averaged_share > 0:
            iterates.append(search.rows.detach().clone())
        losses.append(per_cluster.detach().clone())
        average_(losses[-1:])
        figures: dict[str, float] = {}
        if (step + 1) % LOG_EVERY_N_STEPS == 0 or step + 1 == config.num_train_steps:
            figures = {"loss": _check_finite(losses, step, config)}
        if on_step is not None:
            on_step(step + 1, config.num_train_steps, figures)
        if config.stopping == "dvar" and (step + 1) % DVAR_EVERY_N_STEPS == 0:
            with torch.no_grad():
                fixed_loss = losses_of(FIXED_BATCH).mean()
                average_([fixed_loss])
                fixed_losses.append(fixed_loss.item())
            if has_settled(fixed_losses):
                break
    rows = average_of_last(iterates, config.averaged_share) if iterates else search.rows
    if iterates and config.search == "sphere":  # a mean lies inside the sphere
        rows = torch.nn.functional.normalize(rows, dim=1) * search.rows.detach().norm(dim=1, keepdim=True)
    tokens = _make_tokens(names, words, rows, losses, cluster_ids, config, time.monotonic() - started)
    learned_on = {
        "vocabulary_sha256": vocabulary_sha256(pipeline),
        "encoder_widths": [encoder.get_input_embeddings().weight.shape[1] for encoder in text_encoders(pipeline)],
        "templates": "prompts" if any(own_templates) else "plain",
    }
    return [dataclasses.replace(token, card=token.card | learned_on) for token in tokens]


class FreeSearch:
    """AdamW on the rows as they are: textual inversion."""

    def __init__(self, start: Float[Tensor, "rows dim"], config: InvertConfig) -> None:
        self.rows = start.clone().requires_grad_()
        self._optimizer = torch.optim.AdamW([self.rows], lr=config.learning_rate, weight_decay=0.0, fused=True)

    def step_(self, loss: Float[Tensor, ""]) -> None:
        """One step down the loss; one that is not finite changes nothing, without a host sync."""
        (self.rows.grad,) = torch.autograd.grad(loss, self.rows)  # nothing else gets a gradient
        mean_loss = loss.detach().clone()
        average_([self.rows.grad, mean_loss])
        self._optimizer.found_inf = (~mean_loss.isfinite()).float()  # the fused kernel then skips its step
        self._optimizer.step()


def _start_search(
    pipeline: Pipeline, start: Float[Tensor, "rows dim"], config: InvertConfig
) -> FreeSearch | SphereSearch:
    if config.search == "free":
        return FreeSearch(start, config)
    return SphereSearch(
        start, embedding_table(pipeline).norm(dim=1).mean(), config.sphere_learning_rate, config.sphere_pull
    )


def initial_rows(pipeline: Pipeline, words: str, config: InvertConfig) -> Float[Tensor, "vectors dim"]:
    """Starting rows of a token: the words' own embeddings, or the text encoder's output for them (CrossInit).

    Several words are separated by commas: one vector starts from their mean, several vectors take them in turn. A word
    of several tokens counts as their mean. Several vectors are told apart by a hundredth of the vocabulary's spread.

    Raises:
        UnknownTokenError: A word has no token.
    """
    table = embedding_table(pipeline)
    parts = [part.strip() for part in words.split(",")] if words.strip() else []
    starts = [_word_row(pipeline, table, word, config) for word in parts] or [table.mean(dim=0).float()]
    if config.num_vectors == 1:
        return torch.stack(starts).mean(dim=0, keepdim=True)
    rows = torch.stack([starts[i % len(starts)] for i in range(config.num_vectors)])
    generator = torch.Generator().manual_seed(config.seed)
    return rows + 0.01 * table.std() * torch.randn(rows.shape, generator=generator).to(rows.device)


def _word_row(
    pipeline: Pipeline, table: Float[Tensor, "vocabulary dim"], word: str, config: InvertConfig
) -> Float[Tensor, " dim"]:
    ids = pipeline.tokenizer(word, add_special_tokens=False).input_ids
    if not ids or pipeline.tokenizer.unk_token_id in ids:
        raise UnknownTokenError(f"The initializer {word!r} is no word of this model: choose another or leave it empty.")
    if config.start == "encoder_output":
        return encode_prompts(pipeline, [word])[0, 1 : 1 + len(ids)].mean(dim=0).float()
    return table[ids].mean(dim=0).float()


# ---------------------------------------- one step


def _step_seed(seed: int, step: int) -> int:
    """A seed of its own for each step, so that a step's choices do not depend on the steps before it."""
    return (seed * 1_000_003 + step + 1) % 2**63


def _template_prompts(
    pipeline: Pipeline,
    names: Sequence[str],
    num_vectors: int,
    captions: Sequence[str],
    cluster_ids: Int[Tensor, " images"],
) -> SplicedPrompts:
    """All templates for the first token, then for the second, and so on; behind them each picture's own, if it has."""
    rows_of = {name: range(i * num_vectors, (i + 1) * num_vectors) for i, name in enumerate(names)}
    prompts = [template.format(name) for name in names for template in TEMPLATES]
    prompts += [caption.replace(SLOT, names[i]) for caption, i in zip(captions, cluster_ids.tolist(), strict=True)]
    return tokenize_spliced(pipeline, prompts, rows_of)


def _draw_batch(
    latents: Float[Tensor, "images channels height width"],
    weights: Float[Tensor, " images"],
    cluster_ids: Int[Tensor, " images"],
    captions: Sequence[str],
    config: InvertConfig,
    generator: torch.Generator,
) -> _Batch:
    """`batch_size` pictures of each cluster, in the clusters' order; this process's part of them."""
    chosen, factors, prompt_ids = [], [], []
    has_own = torch.tensor([caption != "" for caption in captions])
    first_own = (int(cluster_ids.max()) + 1) * len(TEMPLATES)
    for cluster in range(int(cluster_ids.max()) + 1):
        members = (cluster_ids == cluster).nonzero().squeeze(1)
        is_sampled = config.weighting == "sample"
        chances = draw_probabilities(weights[members] if is_sampled else torch.ones(len(members)))
        drawn = torch.multinomial(chances, config.batch_size, replacement=True, generator=generator)
        drawn_rows = members[drawn]
        chosen.append(drawn_rows)
        factors.append(torch.ones(config.batch_size) if is_sampled else loss_factors(weights[members])[drawn])
        templates = torch.randint(len(TEMPLATES), (config.batch_size,), generator=generator)
        plain = cluster * len(TEMPLATES) + templates
        prompt_ids.append(torch.where(has_own[drawn_rows], first_own + drawn_rows, plain))
    rows, device = torch.cat(chosen), latents.device
    noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator)
    timesteps = _stratified_timesteps(len(rows), generator)
    own = own_part(torch.arange(len(rows)).view(-1, config.batch_size), dim=1).flatten()
    return _Batch(
        latents[rows[own].to(device)], noise[own].to(device), timesteps[own].to(device),
        torch.cat(prompt_ids)[own].to(device), torch.cat(factors)[own].to(device),
    )  # fmt: skip


def _stratified_timesteps(
    count: int, generator: torch.Generator, num_train_timesteps: int = 1000
) -> Int[Tensor, " count"]:
    """Uniform timesteps, one from each of `count` equal parts in random order: less variance than independent draws."""
    positions = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (positions * num_train_timesteps).long().clamp_max(num_train_timesteps - 1)


def _cluster_losses(
    pipeline: Pipeline,
    rows: Float[Tensor, "rows dim"],
    prompts: SplicedPrompts,
    batch: _Batch,
    num_clusters: int,
    unet: UNet2DConditionModel | None = None,
) -> Float[Tensor, " clusters"]:
    """Mean weighted denoising error of each cluster."""
    if len(prompts.token_ids) > len(batch.prompt_ids):  # most are of no picture of this batch
        chosen = SplicedPrompts(prompts.token_ids[batch.prompt_ids.cpu()], prompts.row_ids[batch.prompt_ids.cpu()])
        prompt_embeds = encode_spliced(pipeline, chosen, rows)
    else:
        prompt_embeds = encode_spliced(pipeline, prompts, rows)[batch.prompt_ids]
    noisy = add_noise(pipeline, batch.latents, batch.noise, batch.timesteps)
    noise_pred = predict_noise(pipeline, noisy, batch.timesteps, prompt_embeds, unet=unet)
    per_image = (noise_pred - batch.noise).square().mean(dim=(1, 2, 3))
    return (per_image * batch.factors).view(num_clusters, -1).mean(dim=1)


# ---------------------------------------- checks and results


def _checked_inputs(
    pipeline: Pipeline,
    num_images: int,
    weights: Sequence[float],
    clusters: Sequence[int] | None,
    config: InvertConfig,
) -> tuple[Int[Tensor, " images"], Float[Tensor, " images"]]:
    if not num_images:
        raise NoFlaggedImagesError("No flagged picture was given: a concept token needs at least one.")
    cluster_ids = torch.tensor(list(clusters) if clusters is not None else [0] * num_images)
    all_weights = torch.tensor(list(weights), dtype=torch.float32)
    if not num_images == len(all_weights) == len(cluster_ids):
        raise InvalidInputError(
            f"There are {num_images} pictures, {len(all_weights)} weights, {len(cluster_ids)} clusters: give one each."
        )
    if not (all_weights.isfinite().all() and bool((all_weights > 0).all())):
        raise InvalidInputError("A weight is not a positive number: map scores with `reward_weights` first.")
    if cluster_ids.min() < 0 or len(cluster_ids.unique()) != int(cluster_ids.max()) + 1:
        raise InvalidInputError("A cluster has no picture: number the clusters 0, 1, 2, ... without gaps.")
    names = placeholder_names(config.placeholder, int(cluster_ids.max()) + 1)
    if any(name in pipeline.tokenizer.get_vocab() for name in names):
        raise UnknownTokenError(f"{config.placeholder} is already a word of this model: choose another placeholder.")
    return cluster_ids, all_weights


def _checked_captions(captions: Sequence[str] | None, num_images: int) -> list[str]:
    """A template for each picture, empty where the general ones are taken."""
    if captions is None:
        return [""] * num_images
    if len(captions) != num_images:
        raise InvalidInputError(f"There are {num_images} pictures and {len(captions)} captions: give one for each.")
    wrong = next((caption for caption in captions if caption and SLOT not in caption), None)
    if wrong is not None:
        raise InvalidInputError(f"The caption {wrong!r} has no {SLOT}, which says where the token stands: put it in.")
    return list(captions)


def _check_finite(losses: Sequence[Tensor], last_step: int, config: InvertConfig) -> float:
    """The one host sync of an interval: its mean loss; raise for the first step whose loss was not finite."""
    recent = torch.stack(list(losses[-LOG_EVERY_N_STEPS:])).mean(dim=1).tolist()
    for offset, value in enumerate(recent):
        if not math.isfinite(value):
            step = last_step - len(recent) + 1 + offset
            raise TrainingDivergedError("invert", step=step, seed=config.seed, loss=value)
    return math.fsum(recent) / len(recent)


def _make_tokens(
    names: Sequence[str],
    words: Sequence[str],
    rows: Float[Tensor, "rows dim"],
    losses: Sequence[Tensor],
    cluster_ids: Int[Tensor, " images"],
    config: InvertConfig,
    seconds: float,
) -> list[ConceptToken]:
    tokens = []
    for index, (name, word) in enumerate(zip(names, words, strict=True)):
        learned = rows.detach()[index * config.num_vectors : (index + 1) * config.num_vectors].cpu().clone()
        recent = [float(loss[index]) for loss in losses[-LOG_EVERY_N_STEPS:]]
        card = {
            "num_vectors": config.num_vectors,
            "num_images": int((cluster_ids == index).sum()),
            "num_steps_done": len(losses),
            "first_loss": float(losses[0][index]) if losses else None,
            "final_loss": sum(recent) / len(recent) if recent else None,
            "seconds": round(seconds, 2),
            "seed": config.seed,
        }
        tokens.append(ConceptToken(name, learned, word, card))
    return tokens
