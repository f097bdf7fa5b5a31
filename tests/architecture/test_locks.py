"""requirements/: environments that share a package have it in one version."""

from __future__ import annotations

from tests.conftest import ROOT


def test_the_example_is_unpacked_by_one_version_in_both_environments() -> None:
    example, quantizer = (
        set((ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8").split("\n"))
        for name in ("example", "quantize")
    )

    assert example <= quantizer
