"""The server is killed while people judge: the small version of `tests/faults/annotators.py`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.annotators import is_sound, run


def test_killing_the_server_loses_and_doubles_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, n_annotators=4, n_judgments=10, n_kills=1)
    assert result["kills"] == 1
    assert is_sound(result, 40), result
