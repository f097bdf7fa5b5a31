"""A report as one HTML page: tables, pictures and notes. It loads nothing from anywhere, and escapes what it shows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from calibration.artifacts.folder import write_output

_PAGES = Environment(
    autoescape=True,
    loader=FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    undefined=StrictUndefined,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page: a heading, and a text, a picture or a table under it."""

    heading: str = ""
    text: str = ""
    png: bytes = b""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()  # a first cell that begins with a blank belongs to the row above

    @property
    def image(self) -> str:
        return base64.b64encode(self.png).decode()


def html_page(title: str, summary: str, sections: Sequence[Section], notes: Sequence[str]) -> str:
    template = _PAGES.get_template("report.html.jinja")
    return template.render(title=title, summary=summary, sections=sections, notes=notes) + "\n"


def write_page(output: Path, page: str, plots: Mapping[str, bytes]) -> None:
    """Write the page that --output names, and its plots beside it, by the ends of their names."""
    for name, png in plots.items():
        write_output(output.with_name(f"{output.stem}-{name}.png"), png, "--output")
    write_output(output, page.encode(), "--output")
