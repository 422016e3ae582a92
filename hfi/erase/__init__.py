"""Erasers: take a concept out of a model's weights, one method in one file, and save the changed model.

from hfi.erase import Concept, erase
result = erase(pipeline, Concept(prompts, images, retain_prompts=kept), EraseConfig(method="esd"))
"""

from hfi.erase.concept import Concept, split_texts, target_pairs
from hfi.erase.estimate import Estimate, estimate
from hfi.erase.export import export_folder
from hfi.erase.methods import count_steps, erase
from hfi.erase.training import EraseResult

__all__ = [
    "Concept",
    "EraseResult",
    "Estimate",
    "count_steps",
    "erase",
    "estimate",
    "export_folder",
    "split_texts",
    "target_pairs",
]
