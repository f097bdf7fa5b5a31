"""Writes the tables of docs/metrics.md from the rows that the processes make their metrics of.

python -m monitoring.metric_page
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bitladder.process.article_names import ARTICLE_NAMES
from bitladder.process.metric_table import Row
from bitladder.process.process_metrics import SECONDS
from calibration.control.drift.drift_metrics import ROWS as DRIFT_ROWS
from calibration.control.shadow.metric_rows import ROWS as SHADOW_ROWS
from dispatcher.metrics.intake_rows import ROWS as INTAKE_ROWS
from workers.metrics.worker_rows import ROWS as WORKER_ROWS

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
_HEAD = ["| metric | type | labels | unit | answers |", "| --- | --- | --- | --- | --- |"]


def rendered(page: str) -> str:
    """Return the page with its tables written anew, each between two marks."""
    tables = {
        "intake": _table(INTAKE_ROWS),
        "worker": _table(WORKER_ROWS),
        "shadow": _table(SHADOW_ROWS),
        "drift": _table(DRIFT_ROWS),
        "article": _aliases(),
    }
    for name, lines in tables.items():
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        text = "\n".join((marks[0], "", *lines, "", marks[1]))
        before, after = page.index(marks[0]), page.index(marks[1]) + len(marks[1])
        page = page[:before] + text + page[after:]
    return page


def _table(rows: Iterable[Row]) -> list[str]:
    return [*_HEAD, *map(_line, rows)]


def _line(row: Row) -> str:
    labels = ", ".join(f"`{name}`" + (f" ({most})" if most else "") for name, most in row.labels.items())
    buckets = "" if not row.buckets or row.buckets is SECONDS else f" Buckets: {_listed(row.buckets)}."
    return f"| `{row.name}` | {row.kind} | {labels} | {row.unit} | {row.answers}{buckets} |"


def _aliases() -> list[str]:
    counters = {row.name.removesuffix("_total") for row in (*INTAKE_ROWS, *WORKER_ROWS) if row.kind == "counter"}
    ends = {ours: "_total" if ours in counters else "" for ours in ARTICLE_NAMES}
    lines = [f"| `{name}{ends[ours]}` | `{ours}{ends[ours]}` |" for ours, (name, _) in ARTICLE_NAMES.items()]
    return ["| the article's | copy of |", "| --- | --- |", *lines]


def _listed(buckets: Iterable[float]) -> str:
    return ", ".join(f"{bucket:g}" for bucket in buckets)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
