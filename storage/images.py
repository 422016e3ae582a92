"""Content-addressed pictures: the same picture is stored once, and quarantine hides it everywhere at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import sql
from storage.errors import NotFoundError, QuarantinedError, StoreDamagedError
from storage.files import write_file_atomically
from storage.image_codec import EncodedImage, encode_image, make_thumbnail
from storage.projects import ProjectSection
from storage.records import ImageRecord

if TYPE_CHECKING:
    from PIL import Image

_SHA256 = re.compile(r"^[0-9a-f]{64}$")


def _image(row: tuple[Any, ...]) -> ImageRecord:
    sha256, width, height, size_bytes, quarantined_at_us, created_at_us = row
    return ImageRecord(sha256, width, height, size_bytes, quarantined_at_us is not None, created_at_us)


class ImageSection(ProjectSection):
    """The picture files under ``objects/`` and their rows."""

    def add_image(self, image: Image.Image | bytes, name: str = "the image") -> ImageRecord:
        """Store a picture, or find it if it is there already.

        Args:
            image: a PIL image, or the bytes of a PNG, JPEG or WEBP file.
            name: what to call it in an error.

        Raises:
            ImageRefusedError: wrong format, too large, or damaged.
            NoSpaceError: the disk is full; nothing half-written stays behind.
        """
        return self.add_encoded_images([encode_image(image, name)])[0]

    def add_encoded_images(self, images: list[EncodedImage]) -> list[ImageRecord]:
        """Store a batch of checked pictures in one transaction: files first, then their rows."""
        with self.transaction() as connection:
            rows = []
            for encoded in images:
                row = connection.execute(sql.IMAGE_BY_PIXELS, (encoded.pixel_sha256,)).fetchone()
                if row is None:
                    write_file_atomically(self._object_path(encoded.sha256), encoded.png, self.scratch)
                    size = (encoded.width, encoded.height, len(encoded.png))
                    values = (encoded.sha256, encoded.pixel_sha256, *size, self.now_us())
                    connection.execute(sql.IMAGE_INSERT, values)
                    row = connection.execute(sql.IMAGE_BY_PIXELS, (encoded.pixel_sha256,)).fetchone()
                rows.append(row)
        return [_image(row) for row in rows]

    def get_image(self, sha256: str) -> ImageRecord:
        """The row of a picture.

        Raises:
            NotFoundError: there is no such picture.
        """
        row = self.connection.execute(sql.IMAGE_BY_SHA256, (sha256,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no image {sha256[:80]!r} in the store. Check the hash (64 hex digits).")
        return _image(row)

    def list_images(self, *, with_quarantined: bool = False) -> list[ImageRecord]:
        """All pictures in the order they were added."""
        images = [_image(row) for row in self.connection.execute(sql.IMAGE_ALL)]
        return [image for image in images if with_quarantined or not image.is_quarantined]

    def image_path(self, sha256: str) -> Path:
        """The PNG file of a picture.

        Raises:
            NotFoundError: there is no such picture.
            QuarantinedError: it is hidden.
        """
        if self.get_image(sha256).is_quarantined:
            raise QuarantinedError(f"The image {sha256} is quarantined and shown to nobody. Ask an administrator.")
        return self._object_path(sha256)

    def load_image(self, sha256: str) -> Image.Image:
        """The picture itself, RGB.

        Raises:
            NotFoundError, QuarantinedError: as ``image_path``.
            StoreDamagedError: its file is gone.
        """
        from PIL import Image

        path = self.image_path(sha256)
        try:
            with Image.open(path, formats=["PNG"]) as opened:
                return opened.convert("RGB")
        except OSError as error:
            raise StoreDamagedError(
                f"The file of image {sha256} can't be read ({error}). Run `hfi doctor`, then restore it from a backup."
            ) from None

    def thumbnail_path(self, sha256: str, size_px: int = 256) -> Path:
        """A WEBP of the picture within ``size_px`` pixels, made when first asked for."""
        self.image_path(sha256)
        path = self.path / "thumbnails" / str(size_px) / sha256[:2] / f"{sha256}.webp"
        if not path.exists():
            write_file_atomically(path, make_thumbnail(self.load_image(sha256), size_px))
        return path

    def quarantine_image(self, sha256: str, reason: str, actor: str = "system") -> ImageRecord:
        """Hide a picture everywhere at once: from judging, loading, snapshots and exports."""
        self.get_image(sha256)
        with self.transaction() as connection:
            connection.execute(sql.IMAGE_QUARANTINE, (self.now_us(), reason, sha256))
            connection.execute(sql.ITEM_HIDE_BY_IMAGE, (sha256,))
            self.add_audit("image.quarantine", sha256, {"reason": reason}, actor)
        for thumbnail in (self.path / "thumbnails").glob(f"*/{sha256[:2]}/{sha256}.webp"):
            thumbnail.unlink(missing_ok=True)
        return self.get_image(sha256)

    def release_image(self, sha256: str, actor: str = "system") -> ImageRecord:
        """Take a picture out of quarantine; its items can be judged again."""
        self.get_image(sha256)
        with self.transaction() as connection:
            connection.execute(sql.IMAGE_RELEASE, (sha256,))
            connection.execute(sql.ITEM_SHOW_BY_IMAGE, (sha256,))
            self.add_audit("image.release", sha256, {}, actor)
        return self.get_image(sha256)

    def _object_path(self, sha256: str) -> Path:
        if not _SHA256.match(sha256):
            raise NotFoundError(f"{sha256[:80]!r} is not an image hash: give 64 hexadecimal digits.")
        return self.path / "objects" / sha256[:2] / f"{sha256}.png"
