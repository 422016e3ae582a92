"""What people hand to the command line: prompts in files, seeds as ranges."""

from __future__ import annotations

import re
from pathlib import Path

from hfi.errors import ConfigError, EmptyPromptListError, NotFoundError, PromptFileError

MAX_PROMPT_CHARACTERS = 2000
MAX_PROMPT_FILE_BYTES = 64 * 2**20
MAX_SEED = 2**63 - 1


def read_prompts(path: Path | None, prompts: list[str]) -> list[str]:
    """Prompts from a text file, one a line, after those given one by one.

    Empty lines and lines that start with `#` are left out; everything else is kept as it is typed.

    Args:
        path: UTF-8 text file, or None.
        prompts: Prompts from options.

    Raises:
        NotFoundError: There is no such file.
        PromptFileError: The file is not text, too large, or a line is longer than MAX_PROMPT_CHARACTERS.
        EmptyPromptListError: There is no prompt at all.
    """
    found = [prompt for prompt in prompts if prompt.strip()]
    if path is not None:
        lines = _read_text(path).splitlines()
        for number, line in enumerate(lines, start=1):
            if len(line) > MAX_PROMPT_CHARACTERS:
                raise PromptFileError(
                    f"Line {number} of {path} has {len(line)} characters, but a prompt has at most "
                    f"{MAX_PROMPT_CHARACTERS}: write one prompt a line."
                )
        found += [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        source = f"{path} holds no prompt" if path is not None else "There is no prompt"
        raise EmptyPromptListError(f"{source}: give --prompt 'a cat' or a text file with one prompt a line.")
    return found


def parse_seeds(text: str) -> list[int]:
    """`0-3,7` -> [0, 1, 2, 3, 7], in the order typed, each seed once.

    Raises:
        ConfigError: The text is not a list of seeds and ranges, or a seed is out of range.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})\s*(?:-\s*(\d{1,19})\s*)?", part)
        if match is None:
            raise ConfigError(f"--seeds is {text!r}, but must be seeds and ranges such as 0-9 or 3,5,8.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last > MAX_SEED or last - first >= 1_000_000:
            raise ConfigError(
                f"--seeds has the range {part.strip()}, but a range goes upwards, has at most a million seeds and "
                f"ends below 2^63: write for instance 0-9."
            )
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def _read_text(path: Path) -> str:
    if not path.exists():
        raise NotFoundError(f"There is no prompt file {path}: check the path.")
    if path.is_dir():
        raise PromptFileError(f"{path} is a folder, but a text file with one prompt a line is needed.")
    if path.stat().st_size > MAX_PROMPT_FILE_BYTES:
        raise PromptFileError(f"{path} is larger than {MAX_PROMPT_FILE_BYTES // 2**20} MiB: split it.")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptFileError(
            f"{path} is not UTF-8 text (byte {error.start} is {content[error.start]:#04x}): save it as UTF-8, one "
            f"prompt a line."
        ) from error
    if "\0" in text:
        raise PromptFileError(f"{path} is not text (it holds NUL bytes): give a text file with one prompt a line.")
    return text
