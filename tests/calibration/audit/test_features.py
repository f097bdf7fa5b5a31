"""The features of a text."""

from __future__ import annotations

import numpy as np
import pytest

from bitladder.endpoints import Endpoint
from bitladder.routing.features import FEATURES as ROUTING_FEATURES
from bitladder.routing.features import score_prompt
from calibration.audit.features import FEATURES, NAMES, rank_correlation, score, table_of

CODE = "def area(r):\n    return 3.14 * r ** 2\n"


def test_every_feature_of_the_text_is_what_the_intake_computes() -> None:
    intake = score_prompt(CODE.encode(), Endpoint.CHAT, ROUTING_FEATURES)

    (row,) = table_of([score(CODE)]).tolist()

    assert dict(zip(NAMES, row, strict=True)) == {
        name: value for name, value in intake.values.items() if name != "chat"
    }


@pytest.mark.parametrize("text", ["", "\x00", "\ud800 half of a character", "a" * 100_000])
def test_any_text_of_a_log_has_finite_features(text: str) -> None:
    assert np.isfinite(table_of([score(text)])).all()


def test_no_text_gives_no_rows() -> None:
    assert table_of([]).shape == (0, len(FEATURES))


def test_rank_correlation_is_spearmans_and_shares_ranks_among_equals() -> None:
    one = np.array([1.0, 2.0, 2.0, 4.0, 5.0])

    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    # By hand: ranks 1, 2.5, 2.5, 4, 5 against 3, 1, 2, 4, 5.
    assert rank_correlation(one, np.array([3.0, 1.0, 2.0, 4.0, 5.0])) == pytest.approx(0.66689, abs=1e-4)
    assert rank_correlation(one, np.ones(5)) is None
