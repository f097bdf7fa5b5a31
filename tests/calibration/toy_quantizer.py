"""A quantizer that writes a few bytes instead of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from calibration.quantization.judging.heldout_groups import Heldout
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.quantizer import QuantizeSpec
from calibration.quantization.recipe import BF16
from calibration.terminal.progress import Advance


class ToyQuantizer:
    """Writes a few bytes instead of weights and measures what it was told to."""

    def __init__(self, perplexities: Mapping[str, float], divergences: Mapping[str, float] | None = None) -> None:
        self._perplexities = perplexities
        self._divergences = divergences or {}  # by group
        self.made: list[str] = []

    def convert(self, source: Path, into: Path) -> None:
        self._write(BF16, into, content=source.name)

    def quantize(self, spec: QuantizeSpec, into: Path, advance: Advance) -> None:
        advance(1, 1)
        weights = spec.reference if spec.reference.is_file() else spec.reference / "model.safetensors"
        origin = weights.read_text(encoding="utf-8")
        self._write(spec.recipe.tier, into, content=f"{origin} {spec.recipe.summary} {spec.storage}")

    def measure(self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None) -> Mapping[str, Figures]:
        tier = (checkpoint / "config.json").read_text(encoding="utf-8")
        perplexity = self._perplexities[tier]
        return {
            group.name: Figures(100, perplexity, 0.0 if tier == BF16 else self._divergences.get(group.name, 0.0))
            for group in heldout.groups
        }

    def versions(self) -> Mapping[str, str]:
        return {"toy": "1"}

    def _write(self, tier: str, into: Path, *, content: str) -> None:
        self.made.append(tier)
        (into / "config.json").write_text(tier, encoding="utf-8")
        (into / "model.safetensors").write_text(content, encoding="utf-8")
