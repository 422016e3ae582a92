"""What went wrong, as one clear sentence and an exit code: 2 = wrong usage, 130 = Ctrl-C, 1 = everything else."""

from __future__ import annotations

import errno
import sqlite3

import typer

from hfi.errors import ConfigError, HFIError

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130
STOPPED = "Stopped. Run the same command again: it goes on where it was."
NO_SPACE = (
    "No space left on the disk; nothing half-written was kept. Free some space and run the same command again: "
    "it goes on where it was."
)


def explain_error(error: BaseException) -> tuple[str, int]:
    """Say what happened and what to do.

    Args:
        error: What a command raised.

    Returns:
        One sentence or two, without a traceback, and the exit code.
    """
    if isinstance(error, typer.TyperException):
        return _explain_usage(error), error.exit_code
    if isinstance(error, ConfigError):
        return str(error), EXIT_USAGE
    if isinstance(error, HFIError):
        return str(error), EXIT_FAILED
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return STOPPED, EXIT_STOPPED
    if isinstance(error, BrokenPipeError):
        return "", EXIT_FAILED
    if is_no_space(error):
        return NO_SPACE, EXIT_FAILED
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "Not enough memory. Use a smaller --batch-size, or --device cpu.", EXIT_FAILED
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. Check the path and its permissions.", EXIT_FAILED
    text = " ".join(str(error).split()) or "no message"
    return f"This should not happen: {type(error).__name__}: {text}. Set HFI_DEBUG=1 to see where.", EXIT_FAILED


def is_no_space(error: BaseException) -> bool:
    """Whether the disk or a quota was full, whoever noticed: the system, SQLite or the writer of weights."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return True
    return "No space left on device" in str(error)


def _explain_usage(error: typer.TyperException) -> str:
    """Wrong usage: the message and where the right usage stands."""
    message = error.format_message().strip().replace("Value error, ", "")
    message += "" if message.endswith((".", "?", "!")) else "."
    context = getattr(error, "ctx", None)
    return f"{message} See: {context.command_path} --help" if context is not None else message
