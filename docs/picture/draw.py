"""Draw the picture of the whole from boxes.txt: `python -m docs.picture.draw`. Needs the standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
SOURCE, PICTURE = HERE / "boxes.txt", HERE / "picture.svg"
COLUMN, ROW = 252, 138  # from one box to the next
WIDTH, HEIGHT = 188, 70  # of a box
MARGIN, BAR = 24, 44  # around everything; the height of a box that spans columns
STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; text-anchor: middle; }
  .name { font-size: 14px; font-weight: 600; fill: #1f2328; }
  .what { font-size: 11.5px; fill: #59636e; }
  .inside { text-anchor: end; }
  .label { font-size: 12px; fill: #1f2328; stroke: #ffffff; stroke-width: 7px; paint-order: stroke; }
  .paper { fill: #ffffff; }
  .box { fill: #ddf4ff; stroke: #0969da; }
  .other { fill: #f6f8fa; stroke: #59636e; stroke-dasharray: 4 3; }
  .around { fill: #f6faff; stroke: #54aeff; }
  .arrow { fill: none; stroke: #59636e; stroke-width: 1.4; marker-end: url(#head); }
  .head { fill: #59636e; }
  @media (prefers-color-scheme: dark) {
    .name { fill: #f0f6fc; }
    .label { fill: #f0f6fc; stroke: #0d1117; }
    .what { fill: #9198a1; }
    .paper { fill: #0d1117; }
    .box { fill: #12304f; stroke: #4493f8; }
    .other { fill: #1c2128; stroke: #9198a1; }
    .around { fill: #10192a; stroke: #316dca; }
    .arrow { stroke: #9198a1; }
    .head { fill: #9198a1; }
  }
"""
LINE = re.compile(
    r"(?P<kind>around|box|other) +(?P<name>\S+) *\| *(?P<columns>[\d-]+), (?P<rows>[\d-]+) *\| *(?P<what>.+)"
)
ARROW = re.compile(r"(?P<tail>\S+) -> (?P<head>\S+) *\| *(?P<label>.+)")


@dataclass(frozen=True)
class Box:
    """A folder, or something outside of the repository, and its place in the grid."""

    kind: str
    name: str
    columns: tuple[int, int]
    rows: tuple[int, int]
    what: str

    @property
    def x(self) -> float:
        return MARGIN + self.columns[0] * COLUMN

    @property
    def y(self) -> float:
        return MARGIN + (self.rows[0] - 1) * ROW + BAR + 30 if self.rows[0] else MARGIN

    @property
    def width(self) -> float:
        return (self.columns[1] - self.columns[0]) * COLUMN + WIDTH

    @property
    def height(self) -> float:
        return HEIGHT if self.rows[0] else BAR


@dataclass(frozen=True)
class Arrow:
    """What one box asks of another."""

    tail: str
    head: str
    label: str


@dataclass
class Drawing:
    """What boxes.txt says."""

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)


def read(text: str) -> Drawing:
    """Return the boxes and arrows of a text.

    Raises:
        ValueError: a line is neither, or an arrow names no box.

    """
    drawing = Drawing()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if match := LINE.fullmatch(line):
            columns, rows = _span(match["columns"]), _span(match["rows"])
            drawing.boxes[match["name"]] = Box(match["kind"], match["name"], columns, rows, match["what"])
        elif match := ARROW.fullmatch(line):
            drawing.arrows.append(Arrow(match["tail"], match["head"], match["label"]))
        else:
            raise ValueError(f"line {number} of boxes.txt is neither a box nor an arrow: {line!r}")
    if unknown := {end for arrow in drawing.arrows for end in (arrow.tail, arrow.head)} - set(drawing.boxes):
        raise ValueError(f"arrows of boxes.txt name no box: {', '.join(sorted(unknown))}")
    return drawing


def svg(drawing: Drawing) -> str:
    """Return the picture."""
    boxes = drawing.boxes.values()
    width = max(box.x + box.width for box in boxes) + MARGIN
    height = max(box.y + box.height for box in boxes) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        'aria-label="The packages of bitladder and what they ask of each other">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>',
        f'<rect class="paper" width="{width:g}" height="{height:g}" rx="8"/>',
        *(_around(box) for box in boxes if box.kind == "around"),
        *(_box(box) for box in boxes if box.kind != "around"),
        *_arrows(drawing),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _around(box: Box) -> str:
    return (
        f'<rect class="around" x="{box.x - 14:g}" y="{box.y - 16:g}" width="{box.width + 28:g}" '
        f'height="{box.height + 52:g}" rx="10"/>'
        f'<text class="what inside" x="{box.x + box.width - 8:g}" y="{box.y + box.height + 24:g}">'
        f"{escape(box.what)}</text>"
    )


def _box(box: Box) -> str:
    middle = box.x + box.width / 2
    title = box.name + ("/" if box.kind == "box" else "")
    first = box.y + (22 if box.rows[0] else 18)
    lines = [
        f'<rect class="{box.kind}" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="7"/>'
    ]
    lines.append(f'<text class="name" x="{middle:g}" y="{first:g}">{escape(title)}</text>')
    for number, what in enumerate(box.what.split(" / ")):
        lines.append(f'<text class="what" x="{middle:g}" y="{first + 18 + 16 * number:g}">{escape(what)}</text>')
    return "".join(lines)


def _arrows(drawing: Drawing) -> list[str]:
    """Return the arrows; those that meet one side of a box share its length evenly."""
    sides: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for number, arrow in enumerate(drawing.arrows):
        tail, head = drawing.boxes[arrow.tail], drawing.boxes[arrow.head]
        for box, other in ((tail, head), (head, tail)):
            sides.setdefault((box.name, _side(box, other)), []).append((other.x, number))
    return [_arrow(drawing, number, sides) for number in range(len(drawing.arrows))]


def _side(box: Box, other: Box) -> str:
    if box.rows == other.rows:
        return "right" if other.x > box.x else "left"
    return "bottom" if other.y > box.y else "top"


def _arrow(drawing: Drawing, number: int, sides: dict[tuple[str, str], list[tuple[float, int]]]) -> str:
    arrow = drawing.arrows[number]
    tail, head = drawing.boxes[arrow.tail], drawing.boxes[arrow.head]
    (x1, y1), (x2, y2) = (_port(box, _side(box, other), number, sides) for box, other in ((tail, head), (head, tail)))
    if y1 == y2:
        path, lift = f"M{x1:g},{y1:g} L{x2:g},{y2:g}", 12
    else:
        bend = (y2 - y1) / 2
        lift = 0
        path = f"M{x1:g},{y1:g} C{x1:g},{y1 + bend:g} {x2:g},{y2 - bend:g} {x2:g},{y2:g}"
    return f'<path class="arrow" d="{path}"/>' + _label(arrow.label, (x1 + x2) / 2, (y1 + y2) / 2 - lift)


def _port(
    box: Box, side: str, number: int, sides: dict[tuple[str, str], list[tuple[float, int]]]
) -> tuple[float, float]:
    numbers = [other for _, other in sorted(sides[box.name, side])]
    share = (numbers.index(number) + 1) / (len(numbers) + 1)
    if side in {"top", "bottom"}:
        return box.x + share * box.width, box.y + (box.height if side == "bottom" else 0)
    return box.x + (box.width if side == "right" else 0), box.y + share * box.height


def _label(text: str, x: float, y: float) -> str:
    return f'<text class="label" x="{x:g}" y="{y + 4:g}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(svg(read(SOURCE.read_text(encoding="utf-8"))), encoding="utf-8")
