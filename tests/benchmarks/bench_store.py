"""Benchmarks of the feedback store: ``python tests/benchmarks/bench_store.py [throughput queue labels export]``.

Each prints one line of JSON. Protocol: a new store in a temporary folder (``--folder`` for another disk), real files,
``synchronous=FULL``. The bare loop writes the same rows, the audit's ready-made ones too, into the same guarded tables
in the same transactions, with none of our checks; "minimal" writes judgments alone. They take turns with ours, and the
median over all turns is told, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from store_filler import add_blank_images, add_items_in_bulk, add_judgments, add_noise_images, describe, print_result

from storage import ItemInput, JudgmentInput, Store, sql
from storage.export import export_snapshot
from storage.snapshot import create_snapshot, list_snapshots


def peak_memory_mib() -> float:
    """The most memory this program has needed; not what a process had needed before it became this program."""
    status = Path("/proc/self/status")
    if status.exists():
        kib = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kib / 1024, 1)


def _claimed_store(folder: Path, n: int, name: str) -> tuple[Store, list[JudgmentInput]]:
    store = Store.open(folder / name)
    store.create_project("bench", annotators_per_item=1, gold_fraction=0, repeat_fraction=0)
    store.add_annotator("ada")
    images = add_blank_images(store, n)
    store.add_items("bench", [ItemInput((sha256,), prompt=f"prompt {i}") for i, sha256 in enumerate(images)])
    judgments = []
    while len(judgments) < n:
        for lease in store.claim("bench", "ada", 100):
            judgments.append(JudgmentInput(str(uuid.uuid4()), "ada", "yes", lease.id, elapsed_ms=900))
    return store, judgments


def _bare_connection(folder: Path, n: int, name: str) -> sqlite3.Connection:
    """Plain sqlite3 on a store of its own, in which ``n`` items are claimed."""
    _claimed_store(folder, n, name)[0].close()
    connection = sqlite3.connect(folder / name / "store.db", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _write_bare(
    connection: sqlite3.Connection, rows: list[tuple[Any, ...]], audit: list[tuple[Any, ...]], batch_size: int
) -> None:
    """Write judgments by a bare loop: their rows and, with the audit's entries, what they change in lease and item."""
    places = ", ".join("?" * len(rows[0]))
    for first in range(0, len(rows), batch_size):
        connection.execute("BEGIN IMMEDIATE")
        for row in rows[first : first + batch_size]:
            connection.execute(f"INSERT INTO judgment VALUES ({places})", row)
            if audit:
                connection.execute("UPDATE assignment SET state = 'done', finished_at_us = 1 WHERE id = ?", (row[6],))
                connection.execute(
                    "UPDATE item SET n_judgments = 1, n_leased = 0, n_positive = 1, status = 'done' WHERE id = ?",
                    (row[4],),
                )
        if audit:
            connection.execute(sql.AUDIT_INSERT, audit[first // batch_size])
        connection.execute("COMMIT")


def _seconds(function: Callable[[], object]) -> tuple[float, float]:
    """(wall-clock seconds, seconds of this process's own computing) of one call."""
    start, cpu_start = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - cpu_start


def bench_throughput(folder: Path, n_rounds: int = 15) -> None:
    """Judgments a second, one by one and in batches of 100, against a bare sqlite3 loop, in alternating rounds."""
    for n_a_round, batch_size in ((100, 1), (1000, 100)):
        n = n_a_round * n_rounds
        store, judgments = _claimed_store(folder, n, f"ours{batch_size}")
        same, minimal = (_bare_connection(folder, n, f"{name}{batch_size}") for name in ("same", "minimal"))
        seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "same": [], "minimal": []}

        def submit(chosen: list[JudgmentInput], store: Store = store, batch_size: int = batch_size) -> None:
            for first in range(0, len(chosen), batch_size):
                store.submit_judgments(chosen[first : first + batch_size])

        for start in range(0, n, n_a_round):
            chosen = judgments[start : start + n_a_round]
            seconds["ours"].append(_seconds(partial(submit, chosen)))
            rows = store.connection.execute("SELECT * FROM judgment WHERE id > ? ORDER BY id", (start,)).fetchall()
            query = (
                "SELECT at_us, actor, action, subject, details, previous_hash, hash FROM audit ORDER BY id DESC LIMIT ?"
            )
            audit = store.connection.execute(query, (n_a_round // batch_size,)).fetchall()[::-1]
            seconds["same"].append(_seconds(partial(_write_bare, same, rows, audit, batch_size)))
            seconds["minimal"].append(_seconds(partial(_write_bare, minimal, rows, [], batch_size)))
        for closed in (store, same, minimal):
            closed.close()
        per_second = {name: round(n_a_round / median(wall for wall, _ in found)) for name, found in seconds.items()}
        ratios = {
            f"ratio_{other}_{clock}": round(
                median(own[place] / bare[place] for own, bare in zip(seconds["ours"], seconds[other], strict=True)), 2
            )
            for other in ("same", "minimal")
            for place, clock in enumerate(("wall", "cpu"))
        }
        print_result("throughput", batch_size=batch_size, n=n, per_second=per_second, **ratios)


def _next_item_seconds(store: Store, name: str) -> float:
    """Wall-clock seconds of the query that finds an annotator's next items, from where their cursor stands."""
    annotator_id = store.get_annotator(name).id
    cursor = store.connection.execute(sql.QUEUE_STATE_GET, (1, annotator_id)).fetchone()[-1]
    key = {"project_id": 1, "annotator_id": annotator_id, "tier": 4, "cursor": cursor, "n_rows": 33}
    start = time.perf_counter()
    store.connection.execute(sql.QUEUE_CANDIDATES, key).fetchall()
    return time.perf_counter() - start


def bench_queue(folder: Path, sizes: tuple[int, ...] = (2_000, 20_000, 200_000)) -> None:
    """Milliseconds of one claim, with 10 thousand to 1 million judgments in the store."""
    names = [f"person {number}" for number in range(40)]
    for n_items in sizes:
        store = Store.open(folder / f"queue{n_items}")
        store.create_project("bench", annotators_per_item=7, annotators_max=9)
        for name in names:
            store.add_annotator(name)
        images = add_blank_images(store, n_items)
        add_items_in_bulk(store, "bench", images)
        add_judgments(store, "bench", names, n_items, 5)
        cold, claims, submits, cpu, query = [], [], [], [], []
        for turn in range(20):
            for name in names[:20]:
                if turn:
                    query.append(_next_item_seconds(store, name))
                start, cpu_start = time.perf_counter(), time.thread_time()
                leases = store.claim("bench", name, 1)
                (cold if turn == 0 else claims).append(time.perf_counter() - start)
                cpu.append(time.thread_time() - cpu_start)
                start = time.perf_counter()
                store.submit_judgments([JudgmentInput(str(uuid.uuid4()), name, "yes", lease.id) for lease in leases])
                submits.append(time.perf_counter() - start)
        print_result(
            "claim",
            n_items=n_items,
            n_judgments=5 * n_items,
            next_item_query=describe(query),
            claim=describe(claims),
            claim_cpu=describe(cpu),
            first_claim=describe(cold),
            submit=describe(submits),
        )
        store.close()


def bench_labels(folder: Path) -> None:
    """Seconds and memory of a snapshot with Dawid-Skene over 1 million judgments of 200 thousand items."""
    import numpy as np

    from storage.aggregate import aggregate_dawid_skene

    generator = np.random.default_rng(0)
    n_items, n_annotators, per_item = 200_000, 200, 5
    truth = generator.random(n_items) < 0.3
    accuracy = generator.uniform(0.6, 0.95, n_annotators)
    items = np.repeat(np.arange(n_items), per_item)
    people = generator.integers(0, n_annotators, n_items * per_item)
    answers = np.where(generator.random(len(items)) < accuracy[people], truth[items], ~truth[items]).astype(np.int64)
    start = time.process_time()
    result = aggregate_dawid_skene(items, people, answers, n_items, n_annotators)
    seconds = time.process_time() - start
    right = float(((result.posterior[:, 1] > 0.5) == truth).mean())
    print_result(
        "dawid_skene",
        n_judgments=len(items),
        cpu_seconds=round(seconds, 2),
        n_iterations=result.n_iterations,
        accuracy=round(right, 4),
        peak_memory_mib=peak_memory_mib(),
    )
    path = folder / "queue200000"
    if path.exists():
        store = Store.open(path)
        start = time.perf_counter()
        snapshot = create_snapshot(store, "bench")
        print_result(
            "snapshot",
            n_judgments=snapshot.n_judgments,
            seconds=round(time.perf_counter() - start, 1),
            peak_memory_mib=peak_memory_mib(),
        )


# (pictures, pixels, KiB each; 0: what a third of noise makes, 260 KiB at 512 pixels). On the disk each picture is there
# about five times: in the store, once in `images` and three times in `pairs`. The last needs about 20 GB.
EXPORTS = ((500, 512, 0), (1500, 512, 0), (4500, 8, 0), (100_000, 512, 48))


def bench_export(folder: Path, sizes: Sequence[tuple[int, int, int]] = EXPORTS) -> None:
    """Seconds and peak memory of an export by number and size of pictures; each in a process of its own."""
    for n_images, size_px, size_kib in sizes:
        for step in ("--export-fill", "--export-measure"):
            command = [sys.executable, __file__, step, f"{n_images}:{size_px}:{size_kib}", "--folder", str(folder)]
            subprocess.run(command, check=True)
        shutil.rmtree(folder / f"export{n_images}x{size_px}")


def fill_export_store(folder: Path, n_images: int, size_px: int, size_kib: int) -> None:
    """A judged store of pictures, three judgments each, with one snapshot."""
    with Store.open(folder / f"export{n_images}x{size_px}" / "store") as store:
        store.create_project("bench", gold_fraction=0, repeat_fraction=0)
        names = [f"person {number}" for number in range(5)]
        for name in names:
            store.add_annotator(name)
        hashes = add_noise_images(store, n_images, size_px, size_kib)
        store.add_items("bench", [ItemInput((sha,), f"prompt {n // 10}") for n, sha in enumerate(hashes)])
        add_judgments(store, "bench", names, n_images, 3)
        create_snapshot(store, "bench")


def measure_export(folder: Path, n_images: int, size_px: int, size_kib: int) -> None:
    """Export it; the memory told is that of the export alone."""
    place = folder / f"export{n_images}x{size_px}"
    with Store.open(place / "store") as store:
        snapshot_hash = list_snapshots(store)[0]["hash"]
        start, cpu_start = time.perf_counter(), time.process_time()
        manifest = export_snapshot(store, snapshot_hash, place / "out")
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    n_bytes = sum(shard["bytes"] for content in manifest["configs"].values() for shard in content["shards"])
    print_result(
        "export",
        n_images=n_images,
        size_px=size_px,
        size_kib=size_kib,
        n_rows={config: content["rows"] for config, content in manifest["configs"].items()},
        exported_mib=round(n_bytes / 2**20),
        seconds=round(seconds, 1),
        cpu_seconds=round(cpu_seconds, 1),
        peak_memory_mib=peak_memory_mib(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["throughput", "queue", "labels", "export"])
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are made; default: the system's")
    parser.add_argument("--sizes", default="", help="of the exports, such as 500:512,9000:512:48 (pictures:pixels:KiB)")
    for step in ("--export-fill", "--export-measure"):
        parser.add_argument(step, default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for step, words in ((fill_export_store, arguments.export_fill), (measure_export, arguments.export_measure)):
        if words:
            step(arguments.folder, *_size(words))
            return
    sizes = [_size(words) for words in arguments.sizes.split(",")] if arguments.sizes else EXPORTS
    benchmarks: dict[str, Callable[[Path], None]] = {
        "throughput": bench_throughput,
        "queue": bench_queue,
        "labels": bench_labels,
        "export": partial(bench_export, sizes=sizes),
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in arguments.names:
            benchmarks[name](Path(folder))


def _size(words: str) -> tuple[int, int, int]:
    """(pictures, pixels, KiB each) from "500:512:48"; without the last it is 0."""
    n_images, size_px, size_kib = (*map(int, words.split(":")), 0)[:3]
    return n_images, size_px, size_kib


if __name__ == "__main__":
    main()
