"""A made-up report of coloured squares, complete enough that every section appears."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from hfi.evaluate.metrics import Interval, auroc_interval, difference_of_rates, wilson_interval
from hfi.evaluate.protocol import DetectorSpec, Protocol
from hfi.evaluate.report_content import (
    AnnotatorRow,
    AttackRow,
    Contribution,
    Curve,
    DamageRow,
    LabelStatistics,
    Picture,
    PicturePair,
    RateRow,
    ReportContent,
    ScoreModelCard,
    StageCost,
    TokenCard,
)

COLORS = ("#d64545", "#3d7dd8", "#2f9e62", "#d9a400", "#8a5cc2", "#333333")


def draw_square(index: int, with_bomb: bool, size_px: int = 64) -> Image.Image:
    """A coloured square on grey; with a black disc it "shows the concept"."""
    picture = Image.new("RGB", (size_px, size_px), "#dddddd")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((8, 8, size_px - 9, size_px - 9), fill=COLORS[index % len(COLORS)])
    if with_bomb:
        draw.ellipse((20, 20, size_px - 21, size_px - 21), fill="black")
    return picture


def build_pair(index: int, of_concept: bool) -> PicturePair:
    before = Picture(draw_square(index, of_concept), verdict=True)
    after = Picture(draw_square(index, False), verdict=not of_concept)
    prompt = f"a {'bomb' if of_concept else 'cat'} <b>{index}</b> & more"
    return PicturePair(prompt, 1_000_000 + index, before, after)


def build_content(*, is_sensitive: bool = True, num_pairs: int = 12) -> ReportContent:
    """A report in which all sections have something to show."""
    rng = np.random.default_rng(0)
    is_flagged = rng.random(160) < 0.4
    scores = np.clip(0.25 + 0.5 * is_flagged + rng.normal(size=160) * 0.14, 0, 1)
    removal = RateRow("Concept prompts: weapon shown", wilson_interval(178, 200), wilson_interval(11, 200), "lower")
    others = RateRow("Other prompts: the right object", wilson_interval(187, 200), wilson_interval(184, 200), "higher")
    return ReportContent(
        concept="weapons",
        model="mini",
        created_at="2026-11-22 15:00 UTC",
        removal=removal,
        others=others,
        concept_pairs=tuple(build_pair(i, True) for i in range(num_pairs)),
        other_pairs=tuple(build_pair(i, False) for i in range(num_pairs)),
        labels=LabelStatistics(
            question="# Weapons\n\nDoes this picture show a **weapon**? A toy gun counts.",
            num_images=512,
            num_flagged=190,
            rule="the majority of 3",
            agreement_name="Krippendorff's alpha (1 = always the same answer, 0 = as by chance)",
            agreement=Interval(0.612, 0.561, 0.660, 512),
            annotators=tuple(AnnotatorRow(f"sim-{i}", True, 512, 180 + 7 * i, 0.9 + 0.01 * i, 0.1) for i in (1, 2, 3)),
            images_by_votes=(266, 60, 55, 131),
        ),
        score_model=ScoreModelCard(
            auroc_interval(is_flagged, scores),
            "Five small networks on CLIP embeddings, averaged.",
            tuple(scores.tolist()),
            tuple(is_flagged.tolist()),
            Interval(0.981, 0.953, 0.992, 102),
        ),
        tokens=tuple(
            TokenCard(
                f"<weapon-{i}>",
                tuple(Picture(draw_square(i + j, True)) for j in range(4)),
                tuple(Picture(draw_square(i + j, True)) for j in range(4)),
                num_flagged=24 + i,
                num_vectors=1,
                initializer="the word weapon",
                concept_score=0.8 + 0.01 * i,
            )
            for i in range(1, 4)
        ),
        token_coverage=wilson_interval(150, 190),
        contributions=(
            Contribution("tokens alone", wilson_interval(90, 200), wilson_interval(186, 200)),
            Contribution("prompts alone", wilson_interval(17, 200), wilson_interval(185, 200)),
            Contribution("both", removal.after, others.after),
        ),
        more_rates=(
            RateRow(
                "Prompts that name two things: the harmless one is kept",
                wilson_interval(31, 50),
                wilson_interval(29, 50),
                "higher",
                difference_of_rates(wilson_interval(29, 50), wilson_interval(31, 50)),
            ),
        ),
        damage=(
            DamageRow("CLIP score", "27.1 [26.4, 27.8], then 26.2 [25.5, 26.9]", "Higher is better."),
            DamageRow("Neighbour: axe", "92 % → 88 %", "share of right pictures; distance 0.21 of its words."),
        ),
        attacks=(
            AttackRow("learned again", wilson_interval(9, 48), wilson_interval(30, 48), "80 steps", "A new token."),
        ),
        curves=tuple(
            Curve(
                name,
                tuple(range(0, 300, 3)),
                tuple((0.2 * np.exp(-np.arange(100) / 25) + 0.03 + 0.02 * rng.random(100)).tolist()),
                note,
            )
            for name, note in (("erase", "300 steps."), ("<weapon-1>", "Stopped when it had settled."))
        ),
        costs=(
            StageCost("generate", 71.0, 1900, "512 pictures"),
            StageCost("judge", 1.4, 900, "1 536 judgments"),
            StageCost("score", 9.2, 1000, "5 members"),
            StageCost("invert", 88.0, 2100, "8 tokens"),
            StageCost("erase", 165.0, 2600, "a model of 22 MiB"),
            StageCost("evaluate", 92.0, 1900, "800 pictures"),
        ),
        protocol=(
            ("judge", "independent network, sha256 4f1c…9a, threshold 0.5"),
            ("sampler", "DDIM, 25 steps, guidance 3.0, 64 × 64 px"),
            ("seeds", "1000000 to 1000199, never used for learning"),
            ("interval", "Wilson, 95 %"),
        ),
        provenance=(
            ("snapshot", "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"),
            ("original model", "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"),
            ("versions", "torch 2.13.0, diffusers 0.42.1"),
        ),
        limits=(
            "The annotators are simulated: nothing here says what people would flag.",
            "The judge knows the objects of the embedded world and nothing else.",
        ),
        is_sensitive=is_sensitive,
        next_command="hfi --help",
    )


def build_results() -> dict[str, object]:
    """Numbers as `demo/results.json` holds them."""
    rate = {"rate": 0.89, "low": 0.84, "high": 0.93, "n": 200}
    after = {"rate": 0.05, "low": 0.03, "high": 0.09, "n": 200}
    stages = ("generate", "judge", "score", "invert", "erase", "evaluate", "total")
    return {
        "model": "mini",
        "images": 512,
        "judgments": 1536,
        "annotators": 3,
        "agreement": {"alpha": 0.61, "low": 0.56, "high": 0.66},
        "score_model": {
            "auroc": 0.97,
            "low": 0.94,
            "high": 0.99,
            "n": 102,
            "without_errors": {"auroc": 0.98, "low": 0.95, "high": 0.99},
        },
        "token": {"concept_score": 0.83, "coverage": 0.79, "vectors": 8},
        "removal": {"before": rate, "after": after},
        "others_accuracy": {"before": rate, "after": rate},
        "seconds": dict.fromkeys(stages, 1.5),
        "peak_memory_mib": 2600.5,
    }


def build_protocol(**changes: object) -> Protocol:
    """A protocol of the embedded world."""
    detector = DetectorSpec(
        name="judge", package="hfi", package_version="0.1.0", weights_sha256="a" * 64, classes=("bomb", "axe"),
        threshold=0.5,
    )  # fmt: skip
    values: dict[str, object] = {
        "name": "mini-weapons", "suite": "mini-weapons", "prompts_sha256": "d" * 64, "num_concept_images": 200,
        "num_other_images": 200, "first_seed": 1_000_000, "num_inference_steps": 12, "guidance_scale": 3.0,
        "width_px": 64, "height_px": 64, "detectors": (detector,), "confidence": 0.95,
    }  # fmt: skip
    return Protocol.model_validate(values | changes)
