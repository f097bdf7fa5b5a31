"""How long random tests run, and from which seed: short and always the same in the default suite, see `make fuzz`."""

from __future__ import annotations

import os

IS_LONG = os.environ.get("FUZZ_LONG") == "1"
SEED = int(os.environ.get("FUZZ_SEED", "4"))


def sized(short: int, long: int) -> int:
    return long if IS_LONG else short
