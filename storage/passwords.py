"""Passwords: scrypt (RFC 7914) with the parameters beside each hash, so that old hashes stay readable."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from functools import lru_cache

from storage.errors import InvalidInputError

LOG2_N, BLOCK_SIZE, PARALLEL = 15, 8, 1  # 32 MiB and about 0.1 s a guess
MIN_CHARACTERS, MAX_CHARACTERS = 10, 200
_MAX_MEMORY = 128 * 1024 * 1024


def hash_password(password: str) -> str:
    """The text that is stored instead of the password.

    Raises:
        InvalidInputError: shorter than 10 or longer than 200 characters.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise InvalidInputError(
            f"The password has {len(password)} characters; use {MIN_CHARACTERS} to {MAX_CHARACTERS}. "
            "A sentence is easy to remember and hard to guess."
        )
    salt = secrets.token_bytes(16)
    key = _derive(password, salt, LOG2_N, BLOCK_SIZE, PARALLEL)
    return f"scrypt${LOG2_N}${BLOCK_SIZE}${PARALLEL}${_text(salt)}${_text(key)}"


def is_password(password: str, stored: str | None) -> bool:
    """Whether the password is the stored one; takes as long when there is none, so that names can't be guessed."""
    _, log2_n, block_size, parallel, salt, key = (stored or _nobodys_hash()).split("$")
    numbers = (int(log2_n), int(block_size), int(parallel))
    found = _derive(password[:MAX_CHARACTERS], base64.b64decode(salt), *numbers)
    return hmac.compare_digest(found, base64.b64decode(key)) and stored is not None


@lru_cache(maxsize=1)
def _nobodys_hash() -> str:
    return hash_password(secrets.token_hex(16))


def _derive(password: str, salt: bytes, log2_n: int, block_size: int, parallel: int) -> bytes:
    content = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(content, salt=salt, n=2**log2_n, r=block_size, p=parallel, maxmem=_MAX_MEMORY, dklen=32)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
