"""How a job's record holds its request.

A job's record is a Redis hash in RQ's layout. Its field `data` holds what RQ calls a call: the JSON list
``[FUNCTION_NAME, null, [], {…Request…}]``. Nothing is imported or called because of it: a worker compares the name with
FUNCTION_NAME and refuses every other one.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from bitladder.contract import Request
from bitladder.decision import OldDecision

# What an RQ producer passes as the function. The name resolves to nothing: it is a label, not code.
FUNCTION_NAME = "workers.generate"


class _Named(msgspec.Struct, frozen=True):
    model: str | None = None


_decode_named = msgspec.json.Decoder(_Named).decode
# How a pickle of any protocol since Python 2.3 begins.
_PICKLE = b"\x80"
_decode_foreign = msgspec.json.Decoder(tuple[str, Any, list[msgspec.Raw], msgspec.Raw]).decode
_decode_call = msgspec.json.Decoder(tuple[str, Any, list[msgspec.Raw], Request]).decode
_decode_old_call = msgspec.json.Decoder(tuple[str, Any, list[msgspec.Raw], OldDecision]).decode


def encode_call(request: Request) -> bytes:
    """Return `data` of a job hash: RQ's call with our label and the request as keyword arguments."""
    return msgspec.json.encode((FUNCTION_NAME, None, (), request))


def decode_call(data: bytes) -> Request:
    """Read `data` of a job hash.

    Raises:
        ValueError: it is not our label, not JSON, or not a request.

    """
    try:
        name, _, args, request = _decode_call(data)
        if not request.decision.floor:
            request = msgspec.structs.replace(request, decision=_decode_old_call(data)[3].decision)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except msgspec.DecodeError:
        _check_foreign(data)
        raise
    _check_call(name, args)
    return request


def _check_foreign(data: bytes) -> None:
    """Raise what is wrong with a call that is not ours, where the decoder's message would say little."""
    if data.startswith(_PICKLE):
        raise ValueError(
            "it is a pickle, and nothing is unpickled here: enqueue it with rq.serializers.JSONSerializer (docs/rq.md)"
        )
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        name, _, args, _ = _decode_foreign(data)
        _check_call(name, args)


def _check_call(name: str, args: list[msgspec.Raw]) -> None:
    if name != FUNCTION_NAME:
        raise ValueError(f"function must be {FUNCTION_NAME!r}, got {name[:80]!r}")
    if args:
        raise ValueError(f"positional arguments must be empty, got {len(args)}: name them (body=…)")


def named_model(request: Request) -> str | None:
    """Return the model that a body names, if it names one.

    Raises:
        ValueError: the body is no object, or its model no text.

    """
    try:
        return _decode_named(request.body).model
    except msgspec.DecodeError as error:
        raise ValueError(f"its body: {error}") from None
