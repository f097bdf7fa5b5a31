"""A configuration, small real checkpoints, and the report of an evaluation of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bitladder.settings.checkpoint_digest import checkpoint_digest
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings
from calibration.artifacts.evaluation_report import Comparison, Estimate, Incumbent, Report, TierReport, encode_report
from calibration.publishing.release_file import ReleaseStore
from tests.calibration.inspection.tiny import Tiny

LAYOUTS = {"int4": "int4", "int8": "int8", "bf16": "bf16"}
GOOD = {"perplexity.code": 0.95, "top1": 0.9, "pass_at_1": 0.9}


def figure(value: float, spread: float = 0.05, n: int = 1000) -> Estimate:
    return Estimate(value=value, low=value - spread, high=value + spread, n=n)


class Scene:
    """What a publisher has on disk."""

    def __init__(self, folder: Path, keep: int = 20) -> None:
        self.folder, self.config = folder, folder / "bitladder.toml"
        tiers = "".join(f'[[models.m.tiers]]\nname = "{name}"\ncheckpoint = "{self.old(name)}"\n' for name in LAYOUTS)
        cache = folder / "cache"
        self.config.write_text(f'[publish]\nkeep = {keep}\n[vllm]\ncache_dir = "{cache}"\n{tiers}', encoding="utf-8")
        for name in LAYOUTS:
            Tiny("bf16").write(self.old(name))
        self.checkpoints = {name: self.checkpoint(name, layout) for name, layout in LAYOUTS.items()}
        self.file = folder / "ladder.toml"
        self.settings: Settings = load_settings(str(self.config), environ={}, with_release=False).settings
        self.store = ReleaseStore(self.file, keep)
        self.reports = 0

    def old(self, tier: str) -> Path:
        """Return the checkpoint that the configuration names."""
        return self.folder / "old" / tier

    def checkpoint(self, name: str, layout: str) -> Path:
        return Tiny(layout).write(self.folder / "cache" / name)

    def tier(
        self,
        name: str,
        recovery: Mapping[str, Estimate | float] = GOOD,
        kl: float = 0.1,
        against: Incumbent | None = None,
    ) -> TierReport:
        kept = {metric: own if isinstance(own, Estimate) else figure(own) for metric, own in recovery.items()}
        return TierReport(
            tier=name,
            checkpoint=str(self.checkpoints[name]),
            digest=checkpoint_digest(self.checkpoints[name]),
            metrics={"perplexity.code": figure(5.0), "kl_mean": figure(kl), "tokens_per_s": figure(50.0)},
            recovery={} if name == "bf16" else kept,
            incumbent=against,
        )

    def report(self, *tiers: TierReport, model: str = "m") -> Path:
        """Write a report that differs from every one before."""
        self.reports += 1
        report = Report(
            model=model,
            reference="bf16",
            tiers=(self.tier("bf16"), *tiers),
            sources={"heldout": "0" * 64},
            versions={"vllm": "0.32"},
            machine={"cpu": "any"},
            made_at="2026-11-24T12:00:00+00:00",
            seconds=float(self.reports),
        )
        path = self.folder / "report.json"
        path.write_bytes(encode_report(report))
        return path

    def served(self, tier: str) -> str:
        """Return the checkpoint that a worker of the tier would load."""
        return load_settings(str(self.config), environ={}).settings.model("m").tier(tier).checkpoint

    def against(self, tier: str, **compared: tuple[float, float, float]) -> Incumbent:
        """Return a comparison with what the release serves in a tier: difference, low and high by metric."""
        release = self.store.present()
        assert release
        comparisons = {
            name.replace("__", "."): Comparison(difference=difference, low=low, high=high)
            for name, (difference, low, high) in compared.items()
        }
        return Incumbent(tier=f"{tier}-served", digest=release.digests("m")[tier], compared=comparisons)
