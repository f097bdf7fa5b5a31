"""JSON is read as strictly as engines read it, and whatever is wrong with it is one kind of error."""

from __future__ import annotations

import pytest

from calibration.inspection.json_text import parse_json


def test_what_is_json_is_read() -> None:
    assert parse_json('{"a": [1, "ö"]}'.encode()) == {"a": [1, "ö"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        ('{"a": 1}'.encode("utf-16"), "can't decode"),
        ('{"a": 1}'.encode("utf-8-sig"), "BOM"),
        (b"9" * 5000, "integer string"),
    ],
)
def test_what_is_none_is_a_value_error(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(content)
