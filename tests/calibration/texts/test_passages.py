"""calibration/texts/passages.py: where texts are cut."""

from __future__ import annotations

import pytest

from calibration.texts.passages import PASSAGE_TOKENS, cut_text


@pytest.mark.parametrize(
    ("length", "budget", "expected"),
    [
        (0, 100, []),
        (1, 100, []),
        (2, 100, [2]),
        (PASSAGE_TOKENS, 1000, [PASSAGE_TOKENS]),
        (PASSAGE_TOKENS + 1, 1000, [PASSAGE_TOKENS]),
        (2 * PASSAGE_TOKENS + 9, 1000, [PASSAGE_TOKENS, PASSAGE_TOKENS, 9]),
        (2 * PASSAGE_TOKENS, PASSAGE_TOKENS + 9, [PASSAGE_TOKENS, 9]),
        (100, 1, []),
        (100, 0, []),
    ],
)
def test_a_text_is_cut_into_passages_until_the_budget_is_spent(length: int, budget: int, expected: list[int]) -> None:
    assert [len(passage) for passage in cut_text(list(range(length)), budget)] == expected


def test_passages_are_the_text_in_its_order() -> None:
    tokens = list(range(700))

    assert [token for passage in cut_text(tokens, 10_000) for token in passage] == tokens
