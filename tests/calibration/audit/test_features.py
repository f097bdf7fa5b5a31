"""The features of a text."""

from __future__ import annotations

import numpy as np
import pytest

from bitladder.routing.features import byte_entropy
from calibration.audit.features import FEATURES, NAMES, measure, rank_correlation

CODE = "def area(r):\n    return 3.14 * r ** 2\n"


def features_of(text: str) -> dict[str, float]:
    return dict(zip(NAMES, measure([text])[0].tolist(), strict=True))


def test_entropy_is_what_the_intake_computes() -> None:
    assert features_of(CODE)["entropy"] == byte_entropy(CODE.encode())


def test_each_feature_measures_what_it_says() -> None:
    its = features_of("One two two. Zwölf 12!")

    size = len("One two two. Zwölf 12!".encode())
    assert its["characters"] == 22
    assert its["words"] == 5
    assert its["unique_words"] == pytest.approx(4 / 5)
    assert its["word_length"] == pytest.approx((3 + 3 + 3 + 5 + 2) / 5)
    assert its["digits"] == pytest.approx(2 / size)
    assert its["punctuation"] == pytest.approx(2 / size)
    assert its["non_ascii"] == pytest.approx(2 / size)
    assert its["code_likeness"] == 0
    assert features_of(CODE)["code_likeness"] == 1
    assert features_of("again and again " * 50)["zlib_ratio"] < 0.1


@pytest.mark.parametrize("text", ["", " ", "\x00", "😀", "a" * 100_000])
def test_any_text_has_finite_features(text: str) -> None:
    assert np.isfinite(measure([text])).all()


def test_no_text_gives_no_rows() -> None:
    assert measure([]).shape == (0, len(FEATURES))


def test_rank_correlation_is_spearmans_and_shares_ranks_among_equals() -> None:
    one = np.array([1.0, 2.0, 2.0, 4.0, 5.0])

    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    # By hand: ranks 1, 2.5, 2.5, 4, 5 against 3, 1, 2, 4, 5.
    assert rank_correlation(one, np.array([3.0, 1.0, 2.0, 4.0, 5.0])) == pytest.approx(0.66689, abs=1e-4)
    assert rank_correlation(one, np.ones(5)) is None
