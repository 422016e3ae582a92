"""How long a page of the gallery takes in a project of many pictures: seconds of processor time, median of five.

python tests/benchmarks/bench_gallery.py [--pictures 100000]
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage import Store
from storage.gallery import GalleryFilter

REPEATS = 5


def fill_store(store: Store, n: int) -> None:
    """Rows of ``n`` generated and judged pictures, without the files themselves."""
    project = store.create_project("many")
    run = store.start_run("score", {"project": "many"})
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(n)]
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO image (sha256, pixel_sha256, width, height, size_bytes, created_at_us) "
            "VALUES (?, ?, 8, 8, 1, 1)",
            ((sha256, sha256[::-1]) for sha256 in hashes),
        )
        connection.executemany(
            "INSERT INTO generation (project_id, image_sha256, request_sha256, prompt, negative_prompt, seed, "
            "scheduler, num_inference_steps, guidance_scale, width, height, model_id, model_sha256, guard, "
            "role, versions, extra, created_at_us) "
            "VALUES (?, ?, ?, ?, '', ?, 'DDIMScheduler', 25, 3.0, 8, 8, ?, '', '', '', '{}', '{}', 1)",
            (
                (
                    project.id,
                    sha256,
                    sha256,
                    f"a thing of kind {number % 997} on a table",
                    number % 100,
                    f"m{number % 3}",
                )
                for number, sha256 in enumerate(hashes)
            ),
        )
        connection.executemany(
            "INSERT INTO item (project_id, key_sha256, prompt, prompt_group, category_hint, status, target_judgments, "
            "n_judgments, n_positive, n_negative, tier, position, created_at_us) "
            "VALUES (?, ?, '', '', '', ?, 3, 3, ?, ?, 4, ?, 1)",
            (
                (project.id, sha256, "done" if number % 10 else "open", number % 4, 3 - number % 4, number)
                for number, sha256 in enumerate(hashes)
            ),
        )
        connection.executemany(
            "INSERT INTO item_image (item_id, position, image_sha256) VALUES (?, 0, ?)", enumerate(hashes, start=1)
        )
        connection.executemany(
            "INSERT INTO concept_score (project_id, image_sha256, score, spread, run_id) VALUES (?, ?, ?, 0.1, ?)",
            ((project.id, sha256, (number % 1000) / 1000, run.id) for number, sha256 in enumerate(hashes)),
        )


def median_seconds(call: Callable[[], object]) -> float:
    """Processor time of a call: other work on the machine does not count."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return statistics.median(times)


def main() -> None:
    """Print a line for each way of looking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=100_000)
    n = parser.parse_args().pictures
    ways: dict[str, tuple[GalleryFilter, int]] = {
        "first page": (GalleryFilter(), 1),
        "last page": (GalleryFilter(), n // 60),
        "prompt, common": (GalleryFilter(prompt="table"), 1),
        "prompt, rare": (GalleryFilter(prompt="kind 996 "), 1),
        "prompt, nowhere": (GalleryFilter(prompt="no such words"), 1),
        "seed": (GalleryFilter(seed=42), 1),
        "model": (GalleryFilter(model_id="m1"), 1),
        "state": (GalleryFilter(state="open"), 1),
        "disputed": (GalleryFilter(agreement="disputed"), 1),
        "score 0.9 to 1": (GalleryFilter(score_low=0.9), 1),
        "highest score": (GalleryFilter(order="highest score"), 1),
        "all of it": (GalleryFilter(prompt="kind 7", state="done", agreement="disputed", score_low=0.5), 1),
    }
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store") as store:
        fill_store(store, n)
        for name, (wanted, page) in ways.items():
            seconds = median_seconds(lambda wanted=wanted, page=page: store.list_pictures("many", wanted, page))  # type: ignore[misc]
            print(f"{name:<18} {1000 * seconds:7.1f} ms", flush=True)


if __name__ == "__main__":
    main()
