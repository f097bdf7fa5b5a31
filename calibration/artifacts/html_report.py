"""A report as one HTML page: tables, pictures and notes. It loads nothing from anywhere, and escapes what it shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
