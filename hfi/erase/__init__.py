"""Erasers: take a concept out of a model's weights, one method in one file, and save the changed model."""

from hfi.erase.export import export_folder
from hfi.erase.sdd import erase_sdd, target_pairs
from hfi.erase.training import EraseResult

__all__ = ["EraseResult", "erase_sdd", "export_folder", "target_pairs"]
