"""A cache, toy quantizers and silent steps: everything but the weights is real."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from calibration.quantization.build import EXAMPLE, CheckpointBuilder, CheckpointJob
from calibration.quantization.example import SMOLLM2
from calibration.quantization.quantizer import Quantizer
from calibration.quantization.recipe import Recipe, Storage
from calibration.quantization.standard_recipes import example_recipe
from calibration.terminal.progress import Steps
from tests.calibration.toy_quantizer import ToyQuantizer

GOOD = {"bf16": 10.0, "int4": 10.9, "int8": 10.2, "fp8": 10.1}

MakeBuilder = Callable[..., CheckpointBuilder]


def jobs(*tiers: str) -> list[CheckpointJob]:
    """Return the example's jobs, without the texts, which no toy quantizer looks at."""
    return [CheckpointJob(folder=tier, recipe=example_recipe(tier), weights=SMOLLM2) for tier in tiers]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make_builder(cache: Path, tmp_path: Path) -> MakeBuilder:
    """Return a function that opens a builder on the cache, for one run of the command."""
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")

    def make(
        quantizer: Quantizer | None = None,
        *,
        perplexities: Mapping[str, float] = GOOD,
        storage: Storage = Storage.PACKED,
        output: io.StringIO | None = None,
    ) -> CheckpointBuilder:
        def choose_storage(_: Recipe) -> Storage:
            return storage

        return CheckpointBuilder(
            cache,
            load_quantizer=lambda: quantizer or ToyQuantizer(perplexities),
            choose_storage=choose_storage,
            steps=Steps(Console(file=output or io.StringIO())),
            subject=replace(EXAMPLE, find_source=lambda: source),
        )

    return make
