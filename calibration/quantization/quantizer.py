"""What it takes to make a checkpoint, as an interface, and the fake that makes toys for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from calibration.quantization.recipe import BF16, Recipe, Storage
from calibration.terminal.progress import Advance


class OffloadLimit(NamedTuple):
    """How much memory weights may take, and where the rest of them is meanwhile."""

    bytes: int
    folder: Path


class QuantizeSpec(NamedTuple):
    """What is to be made."""

    reference: Path
    recipe: Recipe
    storage: Storage
    texts: tuple[str, ...]  # what to calibrate on
    memory: OffloadLimit | None = None


class Quantizer(Protocol):
    """Turns the source into the reference, the reference into tiers, and measures what came of it."""

    def convert(self, source: Path, into: Path) -> None:
        """Unpack the source into a bf16 checkpoint with tokenizer and chat template."""

    def quantize(self, order: QuantizeSpec, into: Path, advance: Advance) -> None:
        """Write the checkpoint that was ordered, tokenizer and chat template included; say how far it is."""

    def perplexity(self, checkpoint: Path, memory: OffloadLimit | None = None) -> float:
        """Measure a checkpoint on the held-out text, loaded from disk unless only so much memory may be taken."""

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the libraries that did it."""


class ToyQuantizer:
    """Writes a few bytes instead of weights and measures what it was told to."""

    def __init__(self, perplexities: Mapping[str, float]) -> None:
        self._perplexities = perplexities
        self.made: list[str] = []

    def convert(self, source: Path, into: Path) -> None:
        self._write(BF16, into, content=source.name)

    def quantize(self, order: QuantizeSpec, into: Path, advance: Advance) -> None:
        advance(1, 1)
        origin = (order.reference / "model.safetensors").read_text(encoding="utf-8")
        self._write(order.recipe.tier, into, content=f"{origin} {order.recipe.summary} {order.storage}")

    def perplexity(self, checkpoint: Path, memory: OffloadLimit | None = None) -> float:
        return self._perplexities[(checkpoint / "config.json").read_text(encoding="utf-8")]

    def versions(self) -> Mapping[str, str]:
        return {"toy": "1"}

    def _write(self, tier: str, into: Path, *, content: str) -> None:
        self.made.append(tier)
        (into / "config.json").write_text(tier, encoding="utf-8")
        (into / "model.safetensors").write_text(content, encoding="utf-8")
