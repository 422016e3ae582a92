"""Pictures: stored once, clean, whole or refused; quarantine hides them everywhere."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from storage import GenerationParams, ItemInput, Store
from storage.errors import ConflictError, ImageRefusedError, NotFoundError, QuarantinedError, StoreDamagedError
from storage.image_codec import encode_image
from storage.snapshot import create_snapshot, load_snapshot


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(size_px: int = 16) -> Image.Image:
    return Image.frombytes("RGB", (size_px, size_px), bytes((7 * n) % 256 for n in range(3 * size_px * size_px)))


def png_bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A few kilobytes that unpack to over a gigabyte."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_same_picture_is_stored_once_whatever_file_it_came_in(store: Store) -> None:
    picture = noise()
    first = store.add_image(picture)
    for content in (encoded(picture, "PNG", compress_level=1), encoded(picture, "WEBP", lossless=True)):
        assert store.add_image(content) == first
    assert len(list((store.path / "objects").rglob("*.png"))) == 13
    assert store.load_image(first.sha256).tobytes() == picture.tobytes()


def test_stored_file_has_the_hash_it_is_named_by_and_no_metadata(store: Store) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    record = store.add_image(encoded(noise(), "JPEG", exif=exif, comment=b"secret"))
    content = store.image_path(record.sha256).read_bytes()
    assert encode_image(content).sha256 == record.sha256 == store.image_path(record.sha256).stem
    assert b"secret" not in content
    assert record.size_bytes == len(content)


def test_transparency_is_laid_on_white_and_grey_becomes_rgb(store: Store) -> None:
    clear = store.add_image(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    assert store.load_image(clear.sha256).getpixel((0, 0)) == (255, 255, 255)
    grey = store.add_image(Image.new("L", (4, 4), 9))
    assert store.load_image(grey.sha256).getpixel((0, 0)) == (9, 9, 9)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (SVG, "not a PNG, JPEG, WEBP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\nshowpage", "not a PNG, JPEG, WEBP"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "not a PNG, JPEG, WEBP"),
        (b"", "not a PNG, JPEG, WEBP"),
        (encoded(noise(64), "PNG")[:-40], "damaged"),
        (encoded(noise(64), "JPEG")[:300], "damaged"),
        (png_bomb(), "unpacks to far more than"),
        (png_bomb(8000, 8000), "8000 x 8000 pixels"),
    ],
)
def test_hostile_pictures_are_refused_and_leave_nothing(store: Store, content: bytes, rule: str) -> None:
    before = sorted(store.path.rglob("*"))
    with pytest.raises(ImageRefusedError, match=rule) as caught:
        store.add_image(content, "pic.png")
    assert "pic.png" in str(caught.value)
    assert sorted(store.path.rglob("*")) == before


def test_plain_png_keeps_its_bytes_from_store_to_store(store: Store, tmp_path: Path) -> None:
    odd = encoded(noise(), "PNG", compress_level=1)
    record = store.add_image(odd)
    assert store.image_path(record.sha256).read_bytes() == odd
    with Store.open(tmp_path / "other") as other:
        assert other.add_image(odd).sha256 == record.sha256


def test_thumbnail_is_made_once_and_small(store: Store) -> None:
    record = store.add_image(noise(64))
    path = store.thumbnail_path(record.sha256, 16)
    assert path == store.thumbnail_path(record.sha256, 16)
    with Image.open(path) as thumbnail:
        assert thumbnail.size == (16, 16)


def test_quarantine_hides_a_picture_everywhere_at_once(judged: Store) -> None:
    snapshot = create_snapshot(judged, "weapons")
    sha256 = snapshot.images[0].sha256
    thumbnail = judged.thumbnail_path(sha256)
    judged.quarantine_image(sha256, "reported")
    for call in (judged.image_path, judged.load_image, judged.thumbnail_path):
        with pytest.raises(QuarantinedError, match="quarantined"):
            call(sha256)
    assert not thumbnail.exists()
    assert sha256 not in {image.sha256 for image in judged.list_images()}
    assert sha256 not in {row.image_sha256 for row in judged.list_generations("weapons")}
    assert sha256 not in {image.sha256 for image in load_snapshot(judged, snapshot.hash).images}
    assert sha256 not in {image.sha256 for image in create_snapshot(judged, "weapons").images}
    with pytest.raises(QuarantinedError):
        judged.add_items("weapons", [ItemInput((sha256,), "another question")])
    judged.release_image(sha256)
    assert judged.image_path(sha256).exists()
    assert create_snapshot(judged, "weapons").hash == snapshot.hash


def test_load_names_a_lost_file(store: Store) -> None:
    record = store.add_image(noise())
    store.image_path(record.sha256).unlink()
    with pytest.raises(StoreDamagedError, match=record.sha256):
        store.load_image(record.sha256)


@pytest.mark.parametrize("name", ["../store.db", "a" * 63, "A" * 64, "", "a" * 64 + "\n"])
def test_images_are_named_by_hash_only(store: Store, name: str) -> None:
    with pytest.raises(NotFoundError):
        store.image_path(name)


def test_generation_is_found_by_its_request(store: Store) -> None:
    params = GenerationParams("prompt 1", seed=1, model_id="mini", width=8, height=8)
    found = store.find_generation("weapons", params)
    assert found is not None
    assert found.params == params
    again = GenerationParams("prompt 1", seed=1, model_id="mini", width=8, height=8, versions={"torch": "9"})
    assert store.add_generation("weapons", found.image_sha256, again).id == found.id
    assert store.find_generation("weapons", GenerationParams("prompt 1", seed=2, model_id="mini")) is None
    with pytest.raises(ConflictError, match="seed 1"):
        store.add_generation("weapons", store.add_image(noise()).sha256, params)
    assert len(store.list_generations("weapons", model_id="mini")) == 12
    assert store.list_generations("weapons", role="concept") == []
