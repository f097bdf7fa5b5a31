"""What makes a checkpoint, as an interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from calibration.quantization.judging.heldout_groups import Heldout
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.recipe import Recipe, Storage
from calibration.quantization.texts.token_budget import CalibrationTokens
from calibration.terminal.progress import Advance


class QuantizeSpec(NamedTuple):
    """What to quantize, and how."""

    reference: Path  # the folder of the bf16 model; of a quick recipe, the source itself
    recipe: Recipe
    storage: Storage
    texts: tuple[str, ...]  # calibration texts
    memory: OffloadLimit | None = None
    samples: tuple[str, ...] = ()  # of the user; then texts are only mixed in
    heldout: Heldout | None = None  # None: it is not measured


class Quantizer(Protocol):
    """Unpacks the source to the reference, quantizes the reference, and measures checkpoints."""

    def convert(self, source: Path, into: Path) -> None:
        """Unpack the source into a bf16 checkpoint with tokenizer and chat template."""

    def quantize(self, spec: QuantizeSpec, into: Path, advance: Advance) -> CalibrationTokens | None:
        """Write the checkpoint of this spec, with tokenizer and chat template; return what it was calibrated on."""

    def measure(self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None) -> Mapping[str, Figures]:
        """Measure each group, with the checkpoint loaded from disk unless only so much memory may be taken."""

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the libraries that it uses."""
