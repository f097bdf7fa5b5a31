"""A cache, toy makers and silent steps: everything but the weights is real."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from rich.console import Console

from calibration.checkpoints import Workshop
from calibration.maker import Maker, ToyMaker
from calibration.recipe import Recipe, Storage
from calibration.steps import Steps

GOOD = {"bf16": 10.0, "int4": 12.0, "int8": 10.3, "fp8": 10.2}

MakeWorkshop = Callable[..., Workshop]


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
            find_source=lambda: source,
        )

    return make
