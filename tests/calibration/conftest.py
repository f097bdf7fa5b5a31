"""A cache, toy makers and silent steps: everything but the weights is real."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from calibration.quantization.build import EXAMPLE, Job, Workshop
from calibration.quantization.example import SMOLLM2
from calibration.quantization.quantizer import Maker, ToyMaker
from calibration.quantization.recipe import Recipe, Storage
from calibration.quantization.recipes import example_recipe
from calibration.terminal.progress import Steps

GOOD = {"bf16": 10.0, "int4": 10.9, "int8": 10.2, "fp8": 10.1}

MakeWorkshop = Callable[..., Workshop]


def jobs(*tiers: str) -> list[Job]:
    """Return the example's jobs, without the texts, which no toy maker looks at."""
    return [Job(folder=tier, recipe=example_recipe(tier), weights=SMOLLM2) for tier in tiers]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make_workshop(cache: Path, tmp_path: Path) -> MakeWorkshop:
    """Return a function that opens a workshop on the cache, for one run of the command."""
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")

    def make(
        maker: Maker | None = None,
        *,
        perplexities: Mapping[str, float] = GOOD,
        storage: Storage = Storage.PACKED,
        output: io.StringIO | None = None,
    ) -> Workshop:
        def choose_storage(_: Recipe) -> Storage:
            return storage

        return Workshop(
            cache,
            load_maker=lambda: maker or ToyMaker(perplexities),
            choose_storage=choose_storage,
            steps=Steps(Console(file=output or io.StringIO())),
            subject=replace(EXAMPLE, find_source=lambda: source),
        )

    return make
