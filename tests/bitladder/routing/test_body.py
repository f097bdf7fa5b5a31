"""bitladder/routing/body.py: what of a body is read, and what is refused."""

from __future__ import annotations

import pytest

from bitladder.contract import Endpoint
from bitladder.errors import RequestError
from bitladder.routing.body import read_body


@pytest.mark.parametrize("extra", [b'"\xff": 1', b'"user": "\xed\xa0\x80"', b'"user": ["\x80"]'])
def test_a_body_must_be_utf8_also_in_fields_that_routing_does_not_read(extra: bytes) -> None:
    with pytest.raises(RequestError, match="JSON"):
        read_body(Endpoint.COMPLETIONS, b'{"model": "m", "prompt": "x", %s}' % extra)
