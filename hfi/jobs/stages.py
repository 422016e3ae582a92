"""The stages of the loop, for the command line and for pages; importing this module never imports torch."""

from hfi.jobs.erase import estimate_erase, run_erase
from hfi.jobs.evaluate import run_evaluate
from hfi.jobs.export_model import run_export_model
from hfi.jobs.generate import run_generate
from hfi.jobs.invert import run_invert
from hfi.jobs.judge import run_simulate
from hfi.jobs.report import run_report
from hfi.jobs.score import run_score

__all__ = [
    "estimate_erase",
    "run_erase",
    "run_evaluate",
    "run_export_model",
    "run_generate",
    "run_invert",
    "run_report",
    "run_score",
    "run_simulate",
]
