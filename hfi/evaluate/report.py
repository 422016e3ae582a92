"""A report as one self-contained HTML file: pictures inside, no other host, readable in print and on a telephone.

    write_report(Path("demo/report.html"), ReportContent(...))

The records it is made of are in `report_content`, the numbers as JSON in `results`. Importing this never imports torch.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from hfi.errors import InvalidInputError
from hfi.evaluate import charts
from hfi.evaluate.metrics import Interval, difference_of_rates
from hfi.evaluate.report_content import (
    AnnotatorRow,
    Contribution,
    Curve,
    Fact,
    ImageSource,
    LabelStatistics,
    Picture,
    PicturePair,
    RateRow,
    ReportContent,
    ScoreModelCard,
    StageCost,
    TokenCard,
    spread,
)
from hfi.evaluate.results import DemoResults, write_results
from hfi.files import write_text_atomically
from hfi.progress import format_seconds

__all__ = [
    "write_report",
    "write_results",
    "ReportContent",
    "AnnotatorRow",
    "Contribution",
    "Curve",
    "DemoResults",
    "Fact",
    "LabelStatistics",
    "Picture",
    "PicturePair",
    "RateRow",
    "ScoreModelCard",
    "StageCost",
    "TokenCard",
]

MAX_PICTURE_PX = 384  # larger pictures are made smaller: the page shows none larger than half of this
WEBP_QUALITY = 92


def write_report(path: Path, content: ReportContent) -> Path:
    """Write one HTML file that needs no other file and no network.

    Args:
        path: File to write, atomically; folders are made as needed.
        content: What the report says.

    Returns:
        The path.

    Raises:
        InvalidInputError: A picture cannot be read.
        OSError: No space or no permission; nothing half-written is left.
    """
    write_text_atomically(path, render_report(content))
    return path


def render_report(content: ReportContent) -> str:
    """The HTML text of a report."""
    return _template().render(report=content, charts=charts, **_derived(content))


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("hfi.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        percent=format_percent,
        number=format_number,
        out_of_100=format_out_of_100,
        seconds=format_seconds,
        thousands=format_thousands,
        data_uri=encode_picture,
        difference=row_difference,
        plain=strip_markdown,
    )
    return environment.get_template("report.html")


def encode_picture(source: ImageSource) -> str:
    """A picture as a data URI (WebP), made smaller where it is larger than the page shows it.

    Raises:
        InvalidInputError: The file is missing or not a picture.
    """
    try:
        if isinstance(source, Image.Image):
            picture = source.convert("RGB")
        else:
            with Image.open(source) as file:
                picture = file.convert("RGB")
    except OSError as error:
        raise InvalidInputError(f"The picture {source} cannot be read for the report: {error}.") from error
    if max(picture.size) > MAX_PICTURE_PX:
        picture.thumbnail((MAX_PICTURE_PX, MAX_PICTURE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def strip_markdown(text: str) -> str:
    """A guideline as it reads: without the marks of headings and emphasis, lines kept."""
    return re.sub(r"^#+\s*|(?<!\s)\*+|\*+(?!\s)|(?<!\w)_+|_+(?!\w)", "", text.strip(), flags=re.MULTILINE)


def format_percent(share: float) -> str:
    """0.915 -> `91.5 %`, 0.9 -> `90 %`; minus is a real minus sign."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    return ("0" if text == "-0" else text.replace("-", "\N{MINUS SIGN}")) + "\N{NARROW NO-BREAK SPACE}%"


def format_number(value: float, digits: int = 2) -> str:
    """A number with a fixed count of digits after the point."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def format_out_of_100(share: float) -> str:
    """0.915 -> `92`; neither 0 nor 100 unless it is exactly that: `fewer than 1`, `more than 99`."""
    if 0 < share < 0.005:
        return "fewer than 1"
    if 0.995 <= share < 1:
        return "more than 99"
    return str(round(100 * share))


def format_thousands(count: int) -> str:
    """12345 -> `12 345`, with a space that does not break."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _derived(content: ReportContent) -> dict[str, Any]:
    """What the page shows that follows from the records."""
    return {
        "verdict": judge_change(content.removal, content.others),
        "rates": (content.removal, content.others, *content.more_rates),
        "total_seconds": sum(cost.seconds for cost in content.costs),
        "peak_memory_mib": max((cost.peak_memory_mib or 0.0 for cost in content.costs), default=0.0),
        "slider_pairs": spread(content.concept_pairs, 8) + spread(content.other_pairs, 8),
        "num_slider_concepts": min(len(content.concept_pairs), 8),
    }


def judge_change(removal: RateRow, others: RateRow) -> str:
    """One sentence or two about both measures together, from the intervals of their differences.

    Args:
        removal: Concept prompts, lower is better.
        others: Other prompts, higher is better.
    """
    cut, loss = row_difference(removal), row_difference(others)
    if cut.high >= 0:
        return "Nothing was shown to be removed: the concept may appear as often as before."
    if loss.high < 0:
        return (
            f"The concept appears less often, and other pictures suffered: between {100 * -loss.high:.1f} and "
            f"{100 * -loss.low:.1f} in 100 of them are lost."
        )
    lost = f"; {-100 * loss.estimate:.1f} in 100 fewer are right here, which may be chance" if loss.estimate < 0 else ""
    return (
        f"The concept appears less often. No damage to other pictures was found; a loss of more than "
        f"{max(0.0, 100 * -loss.low):.1f} in 100 is unlikely{lost}."
    )


def row_difference(row: RateRow) -> Interval:
    """after - before with its interval: the paired one where it was computed, else as of independent samples."""
    return row.difference or difference_of_rates(row.after, row.before)
