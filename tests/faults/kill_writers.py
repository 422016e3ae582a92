"""Two writers killed at random moments, again and again: is every acknowledged judgment there, and there once?

    python tests/faults/kill_writers.py --rounds 100

Protocol: each round forks two processes that claim and submit (one by one and in batches) on one store; each writes a
judgment's UUID to its own log as soon as ``submit_judgments`` has returned. After a random 20 to 400 ms both get
SIGKILL. Then every UUID in the logs must be in the store exactly once; at the end the database passes SQLite's
integrity check and ``examine_store`` finds no error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from storage import ItemInput, JudgmentInput, Store
from storage.doctor import examine_store
from tests.benchmarks.store_filler import add_blank_images

N_ITEMS = 600
_FORK = multiprocessing.get_context("fork")


def _write(path: Path, name: str, log: Path, seed: int) -> None:
    """Judge until killed; acknowledge each batch in the log."""
    chooser = random.Random(seed)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Store.open(path) as store:
        store.add_annotator(name)
        while True:
            leases = store.claim("faults", name, chooser.choice([1, 1, 7]))
            batch = [
                JudgmentInput(_uuid(chooser), name, chooser.choice(["yes", "no", "unsure"]), lease.id)
                for lease in leases
            ]
            store.submit_judgments(batch)
            os.write(descriptor, "".join(f"{judgment.uuid}\n" for judgment in batch).encode())


def _uuid(chooser: random.Random) -> str:
    import uuid

    return str(uuid.UUID(int=chooser.getrandbits(128)))


def run_rounds(folder: Path, n_rounds: int, seed: int = 0) -> dict[str, object]:
    """Run the rounds and count what was acknowledged, lost and duplicated."""
    chooser, path = random.Random(seed), folder / "store"
    with Store.open(path) as store:
        store.create_project("faults", annotators_per_item=100, gold_fraction=0, repeat_fraction=0)
        images = add_blank_images(store, N_ITEMS)
        store.add_items("faults", [ItemInput((image,), f"prompt {n}") for n, image in enumerate(images)])
    for number in range(n_rounds):
        logs = [folder / f"{number}-{writer}.log" for writer in range(2)]
        writers = [
            _FORK.Process(target=_write, args=(path, f"w{number}-{writer}", log, chooser.getrandbits(60)), daemon=True)
            for writer, log in enumerate(logs)
        ]
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 20
        while not any(log.exists() and log.stat().st_size for log in logs) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chooser.uniform(0.02, 0.4))
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
    return _count(path, folder, n_rounds)


def _count(path: Path, folder: Path, n_rounds: int) -> dict[str, object]:
    acknowledged = [line for log in folder.glob("*.log") for line in log.read_text().splitlines() if len(line) == 36]
    with Store.open(path) as store:
        stored = [row[0] for row in store.connection.execute("SELECT uuid FROM judgment")]
        integrity = store.connection.execute("PRAGMA integrity_check").fetchone()[0]
    # The pictures of this store are rows without files, on purpose.
    errors = [f.message for f in examine_store(path) if f.level == "error" and f.check != "images"]
    return {
        "rounds": n_rounds,
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "lost": len(set(acknowledged) - set(stored)),
        "duplicated": len(stored) - len(set(stored)),
        "integrity": integrity,
        "findings": errors[:5],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        result = run_rounds(Path(folder), arguments.rounds, arguments.seed)
        print(json.dumps({**result, "seconds": round(time.monotonic() - start, 1)}))
    sys.exit(bool(result["lost"] or result["duplicated"] or result["findings"] or result["integrity"] != "ok"))


if __name__ == "__main__":
    main()
