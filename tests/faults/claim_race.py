"""Eight processes claim ten thousand slots: is every slot leased exactly once, and does no one see a lock error?

python tests/faults/claim_race.py --processes 8 --claims 10000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from storage import ItemInput, Store
from storage.errors import HFIError
from tests.benchmarks.store_filler import add_blank_images

_FORK = multiprocessing.get_context("fork")
_PER_CLAIM = 5


def _claim_all(path: Path, name: str, results: multiprocessing.Queue[tuple[list[int], list[str]]]) -> None:
    claimed: list[int] = []
    errors: list[str] = []
    with Store.open(path) as store:
        while True:
            try:
                leases = store.claim("race", name, _PER_CLAIM)
            except HFIError as error:
                errors.append(str(error))
                continue
            if not leases:
                break
            claimed += [lease.item_id for lease in leases]
    results.put((claimed, errors))


def run_race(folder: Path, n_processes: int, n_claims: int) -> dict[str, object]:
    """Let the processes claim until nothing is left, and count."""
    path = folder / "store"
    with Store.open(path) as store:
        store.create_project("race", annotators_per_item=2, gold_fraction=0, repeat_fraction=0)
        for number in range(n_processes):
            store.add_annotator(f"p{number}")
        images = add_blank_images(store, n_claims // 2)
        store.add_items("race", [ItemInput((image,), f"prompt {n}") for n, image in enumerate(images)])
    results: multiprocessing.Queue[tuple[list[int], list[str]]] = _FORK.Queue()
    workers = [_FORK.Process(target=_claim_all, args=(path, f"p{n}", results)) for n in range(n_processes)]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    answers = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - start
    with Store.open(path) as store:
        slots = store.connection.execute("SELECT item_id, slot FROM assignment").fetchall()
    return {
        "processes": n_processes,
        "claimed": sum(len(claimed) for claimed, _ in answers),
        "slots": len(slots),
        "slots_leased_twice": len(slots) - len(set(slots)),
        "twice_to_one_annotator": sum(len(claimed) - len(set(claimed)) for claimed, _ in answers),
        "errors": sum(len(errors) for _, errors in answers),
        "claims_per_second": round(len(slots) / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--claims", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run_race(Path(folder), arguments.processes, arguments.claims)
    print(json.dumps(result))
    is_clean = not (result["slots_leased_twice"] or result["twice_to_one_annotator"] or result["errors"])
    sys.exit(not (is_clean and result["claimed"] == result["slots"] == arguments.claims // 2 * 2))


if __name__ == "__main__":
    main()
