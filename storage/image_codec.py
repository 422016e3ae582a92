"""Pictures in: PNG, JPEG or WEBP from anyone, checked before they are decoded; out: plain 8-bit RGB PNG."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.errors import ImageRefusedError

if TYPE_CHECKING:
    from PIL import Image

ACCEPTED_FORMATS = ("PNG", "JPEG", "WEBP")
# Pillow only warns above its own limit, and a 17 KB PNG can unpack to 700 MB: we refuse before decoding.
MAX_PIXELS = 40_000_000
MAX_FILE_BYTES = 64 * 1024 * 1024
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture ready to store: its PNG bytes, their hash, and the hash of the bare pixels."""

    png: bytes
    sha256: str
    pixel_sha256: str
    width: int
    height: int


def encode_image(image: Image.Image | bytes, name: str = "the image") -> EncodedImage:
    """Check a picture and turn it into a plain PNG without any metadata.

    A PNG that is already plain is kept byte for byte, so that a picture keeps its hash from store to store.

    Args:
        image: a PIL image, or the bytes of a PNG, JPEG or WEBP file.
        name: what to call it in an error.

    Raises:
        ImageRefusedError: wrong format, too many pixels or bytes, or not decodable.
    """
    if isinstance(image, bytes):
        picture = _decode(image, name)
        is_plain = _is_plain_png(image)
    else:
        _check_size(image.size, name)
        picture, is_plain = _to_rgb(image), False
    pixel_sha256 = hashlib.sha256(b"RGB %d %d\n" % picture.size + picture.tobytes()).hexdigest()
    png = image if is_plain and isinstance(image, bytes) else _encode_png(picture)
    return EncodedImage(png, hashlib.sha256(png).hexdigest(), pixel_sha256, *picture.size)


def _decode(content: bytes, name: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    if len(content) > MAX_FILE_BYTES:
        raise ImageRefusedError(
            f"{name} has {len(content)} bytes, the limit is {MAX_FILE_BYTES}. Make it smaller before adding it."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit below is stricter than the warning's
            with Image.open(io.BytesIO(content), formats=ACCEPTED_FORMATS) as opened:
                _check_size(opened.size, name)
                opened.load()
                return _to_rgb(opened)
    except ImageRefusedError:
        raise
    except Image.DecompressionBombError:
        raise ImageRefusedError(
            f"{name} unpacks to far more than the {MAX_PIXELS} pixels accepted. Scale it down first."
        ) from None
    except UnidentifiedImageError:
        listing = ", ".join(ACCEPTED_FORMATS)
        raise ImageRefusedError(f"{name} is not a {listing} picture. Convert it to one of these first.") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error ...
        raise ImageRefusedError(f"{name} is damaged and can't be decoded ({error}). Get a whole copy.") from None


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MAX_PIXELS or min(size) < 1:
        raise ImageRefusedError(
            f"{name} is {size[0]} x {size[1]} pixels; 1 to {MAX_PIXELS} pixels are accepted. Scale it down first."
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Upright 8-bit RGB; transparency is laid on white."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _encode_png(picture: Image.Image) -> bytes:
    from PIL import Image

    bare = Image.frombytes("RGB", picture.size, picture.tobytes())  # leaves EXIF, ICC and text chunks behind
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _is_plain_png(content: bytes) -> bool:
    """Whether a PNG is 8-bit RGB, not interlaced, of critical chunks alone, with nothing after its end."""
    if content[:8] != _PNG_SIGNATURE or content[24:29] != b"\x08\x02\x00\x00\x00":
        return False
    offset = 8
    while offset + 12 <= len(content):
        length = int.from_bytes(content[offset : offset + 4], "big")
        chunk_type = content[offset + 4 : offset + 8]
        if chunk_type not in (b"IHDR", b"IDAT", b"IEND"):
            return False
        offset += 12 + length
        if chunk_type == b"IEND":
            return offset == len(content)
    return False


def make_thumbnail(picture: Image.Image, size_px: int) -> bytes:
    """A WEBP that fits into a square of ``size_px`` pixels."""
    small = picture.copy()
    small.thumbnail((size_px, size_px))
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=80)
    return buffer.getvalue()
