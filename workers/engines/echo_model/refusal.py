"""Refusals in vLLM's words and shape."""

from __future__ import annotations

import msgspec
from pydantic import ValidationError

from workers.engines.base import Answer

_MAX_SHOWN = 80  # characters of a wrong value


class RefusedError(ValueError):
    """The request is wrong; `param` names the field, which vLLM's messages name again at their end."""

    def __init__(self, message: str, param: str | None = None, value: object = None, *, end: bool = True) -> None:
        shown = "" if value is None else f", value={value}"
        super().__init__(f"{message} (parameter={param}{shown})" if param and end else message)
        self.param = param


def refusal(error: ValueError | RecursionError) -> Answer:
    """Return the answer to a request that cannot be read, or is wrong."""
    kind, message, param = "BadRequestError", str(error), getattr(error, "param", None)
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False)
        lines = [str(fault | {"loc": _place(fault["loc"]), "input": _shown(fault["input"])}) for fault in faults]
        message = "\n  ".join([f"{len(lines)} validation error{'s' * (len(lines) > 1)}:", *lines])
        kind, param = "Bad Request", _place(faults[0]["loc"])
    fields = {"message": message, "type": kind, "param": param, "code": 400}
    return Answer(status=400, body=msgspec.json.encode({"error": fields}))


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    return str(value)[:_MAX_SHOWN]


def _place(parts: tuple[int | str, ...]) -> str:
    """Return where a value stands in the body. Pydantic's names for the branches of a union are left out."""
    named = (str(part) for part in parts if "[" not in str(part) and part not in ("str", "int", "_Text", "_Messages"))
    return ".".join(["body", *named])
