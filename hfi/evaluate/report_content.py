"""What a report is made of: plain records that the stages fill and the page shows. Torch-free.

Pictures are Pillow images or paths; rates are `metrics.Interval`. A part that was not measured is left empty, and its
section is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from hfi.evaluate.metrics import Interval

ImageSource = Image.Image | Path
Fact = tuple[str, str]
"""A line of a list of facts: (what, value)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture with what stands under it."""

    image: ImageSource
    """The picture itself, any size; it is shown small."""
    caption: str = ""
    """What stands under it, e.g. its prompt."""
    verdict: bool | None = None
    """What the independent judge says: of a concept prompt, whether the concept is shown; of any other prompt, whether
    the picture is right. None = not judged."""


@dataclass(frozen=True, slots=True)
class PicturePair:
    """The same prompt and seed before and after."""

    prompt: str
    """The prompt of both."""
    seed: int
    """The seed of both."""
    before: Picture
    """By the original model."""
    after: Picture
    """By the changed model."""


@dataclass(frozen=True, slots=True)
class RateRow:
    """One measure on both models."""

    measure: str
    """What was counted, e.g. "pictures that show a weapon"."""
    before: Interval
    """On the original model."""
    after: Interval
    """On the changed model."""
    better: Literal["lower", "higher"]
    """Which way is good."""
    difference: Interval | None = None
    """after - before with its interval, when computed (see `metrics.difference_of_paired_rates`)."""


@dataclass(frozen=True, slots=True)
class DamageRow:
    """One measure of what happened to pictures that should have stayed."""

    measure: str
    """What was measured, e.g. "layout distance"."""
    value: str
    """The number or numbers as text, with their interval."""
    meaning: str
    """How to read it: which way is good, what its ends mean."""


@dataclass(frozen=True, slots=True)
class AttackRow:
    """One attempt to get the concept back out of the changed model."""

    attack: str
    """What was tried, e.g. "five words before the prompt"."""
    before: Interval
    """Share that shows the concept without the attack."""
    after: Interval
    """... and with it."""
    budget: str
    """What the attack was allowed to spend."""
    note: str = ""
    """What the number does not say."""


@dataclass(frozen=True, slots=True)
class TokenCard:
    """One concept token: what it draws, beside the flagged pictures it stands for."""

    placeholder: str
    """Its name, e.g. "<concept-1>"."""
    drawn: tuple[Picture, ...]
    """Pictures of the token alone, or in prompts of its pictures."""
    flagged: tuple[Picture, ...]
    """Some of the flagged pictures it was learned from."""
    num_flagged: int
    """How many flagged pictures it stands for."""
    num_vectors: int
    """Its embedding rows."""
    initializer: str
    """Word it started from; empty = the mean of all words."""
    concept_score: float | None = None
    """Mean concept score of its own pictures, 0 to 1."""
    is_in_prompts: bool = False
    """Whether it was learned in the flagged pictures' own prompts, and is drawn in them."""


@dataclass(frozen=True, slots=True)
class AnnotatorRow:
    """What one annotator did."""

    name: str
    """Pseudonym."""
    is_simulated: bool
    """Whether it is a computer program."""
    num_judgments: int
    """Answers given."""
    num_flagged: int | None
    """Answers that said yes; None where the question is not one of yes and no."""
    agreement: float | None = None
    """Share of answers equal to the label made from all annotators."""
    stated_error_rate: float | None = None
    """Share of answers a simulated annotator gets wrong on purpose."""


@dataclass(frozen=True, slots=True)
class LabelStatistics:
    """The judgments that everything else was learned from."""

    question: str
    """What the annotators were asked."""
    num_images: int
    """Pictures judged."""
    num_flagged: int
    """Pictures whose label is yes."""
    rule: str
    """How answers became one label, e.g. "majority of 3"."""
    agreement_name: str
    """Name of the agreement statistic with its range."""
    agreement: Interval | None
    """The statistic; n = what was judged together: pictures, or places in a ranking. None = not defined."""
    annotators: tuple[AnnotatorRow, ...]
    """One row each."""
    images_by_votes: tuple[int, ...] = ()
    """How many pictures were flagged by 0, 1, 2, ... annotators."""

    @property
    def num_judgments(self) -> int:
        """Answers of all annotators together."""
        return sum(row.num_judgments for row in self.annotators)

    @property
    def num_simulated(self) -> int:
        """How many of the annotators are computer programs."""
        return sum(row.is_simulated for row in self.annotators)


@dataclass(frozen=True, slots=True)
class ScoreModelCard:
    """How well the score model tells flagged pictures from the others, on pictures it has not seen."""

    auroc: Interval
    """Held-out AUROC; n = held-out pictures."""
    description: str
    """What it is, e.g. "5 MLPs on CLIP embeddings"."""
    scores: tuple[float, ...] = ()
    """Concept score of each held-out picture, 0 to 1."""
    is_flagged: tuple[bool, ...] = ()
    """Label of each held-out picture."""
    without_errors: Interval | None = None
    """AUROC against what simulated annotators saw, their errors left out; None when people judged."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one choice of erasing targets achieves on its own."""

    targets: str
    """E.g. "tokens alone"."""
    removal: Interval
    """Share of concept pictures that still show the concept."""
    others: Interval
    """Share of other pictures that are still right."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over training steps."""

    name: str
    """What was trained, e.g. "erase"."""
    steps: tuple[int, ...]
    """Optimizer steps, rising."""
    values: tuple[float, ...]
    """One value a step, e.g. the loss."""
    note: str = ""
    """One sentence, e.g. why it stopped."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage cost."""

    stage: str
    """Name of the stage."""
    seconds: float
    """Wall-clock seconds."""
    peak_memory_mib: float | None = None
    """Largest resident memory while it ran."""
    made: str = ""
    """What it left behind, e.g. "768 pictures"."""


@dataclass(frozen=True, slots=True)
class ReportContent:
    """One report. Sections stand in the order of the fields."""

    concept: str
    """What was to be removed, in the plural, e.g. "weapons" or "pictures in cartoon style"."""
    model: str
    """Name of the original model."""
    created_at: str
    """Date and time, UTC."""
    removal: RateRow
    """Concept prompts: pictures that show the concept."""
    others: RateRow
    """All other prompts: pictures that show what was asked for."""
    concept_pairs: tuple[PicturePair, ...] = ()
    """Held-out concept prompts before and after."""
    other_pairs: tuple[PicturePair, ...] = ()
    """Held-out other prompts before and after."""
    labels: LabelStatistics | None = None
    """The judgments that everything was learned from."""
    score_model: ScoreModelCard | None = None
    """The score model."""
    tokens: tuple[TokenCard, ...] = ()
    """The concept tokens."""
    token_coverage: Interval | None = None
    """Share of flagged pictures that some token stands for."""
    contributions: tuple[Contribution, ...] = ()
    """Tokens alone, prompts alone, both."""
    more_rates: tuple[RateRow, ...] = ()
    """Further measures, e.g. one row an object."""
    damage: tuple[DamageRow, ...] = ()
    """Distances to the original on pictures that should have stayed."""
    attacks: tuple[AttackRow, ...] = ()
    """Attempts to get the concept back."""
    curves: tuple[Curve, ...] = ()
    """Losses of the trainings."""
    costs: tuple[StageCost, ...] = ()
    """Seconds and memory of each stage."""
    protocol: tuple[Fact, ...] = ()
    """Judge, prompts, seeds, sampler, steps, guidance, resolution, interval."""
    provenance: tuple[Fact, ...] = ()
    """Hashes of snapshot and models, commit, versions, seeds."""
    limits: tuple[str, ...] = ()
    """What these numbers do not say, one sentence each."""
    shown: str = ""
    """What such a picture shows where it is called otherwise, e.g. "cartoon style"; "" = as `concept`."""
    is_sensitive: bool = False
    """Whether pictures of the concept stay blurred until they are pointed at."""
    next_command: str = ""
    """What to type next."""


def spread(pairs: Sequence[PicturePair], count: int) -> tuple[PicturePair, ...]:
    """`count` pairs at even distances, all of them if there are fewer: a choice that no picture's result can sway."""
    if len(pairs) <= count:
        return tuple(pairs)
    return tuple(pairs[index * len(pairs) // count] for index in range(count))
