"""A disk that fills up while two writers work, are killed, and work again: is anything acknowledged lost?

    sudo python tests/faults/disk_full.py --rounds 20

Needs the right to mount: each run makes a small file system in memory (tmpfs, 6 MiB) and lets the store fill it. When
a writer meets NoSpaceError it stops; then half of the rounds end with SIGKILL of the other, space is made by deleting
a ballast file, and the next round goes on with the same store.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image

from storage import ItemInput, JudgmentInput, Store
from storage.doctor import examine_store
from storage.errors import NoSpaceError
from tests.benchmarks.store_filler import add_blank_images

os.environ["HFI_ALLOW_EPHEMERAL"] = "1"  # the small disk is in memory
_FORK = multiprocessing.get_context("fork")
SIZE_MIB = 6


def _write(path: Path, name: str, log: Path, seed: int) -> None:
    """Judge and add pictures until the disk is full; exit code 3 then."""
    chooser = random.Random(seed)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with Store.open(path) as store:
            store.add_annotator(name)
            while True:
                for lease in store.claim("faults", name, 5):
                    judgment = JudgmentInput(_uuid(chooser), name, "yes", lease.id, note="n" * 500)
                    store.submit_judgments([judgment])
                    os.write(descriptor, f"{judgment.uuid}\n".encode())
                noise = chooser.randbytes(3 * 24 * 24)
                sha256 = store.add_image(Image.frombytes("RGB", (24, 24), noise)).sha256
                os.write(descriptor, f"image {sha256}\n".encode())
    except NoSpaceError:
        os._exit(3)


def _uuid(chooser: random.Random) -> str:
    import uuid

    return str(uuid.UUID(int=chooser.getrandbits(128)))


def run_rounds(disk: Path, logs: Path, n_rounds: int, seed: int = 0) -> dict[str, object]:
    """Fill the disk ``n_rounds`` times and count."""
    chooser, path = random.Random(seed), disk / "store"
    with Store.open(path) as store:
        store.create_project("faults", annotators_per_item=100, gold_fraction=0, repeat_fraction=0)
        images = add_blank_images(store, 300)
        store.add_items("faults", [ItemInput((image,), f"prompt {n}") for n, image in enumerate(images)])
    n_full = 0
    for number in range(n_rounds):
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast = disk / "ballast"
        ballast.write_bytes(b"\0" * max(0, free - 400_000))  # leaves 400 kB to write into
        writers = [
            _FORK.Process(
                target=_write, args=(path, f"w{number}-{w}", logs / f"{number}-{w}.log", chooser.getrandbits(60))
            )
            for w in range(2)
        ]
        for writer in writers:
            writer.start()
        writers[0].join(60)
        if number % 2 and writers[1].pid is not None:
            os.kill(writers[1].pid, signal.SIGKILL)
        writers[1].join(60)
        n_full += sum(writer.exitcode == 3 for writer in writers)
        ballast.unlink()
    return _count(path, logs, n_rounds, n_full)


def _count(path: Path, logs: Path, n_rounds: int, n_full: int) -> dict[str, object]:
    lines = [line for log in logs.glob("*.log") for line in log.read_text().splitlines()]
    acknowledged = [line for line in lines if len(line) == 36]
    pictures = [line.split()[1] for line in lines if line.startswith("image ")]
    with Store.open(path) as store:
        stored = [row[0] for row in store.connection.execute("SELECT uuid FROM judgment")]
        integrity = store.connection.execute("PRAGMA integrity_check").fetchone()[0]
        n_unreadable = sum(store.load_image(sha256).size != (24, 24) for sha256 in pictures)
    blank = {finding.message for finding in examine_store(path) if finding.check == "images"}
    errors = [f.message for f in examine_store(path) if f.level == "error" and f.check != "images"]
    return {
        "rounds": n_rounds,
        "times_full": n_full,
        "acknowledged": len(acknowledged),
        "pictures": len(pictures),
        "lost": len(set(acknowledged) - set(stored)) + n_unreadable,
        "duplicated": len(stored) - len(set(stored)),
        "half_written_pictures": sum("has changed" in message for message in blank),
        "integrity": integrity,
        "findings": errors[:5],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        disk, logs = Path(folder) / "disk", Path(folder) / "logs"
        disk.mkdir()
        logs.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(disk)], check=True)
        try:
            start = time.monotonic()
            result = run_rounds(disk, logs, arguments.rounds)
            print(json.dumps({**result, "seconds": round(time.monotonic() - start, 1)}))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    keys = ("lost", "duplicated", "half_written_pictures", "findings")
    sys.exit(any(result[key] for key in keys) or result["integrity"] != "ok" or not result["times_full"])


if __name__ == "__main__":
    main()
