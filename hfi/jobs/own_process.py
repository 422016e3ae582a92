"""An erasure in a process of its own, so that its peak memory is its own and not that of what ran before it."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from hfi.config import EraseConfig
from hfi.errors import HFIError
from hfi.jobs.job_process import die_with_parent
from hfi.progress import build_progress
from storage import Store
from storage.records import Run


def erase_in_own_process(store: Store, config: EraseConfig, project: str, *, quiet: bool = False) -> Run:
    """As `run_erase`; a run that is there already is taken without starting a process.

    Raises:
        HFIError: What went wrong there, as a sentence; also when the process was killed.
    """
    from hfi.jobs.erase import find_erased

    done = find_erased(store, config, project)
    if done is not None:
        return done
    with own_process() as pool:
        try:
            run_id, problem = pool.submit(_erase, store.path, config, project, quiet).result()
        except BrokenProcessPool as error:
            raise HFIError("Its process was killed, perhaps for want of memory: start the command again.") from error
    if problem:
        raise HFIError(problem)
    return store.get_run(run_id)


def own_process() -> ProcessPoolExecutor:
    """A process that starts from nothing, and does not go on training for nobody when this one is killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=die_with_parent, initargs=(os.getpid(),))


def _erase(path: Path, config: EraseConfig, project: str, quiet: bool) -> tuple[str, str]:
    """The run's id, or the sentence of its failure: exceptions of their own do not travel between processes."""
    from hfi.jobs.erase import run_erase

    try:
        with Store.open(path, create=False) as store:
            return run_erase(store, config, project, build_progress(quiet)).run.id, ""
    except (HFIError, ValueError) as error:
        return "", str(error)
