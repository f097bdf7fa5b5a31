"""Writes Grafana's dashboards: `python -m monitoring.dashboards`."""

from __future__ import annotations

from pathlib import Path

from monitoring.boards.fleet import FLEET
from monitoring.boards.latency import LATENCY
from monitoring.boards.overflow_costs import COSTS
from monitoring.boards.overview import OVERVIEW
from monitoring.boards.quality import QUALITY

FOLDER = Path(__file__).parent / "grafana" / "dashboards"


def rendered() -> dict[str, str]:
    """Return the text of each file, by its name."""
    boards = (OVERVIEW, LATENCY, COSTS, QUALITY, FLEET)
    return {f"{board.name}.json": board.as_json() for board in boards}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
