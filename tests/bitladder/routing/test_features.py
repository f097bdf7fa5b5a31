"""bitladder/routing/features.py: entropy in bits per byte."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.routing.features import byte_entropy


@pytest.mark.parametrize(
    ("text", "bits"),
    [(b"", 0.0), (b"aaaa", 0.0), (b"abab", 1.0), (bytes(range(256)), 8.0), ("é".encode(), 1.0)],
)
def test_known_texts_have_known_entropy(text: bytes, bits: float) -> None:
    assert byte_entropy(text) == pytest.approx(bits)


@given(st.text())
def test_entropy_divides_by_bytes_also_for_text_that_is_not_ascii(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")

    shares = [count / len(data) for count in Counter(data).values()]

    assert byte_entropy(data) == pytest.approx(-sum(share * math.log2(share) for share in shares), abs=1e-9)


def test_a_text_longer_than_the_table_is_counted_like_a_short_one() -> None:
    assert byte_entropy(b"abab" * 50_000) == pytest.approx(1.0)
    assert byte_entropy(bytes(range(256)) * 300) == pytest.approx(8.0)
