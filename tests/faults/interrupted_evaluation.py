"""An evaluation stopped again and again: does it end with the numbers of an undisturbed one, and what does it cost?

    python tests/faults/interrupted_evaluation.py --erased FOLDER --interruptions 10

Protocol: `hfi evaluate` measures FOLDER (a changed model) against the embedded model, once undisturbed, once in a store
of its own where it gets SIGKILL or SIGINT, in turns, at moments drawn at random from the undisturbed one's length, and
is started again, and a last time without being stopped. Both results must be equal but for times and run ids. Then the
undisturbed one is asked for a second time. Seconds are those of the whole process, start and imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from storage import Store

PER_RUN = ("erased_run", "seconds", "before_seconds", "after_seconds")  # figures that differ from run to run


def start_evaluation(store: Path, erased: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """`hfi evaluate` as a process group of its own."""
    command = [sys.executable, "-m", "hfi.cli", "evaluate", "--store", str(store), "--project", "p", "--quiet"]
    return subprocess.Popen(
        [*command, "--erased", str(erased), *options],
        start_new_session=True,
        # what was started in the background has it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def make_store(folder: Path) -> Path:
    """An empty store with a project."""
    with Store.open(folder) as store:
        store.create_project("p")
    return folder


def timed_evaluation(store: Path, erased: Path, options: list[str]) -> float:
    """Seconds of one evaluation that nobody disturbs."""
    start = time.monotonic()
    if start_evaluation(store, erased, options).wait():
        raise SystemExit("The evaluation failed; its message is above.")
    return time.monotonic() - start


def interrupt(store: Path, erased: Path, options: list[str], after_seconds: float, number: int) -> bool:
    """Start an evaluation and stop it; False if it was done before."""
    evaluation = start_evaluation(store, erased, options)
    try:
        evaluation.wait(timeout=after_seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(evaluation.pid, (signal.SIGKILL, signal.SIGINT)[number % 2])
        evaluation.wait()
        return True


def result_of(folder: Path) -> dict[str, Any]:
    """The one evaluation's figures and judged pictures, without what differs from run to run."""
    with Store.open(folder) as store:
        runs = [run for run in store.list_runs() if run.kind == "evaluate" and run.status == "done"]
        if len(runs) != 1:
            raise SystemExit(f"{folder} has {len(runs)} finished evaluations instead of one.")
        path = store.artifact_dir(runs[0].id) / "evaluation"
    content = json.loads((path if path.is_file() else next(path.glob("*.json"))).read_text())
    return _without(content)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(each) for key, each in value.items() if key not in PER_RUN and "seconds" not in key}
    return [_without(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--erased", type=Path, required=True)
    parser.add_argument("--interruptions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Where stores are kept; default: a temporary folder.")
    parser.add_argument("options", nargs="*", help="More options of `hfi evaluate`, behind --.")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    chooser = random.Random(given.seed)
    try:
        whole, pieces = make_store(folder / "whole"), make_store(folder / "pieces")
        seconds = timed_evaluation(whole, given.erased, given.options)
        seconds_again = timed_evaluation(whole, given.erased, given.options)
        print(json.dumps({"seconds": round(seconds, 1), "second_run_share": round(seconds_again / seconds, 3)}))
        moments = [chooser.uniform(0.05, 0.25) * seconds for _ in range(given.interruptions)]
        stopped = sum(interrupt(pieces, given.erased, given.options, at, n) for n, at in enumerate(moments))
        timed_evaluation(pieces, given.erased, given.options)
        is_equal = result_of(whole) == result_of(pieces)
        print(json.dumps({"interruptions": stopped, "results_are_equal": is_equal}))
        sys.exit(not is_equal)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
