"""CLIP embeddings of stored pictures, each computed once in the store's life."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from hfi.clip import clip_folder, embed_images, load_clip
from hfi.errors import InvalidInputError
from hfi.evaluate.detectors import hash_files
from hfi.image_cache import ImageCache
from hfi.pipelines import resolve_device
from hfi.progress import QUIET, Progress
from storage import Store

CACHE_NAME = "embeddings.db"
CHUNK_SIZE = 256  # pictures in memory at a time; a multiple of the batch, so that it changes nothing


def embed_stored(
    store: Store, clip: str, sha256s: Sequence[str], device: str = "auto", progress: Progress = QUIET
) -> Float[np.ndarray, "images dim"]:
    """Embeddings of pictures of a store, float32, each of length 1, in their order.

    Args:
        store: where the pictures are, and the cache (`cache/embeddings.db`; it can be deleted at any time).
        clip: folder of the CLIP model; `mini` is the embedded one. It is loaded only if a picture is new to it.
        sha256s: the pictures; at least one.
        device: where to compute.
        progress: told about every picture.

    Raises:
        ModelFolderError: there is no such CLIP.
        InvalidInputError: there is no picture, or an embedding is not finite.
    """
    if not sha256s:
        raise InvalidInputError("No picture was given to embed: give at least one.")
    folder = clip_folder(clip)
    files = sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
    model = None if files else load_clip(clip, device)  # which says what is wrong with the folder
    reader = f"{hash_files(files)} {resolve_device(device).type}"  # a GPU rounds otherwise
    with ImageCache(store.path / "cache" / CACHE_NAME) as cache:
        kept = cache.get(reader, sha256s)
        missing = [sha256 for sha256 in dict.fromkeys(sha256s) if sha256 not in kept]
        progress.advance(len(sha256s) - len(missing))
        for start in range(0, len(missing), CHUNK_SIZE):
            model = model or load_clip(clip, device)
            chunk = missing[start : start + CHUNK_SIZE]
            embeddings = embed_images(model, [store.load_image(sha256) for sha256 in chunk])
            made = {sha256: row.tobytes() for sha256, row in zip(chunk, embeddings, strict=True)}
            cache.put(reader, made)
            kept |= made
            progress.advance(len(chunk))
    return np.stack([np.frombuffer(kept[sha256], dtype=np.float32) for sha256 in sha256s])
