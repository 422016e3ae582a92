"""Score model: an ensemble of small MLPs on CLIP image embeddings that says how much a picture shows the concept.

The reward r of HFI (arXiv 2407.21032). Higher = shows the concept more; in [0, 1] after calibration.

    symbol  variable              meaning
    x       embeddings            CLIP image embeddings, length 1
    y       labels                posterior p(shows the concept) of the judgments, in [0, 1]
    x+, x-  preferences           two pictures of which people said that the first shows the concept more
    r_m     raw scores            output of ensemble member m
    a, b    slope, intercept      Platt's calibration: p = sigmoid(a r + b)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from hfi.clip import Clip, embed_images, load_clip
from hfi.config import ScoreConfig
from hfi.errors import InvalidInputError, ModelFolderError, OneSidedLabelsError, TrainingDivergedError
from hfi.evaluate.metrics import Interval, auroc_interval, wilson_interval

__all__ = [
    "Clip",
    "ScoreModel",
    "ScoreReport",
    "bradley_terry_loss",
    "embed_images",
    "load_clip",
    "load_score_model",
    "measure_pairs",
    "split_by_group",
    "squared_error_loss",
    "train_score_model",
]

WEIGHTS_NAME = "score_model.safetensors"
CARD_NAME = "score_model.json"
BATCH_SIZE = 64  # images per member and step: a few hundred labels give several steps an epoch
VALIDATION_FRACTION = 0.2  # of the training prompts; each member draws its own, for early stopping and calibration
MAX_SPLIT_TRIES = 100

Weights = dict[str, Tensor]
# Called after an epoch with (epochs done, epochs at most, losses by name).
OnEpoch = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class ScoreReport:
    """What is known of a score model on prompts it never saw; auroc is None when those show only one kind of label.

    `pair_accuracy`: share of the comparisons between two such pictures that the model decides as people did, Wilson
    interval (people who compare the same pictures are counted as independent); None when there are none.
    """

    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    num_held_out: int
    num_train: int
    brier: float
    best_epochs: list[int]
    seconds: float
    held_out_rows: list[int]
    pair_accuracy: Interval | None = None


@dataclass(frozen=True)
class ScoreModel:
    """A trained ensemble with its calibration.

    Attributes:
        weights: `centre` [dim], `scale` [], `w1` [members dim hidden], `b1` [members hidden], `w2` [members hidden],
            `b2` [members].
        slope: Platt's a.
        intercept: Platt's b.
    """

    weights: Weights
    slope: float
    intercept: float

    @property
    def dim(self) -> int:
        """Length of the embeddings it reads."""
        return int(self.weights["w1"].shape[1])

    def score(
        self, embeddings: Float[np.ndarray, "images dim"]
    ) -> tuple[Float[np.ndarray, " images"], Float[np.ndarray, " images"]]:
        """Calibrated score and its uncertainty (mean and spread of the members) for each picture, in [0, 1].

        Raises:
            InvalidInputError: The embeddings are of another length or not finite.
        """
        x = _checked_embeddings(embeddings)
        if x.shape[1] != self.dim:
            raise InvalidInputError(
                f"The embeddings have {x.shape[1]} numbers, but the score model reads {self.dim}: use the CLIP it was "
                f"trained with."
            )
        with torch.no_grad():
            raw = member_scores(self.weights, x.expand(len(self.weights["b2"]), -1, -1))
        calibrated = torch.sigmoid(self.slope * raw + self.intercept)
        return calibrated.mean(0).numpy(), calibrated.std(0, correction=0).numpy()

    def save(self, folder: str | Path) -> None:
        """Write `score_model.safetensors` and `score_model.json` into an existing folder."""
        save_file({name: tensor.contiguous() for name, tensor in self.weights.items()}, Path(folder) / WEIGHTS_NAME)
        members, dim, hidden = self.weights["w1"].shape
        card = {
            "format": 1,
            "members": members,
            "dim": dim,
            "hidden": hidden,
            "slope": self.slope,
            "intercept": self.intercept,
        }
        (Path(folder) / CARD_NAME).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_score_model(folder: str | Path) -> ScoreModel:
    """Load what `ScoreModel.save` wrote.

    Raises:
        ModelFolderError: A file is missing or unreadable, a tensor is missing, of the wrong shape or not finite.
    """
    try:
        card = json.loads((Path(folder) / CARD_NAME).read_text(encoding="utf-8"))
        weights = load_file(Path(folder) / WEIGHTS_NAME)
        members, dim, hidden = card["members"], card["dim"], card["hidden"]
        slope, intercept = float(card["slope"]), float(card["intercept"])
    except Exception as error:  # safetensors, JSON and the file system share no base class
        raise ModelFolderError(f"{folder} holds no readable score model ({error}): run `hfi score` again.") from error
    shapes = {
        "centre": (dim,),
        "scale": (),
        "w1": (members, dim, hidden),
        "b1": (members, hidden),
        "w2": (members, hidden),
        "b2": (members,),
    }
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != shapes:
        raise ModelFolderError(f"{folder}: the score model has tensors {found}, not {shapes}: run `hfi score` again.")
    if not (all(tensor.isfinite().all() for tensor in weights.values()) and np.isfinite([slope, intercept]).all()):
        raise ModelFolderError(f"{folder}: the score model holds numbers that are not finite: run `hfi score` again.")
    return ScoreModel(weights, slope, intercept)


# ---------------------------------------- formulas


def squared_error_loss(predictions: Float[Tensor, "... n"], y: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
    """(r(x) - y)^2 of every picture. Source: arXiv 2407.21032, binary feedback."""
    return (predictions - y).square()


def bradley_terry_loss(chosen: Float[Tensor, "... n"], rejected: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
    """-log sigmoid(r(x+) - r(x-)) of every comparison.

    Source: arXiv 2407.21032, ranking feedback; Bradley and Terry, Biometrika 39 (1952).
    """
    return -functional.logsigmoid(chosen - rejected)


def member_scores(
    weights: Weights, x: Float[Tensor, "members images dim"], keep: Float[Tensor, "members images hidden"] | None = None
) -> Float[Tensor, "members images"]:
    """r_m(x) = w2 . dropout(relu(w1 (x - centre) / scale + b1)) + b2 for every member at once.

    Args:
        keep: Dropout multipliers of the hidden layer; None means no dropout.
    """
    hidden = torch.baddbmm(weights["b1"].unsqueeze(1), (x - weights["centre"]) / weights["scale"], weights["w1"]).relu()
    hidden = hidden if keep is None else hidden * keep
    return torch.einsum("mnh,mh->mn", hidden, weights["w2"]) + weights["b2"].unsqueeze(1)


def fit_platt(
    raw: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"], num_steps: int = 100
) -> tuple[float, float]:
    """Slope and intercept of p = sigmoid(a r + b) by Newton's method on the cross-entropy, with soft labels.

    A prior of one image on the slope and the intercept keeps perfectly separated data finite.
    Source: Platt, "Probabilistic outputs for support vector machines" (1999).
    """
    features = np.stack([raw, np.ones_like(raw)], axis=1).astype(np.float64)
    params = np.zeros(2)
    for _ in range(num_steps):
        p = 1 / (1 + np.exp(-np.clip(features @ params, -30, 30)))
        gradient = features.T @ (p - labels) + 1e-2 * params
        hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-2 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        params -= step * min(1.0, 5.0 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return float(params[0]), float(params[1])


def split_by_group(groups: Sequence[str], fraction: float, rng: np.random.Generator) -> Bool[np.ndarray, " images"]:
    """True for about `fraction` of the images, such that no group (prompt) is on both sides."""
    names = np.array(sorted(set(groups)))
    order = rng.permutation(len(names))
    wanted = min(max(1, round(fraction * len(names))), len(names) - 1)
    return np.isin(np.asarray(groups), names[order[:wanted]])


def _split_with_both_labels(
    groups: Sequence[str], labels: Float[np.ndarray, " images"], fraction: float, rng: np.random.Generator
) -> Bool[np.ndarray, " images"]:
    """A split by group whose two sides both show both labels, if a hundred tries find one; else the last try."""
    held_out = split_by_group(groups, fraction, rng)
    for _ in range(MAX_SPLIT_TRIES):
        if all(len(set(labels[side] >= 0.5)) == 2 for side in (held_out, ~held_out)):
            break
        held_out = split_by_group(groups, fraction, rng)
    return held_out


# ---------------------------------------- training


def train_score_model(
    embeddings: Float[np.ndarray, "images dim"],
    labels: Float[np.ndarray, " labels"],
    groups: Sequence[str],
    config: ScoreConfig,
    on_epoch: OnEpoch | None = None,
    *,
    preferences: Sequence[tuple[int, int]] = (),
) -> tuple[ScoreModel, ScoreReport]:
    """Train the ensemble on judged pictures and measure it on prompts kept away from it.

    All members train together in one batched product. Each has its own start, its own validation prompts (for stopping
    early) and its own order; the calibration is fitted on the validation predictions.

    Args:
        embeddings: CLIP image embeddings of the judged pictures.
        labels: Posterior that a picture shows the concept, in [0, 1].
        groups: Prompt of each picture (or its id); pictures of one prompt never stand on both sides of a split.
        config: Sizes, learning rate, patience, seed.
        on_epoch: Called after each epoch with (epochs done, epochs at most, {"loss": of validation, mean of members}).
        preferences: Rows of (chosen, rejected) pictures of pairs and rankings. With them r is learned from the
            comparisons within the training pictures, and the labels only calibrate it.

    Raises:
        InvalidInputError: Lengths differ, a label is outside [0, 1], a number is not finite, there is one prompt, or no
            two training pictures were compared.
        OneSidedLabelsError: Every label is on the same side of 0.5.
        TrainingDivergedError: The loss is not finite.

    Source: HFI, arXiv 2407.21032: r by E (r(x) - y)^2 on flags, by Bradley-Terry on rankings. Ensemble, calibration and
    sizes are ours.
    """
    started = time.monotonic()
    x = _checked_embeddings(embeddings)
    y = _checked_labels(labels, len(x), groups)
    rng = np.random.default_rng(config.seed)
    held_out = _split_with_both_labels(groups, y, config.held_out_fraction, rng)
    train = ~held_out
    train_groups = [group for group, is_train in zip(groups, train, strict=True) if is_train]
    if len(set(train_groups)) > 1:
        validation = np.stack(
            [
                _split_with_both_labels(train_groups, y[train], VALIDATION_FRACTION, rng)
                for _ in range(config.num_members)
            ]
        )
    else:  # a single prompt is left: stop and calibrate on what was trained on
        validation = np.ones((config.num_members, train.sum()), dtype=bool)
    x_train = x[torch.from_numpy(train)]
    pairs = np.array(preferences, dtype=np.int64).reshape(-1, 2)
    examples = _examples_of_labels(y[train], validation)
    if len(pairs):
        examples = _examples_of_pairs(pairs, train, validation)
    weights, best_epochs = _fit_members(x_train, examples, config, on_epoch)
    with torch.no_grad():
        raw = member_scores(weights, x_train.expand(config.num_members, -1, -1)).numpy()
    slope, intercept = fit_platt(raw[validation], np.broadcast_to(y[train], raw.shape)[validation])
    model = ScoreModel(weights, slope, intercept)
    predictions, _ = model.score(embeddings[held_out])
    is_positive = y[held_out] >= 0.5
    area = auroc_interval(is_positive, predictions) if 0 < is_positive.sum() < len(is_positive) else None
    report = ScoreReport(
        auroc=area.estimate if area else None,
        auroc_low=area.low if area else None,
        auroc_high=area.high if area else None,
        num_held_out=int(held_out.sum()),
        num_train=int(train.sum()),
        brier=float(np.mean((predictions - y[held_out]) ** 2)),
        best_epochs=best_epochs,
        seconds=time.monotonic() - started,
        held_out_rows=np.flatnonzero(held_out).tolist(),
        pair_accuracy=measure_pairs(model, embeddings, pairs[held_out[pairs].all(axis=1)]),
    )
    return model, report


def measure_pairs(
    model: ScoreModel, embeddings: Float[np.ndarray, "images dim"], pairs: Int[np.ndarray, "pairs 2"]
) -> Interval | None:
    """Share of (chosen, rejected) pictures whose first one scores higher, Wilson interval; None without pairs."""
    if len(pairs) == 0:
        return None
    scores, _ = model.score(embeddings)
    return wilson_interval(int((scores[pairs[:, 0]] > scores[pairs[:, 1]]).sum()), len(pairs))


@dataclass(frozen=True)
class _Examples:
    """What is learned from: single pictures with labels, or pairs of pictures.

    Attributes:
        rows: [examples, 1 or 2], places among the training pictures.
        is_train: [members, examples], what a member learns from.
        is_validation: [members, examples], what it is stopped by.
        labels: [examples] of single pictures; None for pairs.
    """

    rows: Int[Tensor, "examples width"]
    is_train: Bool[Tensor, "members examples"]
    is_validation: Bool[Tensor, "members examples"]
    labels: Float[Tensor, " examples"] | None

    def loss(
        self, predictions: Float[Tensor, "members n width"], chosen: Int[Tensor, "members n"] | None = None
    ) -> Float[Tensor, "members n"]:
        """Loss of the chosen examples of each member, or of all."""
        if self.labels is None:
            return bradley_terry_loss(predictions[..., 0], predictions[..., 1])
        return squared_error_loss(predictions[..., 0], self.labels if chosen is None else self.labels[chosen])


def _examples_of_labels(y: Float[np.ndarray, " images"], validation: Bool[np.ndarray, "members images"]) -> _Examples:
    is_validation = torch.from_numpy(validation)
    is_train = ~is_validation | is_validation.all(dim=1, keepdim=True)
    labels = torch.from_numpy(y.astype(np.float32))
    return _Examples(torch.arange(len(y))[:, None], is_train, is_validation, labels)


def _examples_of_pairs(
    pairs: Int[np.ndarray, "pairs 2"],
    train: Bool[np.ndarray, " images"],
    validation: Bool[np.ndarray, "members train_images"],
) -> _Examples:
    """Pairs whose two pictures stand on the same side of a member's split; one on each side would leak its pictures.

    A member without pairs on one of its sides learns from, or is stopped by, all pairs of the training pictures.
    """
    rows = (np.cumsum(train) - 1)[pairs[train[pairs].all(axis=1)]]
    if len(rows) == 0:
        raise InvalidInputError(
            f"None of the {len(pairs)} comparisons is between two pictures of the training prompts: judge more pairs."
        )
    on_validation = validation[:, rows]
    sides = [~on_validation.any(axis=2), on_validation.all(axis=2)]
    for side in sides:
        side[~side.any(axis=1)] = True
    is_train, is_validation = map(torch.from_numpy, sides)
    return _Examples(torch.from_numpy(rows), is_train, is_validation, None)


def _fit_members(
    x: Float[Tensor, "images dim"], examples: _Examples, config: ScoreConfig, on_epoch: OnEpoch | None = None
) -> tuple[Weights, list[int]]:
    """AdamW on all members at once; each member keeps its weights of its own best epoch."""
    generator = torch.Generator().manual_seed(config.seed)
    fixed, params = _initial_weights(x, config, generator)
    optimizer = torch.optim.AdamW(
        params.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    val_mask, width = examples.is_validation, examples.rows.shape[1]
    x_all = x.expand(config.num_members, -1, -1)
    best = {name: tensor.detach().clone() for name, tensor in params.items()}
    best_loss = torch.full((config.num_members,), torch.inf)
    best_epoch = torch.zeros(config.num_members, dtype=torch.long)
    for epoch in range(config.max_epochs):
        for chosen in _epoch_rows(examples.is_train, generator):
            rows = examples.rows[chosen].flatten(1)
            keep = torch.rand((*rows.shape, config.hidden_dim), generator=generator) >= config.dropout
            predictions = member_scores(fixed | params, x[rows], keep / (1 - config.dropout))
            # a sum over members: their gradients do not mix
            loss = examples.loss(predictions.unflatten(1, (-1, width)), chosen).mean(dim=1).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            errors = examples.loss(member_scores(fixed | params, x_all)[:, examples.rows])
            val_loss = (errors * val_mask).sum(dim=1) / val_mask.sum(dim=1)
            if not val_loss.isfinite().all():
                raise TrainingDivergedError("score", step=epoch, seed=config.seed, loss=float(val_loss.sum()))
            # a member whose patience has run out is finished, even while others go on
            is_better = (val_loss < best_loss) & (epoch - best_epoch < config.patience_epochs)
            best_loss = torch.where(is_better, val_loss, best_loss)
            best_epoch[is_better] = epoch
            for name, tensor in params.items():
                best[name][is_better] = tensor.detach()[is_better]
        if on_epoch is not None:
            on_epoch(epoch + 1, config.max_epochs, {"loss": float(val_loss.mean())})
        if epoch - int(best_epoch.max()) >= config.patience_epochs:
            break
    return fixed | best, best_epoch.tolist()


def _initial_weights(
    x: Float[Tensor, "images dim"], config: ScoreConfig, generator: torch.Generator
) -> tuple[Weights, Weights]:
    """What is fixed (centre and one scale for all dimensions) and what is trained, uniform in +-1/sqrt(fan in)."""
    members, dim, hidden = config.num_members, x.shape[1], config.hidden_dim
    centre = x.mean(dim=0)
    fixed = {"centre": centre, "scale": (x - centre).square().mean().sqrt().clamp_min(1e-6)}
    shapes = {"w1": (members, dim, hidden), "b1": (members, hidden), "w2": (members, hidden), "b2": (members,)}
    fan_in = {"w1": dim, "b1": dim, "w2": hidden, "b2": hidden}
    params = {
        name: ((torch.rand(shape, generator=generator) * 2 - 1) / fan_in[name] ** 0.5).requires_grad_()
        for name, shape in shapes.items()
    }
    return fixed, params


def _epoch_rows(is_train: Bool[Tensor, "members images"], generator: torch.Generator) -> list[Int[Tensor, "members b"]]:
    """Batches of one epoch: each member's own training examples in its own order, wrapped round to equal length."""
    longest = int(is_train.sum(dim=1).max())
    orders = []
    for member in is_train:
        rows = member.nonzero().squeeze(1)
        order = rows[torch.randperm(len(rows), generator=generator)]
        orders.append(order.repeat(-(-longest // len(order)))[:longest])
    return list(torch.stack(orders).split(BATCH_SIZE, dim=1))


# ---------------------------------------- checks


def _checked_embeddings(embeddings: Float[np.ndarray, "images dim"]) -> Float[Tensor, "images dim"]:
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise InvalidInputError(
            f"Embeddings have the shape {embeddings.shape}: give [images, dim] with an image or more."
        )
    if not np.isfinite(embeddings).all():
        row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
        raise InvalidInputError(f"The embedding of image {row} is not finite: leave the image out or embed it again.")
    return torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))


def _checked_labels(labels: Float[np.ndarray, " n"], num_images: int, groups: Sequence[str]) -> Float[np.ndarray, " n"]:
    if not len(labels) == len(groups) == num_images:
        raise InvalidInputError(
            f"There are {num_images} embeddings, {len(labels)} labels and {len(groups)} prompts: give one an image."
        )
    if not (np.isfinite(labels).all() and labels.min() >= 0 and labels.max() <= 1):
        raise InvalidInputError("A label is outside 0..1: give the posterior that the picture shows the concept.")
    if len(set(groups)) < 2:
        raise InvalidInputError("All judged pictures have the same prompt: judge pictures of two prompts or more.")
    if labels.min() >= 0.5 or labels.max() < 0.5:
        side = "shows" if labels.min() >= 0.5 else "does not show"
        raise OneSidedLabelsError(f"By its labels every picture {side} the concept: judge pictures of both kinds.")
    return labels.astype(np.float64)
