"""Plain frozen records that pass between the store and everything else; no SQL, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Kind = Literal["flag", "score", "pair", "ranking"]
Role = Literal["annotator", "reviewer", "researcher", "owner"]
RunStatus = Literal["running", "done", "failed", "cancelled"]
Purpose = Literal["normal", "gold", "training", "repeat", "adjudicate"]

KINDS: tuple[Kind, ...] = ("flag", "score", "pair", "ranking")
ROLES: tuple[Role, ...] = ("annotator", "reviewer", "researcher", "owner")
# Each role may what the ones before it may; from the reviewer on, a judgment without a lease decides an item.
DECIDING_ROLES: tuple[Role, ...] = ("reviewer", "researcher", "owner")

# Answers that say something about the item, by kind ...
SUBSTANTIVE_ANSWERS: dict[str, frozenset[str]] = {
    "flag": frozenset({"yes", "no"}),
    "score": frozenset({"scored"}),
    "pair": frozenset({"first", "second", "tie", "both_fine", "both_bad"}),
    "ranking": frozenset({"ranked", "none"}),
}
# ... and answers that are data too, but leave the slot open for another annotator.
OTHER_ANSWERS: frozenset[str] = frozenset({"unsure", "skip", "broken", "hide_kind"})


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """The one text form of a JSON value: sorted keys, no spaces, no NaN; equal values give equal bytes."""
    return _ENCODER.encode(value)


def sha256_text(text: str) -> str:
    """The SHA-256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def config_hash(config: Mapping[str, Any]) -> str:
    """The identity of a configuration: equal mappings give equal hashes, whatever the order of their keys."""
    return sha256_text(canonical_json(dict(config)))


def to_datetime(time_us: int) -> datetime:
    """A stored time (microseconds since 1970, UTC) as an aware datetime."""
    return datetime.fromtimestamp(time_us / 1_000_000, tz=UTC)


@dataclass(frozen=True, slots=True)
class User:
    """A person or a simulated annotator; ``name`` is a pseudonym."""

    id: int
    name: str
    role: str
    is_simulated: bool
    is_disabled: bool
    details: dict[str, Any]
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Project:
    """What is asked, of whom, how often."""

    id: int
    name: str
    kind: str
    categories: tuple[str, ...]
    guideline_id: int
    guideline_version: int
    guideline: str
    annotators_per_item: int
    annotators_max: int
    posterior_threshold: float
    gold_fraction: float
    repeat_fraction: float
    lease_seconds: float
    is_sensitive: bool
    is_demo: bool
    created_at_us: int


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A stored picture; ``sha256`` is the hash of the stored PNG file."""

    sha256: str
    width: int
    height: int
    size_bytes: int
    is_quarantined: bool
    created_at_us: int


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """Everything needed to make an image again.

    Args:
        seed: seed of the generator that drew the first latents, 0 .. 2**63 - 1.
        guidance_scale: classifier-free guidance; 1.0 = none.
        width: image width in pixels.
        height: image height in pixels.
        model_sha256: hash of the weights; tells apart two models of the same id.
        guard: the guidance that held something back while sampling ("sld", "negative"), "" = none.
        role: why the image was made ("train", "concept", "other" ...), part of what makes a request.
        versions: library versions; recorded, but not part of what makes a request.
        extra: further settings that change the picture.
    """

    prompt: str
    seed: int
    negative_prompt: str = ""
    scheduler: str = "DDIMScheduler"
    num_inference_steps: int = 25
    guidance_scale: float = 7.5
    width: int = 512
    height: int = 512
    model_id: str = ""
    model_sha256: str = ""
    guard: str = ""
    role: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def request_sha256(self) -> str:
        """The identity of the request: every setting but the library versions."""
        request = asdict(self)
        del request["versions"]
        request["guidance_scale"] = float(self.guidance_scale)
        return config_hash(request)


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One image and how it was made."""

    id: int
    project_id: int
    image_sha256: str
    request_sha256: str
    params: GenerationParams
    created_at_us: int


@dataclass(frozen=True, slots=True)
class ItemInput:
    """What is to be judged: one image (flag, score), two (pair) or 2 to 9 (ranking).

    Args:
        images: sha256 of each image, in the item's own order.
        prompt: the prompt the images share; "" = take it from the first image's generation.
        prompt_group: items of one group are never shown twice running; "" = the prompt.
        category_hint: the kind of content expected, for opt-outs; "" = unknown.
    """

    images: tuple[str, ...]
    prompt: str = ""
    prompt_group: str = ""
    category_hint: str = ""


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item as stored, with how far its judging has come."""

    id: int
    project_id: int
    kind: str
    images: tuple[str, ...]
    prompt: str
    prompt_group: str
    category_hint: str
    status: str
    is_gold: bool
    target_judgments: int
    n_judgments: int
    n_leased: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A leased slot for one annotator.

    ``shown_order[i]`` is the index in ``images`` of the picture shown at place ``i``.
    """

    id: int
    item_id: int
    project_id: int
    annotator_id: int
    purpose: str
    kind: str
    images: tuple[str, ...]
    prompt: str
    shown_order: tuple[int, ...]
    leased_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class JudgmentInput:
    """One answer as it comes from a client.

    Args:
        uuid: made by the client; sending it again with the same content is harmless.
        assignment_id: the lease it answers; None only for imports and replacing one's own answer.
        item_id: the item judged; may be left 0 when ``assignment_id`` is given.
        annotator: name of the annotator.
        answer: a word of SUBSTANTIVE_ANSWERS for the item's kind, or of OTHER_ANSWERS.
        categories: what the flagged image shows; only with answer "yes".
        score: 1 to 5, only with answer "scored".
        ranks: one rank an image in the item's own order, 1 = best, equal ranks = tie; only with "ranked".
        reason: why it was skipped.
        shown_order: index of the image at each place; () = as assigned.
        elapsed_ms: milliseconds from showing the item to the answer.
        revealed_ms: milliseconds during which a sensitive image was uncovered.
        judged_at_us: the client's clock, microseconds since 1970 UTC; 0 = the store's.
        supersedes: uuid of the annotator's own earlier judgment that this one replaces; "" = none.
    """

    uuid: str
    annotator: str
    answer: str
    assignment_id: int | None = None
    item_id: int = 0
    categories: tuple[str, ...] = ()
    score: int | None = None
    ranks: tuple[int, ...] = ()
    reason: str = ""
    note: str = ""
    shown_order: tuple[int, ...] = ()
    elapsed_ms: int = 0
    revealed_ms: int = 0
    judged_at_us: int = 0
    supersedes: str = ""


@dataclass(frozen=True, slots=True)
class JudgmentRecord:
    """One row of the append-only judgment table."""

    id: int
    uuid: str
    project_id: int
    item_id: int
    annotator_id: int
    annotator: str
    assignment_id: int | None
    guideline_id: int
    purpose: str
    kind: str
    answer: str
    categories: tuple[str, ...]
    score: int | None
    ranks: tuple[int, ...]
    reason: str
    note: str
    shown_order: tuple[int, ...]
    elapsed_ms: int
    revealed_ms: int
    judged_at_us: int
    created_at_us: int
    supersedes: str


@dataclass(frozen=True, slots=True)
class SnapshotImage:
    """One image of a snapshot with its aggregated label.

    ``p_harmful`` is the posterior that the image shows the concept; ``is_harmful`` is ``p_harmful > 0.5``. For pairs
    and rankings, whose first is the one that shows the concept most, ``preference.share_by_utility`` gives it.
    ``generation_id`` is None for images that were not made by a recorded generation.
    """

    sha256: str
    prompt: str
    seed: int | None
    p_harmful: float
    is_harmful: bool
    n_judgments: int
    categories: tuple[str, ...]
    item_id: int
    generation_id: int | None
    role: str


@dataclass(frozen=True, slots=True)
class SnapshotLabel:
    """The aggregate of one item, of any kind.

    ``p_positive``: flag: shows the concept; pair: the first image is preferred; score: mean mapped to [0, 1].
    ``utilities``: ranking and pair: one number an image, higher = better.
    """

    item_id: int
    images: tuple[str, ...]
    prompt: str
    n_judgments: int
    p_positive: float | None
    answer: str
    categories: tuple[str, ...]
    utilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frozen, hashed set of judgments with the labels that a named rule made from them."""

    hash: str
    project: str
    kind: str
    rule: str
    parent_hash: str
    guideline_versions: tuple[int, ...]
    n_judgments: int
    n_items: int
    n_annotators: int
    n_simulated: int
    agreement: dict[str, Any]
    created_at_us: int
    judgments: tuple[JudgmentRecord, ...]
    labels: tuple[SnapshotLabel, ...]
    images: tuple[SnapshotImage, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a job, and what it was made from."""

    id: str
    kind: str
    config: dict[str, Any]
    config_hash: str
    snapshot_hash: str
    inputs: dict[str, Any]
    status: str
    metrics: dict[str, Any]
    seconds: float | None
    peak_memory_mib: float | None
    started_at_us: int
    finished_at_us: int | None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file or folder that a run made; ``path`` is relative to the store's folder."""

    id: int
    run_id: str
    name: str
    kind: str
    path: str
    sha256: str
    size_bytes: int
    details: dict[str, Any]
    created_at_us: int
