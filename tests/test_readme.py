"""The help text in the README is what `hfi --help` prints; `make docs` writes it anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"(?<=<!-- help: begin -->\n).*?(?=<!-- help: end -->)", re.DOTALL)


def print_help() -> str:
    """What `hfi --help` prints on a terminal of 100 columns, as a block of Markdown."""
    plain = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "hfi.cli", "--help"], cwd=ROOT, env=plain, capture_output=True, text=True, check=True
    )
    lines = [line.rstrip() for line in run.stdout.strip().splitlines()]
    return "```text\n" + "\n".join(lines).strip() + "\n```\n"


def write_help() -> None:
    """Put the help text where the README keeps it."""
    README.write_text(BLOCK.sub(lambda _: print_help(), README.read_text(encoding="utf-8")), encoding="utf-8")


def test_help_text_in_the_readme_is_up_to_date() -> None:
    found = BLOCK.search(README.read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] == print_help(), "run: make docs"


def test_readme_links_lead_somewhere() -> None:
    for path in [README, *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"(?<!!)\[[^]]*\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{path.name}: {target}"


if __name__ == "__main__":
    write_help()
