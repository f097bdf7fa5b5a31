"""What every section of the settings is made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

_MODEL_CHARS = 128
_MODEL_PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
_MODEL_NAME = re.compile(rf"(?!.{{{_MODEL_CHARS + 1}}})@?{_MODEL_PART}([/:@]{_MODEL_PART})*")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _plain_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 63 of a-z, 0-9, '.', '_', '-', and begin with a letter or digit")
    return value


def _model_name(value: str) -> str:
    if not _MODEL_NAME.fullmatch(value):
        raise ValueError(
            f"must be 1 to {_MODEL_CHARS} of A-Z, a-z, 0-9, '.', '_', '-', '+', with '/', ':' or '@' between parts, "
            "each of which begins with a letter, a digit or '_'"
        )
    return value


# Names become parts of Redis keys and of headers, so they are kept plain.
Name = Annotated[str, AfterValidator(_plain_name)]
# Those of models are what people have: `HuggingFaceTB/SmolLM2-360M-Instruct`, `llama3.1:8b`, `@cf/meta/llama-3-8b`.
ModelName = Annotated[str, AfterValidator(_model_name)]


class Section(BaseModel):
    """Unknown keys are errors, and nothing changes once it is read. Errors repeat no value: it may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
