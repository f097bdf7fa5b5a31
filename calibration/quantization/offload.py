"""How much of a model may be in memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class OffloadLimit(NamedTuple):
    """How much memory weights may take, and the folder for the rest."""

    bytes: int
    folder: Path
