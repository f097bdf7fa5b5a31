"""What one check says, and what a check may look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from bitladder.settings.load import Loaded
from bitladder.settings.models_section import TierSettings
from bitladder.settings.sections import Settings


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"  # it could not be looked at, or does not apply here


class Role(StrEnum):
    """What a process is for."""

    INTAKE = "intake"
    WORKER = "worker"
    PRODUCER = "producer"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. The name of a check is stable: programs go by it."""

    check: str  # <group>.<check>
    status: Status
    subject: str  # what was looked at: a tier, a folder, a server
    detail: str
    cure: str = ""  # a command or a setting; of those that warn or fail


@dataclass(frozen=True, slots=True)
class Examined:
    """What is looked at."""

    loaded: Loaded
    role: Role
    tier: str | None = None  # the only one; None: all

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    def at_each_redis(self) -> list[Examined]:
        """Return what is looked at of each Redis: the settings of its models."""
        parts = self.settings.at_each_redis
        return [replace(self, loaded=self.loaded.model_copy(update={"settings": part})) for part in parts]

    def tiers(self) -> list[tuple[str, TierSettings]]:
        """Return each tier with its name as shown, <model> <tier>."""
        return [
            (f"{model} {tier.name}", tier)
            for model, settings in self.settings.models.items()
            for tier in settings.tiers
            if self.tier in (None, tier.name)
        ]


def ok(check: str, subject: str, detail: str) -> Finding:
    return Finding(check, Status.OK, subject, detail)


def warn(check: str, subject: str, detail: str, cure: str) -> Finding:
    return Finding(check, Status.WARN, subject, detail, cure)


def fail(check: str, subject: str, detail: str, cure: str) -> Finding:
    return Finding(check, Status.FAIL, subject, detail, cure)


def skipped(check: str, subject: str, detail: str) -> Finding:
    return Finding(check, Status.SKIPPED, subject, detail)


def in_bytes(count: float) -> str:
    """Return a size for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
