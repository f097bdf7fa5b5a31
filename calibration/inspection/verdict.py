"""What an inspection finds: per check the worst verdict and what was seen, few examples of many."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path

import msgspec

from calibration.terminal.escape import printable

# A defect that is everywhere is told as well by three places as by three hundred.
_SHOWN = 3
# Names in a checkpoint may be as long as they like.
MAX_CHARS = 400


class Verdict(StrEnum):
    """Ordered: the worst one of its findings is a check's."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "fail"


class CheckName(StrEnum):
    """The checks, in the order in which they are shown."""

    FILES = "files"
    CONFIG = "config"
    QUANTIZATION = "quantization"
    TENSORS = "tensors"
    ALIGNMENT = "alignment"
    WEIGHTS = "weights"
    SCALES = "scales"
    OUTLIERS = "outliers"
    DTYPES = "dtypes"
    TOKENIZER = "tokenizer"
    SIZE = "size"
    MANIFEST = "manifest"


_ORDER = list(Verdict)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check as it ended."""

    name: CheckName
    verdict: Verdict
    texts: tuple[str, ...] = msgspec.field(name="said")  # as it is printed in JSON


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """All checks of one folder."""

    path: Path
    verdict: Verdict
    checks: tuple[Check, ...]
    weight_bytes: int
    dtypes: dict[str, dict[str, int]]  # kind of tensor -> dtype -> how many
    seconds: float
    peak_bytes: int  # most memory that the process held, Python and numpy included


class Findings:
    """Collects what the checks see."""

    def __init__(self) -> None:
        self._seen: dict[CheckName, dict[Verdict, list[str]]] = {}
        self._more: Counter[tuple[CheckName, Verdict]] = Counter()

    def ok(self, check: CheckName, text: str) -> None:
        self._add(check, Verdict.OK, text)

    def warn(self, check: CheckName, text: str) -> None:
        self._add(check, Verdict.WARNING, text)

    def fail(self, check: CheckName, text: str) -> None:
        self._add(check, Verdict.FAIL, text)

    def has_failed(self, check: CheckName) -> bool:
        return Verdict.FAIL in self._seen.get(check, {})

    def checks(self) -> tuple[Check, ...]:
        """Return the checks that were made, each with its faults, or else with what was found in order."""
        made = []
        for name in CheckName:
            if seen := self._seen.get(name):
                verdict = max(seen, key=_ORDER.index)
                levels = [verdict] if verdict is Verdict.OK else [Verdict.FAIL, Verdict.WARNING]
                texts = [text for level in levels if level in seen for text in self._texts(name, level)]
                made.append(Check(name=name, verdict=verdict, texts=tuple(texts)))
        return tuple(made)

    def worst(self) -> Verdict:
        return max((check.verdict for check in self.checks()), key=_ORDER.index, default=Verdict.OK)

    def _texts(self, name: CheckName, level: Verdict) -> list[str]:
        more = self._more[name, level]
        return [*self._seen[name][level], *([f"and {more} more like it"] if more else [])]

    def _add(self, check: CheckName, verdict: Verdict, text: str) -> None:
        texts = self._seen.setdefault(check, {}).setdefault(verdict, [])
        text = printable(text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]}…{text[-MAX_CHARS // 2 :]}")
        if len(texts) < _SHOWN:
            texts.append(text)
        else:
            self._more[check, verdict] += 1
