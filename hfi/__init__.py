"""HFI: turn people's judgments on generated pictures into a changed text-to-image model.

Without a store, from a notebook:

    import hfi

    pipeline = hfi.load_pipeline("mini")
    (token,) = hfi.invert(pipeline, images, weights, hfi.InvertConfig(), on_step=print)
    result = hfi.erase_concept(pipeline, token, hfi.EraseConfig(method="closed_form"))
    hfi.picture_grid(hfi.draw(hfi.with_parts(pipeline, unet=result.unet), ["a cat", "a dog"]))

With a store: `hfi.Store` and the functions of `hfi.jobs.stages`, one for each command.

Names are loaded when they are first used: importing this package never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import storage
    from hfi.config import (
        EraseConfig,
        EvaluateConfig,
        GenerateConfig,
        InvertConfig,
        SamplerConfig,
        ScoreConfig,
        SimulateConfig,
    )
    from hfi.erase import Concept, EraseResult, export_folder, target_pairs
    from hfi.erase import erase as erase_concept
    from hfi.erase import estimate as estimate_erase
    from hfi.generate import draw
    from hfi.grid import picture_grid
    from hfi.inversion import (
        ConceptToken,
        add_tokens_,
        invert,
        load_concept_tokens,
        preview_tokens,
        save_concept_tokens,
    )
    from hfi.pipelines import load_pipeline, with_parts

    Store = storage.Store

__version__ = "0.1.0"

__all__ = [
    "Concept",
    "ConceptToken",
    "EraseConfig",
    "EraseResult",
    "EvaluateConfig",
    "GenerateConfig",
    "InvertConfig",
    "SamplerConfig",
    "ScoreConfig",
    "SimulateConfig",
    "Store",
    "add_tokens_",
    "draw",
    "erase_concept",
    "estimate_erase",
    "export_folder",
    "invert",
    "load_concept_tokens",
    "load_pipeline",
    "picture_grid",
    "preview_tokens",
    "save_concept_tokens",
    "target_pairs",
    "with_parts",
]

# name here -> module and name there; `hfi.erase` is the room of the erasers, so its function has a longer name here
_HOMES: dict[str, tuple[str, str]] = {
    **{name: ("hfi.config", name) for name in __all__ if name.endswith("Config")},
    **{name: ("hfi.erase", name) for name in ("Concept", "EraseResult", "export_folder", "target_pairs")},
    "erase_concept": ("hfi.erase", "erase"),
    "estimate_erase": ("hfi.erase", "estimate"),
    **{
        name: ("hfi.inversion", name)
        for name in (
            "ConceptToken",
            "add_tokens_",
            "invert",
            "load_concept_tokens",
            "preview_tokens",
            "save_concept_tokens",
        )
    },
    **{name: ("hfi.pipelines", name) for name in ("load_pipeline", "with_parts")},
    "draw": ("hfi.generate", "draw"),
    "picture_grid": ("hfi.grid", "picture_grid"),
    "Store": ("storage", "Store"),
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first used. Source: PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
