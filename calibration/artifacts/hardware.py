"""Whether the machine that measured is the hardware that a tier runs on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

_CPU = "cpu"
_HOW_MANY = re.compile(r"\d+x|x\d+")


def speed_of_another(hardware: str, machine: Mapping[str, str]) -> str:
    """Return what tells that a speed was measured on other hardware than the tier's; '' where it is the tier's own.

    `hardware` is the setting of the tier: cpu, or a GPU of which every word is one of the name that its driver has,
    as L4, NVIDIA A100-80GB, 2x RTX4090. L4 is not L40S.
    """
    gpu = machine.get("gpu", "")
    words = {word for word in _words(hardware) if not _HOW_MANY.fullmatch(word)}
    is_same = not gpu if _CPU in words else words <= {*_words(gpu), *map("".join, pairwise(_words(gpu)))}
    if is_same:
        return ""
    return f"measured on {gpu or machine.get('cpu', 'an unknown machine')}, the tier's hardware is {hardware}"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
