"""The import rule of docs/architecture.md: store, pages and command line never load torch; arrows go one way."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "accelerate")
ALGORITHMS = (
    "hfi.pipelines",
    "hfi.generate",
    "hfi.guidance",
    "hfi.score",
    "hfi.inversion",
    "hfi.erase",
    "hfi.mini.train",
)
TORCH_FREE = (
    "storage",
    "hfi.cli",
    "hfi.config",
    "hfi.errors",
    "hfi.progress",
    "hfi.evaluate.detector_judge",
    "hfi.evaluate.metrics",
    "hfi.evaluate.report",
    "hfi.jobs.evaluate",
)
PAGES = "ui.app"

# room (path prefix) -> packages and modules that nothing in it may import, not even inside a function
FORBIDDEN = {
    "storage/": ("hfi", "ui", *HEAVY),
    "hfi/": ("ui",),
    "ui/": (*HEAVY, *ALGORITHMS),
}
DOOR = "hfi/cli_ui.py"  # `hfi ui` opens the pages, and nothing else of hfi knows of them
ALGORITHMS_SEE_OF_STORAGE = ("storage.records", "storage.errors")


def imported_names(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, as a dotted name; `from a import b` gives `a` and `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def files_of(prefix: str) -> list[Path]:
    return sorted((ROOT / prefix).rglob("*.py"))


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_imports_nothing_forbidden(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(room)
        if path.relative_to(ROOT).as_posix() != DOOR
        for name in imported_names(path)
        if any(is_within(name, package) for package in FORBIDDEN[room])
    ]
    assert wrong == []


def test_algorithms_see_only_records_and_errors_of_the_store() -> None:
    outside_jobs = [p for p in files_of("hfi/") if "jobs" not in p.parts and not p.name.startswith(("cli", "errors"))]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in outside_jobs
        for name in imported_names(path)
        if is_within(name, "storage")
        and name != "storage"
        and not any(is_within(name, seen) for seen in ALGORITHMS_SEE_OF_STORAGE)
    ]
    assert wrong == []


REPORT = """
import importlib, json, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(json.dumps([module, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Module -> top-level packages of a fresh interpreter that has imported it and those before it, the pages last."""
    words = [sys.executable, "-c", REPORT, *TORCH_FREE, *([PAGES] if has_pages() else [])]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return {module: set(packages) for module, packages in map(json.loads, run.stdout.splitlines())}


def has_pages() -> bool:
    return (ROOT / "ui" / "app.py").exists()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_loads_without_torch(loaded: dict[str, set[str]], module: str) -> None:
    assert loaded[module] & {*HEAVY, "gradio", "pandas", "datasets", "ui"} == set()


@pytest.mark.skipif(not has_pages(), reason="the pages are not part of this checkout")
def test_pages_load_without_torch(loaded: dict[str, set[str]]) -> None:
    assert loaded[PAGES] & set(HEAVY) == set()
