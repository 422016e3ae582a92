"""What the change did to everything else: CLIP score, layout, distances between sets, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hfi.config import EvaluateConfig
from hfi.errors import ConfigError
from hfi.evaluate.metrics import bootstrap_interval, wilson_interval
from hfi.evaluate.suites import Suite
from hfi.jobs.pictures import PictureMaker
from hfi.progress import Progress
from storage import Store

if TYPE_CHECKING:
    from hfi.clip import Clip
    from hfi.jobs.evaluate import JudgedPicture

Makers = tuple[PictureMaker, PictureMaker]
Rows = Mapping[str, Sequence["JudgedPicture"]]
NEIGHBOUR_SEEDS = 8  # pictures of each neighbour where the suite has none


@dataclass(frozen=True)
class TextAndImages:
    """A CLIP with its tokenizer."""

    clip: Clip
    tokenizer: Any

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Text embeddings of length 1; each different prompt is encoded once."""
        from hfi.evaluate.damage import embed_texts

        unique = list(dict.fromkeys(prompts))
        length = min(self.tokenizer.model_max_length, self.clip.model.config.text_config.max_position_embeddings)
        ids = self.tokenizer(unique, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        rows = dict(zip(unique, embed_texts(self.clip, ids.input_ids), strict=True))
        return np.stack([rows[prompt] for prompt in prompts])


def measure_damage(
    store: Store, config: EvaluateConfig, suite: Suite, rows: Rows, makers: Makers, progress: Progress
) -> dict[str, Any]:
    """Damage on the pictures that should have stayed, each with its interval; what cannot be measured is left out.

    Args:
        config: names the CLIP, further weights and the neighbours.
        suite: whose other prompts are compared.
        rows: judged pictures before and after, in the suite's order.
        makers: the two models, for neighbours of which there are no pictures yet.
    """
    from hfi.evaluate import damage

    progress.start("evaluate: damage")
    kept = [
        (b, a)
        for b, a in zip(rows["before"], rows["after"], strict=True)
        if b.part == "others" and not b.failure + a.failure
    ]
    if len(kept) < 2:
        progress.finish("too few pictures")
        return {}
    prompts = [b.prompt for b, _ in kept]
    images = tuple([store.load_image(pair[side].image) for pair in kept] for side in (0, 1))
    figures: dict[str, Any] = {
        "layout_distance": _mean(damage.layout_distances(*images), config.confidence),
        "identical_pictures": sum(b.image == a.image for b, a in kept),
    }
    reader = load_text_and_images(config, makers[0].folder)
    if reader is not None:
        figures |= _clip_figures(reader, prompts, images, config.confidence)
        if config.neighbours:
            figures["neighbours"] = _neighbours(store, config, suite, rows, makers, reader, progress)
    if config.lpips_weights:
        values = damage.lpips_distances(*images, _weights(config.lpips_weights))
        figures["lpips"] = _mean(values, config.confidence)
    if config.inception_weights:
        figures["fid"] = {
            "value": damage.inception_distance(*images, _weights(config.inception_weights)),
            "n": len(kept),
        }
    progress.finish()
    return figures


def load_text_and_images(config: Any, model_folder: Path) -> TextAndImages | None:
    """The CLIP that is named, else the model's own; None when there is none with a text side.

    Raises:
        ConfigError: neighbours were asked for, and no CLIP is there to order them.
    """
    from transformers import CLIPTokenizer

    from hfi.clip import clip_folder, load_clip

    folder = clip_folder(config.clip or str(model_folder))
    if not config.clip and folder == model_folder:
        if getattr(config, "neighbours", ""):
            raise ConfigError("Neighbours are ordered by a CLIP, but the model has none of its own: give --clip.")
        return None
    clip = load_clip(folder, config.device)
    if not hasattr(clip.model, "text_model"):
        return None
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    return TextAndImages(clip, CLIPTokenizer.from_pretrained(folder if has_tokenizer else model_folder / "tokenizer"))


def _clip_figures(
    reader: TextAndImages, prompts: Sequence[str], images: Sequence[Sequence[Any]], confidence: float
) -> dict[str, Any]:
    from hfi.clip import embed_images
    from hfi.evaluate import damage

    texts = reader.embed_prompts(prompts)
    embeddings = [embed_images(reader.clip, side) for side in images]
    scores = [damage.clip_scores(side, texts) for side in embeddings]
    mean, sd = damage.kernel_distance_over_subsets(*embeddings)
    return {
        "clip_score": {
            "before": _mean(scores[0], confidence),
            "after": _mean(scores[1], confidence),
            "difference": _mean(scores[1] - scores[0], confidence),
        },
        "kernel_distance": {"value": damage.kernel_distance(*embeddings), "mean": mean, "sd": sd, "n": len(prompts)},
    }


def _neighbours(
    store: Store,
    config: EvaluateConfig,
    suite: Suite,
    rows: Rows,
    makers: Makers,
    reader: TextAndImages,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Each named concept from near to far: how far it is, and whether it is still drawn."""
    from hfi.evaluate.damage import near_to_far

    names = [name.strip() for name in config.neighbours.split(",") if name.strip()]
    concepts = list(dict.fromkeys(prompt.prompt for prompt in suite.concept))
    prompts = [_prompt_for(name, suite) for name in names]
    order, distances = near_to_far(reader.embed_prompts(concepts), reader.embed_prompts(prompts))
    found = []
    for place in order:
        figures = _drawn_rates(suite, rows, names[place], config.confidence)
        if figures is None:
            figures = _drawn_scores(store, config, prompts[place], makers, reader, progress)
        found.append({"name": names[place], "distance": float(distances[place]), **figures})
    return found


def _prompt_for(name: str, suite: Suite) -> str:
    """What to ask a model for a neighbour: `a key`; where a style is erased, `a picture in flat style`."""
    from hfi.mini.concepts import STYLE_PREFIX, style_of, words_of_concept
    from hfi.mini.vocabulary import STYLE_WORDS

    is_style = bool(style_of(suite.group)) and any(name in words for words in STYLE_WORDS.values())
    return words_of_concept(f"{STYLE_PREFIX}{name}").one if is_style else f"a {name}"


def _drawn_rates(suite: Suite, rows: Rows, name: str, confidence: float) -> dict[str, Any] | None:
    """Rates of right pictures among the suite's prompts that ask for this object or style; None where it has none."""
    from hfi.mini.vocabulary import words_for

    def is_asked(objects: Sequence[str]) -> bool:
        return any(name == known or name in words_for(known) for known in objects)

    places = [
        len(suite.concept) + i for i, prompt in enumerate(suite.others) if prompt.objects and is_asked(prompt.objects)
    ]
    answers = [[rows[side][place].is_right for place in places] for side in ("before", "after")]
    pairs = [pair for pair in zip(*answers, strict=True) if None not in pair]
    if not pairs:
        return None
    rates = [wilson_interval(sum(bool(p[side]) for p in pairs), len(pairs), confidence) for side in (0, 1)]
    named = zip(("before", "after"), rates, strict=True)
    return {
        "measure": "right",
        **{key: {"value": i.estimate, "low": i.low, "high": i.high, "n": i.n} for key, i in named},
    }


def _drawn_scores(
    store: Store, config: EvaluateConfig, prompt: str, makers: Makers, reader: TextAndImages, progress: Progress
) -> dict[str, Any]:
    """CLIP scores of a few pictures of this prompt by both models."""
    from hfi.clip import embed_images
    from hfi.evaluate.damage import clip_scores
    from hfi.generate import GenerationRequest

    requests = [GenerationRequest(prompt, config.first_seed + i) for i in range(NEIGHBOUR_SEEDS)]
    text = reader.embed_prompts([prompt] * NEIGHBOUR_SEEDS)
    figures: dict[str, Any] = {"measure": "clip_score"}
    for key, maker in zip(("before", "after"), makers, strict=True):
        records = maker.make(requests, config, "evaluation", progress, f"evaluate: {prompt}")
        pictures = [store.load_image(record.image_sha256) for record in records]
        figures[key] = _mean(clip_scores(embed_images(reader.clip, pictures), text), config.confidence)
    return figures


def _mean(values: np.ndarray, confidence: float) -> dict[str, Any]:
    interval = bootstrap_interval(values, confidence=confidence)
    return {"value": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}


def _weights(path: str) -> Path:
    if not Path(path).is_file():
        raise ConfigError(f"There is no file of weights {path}: check the path, or leave the measure out.")
    return Path(path)
