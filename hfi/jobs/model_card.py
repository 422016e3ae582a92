"""The card of a saved model: what it was made from, what was measured, and what it is not for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.records import Snapshot

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
QUESTIONS = {
    "removal": "asked for the concept, the picture shows it",
    "others_accuracy": "asked for anything else, all of it is there",
    "in_prompt_rest": "asked for the concept and something harmless, the harmless part is there",
}
USES = {
    "folder": 'pipe = DiffusionPipeline.from_pretrained("{name}")',
    "single-file": 'pipe = {family}.from_single_file("{name}", config="{stem}.config")',
    "delta": 'pipe.unet.load_state_dict(safetensors.torch.load_file("{name}"), strict=False)  # pipe: the base model',
    "lora": 'pipe.load_lora_weights("{name}")  # pipe: the base model',
}


@dataclass(frozen=True)
class CardFacts:
    """Everything that the card says; what is not known is left empty and said to be unknown.

    Attributes:
        name: file or folder name of the saved model.
        family: class of the pipeline, such as `StableDiffusionPipeline`.
        format: how it is saved.
        dtype: precision of the weights.
        base: the original model's Hub id, folder name, or `mini`.
        base_sha256: hash over the original's files.
        method: eraser.
        settings: configuration of the erasing run.
        run_id: the run.
        snapshot: the judgments it learned from.
        unjudged: pictures that nobody judged and it learned from all the same: (erased, retained).
        evaluation: `evaluation.json` of the newest evaluation of this model: `protocol` and `figures`.
        saved: what loading it again measured, name -> text.
    """

    name: str
    family: str
    format: str
    dtype: str
    base: str = ""
    base_sha256: str = ""
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""
    snapshot: Snapshot | None = None
    unjudged: tuple[int, int] = (0, 0)
    evaluation: Mapping[str, Any] | None = None
    saved: Mapping[str, str] = field(default_factory=dict)


def make_model_card(facts: CardFacts) -> str:
    """Markdown with a header for the Hub."""
    import yaml  # type: ignore[import-untyped]

    header = yaml.safe_dump(_header(facts), allow_unicode=True, sort_keys=False)
    sections = [
        f"---\n{header}---",
        f"# {_plain(facts.name)}",
        "A text-to-image model from which a concept was taken out, as people's judgments on pictures describe it.",
        _origin(facts),
        _use(facts),
        _labels(facts.snapshot, facts.unjudged),
        _measured(facts.evaluation),
        _limits(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _header(facts: CardFacts) -> dict[str, Any]:
    known = {
        "snapshot": facts.snapshot.hash if facts.snapshot else "",
        "base_model_sha256": facts.base_sha256,
        "method": facts.method,
        "run": facts.run_id,
    }
    header: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if HUB_ID.fullmatch(facts.base):
        header["base_model"] = facts.base
        header["base_model_relation"] = "adapter" if facts.format == "lora" else "finetune"
    header["tags"] = ["text-to-image", "concept-erasure", "human-feedback"]
    return header | {"hfi": {name: text for name, text in known.items() if text}}


def _origin(facts: CardFacts) -> str:
    snapshot = facts.snapshot.hash if facts.snapshot else ""
    rows = {
        "base model": _plain(facts.base),
        "hash of the base model's files": f"`{facts.base_sha256}`" if facts.base_sha256 else "",
        "method": _plain(facts.method),
        "judgments (hash of the frozen set)": f"`{snapshot}`" if snapshot else "",
        "format": f"{facts.format}, {facts.dtype}",
        **facts.saved,
    }
    table = "\n".join(f"| {name} | {text or 'not known'} |" for name, text in rows.items())
    settings = json.dumps(dict(facts.settings), sort_keys=True)
    details = f"\n\nSettings of the run: `{settings}`" if facts.settings else ""
    return f"## Where it comes from\n\n| | |\n|---|---|\n{table}{details}"


def _use(facts: CardFacts) -> str:
    stem = facts.name.removesuffix(".safetensors")
    line = USES[facts.format].format(name=facts.name, stem=stem, family=facts.family)
    return f"## How to load it\n\n```python\n{line}\n```"


def _labels(snapshot: Snapshot | None, unjudged: tuple[int, int]) -> str:
    if snapshot is None:
        return "## The judgments\n\nNot known: the model was saved from a folder that does not say."
    flagged = sum(image.is_harmful for image in snapshot.images)
    alpha = snapshot.agreement.get("alpha")
    rows = {
        "judgments": snapshot.n_judgments,
        "items judged": snapshot.n_items,
        "annotators": f"{snapshot.n_annotators}, of whom {snapshot.n_simulated} are simulated",
        "pictures flagged": f"{flagged} of {len(snapshot.images)}",
        "rule that made labels of judgments": snapshot.rule,
        "pictures that nobody judged": (
            f"{unjudged[0]} erased and {unjudged[1]} retained by the score model and their prompts"
            if any(unjudged)
            else "none was used"
        ),
        "Krippendorff's alpha (1 = perfect, 0 = chance)": "not defined" if alpha is None else f"{alpha:.3f}",
    }
    table = "\n".join(f"| {name} | {text} |" for name, text in rows.items())
    return f"## The judgments\n\n| | |\n|---|---|\n{table}"


def _measured(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return "## What was measured\n\nNothing yet: run `hfi evaluate` before you rely on this model."
    rows = [
        f"| {QUESTIONS.get(name, name.replace('_', ' '))} | {_rate(figure['before'])} | {_rate(figure['after'])} |"
        for name, figure in evaluation.get("figures", {}).items()
        if _is_rate_of_both(figure)
    ]
    table = "\n".join(["| | before | after |", "|---|---|---|", *rows])
    protocol = json.dumps(evaluation.get("protocol", {}), sort_keys=True)
    note = "Rates with their intervals, on held-out prompts and seeds, the same for both models."
    return f"## What was measured\n\n{table}\n\n{note}\n\nProtocol: `{protocol}`"


def _is_rate_of_both(figure: Any) -> bool:
    sides = [figure.get(side) for side in ("before", "after")] if isinstance(figure, Mapping) else [None]
    return all(isinstance(side, Mapping) and side.keys() >= {"rate", "low", "high", "n"} for side in sides)


def _rate(figure: Mapping[str, Any]) -> str:
    rate, low, high = (100 * figure[key] for key in ("rate", "low", "high"))
    return f"{rate:.1f} % [{low:.1f}, {high:.1f}] (n = {figure['n']})"


def _limits(facts: CardFacts) -> str:
    lines = [
        "The weights were changed; prompts and pictures are not filtered. Prompts far from those that were flagged may "
        "still draw the concept, and what was taken out can be trained or prompted back. Measure that before you rely "
        "on it.",
        "The numbers hold for the prompts, the detector and the sampler of the protocol above, and for no other.",
    ]
    if facts.snapshot is not None and facts.snapshot.n_simulated:
        lines.append("Some or all judgments come from simulated annotators, which are computer programs, not people.")
    if facts.format == "lora":
        lines.append("A LoRA holds an approximation of the change; the share it leaves out is stated above.")
    return "## Known limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _plain(text: str) -> str:
    """A name without anything that Markdown would act on."""
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>()#+!|~" else character for character in text)
