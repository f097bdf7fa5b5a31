"""report.json of an evaluation: the figures of every checkpoint and their accuracy recovery.

`evaluate` writes it, `publish` reads it, ladder.toml carries its figures. A metric is named `<metric>` or, where it is
taken per kind of text or per task, `<metric>.<kind>`: `perplexity.code`, `kl_mean.prose`, `task.json-answers`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from calibration.artifacts.metrics import METRICS, metric_of
from calibration.errors import BadReportError

SCHEMA = 1
_NAME_SHAPE = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)?")
_DIGEST_SHAPE = re.compile(r"[0-9a-f]{64}")


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int  # how many items (tokens, problems, requests) it was taken over
    bound: Literal["", "lower"] = ""  # lower: the exact value is at least this

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high)):
            raise ValueError(f"must be finite, got {self.value}, {self.low}, {self.high}")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value must lie between low and high, got {self.low}, {self.value}, {self.high}")
        if self.n < 1:
            raise ValueError(f"n must be 1 or more, got {self.n}")


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tier compared with the reference on the same items: tier - reference with its 95 % interval."""

    difference: float
    low: float
    high: float
    # Where items are right or wrong: how many only the tier or only the reference got right, and McNemar's exact p.
    better: int | None = None
    worse: int | None = None
    p: float | None = None


class Incumbent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tier served when a checkpoint for it was measured, and how that compares item by item."""

    tier: str  # its name in this report
    digest: str
    compared: dict[str, Comparison]  # the new checkpoint - what was served


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `publish` would say under the settings of the evaluation."""

    reasons: tuple[str, ...] = ()  # why it would be refused; none: it would not
    notes: tuple[str, ...] = ()  # what judged nothing, and why


class TierReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One checkpoint as it was measured."""

    tier: str
    checkpoint: str  # absolute path of the folder
    digest: str  # calibration.artifacts.digest.checkpoint_digest of the folder when it was measured
    metrics: dict[str, Estimate]
    # Share of the reference that is kept, 1 where nothing is lost (artifacts/metrics.py); {} for the reference.
    recovery: dict[str, Estimate] = {}
    compared: dict[str, Comparison] = {}  # {} for the reference
    hardware: str = ""  # what the tier runs on, by the configuration
    incumbent: Incumbent | None = None
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        if not Path(self.checkpoint).is_absolute():
            raise ValueError(f"checkpoint must be an absolute path, got {self.checkpoint!r}")
        if not _DIGEST_SHAPE.fullmatch(self.digest):
            raise ValueError(f"digest must be 64 hexadecimal digits, got {self.digest!r}")
        for name in (*self.metrics, *self.recovery, *self.compared):
            if not _NAME_SHAPE.fullmatch(name) or metric_of(name) not in METRICS:
                raise ValueError(f"metric must be one of {', '.join(METRICS)}, perhaps with .<kind>, got {name!r}")


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One evaluation: several checkpoints on the same texts and problems, on the same machine."""

    schema: int = SCHEMA
    model: str
    reference: str  # name of the tier that recovery is against; it is among `tiers`, or `failed`
    tiers: tuple[TierReport, ...]
    failed: dict[str, str] = {}  # checkpoints that could not be measured: name -> why
    sources: dict[str, str]  # the held-out sets and problems: name -> sha256
    source_names: dict[str, str] = {}  # where those came from that are files: name -> path, or `packaged`
    versions: dict[str, str]  # library -> version
    machine: dict[str, str]  # cpu, cores, memory, gpu: what speeds depend on
    made_at: str  # RFC 3339, UTC
    seconds: float
    settings: dict[str, Any] = {}  # Any: JSON; options of the command, and the limits that the verdicts are by

    def __post_init__(self) -> None:
        names = [*(tier.tier for tier in self.tiers), *self.failed]
        if self.schema != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, got {self.schema}")
        if len(set(names)) != len(names):
            raise ValueError(f"tiers must differ, got {', '.join(names)}")
        if self.reference not in names:
            raise ValueError(f"reference must be one of {', '.join(names)}, got {self.reference!r}")


def read_report(path: Path) -> Report:
    """Return the report, or raise BadReportError that says what is wrong with the file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise BadReportError(f"cannot read report {str(path)!r}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadReportError(f"report {str(path)!r} is not one of `bitladder calibrate evaluate`: {error}") from error


def encode_report(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
