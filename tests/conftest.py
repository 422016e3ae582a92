"""What holds for every test: no network, few threads, and shapes and types of the algorithms checked at every call."""

from __future__ import annotations

import os

# Before anything imports torch, transformers or gradio: they read these once.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    GRADIO_ANALYTICS_ENABLED="False",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    TERM="dumb",
    NO_COLOR="1",
    COLUMNS="120",
    HFI_ALLOW_EPHEMERAL="1",  # the folders of tests may be in memory
)
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.pop("HFI_DEBUG", None)
os.environ.pop("HFI_STORE", None)

from typing import Any

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.scheduling import CostliestFirst, sort_items

ALGORITHM_MODULES = (
    "hfi.pipelines",
    "hfi.generate",
    "hfi.guidance",
    "hfi.score",
    "hfi.inversion",
    "hfi.erase",
    "hfi.evaluate.detectors",
    "hfi.evaluate.metrics",
    "hfi.mini",
)

# An int where a float is asked for is fine, as everywhere else in Python.
TYPE_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook(list(ALGORITHM_MODULES), TYPE_CHECKER)

# A busy machine is no reason to fail, and the same commit is judged on the same examples everywhere.
settings.register_profile("hfi", deadline=None, derandomize=True)
settings.load_profile("hfi")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    sort_items(items)


@pytest.hookimpl(optionalhook=True)  # known to pytest-xdist alone
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> CostliestFirst | None:
    """Files, in our order, instead of those with most tests first."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return CostliestFirst(config, log)
