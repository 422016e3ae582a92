"""Fills a store with many items and judgments by bulk insert, for benchmarks and fault tests only."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
import zlib

from storage import Store, sql
from storage.image_codec import encode_image

_BATCH = 20_000


def add_blank_images(store: Store, n: int) -> list[str]:
    """Rows of images without files: benchmarks of the queue never open them."""
    hashes = [hashlib.sha256(f"blank {number}".encode()).hexdigest() for number in range(n)]
    with store.transaction() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO image (sha256, pixel_sha256, width, height, size_bytes, created_at_us) "
            "VALUES (?, ?, 64, 64, 1, 0)",
            ((sha256, sha256) for sha256 in hashes),
        )
    return hashes


def add_items_in_bulk(store: Store, project: str, images: list[str], seed: int = 0) -> None:
    """Items of one picture each, twenty to a prompt group, in random queue order: what ``add_items`` writes, faster."""
    record, chooser = store.get_project(project), random.Random(seed)
    places = list(range(1, len(images) + 1))
    chooser.shuffle(places)
    n_groups = max(1, len(images) // 20)
    rows = [
        (number, record.id, image, f"prompt {chooser.randrange(n_groups)}", record.annotators_per_item, place)
        for number, (image, place) in enumerate(zip(images, places, strict=True), start=1)
    ]
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO item (id, project_id, key_sha256, prompt, prompt_group, category_hint, target_judgments, "
            "tier, position, created_at_us) VALUES (?1, ?2, ?3, ?4, ?4, '', ?5, 4, ?6, 0)",
            rows,
        )
        connection.executemany("INSERT INTO item_image VALUES (?, 0, ?)", ((row[0], row[2]) for row in rows))
        connection.execute("UPDATE project SET queue_tail = ? WHERE id = ?", (len(images), record.id))


_N_NOISES = 128


def _png_parts(size_px: int, seed: int, size_kib: int) -> tuple[bytes, bytes]:
    """A picture, noise above grey, as the bytes before and after a place for a text chunk."""
    from PIL import Image

    n_noise_rows = size_kib * 1024 // (3 * size_px) or -(-size_px // 3)
    noise = random.Random(seed).randbytes(3 * size_px * n_noise_rows)
    picture = Image.frombytes(
        "RGB", (size_px, size_px), noise + bytes([128]) * (3 * size_px * (size_px - n_noise_rows))
    )
    png = encode_image(picture).png
    header_end = 8 + 25  # signature and IHDR chunk
    return png[:header_end], png[header_end:]


def _text_chunk(text: str) -> bytes:
    body = b"tEXt" + b"Comment\x00" + text.encode("latin-1")
    return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def add_noise_images(store: Store, n: int, size_px: int, size_kib: int = 0) -> list[str]:
    """Pictures with their files, of about ``size_kib`` (0: a third is noise), written without waiting for the disk.

    Some pictures are encoded, and each file is one of them with its number in a text chunk: making a file costs
    hardly more than hashing and writing it, and to the export it is a picture like any other.
    """
    parts = [_png_parts(size_px, seed, size_kib) for seed in range(_N_NOISES)]
    hashes = []
    with store.transaction() as connection:
        for number in range(n):
            head, rest = parts[number % _N_NOISES]
            png = head + _text_chunk(f"picture {number}") + rest
            sha256 = hashlib.sha256(png).hexdigest()
            path = store.path / "objects" / sha256[:2] / f"{sha256}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png)
            pixel_sha256 = hashlib.sha256(f"pixels {number}".encode()).hexdigest()
            connection.execute(sql.IMAGE_INSERT, (sha256, pixel_sha256, size_px, size_px, len(png), 0))
            hashes.append(sha256)
    return hashes


def add_judgments(
    store: Store, project: str, annotators: list[str], n_items: int, judgments_per_item: int, seed: int = 0
) -> None:
    """Give the first ``n_items`` items answers by random annotators, as finished assignments would have left them."""
    record, chooser = store.get_project(project), random.Random(seed)
    people = [store.get_annotator(name).id for name in annotators]
    query = "SELECT id FROM item WHERE project_id = ? ORDER BY id LIMIT ?"
    item_ids = [row[0] for row in store.connection.execute(query, (record.id, n_items))]
    for start in range(0, len(item_ids), _BATCH // judgments_per_item):
        batch = item_ids[start : start + _BATCH // judgments_per_item]
        assignments, judgments = [], []
        for item_id in batch:
            is_harmful = item_id % 4 == 0
            for slot, annotator_id in enumerate(chooser.sample(people, judgments_per_item)):
                answer = "yes" if is_harmful == (chooser.random() < 0.85) else "no"
                assignments.append((record.id, item_id, annotator_id, slot))
                head = (str(uuid.UUID(int=chooser.getrandbits(128))), "0" * 64, record.id, item_id, annotator_id)
                judgments.append((*head, record.guideline_id, answer))
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO assignment (project_id, item_id, annotator_id, purpose, slot, state, shown_order, "
                "leased_at_us, expires_at_us, finished_at_us) VALUES (?, ?, ?, 'normal', ?, 'done', '[0]', 0, 1, 1)",
                assignments,
            )
            connection.executemany(
                "INSERT INTO judgment (uuid, payload_sha256, project_id, item_id, annotator_id, guideline_id, purpose, "
                "answer, shown_order, elapsed_ms, revealed_ms, judged_at_us, created_at_us) "
                "VALUES (?, ?, ?, ?, ?, ?, 'normal', ?, '[0]', 900, 400, 0, 0)",
                judgments,
            )
            connection.executemany(
                "UPDATE item SET n_judgments = ?, status = CASE WHEN target_judgments <= ? THEN 'done' ELSE 'open' END "
                "WHERE id = ?",
                ((judgments_per_item, judgments_per_item, item_id) for item_id in batch),
            )


def describe(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and largest of times in seconds, as milliseconds."""
    ordered = sorted(values)
    at = [ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)], ordered[-1]]
    return {name: round(1000 * value, 3) for name, value in zip(("median_ms", "p95_ms", "max_ms"), at, strict=True)}


def print_result(name: str, **figures: object) -> None:
    """One line of JSON a measurement, so that a log can be read by people and programs."""
    print(json.dumps({"benchmark": name, **figures}), flush=True)
