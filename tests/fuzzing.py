"""How long random tests run, from which seed, and what came of them: short and the same every time, or `make fuzz`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

from tests.conftest import ROOT

IS_LONG = os.environ.get("FUZZ_LONG") == "1"
SEED = int(os.environ.get("FUZZ_SEED", "4"))


def sized(short: int, long: int) -> int:
    return long if IS_LONG else short


def report(name: str, figures: Mapping[str, object], sentence: str) -> None:
    """Keep the figures of one run, and say in a line what came of it."""
    path = ROOT / "var" / "fuzz" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seed": SEED} | dict(figures), indent=2), encoding="utf-8")
    sys.stderr.write(f"\n{name}: seed {SEED}, {sentence}\n")
