"""The process of one job: reads its request, runs the stage, writes how it ended. The only place of jobs with torch.

    python -m hfi.jobs.job_process STORE JOB_ID

Started by the worker in a session of its own. It dies when the worker dies, however that happens, and on SIGTERM it
unwinds, so that unfinished files are removed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, cast

from hfi.errors import HFIError
from hfi.job_requests import JobRequest, job_kind, parse_request
from hfi.jobs.file_progress import FileProgress
from hfi.jobs.job_folder import DEVICES_VARIABLE, JobFolder
from hfi.jobs.runs import StageResult, announcing_runs, is_worth_retrying
from hfi.jobs.sharing import is_first_process
from hfi.progress import NullProgress, Progress
from storage import Store

PR_SET_PDEATHSIG = 1
LOOK_FOR_PARENT_EVERY_SECONDS = 0.5

Runner = Callable[[Store, JobRequest, Progress], StageResult]


def main(arguments: list[str]) -> int:
    """Run the job; its result is in its folder."""
    parent = os.getppid()
    die_with_parent(parent)
    folder = JobFolder(Path(arguments[0]), arguments[1])
    request = parse_request(folder.read_request())
    _spread_over_devices(request, arguments)
    signal.signal(signal.SIGTERM, _unwind)
    result = run_job(folder, request)
    if is_first_process():
        folder.write_result(result)
    return 0


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; where it can't, a thread looks out for it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
        return

    def look_for_parent() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_FOR_PARENT_EVERY_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look_for_parent, name="parent", daemon=True).start()


def run_job(folder: JobFolder, request: JobRequest) -> dict[str, Any]:
    """Run the stage and say how it ended, as JSON values."""
    try:
        with Store.open(folder.store_path) as store:
            store.scratch = folder.scratch
            if is_first_process():
                with FileProgress(folder) as progress, announcing_runs(lambda run: progress.set_run(run.id)):
                    found = _runner(request)(store, request, progress)
            else:
                found = _runner(request)(store, request, NullProgress())
    except Exception as error:
        return _failure(error)
    result = {"status": "done", "run_id": found.run.id, "summary": found.summary}
    return result | {"peak_gpu_memory_mib": _peak_gpu_memory_mib()}


def _failure(error: Exception) -> dict[str, Any]:
    from hfi.cli_errors import explain_error

    if not isinstance(error, HFIError):
        traceback.print_exc()
    sentence, _ = explain_error(error)
    print(sentence, file=sys.stderr, flush=True)
    return {
        "status": "failed",
        "error": sentence,
        "error_kind": type(error).__name__,
        "is_worth_retrying": is_worth_retrying(error),
        "peak_gpu_memory_mib": _peak_gpu_memory_mib(),
    }


def _runner(request: JobRequest) -> Runner:
    module, _, name = job_kind(request.kind).runner.partition(":")
    return cast(Runner, getattr(import_module(module), name))


def _spread_over_devices(request: JobRequest, arguments: list[str]) -> None:
    """Become `accelerate launch` when the job has several devices and its stage shares its work among processes."""
    num_devices = int(os.environ.get(DEVICES_VARIABLE, "1"))
    if num_devices < 2 or "LOCAL_RANK" in os.environ or not job_kind(request.kind).is_split:
        return
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        words = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_devices)]
        words += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        words += ["--main_process_port", "0"]
    else:  # what accelerate starts too; on CPUs it would want MPI
        words = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(num_devices)]
    # The kernel keeps the wish to die with the parent across exec.
    os.execv(sys.executable, [sys.executable, "-m", *words, "-m", "hfi.jobs.job_process", *arguments])


def _peak_gpu_memory_mib() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


def _unwind(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
