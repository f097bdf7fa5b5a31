"""Whether a checkpoint may take the place of what its tier serves. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bitladder.settings.publish_section import PublishSettings
from calibration.artifacts.evaluation_report import TierReport
from calibration.publishing.gate import worse_than_served


@dataclass(frozen=True, slots=True, kw_only=True)
class Waivers:
    """What the user does not insist on."""

    without_incumbent: bool = False  # nothing needs to be compared with what is served
    accept_worse: bool = False  # what is worse may take its place


@dataclass(frozen=True, slots=True)
class Replacement:
    """What speaks against a replacement: `reasons` refuse it, `notes` are only said."""

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def replacement(tier: TierReport, served_digest: str, settings: PublishSettings, waivers: Waivers) -> Replacement:
    """Judge a tier against the checkpoint of the present release, whose digest is '' where it has none for the tier."""
    if served_digest == tier.digest:
        return Replacement()
    incumbent = tier.incumbent
    if incumbent is None or (served_digest and incumbent.digest != served_digest):
        if not served_digest:
            return Replacement()
        text = "was not compared with the served checkpoint on the same texts"
        if waivers.without_incumbent:
            return Replacement(notes=(f"{text}: replaced all the same (--without-incumbent)",))
        return Replacement((f"{text}: `evaluate` measures that beside it, or replace it with --without-incumbent",))
    worse = tuple(worse_than_served(tier, settings.limits_of(tier.tier)))
    if worse and not waivers.accept_worse:
        return Replacement((*worse, "what is worse replaces the served checkpoint only with --accept-worse"))
    return Replacement(notes=worse or ("not worse than the served checkpoint beyond the intervals",))
