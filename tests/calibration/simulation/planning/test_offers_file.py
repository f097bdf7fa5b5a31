"""Files of offers, whole and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.errors import InputError
from calibration.simulation.planning.offers_file import options_of, read_offers
from tests.calibration.simulation.fleets import curve_of

MODEL = "model = {parameters = 8e9, layers = 32, kv_heads = 8, head_dim = 128}\n"
WHOLE = (
    'ladder = ["int4", "bf16"]\n' + MODEL + "[devices.l4]\nprice_per_hour = 0.7\nmemory_gb = 24\n"
    'tiers.int4 = {curve = "c", bits = 4.6, gpus = 2, scale = 0.5, reason = "ideal"}\n'
)


def test_a_scaled_curve_is_slower_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "offers.toml").write_text(WHOLE)
    offers, curves = read_offers(tmp_path / "offers.toml"), {"c": curve_of({1: 0.01, 8: 0.02}, ttft_s=0.1)}

    (scaled,) = options_of(offers, curves)
    (ideal,) = options_of(offers, curves, as_measured=True)

    assert scaled.price_per_hour == 1.4
    assert [point.per_token_s for point in scaled.curve.points] == pytest.approx([0.02, 0.04])
    assert scaled.curve.points[0].ttft_s == pytest.approx(0.2)
    assert "speed times 0.5: ideal" in scaled.curve.mode
    assert ideal.curve == curves["c"]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "price_per_hour = 0.7",
            "price_per_hour = 0",
            r"devices\.l4\.price_per_hour must be above 0 and finite, got 0",
        ),
        ("price_per_hour = 0.7", "price_per_hour = -1", r"price_per_hour must be above 0 and finite, got -1"),
        ("price_per_hour = 0.7", "price_per_hour = inf", r"price_per_hour must be above 0 and finite, got inf"),
        ("memory_gb = 24", "memory_gb = nan", r"memory_gb must be above 0 and finite, got nan"),
        ("memory_gb = 24", "memory_gb = 24\ncount = -1", r"devices\.l4\.count must be 0 or more, got -1"),
        ("memory_gb = 24", "memory_gb = 24\nutilization = 1.1", r"utilization must be 1 at most, got 1\.1"),
        ("gpus = 2", "gpus = 0", r"devices\.l4\.tiers\.int4\.gpus must be above 0 and finite, got 0"),
        (', reason = "ideal"', "", r"reason must say why the curve is scaled by 0\.5"),
        ("tiers.int4", "tiers.int3", r"devices\.l4\.tiers\.int3: tier must be one of int4, bf16"),
        ('["int4", "bf16"]', '["int4", "int4"]', "ladder must be different tiers"),
        ("layers = 32", "layers = 0", r"model\.layers must be above 0"),
        ("memory_gb = 24", "memory = 24", "unknown field `memory`"),
        ("[devices.l4]", "[devices.l4", "offers.toml"),
        ("[devices.l4]", "more = " + 50_000 * "[", "offers.toml"),
        ('curve = "c"', 'curve = "d"', r"curve must be one of c, got 'd'"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_value(tmp_path: Path, before: str, after: str, says: str) -> None:
    assert before in WHOLE
    (tmp_path / "offers.toml").write_text(WHOLE.replace(before, after))

    with pytest.raises(InputError, match=says):
        options_of(read_offers(tmp_path / "offers.toml"), {"c": curve_of({1: 0.01})})


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="offers cannot be read"):
        read_offers(tmp_path / "none.toml")
