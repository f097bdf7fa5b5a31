"""What makes a checkpoint, as an interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from calibration.quantization.recipe import Recipe, Storage
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
