"""What makes a checkpoint, as an interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from calibration.quantization.recipe import Recipe, Storage
from calibration.terminal.progress import Advance


class OffloadLimit(NamedTuple):
    """How much memory weights may take, and the folder for the rest."""

    bytes: int
    folder: Path


class QuantizeSpec(NamedTuple):
    """What to quantize, and how."""

    reference: Path  # the folder of the bf16 model; of a quick recipe, the source itself
    recipe: Recipe
    storage: Storage
    texts: tuple[str, ...]  # calibration texts
    memory: OffloadLimit | None = None


class Quantizer(Protocol):
    """Unpacks the source to the reference, quantizes the reference, and measures checkpoints."""

    def convert(self, source: Path, into: Path) -> None:
        """Unpack the source into a bf16 checkpoint with tokenizer and chat template."""

    def quantize(self, spec: QuantizeSpec, into: Path, advance: Advance) -> None:
        """Write the checkpoint of this spec, with tokenizer and chat template, and report progress."""

    def perplexity(self, checkpoint: Path, memory: OffloadLimit | None = None) -> float:
        """Measure a checkpoint on the held-out text, loaded from disk unless only so much memory may be taken."""

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the libraries that it uses."""
